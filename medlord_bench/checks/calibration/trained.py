"""The slow part of `calibrate --slow`: segmenters trained on cases whose worth is known, and copies among these cases."""

from __future__ import annotations

from collections.abc import Iterator

from medlord_bench.checks.calibration.experiment import PHANTOM
from medlord_bench.contracts.calibration import Ask, Finding, Seen
from medlord_bench.contracts.results import Score
from medlord_bench.engine.run_file import RunFile

ALPHA = 0.05
MARGIN = 0.05  # of DSC, as of equivalence
NOISE, COPIES = "noise:masks", "copycat:masks"
COPIED = 0.9  # of the copies, at least
HEADS = ("dataset", "downstream", "memorisation")
METRICS = ("downstream", "memorisation:masks")
ARMS = ["real", "synthetic", "real-other-seed"]


def trained_experiment(file: RunFile) -> RunFile:
    """The run: noise and copies on the training masks, and the real cases with another seed."""
    own = {path: value for path, value in PHANTOM.items() if path.startswith("dataset.")}
    own = (own if file.dataset == "phantom" else {}) | {"downstream.arms": ARMS}
    sets = own | {path: value for path, value in file.set.items() if path.partition(".")[0] in HEADS}
    fields = {"generators": (NOISE, COPIES), "metrics": METRICS, "samples": 0, "resampled": False, "set": sets}
    return file.model_copy(update=fields)


def trained_findings(seen: Seen) -> Iterator[Finding]:
    """Noise trains a worse segmenter, copies of the training set one that is near the real one, and a seed changes nothing.
    Copies resemble the patients of their masks more than masks explain, and noise does not."""
    worse = [Ask("dt_gain_synthetic", NOISE, "", "test")]
    yield seen.expect("noise (trained on)", "dt_gain_synthetic", f"below 0, p below {ALPHA}", worse, _is_worse)
    near = [Ask("dt_gain_synthetic", COPIES, "", "test")]
    yield seen.expect("copycat (trained on)", "dt_gain_synthetic", f"at least -{MARGIN:g}", near, _is_near)
    again = [Ask("dt_gain_real_other_seed", COPIES, "", "test")]
    expected = f"within {MARGIN:g}, or p above {ALPHA}"
    yield seen.expect("none (another seed)", "dt_gain_real_other_seed", expected, again, _is_chance)
    for fault, control, expected, holds in (
        ("copycat (masks)", COPIES, f"at least {COPIED:g}, warned", _is_copied),
        ("noise (masks)", NOISE, "no warning", _is_not_copied),
    ):
        yield seen.expect(fault, "mask_copy_rate", expected, [Ask("mask_copy_rate", control, "", "train")], holds)


def _is_worse(score: Score) -> bool:
    return score.value is not None and score.value < 0 and score.p is not None and score.p <= ALPHA


def _is_chance(score: Score) -> bool:
    """Equivalent, or undecided."""
    return score.value is not None and (abs(score.value) <= MARGIN or (score.p is not None and score.p > ALPHA))


def _is_near(score: Score) -> bool:
    return score.value is not None and score.value >= -MARGIN


def _is_copied(score: Score) -> bool:
    return score.value is not None and score.value >= COPIED and bool(score.warning)


def _is_not_copied(score: Score) -> bool:
    return not score.warning
