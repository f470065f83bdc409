"""The quantities of `downstream`: overlap of each arm, and differences to the real arm."""

from __future__ import annotations

from typing import Literal

from medlord_bench.contracts.metrics import Better, Headline, Quantity

from .arms import MEANING
from .config import ARMS, MOST_MULTIPLE

MARGIN = 0.05  # of DSC: the paper's own "at most 0.05"
SHORT = {
    "real": "real",
    "synthetic": "syn",
    "real+synthetic": "real+syn",
    "mixed": "mixed",
    "real-longer": "real longer",
    "real-other-seed": "real, other seed",
}  # in titles, as in the paper's Table 2
GENERATED = ("synthetic", "real+synthetic", "mixed")  # arms that differ between contestants
SURFACES = "downstream_surfaces"
DIFFERENCES = "downstream_differences"
EXTERNAL, EXTERNAL_GAINS = "downstream_external", "downstream_external_gains"
DOSES, DOSE_GAINS = "downstream_doses", "downstream_dose_gains"
DOSE_AXIS = "real training patients (%)"
Measure = Literal["dsc", "nsd", "hd95"]


def name_of(measure: Measure, arm: str) -> str:
    """The quantity of a measure of an arm, e.g. dt_dsc_real_synthetic."""
    return f"dt_{measure}_{arm.replace('+', '_').replace('-', '_')}"


def gain_of(arm: str) -> str:
    """The quantity of an arm's difference to the real arm in DSC."""
    return f"dt_gain_{arm.replace('+', '_').replace('-', '_')}"


def dose_name(multiple: int) -> str:
    """The quantity of the doses with so many samples for each real case."""
    return f"dt_dose_{multiple}x"


def dose_gain_name(multiple: int) -> str:
    return f"dt_dose_gain_{multiple}x"


def short(arm: str) -> str:
    """An arm in a title or a sentence."""
    return SHORT.get(arm, arm)


def external_name(arm: str) -> str:
    """The quantity of an arm's DSC on the external test set."""
    return f"dt_external_{arm.replace('+', '_').replace('-', '_')}"


def external_gain_name(arm: str) -> str:
    return f"dt_external_gain_{arm.replace('+', '_').replace('-', '_')}"


def compared_with(arm: str) -> str:
    """The arm that an arm is compared with: one of as many iterations, where the run has it."""
    return "real-longer" if arm == "real+synthetic" else "real"


def _overlap(arm: str) -> Quantity:
    generated = arm in GENERATED
    return Quantity(
        name=name_of("dsc", arm),
        title=f"DSC DT {SHORT[arm]}",
        meaning=f"Overlap (Dice) of the predictions of real test cases with their masks, by a segmenter trained on {MEANING[arm]}.",
        spread="iqr",
        decimals=2,
        better="higher" if generated else "",  # equal for all contestants otherwise
        margin=MARGIN if generated else None,
        open_by_region=True,
        headline=(Headline(rank=66),) if arm == "synthetic" else (),
        read_with="copy_rate" if arm == "synthetic" else "",
        caution="A generator that copies training volumes trains a segmenter as well as they do."
        if arm == "synthetic"
        else "",
        watches="regions that the segmenter does not find" if generated else "",
    )


def _surface(measure: Literal["nsd", "hd95"], arm: str) -> Quantity:
    generated = arm in GENERATED
    directions: dict[str, Better] = {"nsd": "higher", "hd95": "lower"}
    return Quantity(
        name=name_of(measure, arm),
        title=f"{measure.upper()} DT {SHORT[arm]}",
        meaning={
            "nsd": "Fraction of the surfaces of prediction and mask that are within the tolerance of each other.",
            "hd95": "95th percentile of the distances between the surfaces of prediction and mask.",
        }[measure],
        unit="mm" if measure == "hd95" else "",
        table=SURFACES,
        spread="iqr",
        decimals=2,
        better=directions[measure] if generated else "",
    )


def _gain(arm: str) -> Quantity:
    return Quantity(
        name=gain_of(arm),
        title=f"DSC, {SHORT[arm]} - real",
        meaning="Paired difference in DSC of a test patient, trained on "
        + f"{MEANING[arm]}, minus trained on real cases alone; its interval is of the Hodges-Lehmann estimate.",
        table=DIFFERENCES,
        decimals=3,
    )


def _dose(multiple: int) -> Quantity:
    return Quantity(
        name=dose_name(multiple),
        title=f"DSC, real + {multiple}x synthetic",
        meaning="DSC of real test cases, mean over regions, by a segmenter trained on a fraction of the real patients and "
        f"{multiple} samples for the mask of each; all doses have the same iterations.",
        table=DOSES,
        decimals=3,
        better="higher" if multiple else "",
        margin=MARGIN if multiple else None,
        curve=DOSE_AXIS,
    )


def _dose_gain(multiple: int) -> Quantity:
    return Quantity(
        name=dose_gain_name(multiple),
        title=f"DSC, real + {multiple}x synthetic - real",
        meaning="Paired difference in DSC of a test patient to the same real cases without samples.",
        table=DOSE_GAINS,
        decimals=3,
    )


def _external(arm: str) -> Quantity:
    generated = arm in GENERATED
    return Quantity(
        name=external_name(arm),
        title=f"DSC DT {SHORT[arm]}, external",
        meaning="Overlap with manual labels of the predictions of another data set's cases, by the same models.",
        table=EXTERNAL,
        spread="iqr",
        decimals=2,
        better="higher" if generated else "",
        margin=MARGIN if generated else None,
    )


def _external_gain(arm: str) -> Quantity:
    return Quantity(
        name=external_gain_name(arm),
        title=f"DSC, {SHORT[arm]} - real, external",
        meaning="Paired difference in DSC of a patient of the other data set to the real arm.",
        table=EXTERNAL_GAINS,
        decimals=3,
    )


ON_SAMPLES = Quantity(
    name="dt_dsc_on_samples",
    title="DSC DT real, on samples",
    meaning="Overlap of predictions of conditional samples with their masks, by the segmenter trained on real cases: "
    "whether samples look to it as real images do.",
    spread="iqr",
    decimals=2,
    better="higher",
    margin=MARGIN,
)
QUANTITIES = (
    *(_overlap(arm) for arm in ARMS),
    ON_SAMPLES,
    *(_surface("nsd", arm) for arm in ARMS),
    *(_surface("hd95", arm) for arm in ARMS),
    *(_gain(arm) for arm in ARMS if arm != "real"),
    *(_external(arm) for arm in ARMS),
    *(_external_gain(arm) for arm in ARMS if arm != "real"),
    *(_dose(multiple) for multiple in range(MOST_MULTIPLE + 1)),
    *(_dose_gain(multiple) for multiple in range(1, MOST_MULTIPLE + 1)),
)
