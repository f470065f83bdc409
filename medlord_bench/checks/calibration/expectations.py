"""The expected score of each control in each metric. The controls' faults are known, and so are the answers."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from itertools import pairwise

from medlord_bench.checks.calibration.experiment import REGIONS, STRENGTHS
from medlord_bench.contracts.calibration import Ask, Finding, Seen
from medlord_bench.contracts.results import Score

MIN_COPIES_FOUND = 0.95  # fraction of copies that must be detected
NOMINAL_COPY_RATE = 0.05  # fraction of unseen patients that the audit may classify as copies
MAX_DSC_BELOW_CEILING = 0.05  # largest DSC of painted volumes below the segmenter's own ceiling
NOTICED_P = 0.01  # p below it: detected; p above it: not detected
Rule = Callable[[Seen], Iterator[Finding]]


def findings(seen: Seen, left_out: dict[str, str]) -> Iterator[Finding]:
    """Every expectation, tested on the scores of the calibration run."""
    for rule in RULES:
        yield from rule(seen)
    for control, reason in left_out.items():
        yield Finding(fault=control, metric="every metric", expected="runs", seen=reason, status="not_checked")


def _value(score: Score) -> float:
    assert score.value is not None
    return score.value


def _unnoticed(score: Score) -> bool:
    return score.p is not None and score.p > NOTICED_P


def _noticed(score: Score) -> bool:
    return score.p is not None and score.p < NOTICED_P


def _holds(score: Score, value: float | None) -> bool:
    """Whether the interval contains the value."""
    return None not in (score.low, score.high, value) and score.low <= value <= score.high  # type: ignore[operator]


def _apart(worse: Score, better: Score) -> bool:
    """Whether the first interval lies above the second."""
    return worse.low is not None and better.high is not None and worse.low > better.high


def no_fault(seen: Seen) -> Iterator[Finding]:
    """Unseen real volumes score at the floor, are not copies, and have the right orientation."""
    name = "none (holdout)"
    for reference in ("test", "train"):
        ask = Ask("fid", "holdout", "", reference)
        yield seen.expect(name, f"fid {reference}", "interval contains the floor", [ask], lambda s: _holds(s, s.floor))
    unnoticed = f"p above {NOTICED_P}"
    yield seen.expect(name, "kid", unnoticed, [Ask("kid", "holdout", "", "test")], _unnoticed)
    yield seen.expect(name, "rvr_joint", unnoticed, [Ask("rvr_joint", "holdout", "", "train")], _unnoticed)
    expected = f"interval contains the nominal {NOMINAL_COPY_RATE}"
    yield seen.expect(
        name, "copy_rate", expected, [Ask("copy_rate", "holdout")], lambda s: _holds(s, NOMINAL_COPY_RATE)
    )
    yield seen.expect(name, "axes", "no warning", [Ask("axes", "holdout")], lambda s: not s.warning)
    for metric in ("distinct_samples", "vendi"):
        ask = Ask(metric, "holdout", "", "train")
        yield seen.expect(name, metric, "no warning", [ask], lambda s: not s.warning)


def noise(seen: Seen) -> Iterator[Finding]:
    """No anatomy: far from the real set, in no neighbourhood of it, without organs, and not a copy."""
    both = [Ask("fid", name, "", "test") for name in ("noise", "holdout")]
    yield seen.expect("noise", "fid", "above the holdout's interval", both, _apart)
    yield seen.expect("noise", "kid", f"p below {NOTICED_P}", [Ask("kid", "noise", "", "test")], _noticed)
    yield seen.expect("noise", "precision", "0", [Ask("precision", "noise", "", "test")], lambda s: _value(s) == 0)
    yield seen.expect("noise", "copy_rate", "0", [Ask("copy_rate", "noise")], lambda s: _value(s) == 0)
    for region in REGIONS:
        ask = Ask("rvr_missing", "noise", region)
        yield seen.expect("noise", f"rvr_missing {region}", "at least 0.9", [ask], lambda s: _value(s) >= 0.9)


def strengths(seen: Seen) -> Iterator[Finding]:
    """Blur and an HU offset: each step lowers realism and reconstruction, in order.

    MS-SSIM is left out for the offset: it is insensitive to offsets by design.
    """
    for control, steps in STRENGTHS.items():
        spoilt = [f"{control}:{step}" for step in steps]
        fault = f"{control} {', '.join(steps)}"
        for metric in ("fid", "psnr", "ms_ssim") if control == "blur" else ("fid", "psnr"):
            if metric == "fid":
                asks = [Ask("fid", name, "", "test") for name in ("holdout", *spoilt)]
                yield seen.expect(fault, metric, "rises from the holdout's with each step", asks, _rises)
            else:
                asks = [Ask(metric, name) for name in spoilt]
                yield seen.expect(fault, metric, "falls with each step", asks, lambda *s: _rises(*reversed(s)))


def _rises(*scores: Score) -> bool:
    return all(_value(a) < _value(b) for a, b in pairwise(scores))


def collapse(seen: Seen) -> Iterator[Finding]:
    """One volume repeated: realistic, but without variety. It is unseen, so not a copy."""
    fault = "mode-collapse"
    both = [[Ask(metric, name, "", "test") for name in (fault, "holdout")] for metric in ("recall", "fid")]
    yield seen.expect(fault, "recall", "0.5 below the holdout's", both[0], lambda s, h: _value(s) <= _value(h) - 0.5)
    yield seen.expect(fault, "fid", "above the holdout's", both[1], lambda s, h: _value(s) > _value(h))
    yield seen.expect(fault, "rvr_joint", f"p below {NOTICED_P}", [Ask("rvr_joint", fault, "", "train")], _noticed)
    ask = Ask("distinct_samples", fault, "", "train")
    yield seen.expect(
        fault, "distinct_samples", "1, with a warning", [ask], lambda s: _value(s) == 1 and bool(s.warning)
    )
    ask = Ask("vendi", fault, "", "train")
    yield seen.expect(fault, "vendi", f"p below {NOTICED_P}", [ask], _noticed)
    for region in REGIONS:
        ask = Ask("rvr_variance_ratio", fault, region, "train")
        yield seen.expect(fault, f"rvr_variance_ratio {region}", "below 0.1", [ask], lambda s: _value(s) < 0.1)


def copies(seen: Seen) -> Iterator[Finding]:
    """Slightly changed training volumes: the audit must detect them, although their distance to the training set is
    low."""
    ask = Ask("copy_rate", "copycat")
    yield seen.expect(
        "copycat", "copy_rate", f"at least {MIN_COPIES_FOUND}", [ask], lambda s: _value(s) >= MIN_COPIES_FOUND
    )
    asks = [Ask("fid", "copycat", "", reference) for reference in ("train", "test")]
    yield seen.expect("copycat", "fid train, test", "train below test", asks, _rises)


def dropped(seen: Seen) -> Iterator[Finding]:
    """One organ painted over: that region is missing in all samples, with a warning; no other region is reported
    missing."""
    for region in REGIONS:
        fault = f"drop-region:{region}"
        for place in REGIONS:
            ask, name = Ask("rvr_missing", fault, place), f"rvr_missing {place}"
            if place == region:
                yield seen.expect(fault, name, "1, with a warning", [ask], lambda s: _value(s) == 1 and bool(s.warning))
            else:
                asks = [ask, Ask("rvr_missing", "holdout", place)]
                close = "as the holdout's, within 0.1"
                yield seen.expect(fault, name, close, asks, lambda s, h: abs(_value(s) - _value(h)) <= 0.1)
        yield seen.expect(fault, f"dsc {region}", "0", [Ask("dsc", fault, region)], lambda s: _value(s) == 0)


def painted(seen: Seen) -> Iterator[Finding]:
    """Volumes painted exactly to the mask: adherence reaches the segmenter's score on real images."""
    for region in seen.regions("dsc", "oracle"):
        expected = f"at least the segmenter's ceiling less {MAX_DSC_BELOW_CEILING}"
        asks = [Ask("dsc", "oracle", region)]
        yield seen.expect("none (oracle)", f"dsc {region}", expected, asks, _reaches_ceiling)


def _reaches_ceiling(score: Score) -> bool:
    return score.ceiling is not None and _value(score) >= score.ceiling - MAX_DSC_BELOW_CEILING


def window(seen: Seen) -> Iterator[Finding]:
    """Values beyond the stated HU window must have no effect."""
    asks = [Ask("fid", f"implant:{variant}", "", "test") for variant in ("low", "high")]
    fault, expected = "implant at 1000 and 2000 HU", "equal: both are clipped to 1000"
    yield seen.expect(fault, "fid", expected, asks, lambda low, high: _value(low) == _value(high))


def flipped(seen: Seen) -> Iterator[Finding]:
    """Volumes upside down: the orientation check must warn."""
    yield seen.expect("flip", "axes", "a warning", [Ask("axes", "flip")], lambda s: bool(s.warning))


RULES: tuple[Rule, ...] = (no_fault, noise, strengths, collapse, copies, dropped, painted, window, flipped)
