"""The paper's cardiac protocol (section 2.1, A.1) over the user's own coronary CT angiographies."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from medlord_bench.contracts import Case, LabelMap, Volume
from medlord_bench.errors import UserError
from medlord_bench.plugins.datasets.on_disk.cardiac import CardiacConfig, CardiacDataset
from medlord_bench.plugins.datasets.on_disk.cohort import Files
from medlord_bench.plugins.datasets.on_disk.splits import SplitConfig

ADVICE = (
    "CCTA images and masks of the heart; the paper's cohort is not public; alternatives: ImageCAS with the STACOM2025 "
    "labels, or MM-WHS (docs/datasets.md)"
)


class PcctaConfig(CardiacConfig):
    """The paper's protocol. Departure: 12 of its 120 training patients are the validation split (`split.counts`)."""

    split: SplitConfig = Field(
        SplitConfig(counts=(108, 12, 16)),
        description="the paper's 120/16, 12 of the 120 used for checkpoint selection, since nothing is selected on "
        "test; counts=[120,0,16] trains on all 120 and uses the last checkpoint. Cohorts of another size: "
        "fractions with counts=null, other counts, or file",
    )


class PcctaDataset(CardiacDataset):
    """Your own CCTA under the paper's protocol: 512x512x256 about the centre, -1000..2000 HU, 120/16 patients."""

    Config: ClassVar[type[PcctaConfig]] = PcctaConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "not public: patient data of its owner"
    protocol_name: ClassVar[str] = "pccta"

    def __init__(self, config: PcctaConfig) -> None:
        super().__init__(config, Files(config, "pccta", ADVICE))

    def load(self, case: Case) -> tuple[Volume, LabelMap | None]:
        """Raises `UserError` if the mask has a single structure: ImageCAS's own masks are of the coronaries."""
        volume, labels = super().load(case)
        if labels is not None and len(set(labels.labels[labels.labels > 0].tolist())) < 2:
            raise UserError(
                f"{case.mask}: has at most one structure; expected a label map of the heart (ImageCAS's own label "
                "files are of the coronaries): give dataset.mask_folder, or --set dataset.masks=none"
            )
        return volume, labels
