"""The label values of the phantom's anatomy, in its masks and in the label maps of its segmenter."""

from __future__ import annotations

LABELS: dict[int, str] = {
    1: "body",
    2: "ribs",
    3: "spine",
    4: "lung_left",
    5: "lung_right",
    6: "lv_myocardium",
    7: "left_ventricle",
    8: "right_ventricle",
    9: "left_atrium",
    10: "right_atrium",
    11: "aorta",
    12: "pulmonary_artery",
}
