"""The paper's cardiac protocol (section 2.1, A.1) over a cohort on disk: what its data sets share."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from medlord_bench.contracts import Case, DataProtocol, Grid, HUWindow, LabelMap, LabelNames, Shape, Split, Volume
from medlord_bench.contracts.inventory import Inventory
from medlord_bench.contracts.regions import CARDIAC, HEART_NAMES
from medlord_bench.plugins.datasets.on_disk.cohort import Files
from medlord_bench.plugins.datasets.on_disk.find import FilesConfig

CONDITIONS = tuple(name for name in CARDIAC if name != "pulmonary_artery")  # the six of the paper's ControlNet


class CardiacConfig(FilesConfig):
    """Grid, HU window and regions of the paper."""

    label_names: LabelNames = Field(HEART_NAMES, description="mask value to region name")
    shape: Shape = Field((512, 512, 256), description="grid, centre-cropped or padded to")
    hu_window: HUWindow = Field((-1000, 2000), description="paper: -1000..2000; its released code: -1000..1000")


class CardiacDataset:
    """A cohort of hearts, centre-cropped or padded to the grid. protocol_name: of its data protocol."""

    protocol_name: ClassVar[str]

    def __init__(self, config: CardiacConfig, files: Files) -> None:
        self.config, self.files = config, files

    @property
    def protocol(self) -> DataProtocol:
        files = self.files
        return DataProtocol(
            name=self.protocol_name,
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
        return self.files.read(case.id)
