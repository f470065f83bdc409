"""What sees what: each fault of the calibration in each quantity that can see faults."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

from medlord_bench.checks.calibration.experiment import FAULTS
from medlord_bench.contracts.calibration import Ask, Finding, Seen, Sight, sight_rows
from medlord_bench.contracts.results import Score

SEEN_P = 0.01  # p below it: seen
LEAST_N = 16  # samples below which nothing is demanded: a fault may hide
REAL = "holdout"  # the control without a fault


def _small_p(score: Score, real: Score | None) -> bool:
    return score.p is not None and score.p < SEEN_P


def _warned(score: Score, real: Score | None) -> bool:
    return bool(score.warning)


def _above_real(score: Score, real: Score | None) -> bool:
    """The interval is above that of unseen real volumes."""
    return None not in (real, score.low, getattr(real, "high", None)) and score.low > real.high  # type: ignore[operator,union-attr]


@dataclass(frozen=True)
class Detector:
    """A quantity and how it shows a fault. by: in words, for the reader."""

    metric: str
    by: str
    shows: Callable[[Score, Score | None], bool]
    reference: str | None = None


P, WARNING = f"p below {SEEN_P}", "a warning"
DETECTORS = (
    Detector("fid", "an interval above that of unseen real volumes", _above_real, "test"),
    Detector("kid", P, _small_p, "test"),
    Detector("frd", P, _small_p, "test"),
    Detector("rvr_joint", P, _small_p, "train"),
    Detector("rvr_missing", WARNING, _warned),
    Detector("tissue_joint", P, _small_p, "train"),
    Detector("anatomy_joint", P, _small_p, "train"),
    Detector("artefact_joint", P, _small_p, "train"),
    Detector("distinct_samples", WARNING, _warned),
    Detector("copy_rate", P, _small_p),
    Detector("axes", WARNING, _warned),
)
# The quantities that must see a fault at `LEAST_N` samples; what another one sees besides is shown, not demanded.
MUST_SEE: Mapping[str, tuple[str, ...]] = {
    "noise": ("kid", "rvr_missing", "tissue_joint"),
    "mode-collapse": ("distinct_samples", "rvr_joint"),
    "copycat": ("copy_rate",),
    "flip": ("axes",),
    "blur:0.5": ("tissue_joint",),
    "hu-shift:25": ("tissue_joint",),
    "fault:gain-1.05": ("tissue_joint",),
    "fault:gamma-0.9": ("tissue_joint",),
    "fault:bias-50": ("tissue_joint",),
    "fault:noise-2": ("tissue_joint",),
    "fault:soft-bones-40": ("anatomy_joint",),
    "fault:coarse-2": ("artefact_joint",),
    "fault:jitter-3": ("kid",),
    "fault:shuffled-slabs-8": ("kid",),
    "fault:slice-offsets-30": ("artefact_joint",),
    "fault:checkerboard-30": ("artefact_joint",),
    "fault:octants-60": ("artefact_joint",),
    "fault:tiles-30": ("artefact_joint",),
    "fault:nodules-12": ("artefact_joint",),
    "fault:no-vessels-1": ("anatomy_joint",),
    "magnify:heart": ("anatomy_joint",),
}
SHOWN = (  # rows of the table
    *(REAL, "noise", "mode-collapse", "copycat", "flip", "blur:0.5", "blur:1", "hu-shift:25", "hu-shift:200"),
    *(f"fault:{name}" for name in FAULTS),
    *("magnify:heart", "drop-region:aorta"),
)


def sights(seen: Seen) -> list[Sight]:
    """Every fault in every detector that was measured."""
    measured = [one for one in DETECTORS if any(score.metric == one.metric for score in seen.scores)]
    return [
        Sight(fault=fault, metric=one.metric, sees=_sees(seen, one, fault))
        for fault in SHOWN
        for one in measured
        if any(score.generator == fault for score in seen.scores)
    ]


def _sees(seen: Seen, detector: Detector, fault: str) -> bool | None:
    """Whether a detector sees a fault, in any region; None without a value."""
    own = [
        score
        for score in seen.scores
        if score.metric == detector.metric
        and score.generator == fault
        and score.status == "ok"
        and detector.reference in (None, score.reference)
    ]
    if detector.metric != "rvr_missing":
        own = [score for score in own if not score.region]
    real = seen.score(Ask(detector.metric, REAL, "", detector.reference))
    return any(detector.shows(score, real) for score in own) if own else None


def demanded(seen: Seen, n: int) -> Iterator[Finding]:
    """Each fault in the quantities that must see it, and unseen real volumes in none. n: samples of each control."""
    by_name = {one.metric: one for one in DETECTORS}
    for fault, metrics in MUST_SEE.items():
        for metric in metrics:
            yield _finding(seen, fault, by_name[metric], n, wanted=True)
    for name in ("tissue_joint", "anatomy_joint", "artefact_joint", "distinct_samples"):
        yield _finding(seen, REAL, by_name[name], n, wanted=False)


def _finding(seen: Seen, fault: str, detector: Detector, n: int, wanted: bool) -> Finding:
    ask = Ask(detector.metric, fault, "", detector.reference)
    by = detector.by if wanted else f"not {detector.by}"
    name = fault if wanted else f"none ({fault})"
    if wanted and n < LEAST_N:
        why = f"{n} samples; seeing a fault is demanded of {LEAST_N} or more"
        return Finding(fault=name, metric=detector.metric, expected=by, seen=why, status="not_checked")
    if detector.metric == "rvr_missing":
        region = next(iter(seen.regions(detector.metric, fault)), "")
        ask = ask._replace(region=region, reference=None)
    return seen.expect(name, detector.metric, by, [ask], lambda score: bool(_sees(seen, detector, fault)) == wanted)


def table(found: Sequence[Sight], n: int) -> list[str]:
    """The sights as a Markdown table: a row per fault, a column per quantity."""
    metrics, rows = sight_rows(found)
    lines = [f"| fault (n {n}) | " + " | ".join(f"`{metric}`" for metric in metrics) + " |"]
    lines.append("|---" * (len(metrics) + 1) + "|")
    for fault, words in rows:
        name = "none: unseen real volumes" if fault == REAL else f"`{fault}`"
        lines.append(f"| {name} | " + " | ".join(words) + " |")
    return lines


def page(found: Sequence[Sight], n: int, dataset: str) -> str:
    """`docs/metrics/what-sees-what.md`."""
    measured = {one.metric for one in found}
    how = [f"- `{one.metric}` sees a fault by {one.by}." for one in DETECTORS if one.metric in measured]
    if any(one.sees is None for one in found):
        how.append("- `-`: no value, for example because no sample could be segmented.")
    absent = [f"`{one.metric}`" for one in DETECTORS if one.metric not in measured]
    rest = [f"Not measured here (name it with `--metric`): {', '.join(absent)}.", ""] if absent else []
    return "\n".join(
        [
            "# What sees what",
            "",
            f"Which quantity sees which fault: {n} samples of each [control](../generators/controls.md) on the data set "
            f"`{dataset}`.",
            "`medlord-bench calibrate --table FILE` writes this page; run it on your own CT with `--dataset folder` to see",
            "what is seen there.",
            "",
            *table(found, n),
            "",
            "How a fault is seen:",
            "",
            *how,
            "",
            *rest,
            "A quantity that must see a fault and does not fails the calibration.",
            "",
        ]
    )
