"""The paper's cardiac protocol (section 2.1, A.1) over the user's own coronary CT angiographies."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from medlord_bench.contracts import Case, DataProtocol, Grid, HUWindow, LabelMap, LabelNames, Shape, Split, Volume
from medlord_bench.contracts.inventory import Inventory
from medlord_bench.contracts.regions import CARDIAC, HEART_NAMES
from medlord_bench.errors import UserError
from medlord_bench.plugins.datasets.on_disk.cohort import Files
from medlord_bench.plugins.datasets.on_disk.find import FilesConfig
from medlord_bench.plugins.datasets.on_disk.splits import SplitConfig

ADVICE = (
    "CCTA images and masks of the heart; the paper's cohort is not public; alternatives: ImageCAS with the STACOM2025 "
    "labels, or MM-WHS (docs/datasets.md)"
)
CONDITIONS = tuple(name for name in CARDIAC if name != "pulmonary_artery")  # the six of the paper's ControlNet


class PcctaConfig(FilesConfig):
    """The paper's protocol. Departure: 12 of its 120 training patients are the validation split (`split.counts`)."""

    label_names: LabelNames = Field(HEART_NAMES, description="mask value to region name")
    split: SplitConfig = Field(
        SplitConfig(counts=(108, 12, 16)),
        description="the paper's 120/16, 12 of the 120 used for checkpoint selection, since nothing is selected on "
        "test; counts=[120,0,16] trains on all 120 and uses the last checkpoint. Cohorts of another size: "
        "fractions with counts=null, other counts, or file",
    )
    shape: Shape = Field((512, 512, 256), description="grid, centre-cropped or padded to")
    hu_window: HUWindow = Field((-1000, 2000), description="paper: -1000..2000; its released code: -1000..1000")


class PcctaDataset:
    """Your own CCTA under the paper's protocol: 512x512x256 about the centre, -1000..2000 HU, 120/16 patients."""

    Config: ClassVar[type[PcctaConfig]] = PcctaConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "not public: patient data of its owner"

    def __init__(self, config: PcctaConfig) -> None:
        self.config = config
        self.files = Files(config, "pccta", ADVICE)

    @property
    def protocol(self) -> DataProtocol:
        files = self.files
        return DataProtocol(
            name="pccta",
            grid=Grid(shape=self.config.shape, hu_window=self.config.hu_window),
            fit="crop-pad",
            split=files.split_words,
            split_sha256=files.split_sha256,
            counts=files.counts,
            masks=files.masks,
            rvr_regions=CARDIAC,
            condition_regions=CONDITIONS,
            adherence_regions=CONDITIONS,
        )

    def inventory(self) -> Inventory:
        return self.files.inventory

    def cases(self, split: Split) -> Sequence[Case]:
        return self.files.cases(split)

    def load(self, case: Case) -> tuple[Volume, LabelMap | None]:
        """Raises `UserError` if the mask has a single structure: ImageCAS's own masks are of the coronaries."""
        volume, labels = self.files.read(case.id)
        if labels is not None and len(set(labels.labels[labels.labels > 0].tolist())) < 2:
            raise UserError(
                f"{case.mask}: has at most one structure; expected a label map of the heart (ImageCAS's own label "
                "files are of the coronaries): give dataset.mask_folder, or --set dataset.masks=none"
            )
        return volume, labels
