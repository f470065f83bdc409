"""Names of anatomical regions, and their composites.

Names follow TotalSegmentator if it has one, shortened as in the paper's Table 2 for the heart.
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
    "heart": CARDIAC[:5],  # TotalSegmentator's chambers replace its heart if both were requested
}

# Names of TotalSegmentator's `heartchambers_highres` that differ here.
TOTALSEGMENTATOR = {
    "heart_myocardium": "lv_myocardium",
    "heart_atrium_left": "left_atrium",
    "heart_ventricle_left": "left_ventricle",
    "heart_atrium_right": "right_atrium",
    "heart_ventricle_right": "right_ventricle",
}


def members(name: str) -> tuple[str, ...]:
    """The label names that make up a region: itself, and the parts of a composite."""
    return (name, *COMPOSITE.get(name, ()))
