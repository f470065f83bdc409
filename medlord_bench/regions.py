"""Names of anatomical regions, and which regions are made of others.

Names are TotalSegmentator's where it has one, shortened as in the paper's Table 2 for the heart.
"""

from __future__ import annotations

CARDIAC = (
    "lv_myocardium",
    "left_atrium",
    "left_ventricle",
    "right_atrium",
    "right_ventricle",
    "aorta",
    "pulmonary_artery",
)

COMPOSITE: dict[str, tuple[str, ...]] = {
    "lungs": (
        "lung_left",
        "lung_right",
        "lung_upper_lobe_left",
        "lung_lower_lobe_left",
        "lung_upper_lobe_right",
        "lung_middle_lobe_right",
        "lung_lower_lobe_right",
    ),
}


def members(name: str) -> tuple[str, ...]:
    """The label names that make up a region: itself, and its parts where it is a composite."""
    return (name, *COMPOSITE.get(name, ()))
