"""Names of anatomical regions, and their composites.

Names follow TotalSegmentator if it has one, shortened as in the paper's Table 2 for the heart.
"""

from __future__ import annotations

from collections.abc import Mapping

from medlord_bench.errors import UserError

CARDIAC = (
    "lv_myocardium",
    "left_atrium",
    "left_ventricle",
    "right_atrium",
    "right_ventricle",
    "aorta",
    "pulmonary_artery",
)

# Label values in TotalSegmentator's heartchambers_highres order, and the three that the STACOM2025 maps add.
HEART_NAMES = {
    **dict(enumerate(CARDIAC, start=1)),
    8: "left_atrial_appendage",
    9: "coronary_arteries",
    10: "pulmonary_veins",
}

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


def values_of(region: str, names: Mapping[int, str]) -> list[int]:
    """The values that stand for a region in a label map; none where the map does not know it.

    names: label value to region name.
    """
    own = members(region)
    return [value for value, name in names.items() if name in own]


def condition_values(region: str, names: Mapping[int, str]) -> list[int]:
    """`values_of`, for a region that a generator is conditioned on. Raises `UserError` where the map does not know it."""
    values = values_of(region, names)
    if not values:
        known = ", ".join(sorted(set(names.values())))
        raise UserError(f"condition region {region!r} is not in the label map (it knows: {known}); give masks of it")
    return values
