"""MM-WHS 2017 and WHS++ (CARE 2024), CT part: expert masks of the whole heart (Zhuang et al. 2019)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import ClassVar

from pydantic import Field

from medlord_bench.contracts import Case, DataProtocol, Grid, HUWindow, LabelMap, Shape, Split, Volume
from medlord_bench.contracts.inventory import Inventory
from medlord_bench.contracts.regions import CARDIAC
from medlord_bench.errors import UserError
from medlord_bench.plugins.datasets.on_disk.cohort import Files
from medlord_bench.plugins.datasets.on_disk.find import FilesConfig

ADVICE = "ct_train/ct_train_N_image.nii.gz and ct_train_N_label.nii.gz (docs/datasets.md)"
# The challenge's values. 421 is a known slip for 420 in some files.
NAMES = {
    205: "lv_myocardium",
    420: "left_atrium",
    421: "left_atrium",
    500: "left_ventricle",
    550: "right_atrium",
    600: "right_ventricle",
    820: "aorta",
    850: "pulmonary_artery",
}
CONDITIONS = tuple(name for name in CARDIAC if name != "pulmonary_artery")


class MmwhsConfig(FilesConfig):
    """The paper's cardiac protocol on MM-WHS."""

    label_names: dict[int, str] = Field(NAMES, description="mask value to region name")
    shape: Shape = Field((512, 512, 256), description="grid, centre-cropped or padded to")
    hu_window: HUWindow = Field((-1000, 2000), description="paper: -1000..2000")


class MmwhsDataset:
    """CT of MM-WHS with expert masks of seven structures; an independent test of segmenters of the heart.

    Aorta and pulmonary artery are cut near the heart: compare them with a segmenter's only within their extent.
    """

    Config: ClassVar[type[MmwhsConfig]] = MmwhsConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "a consent form of its own; no redistribution"

    def __init__(self, config: MmwhsConfig) -> None:
        self.config = config
        self.files = Files(config, "mmwhs", ADVICE)

    @property
    def protocol(self) -> DataProtocol:
        files = self.files
        return DataProtocol(
            name="mmwhs",
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
        """Raises `UserError` if aorta and pulmonary artery are interchanged, as in copies of the set."""
        volume, labels = self.files.read(case.id)
        if labels is not None:
            check_great_vessels(labels, str(case.mask))
        return volume, labels


def check_great_vessels(labels: LabelMap, where: str) -> None:
    """The pulmonary trunk is to the left of the aorta's beginning and in front of it: refused where both are reversed."""
    import numpy as np

    names = set(labels.names.values())
    if not {"aorta", "pulmonary_artery"} <= names:
        return
    voxels = [np.argwhere(labels.region(name)) for name in ("aorta", "pulmonary_artery")]
    if any(len(one) == 0 for one in voxels):
        return
    steps = np.sqrt((labels.affine[:3, :3] ** 2).sum(axis=0))
    right, front, _ = (voxels[0].mean(axis=0) - voxels[1].mean(axis=0)) * steps
    if right < 0 and front > 0:
        raise UserError(
            f"{where}: the aorta lies to the left of the pulmonary artery and in front of it; expected 820 for the aorta and 850 "
            "for the pulmonary artery: they are interchanged in this copy; set dataset.label_names, or exclude the case"
        )
