"""MM-WHS 2017 and WHS++ (CARE 2024), CT part: expert masks of the whole heart (Zhuang et al. 2019)."""

from __future__ import annotations

from typing import ClassVar

from pydantic import Field

from medlord_bench.contracts import Case, LabelMap, LabelNames, Volume
from medlord_bench.errors import UserError
from medlord_bench.plugins.datasets.on_disk.cardiac import CardiacConfig, CardiacDataset
from medlord_bench.plugins.datasets.on_disk.cohort import Files

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


class MmwhsConfig(CardiacConfig):
    """The paper's cardiac protocol on MM-WHS."""

    label_names: LabelNames = Field(NAMES, description="mask value to region name")


class MmwhsDataset(CardiacDataset):
    """CT of MM-WHS with expert masks of seven structures; an independent test of segmenters of the heart.

    Aorta and pulmonary artery are cut near the heart: compare them with a segmenter's only within their extent.
    """

    Config: ClassVar[type[MmwhsConfig]] = MmwhsConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "a consent form of its own; no redistribution"
    protocol_name: ClassVar[str] = "mmwhs"

    def __init__(self, config: MmwhsConfig) -> None:
        super().__init__(config, Files(config, "mmwhs", ADVICE))

    def load(self, case: Case) -> tuple[Volume, LabelMap | None]:
        """Raises `UserError` if aorta and pulmonary artery are interchanged, as in copies of the set."""
        volume, labels = super().load(case)
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
