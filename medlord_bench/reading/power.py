"""What a design can detect, and what it costs in reader-minutes, by simulated readers.

A volume looks more or less real; the look has variance 1, of which `shared` is seen by all readers alike and the rest is of
one reader at one time (equal-variance signal detection, Macmillan & Creelman 2005). Real volumes lie d' above those of a
model. The effect is given as the AUC of one reader, P(a real volume looks more real) = Phi(d' / sqrt 2), which is also that
reader's share of right choices in pairs.

Ratings: every volume gets one of `levels` levels; the test is Mann-Whitney's on means of volumes over readers, the
large-sample form of the permutation test of the analysis. Pairs: each volume of a model is in one pair with a real one for
each reader; the test is `stats.accuracy`'s. Several models: each is tested at alpha / models, the first step of Holm.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medlord_bench import stats
from medlord_bench.util.seeds import numpy_rng

from .protocol import LEAST_REPEATS, StudyProtocol

Design = Literal["ratings", "pairs"]
DESIGNS: tuple[Design, ...] = ("ratings", "pairs")
ALPHA, TARGET = 0.05, 0.8
SIZES = (4, 5, 6, 7, 8, 10, 12, 14, 16, 18, 20, 25, 30, 35, 40, 50, 60, 70, 80, 100, 120, 150, 200)
WIDEST = 1.5  # the outer limits of levels lie so far from the middle between real and model


@dataclass(frozen=True)
class Assumptions:
    """rating_seconds, pair_seconds: that a reader takes for one volume with all its questions, and for one pair. The
    defaults are guesses: no published times of 3D CT were found. `reading score` gives those of a pilot."""

    readers: int = 1
    models: int = 1
    levels: int = 10
    shared: float = 0.5
    rating_seconds: float = 60.0
    pair_seconds: float = 30.0
    simulations: int = 1000
    seed: int = 0

    def minutes(self, design: Design, n: int) -> float:
        """Of all readers, hidden repeats of ratings included."""
        if design == "pairs":
            return self.readers * self.models * n * self.pair_seconds / 60
        cases = (self.models + 1) * n
        return self.readers * (cases + max(LEAST_REPEATS, -(-cases // 10))) * self.rating_seconds / 60


@dataclass(frozen=True)
class Needed:
    """The smallest number of volumes of a source with 80 % power, and its minutes; None beyond the largest tried."""

    n: int | None
    minutes: float | None
    power: float | None


def power(design: Design, auc: float, n: int, given: Assumptions) -> float:
    """Share of simulated studies in which a model with this effect is found to differ from real."""
    from scipy.stats import norm

    rng = numpy_rng(given.seed, "power", design, n, given.readers, f"{auc:.6f}")
    apart = float(norm.ppf(auc)) * np.sqrt(2)
    size = (given.simulations, given.readers, n)
    real, model = (level + _looks(rng, size, given.shared) for level in (apart, 0.0))
    p = _ratings(real, model, apart / 2, given.levels) if design == "ratings" else _pairs(rng, real, model)
    return float(np.mean(p <= ALPHA / given.models))


def needed(design: Design, auc: float, given: Assumptions) -> Needed:
    """By bisection over `SIZES`; the power is taken to grow with n."""
    low, high = 0, len(SIZES)
    found: dict[int, float] = {}
    while low < high:
        middle = (low + high) // 2
        found[middle] = power(design, auc, SIZES[middle], given)
        low, high = (low, middle) if found[middle] >= TARGET else (middle + 1, high)
    if low == len(SIZES):
        return Needed(None, None, None)
    return Needed(SIZES[low], given.minutes(design, SIZES[low]), found[low])


def _looks(rng: np.random.Generator, size: tuple[int, int, int], shared: float) -> NDArray[np.float64]:
    simulations, _, n = size
    volume = rng.normal(0, np.sqrt(shared), (simulations, 1, n))
    return np.asarray(volume + rng.normal(0, np.sqrt(1 - shared), size))


def _ratings(real: NDArray[np.float64], model: NDArray[np.float64], middle: float, levels: int) -> NDArray[np.float64]:
    """(simulations,): p-values of Mann-Whitney's test."""
    from scipy.stats import mannwhitneyu

    limits = middle + np.linspace(-WIDEST, WIDEST, levels - 1)
    given = [np.searchsorted(limits, part).mean(1) for part in (real, model)]
    p = np.asarray(mannwhitneyu(given[0], given[1], axis=1, method="asymptotic").pvalue)
    return np.where(np.isnan(p), 1.0, p)


def _pairs(rng: np.random.Generator, real: NDArray[np.float64], model: NDArray[np.float64]) -> NDArray[np.float64]:
    """(simulations,): p-values of choices; each reader has pairs of their own, the same in all simulations."""
    _, readers, n = real.shape
    partners = np.stack([rng.permutation(n) for _ in range(readers)])
    right = np.take_along_axis(real, partners[None], axis=2) > model
    volumes = np.stack([partners.ravel(), n + np.tile(np.arange(n), readers)], 1)
    rows = right.reshape(len(right), -1)
    return np.array([stats.accuracy(one, volumes).p for one in rows])


@dataclass(frozen=True)
class Compared:
    """What either design needs. ratio: minutes of pairs to those of ratings. half_at_seconds: with pairs that take so long,
    or less, the minutes are half."""

    auc: float
    readers: int
    ratings: Needed
    pairs: Needed
    ratio: float | None
    half_at_seconds: float | None


def table(efforts: Sequence[float], given: Sequence[Assumptions]) -> list[Compared]:
    """A row for each number of readers and each effect."""
    return [_compared(auc, one) for one in given for auc in efforts]


def _compared(auc: float, given: Assumptions) -> Compared:
    ratings, pairs = (needed(design, auc, given) for design in DESIGNS)
    ratio = pairs.minutes / ratings.minutes if ratings.minutes and pairs.minutes else None
    return Compared(auc, given.readers, ratings, pairs, ratio, given.pair_seconds * 0.5 / ratio if ratio else None)


def page(protocol: StudyProtocol | None, efforts: Sequence[float], given: Sequence[Assumptions]) -> str:
    """The table as text, with its assumptions; before it the power of a protocol's own design."""
    first = given[0]
    lines = [
        f"Assumed: {first.rating_seconds:g} s for a volume with all its questions, {first.pair_seconds:g} s for a pair (guesses: "
        f"take those of a pilot); {first.models} model(s) against real, each at {ALPHA / first.models:.3g}; ratings on "
        f"{first.levels} levels; readers share {100 * first.shared:g} % of what they see. {first.simulations} simulated studies, "
        f"seed {first.seed}: a power has a 95 % interval of up to {100 * 0.98 / first.simulations**0.5:.1f} points either way.",
        "AUC: how often a real volume looks more real to one reader; 0.5 is no difference.",
        "",
    ]
    if protocol is not None:
        n = protocol.n if protocol.design == "ratings" else max(1, protocol.choices // first.models)
        found = [f"AUC {auc:g}: {100 * power(protocol.design, auc, n, first):.0f} %" for auc in efforts]
        minutes = first.minutes(protocol.design, n)
        what = "volumes of each source" if protocol.design == "ratings" else "pairs of each reader for each model"
        lines += [
            f"This protocol: {protocol.design}, {n} {what}, {minutes:.0f} reader-minutes. Power at {'; '.join(found)}.",
            "",
        ]
    lines += [
        f"Smallest n for {100 * TARGET:.0f} % power (ratings: volumes of each source; pairs: pairs of each reader for each model), "
        "and minutes of all readers together:",
        "",
        "| AUC | readers | ratings: n | ratings: minutes | pairs: n | pairs: minutes | pairs / ratings | a pair may take, for half the minutes |",
        "|---|---|---|---|---|---|---|---|",
    ]
    for row in table(efforts, given):
        cells = [f"{row.auc:g}", str(row.readers)]
        for one in (row.ratings, row.pairs):
            cells += [f"over {SIZES[-1]}", ""] if one.n is None else [str(one.n), f"{one.minutes:.0f}"]
        cells += ["" if row.ratio is None else f"{row.ratio:.2f}"]
        cells += ["" if row.half_at_seconds is None else f"{row.half_at_seconds:.0f} s"]
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)
