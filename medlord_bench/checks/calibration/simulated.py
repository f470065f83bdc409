"""The statistics tested on simulated features, where the truth is known: p-values under no difference, and coverage.

The slices of a volume share a component, so that they are not independent, and the spectrum decays as that of
real slice features. Rates are judged with Wilson's interval at 99.9 %: a correct bench fails a check about once in a
thousand seeds.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from medlord_bench import stats
from medlord_bench.util.seeds import numpy_rng

JUDGING_LEVEL = 0.999  # level of the intervals by which an observed rate is judged
NOMINAL_REJECTION_RATE = 0.05  # rejections if there is no difference
COVERAGE_RANGE = (0.93, 0.98)  # required coverage of the 95 % interval of a Fréchet distance
LEAST_KERNEL_COVERAGE = 0.90
PERMUTATIONS = 199
REPEATS = 1500

Groups = list[NDArray[np.float64]]
Progress = Callable[[int, int], None]


@dataclass(frozen=True)
class Simulated:
    """One check: the expected result of a correct bench, the observed result, and the time."""

    name: str
    expected: str
    seen: str
    ok: bool
    seconds: float


@dataclass(frozen=True)
class Sets:
    """Two sets of `n` and `m` volumes of `slices` each in `d` dimensions, and how their distributions differ.

    shared: fraction of the variance that the slices of a volume share. The first set is shifted by `shift`
    standard deviations in every dimension and wider by `scale`.
    """

    n: int
    m: int
    slices: int
    d: int
    shared: float
    shift: float = 0.0
    scale: float = 1.0

    def draw(self, *parts: str | int) -> tuple[Groups, Groups]:
        rng = numpy_rng(str(self), *parts)
        deviations: stats.Vector = np.arange(1, self.d + 1, dtype=np.float64) ** -0.5
        return (
            [group * self.scale + self.shift * deviations for group in self._volumes(rng, self.n, deviations)],
            self._volumes(rng, self.m, deviations),
        )

    def _volumes(self, rng: np.random.Generator, count: int, deviations: stats.Vector) -> Groups:
        own = rng.standard_normal((count, 1, self.d)) * np.sqrt(self.shared)
        noise = rng.standard_normal((count, self.slices, self.d)) * np.sqrt(1 - self.shared)
        return list((own + noise) * deviations)

    def __str__(self) -> str:
        text = f"n {self.n}/{self.m}, {self.slices} slices ({self.shared:g} shared), d {self.d}"
        shift = f", shift {self.shift:g}" if self.shift else ""
        return text + shift + (f", scale {self.scale:g}" if self.scale != 1 else "")


EQUAL = Sets(12, 16, 3, 16, 0.5)
DIFFERENT = (
    Sets(8, 8, 5, 16, 0.5, shift=1.0),
    Sets(8, 8, 1, 32, 0.0, scale=1.5),
    Sets(16, 16, 1, 64, 0.0, shift=1.0),
    Sets(16, 16, 5, 16, 0.5, shift=0.3),
    Sets(16, 16, 10, 4, 0.8, shift=1.0),
    Sets(16, 64, 5, 16, 0.5, scale=1.5),
    Sets(16, 64, 3, 8, 0.8, shift=0.3),
    Sets(30, 30, 5, 8, 0.5, shift=0.5, scale=0.6),
    Sets(30, 30, 2, 64, 0.5, shift=0.5),
    Sets(60, 60, 2, 16, 0.5, shift=0.5),
)


def simulate(seed: int, repeats: int = REPEATS, progress: Progress | None = None) -> Iterator[Simulated]:
    """Every check, one after another; about a minute on one core. Equal seeds and repeats give equal numbers.

    progress: called with (simulations done, total). Raises nothing itself: a check that does not hold is not `ok`.
    """
    done, total = 0, repeats * (len(CHECKS) + 2 * len(DIFFERENT))

    def step(count: int) -> None:
        nonlocal done
        done += count
        if progress is not None:
            progress(done, total)

    for check in CHECKS:
        start = time.monotonic()
        name, expected, seen, ok = check(seed, repeats)
        step(repeats)
        yield Simulated(name, expected, seen, ok, time.monotonic() - start)
    yield from _frechet_coverage(seed, repeats, step)


# ------------------------------------------------------------------------------------------- p-values of no difference
Check = tuple[str, str, str, bool]  # name, expected, seen, ok


def _kernel_p(seed: int, repeats: int) -> Check:
    ps = [stats.kernel_distance(*EQUAL.draw(seed, i), i, PERMUTATIONS).p for i in range(repeats)]
    return _uniform(f"kernel distance, equal distributions ({EQUAL})", ps)


def _energy_p(seed: int, repeats: int) -> Check:
    ps = []
    for i in range(repeats):
        rows = numpy_rng(seed, "energy", i).standard_gamma(2.0, (24, 6))
        ps.append(stats.energy_distance(rows[:10], rows[10:], i, PERMUTATIONS).p)
    return _uniform("energy distance, equal distributions (10 and 14 volumes, 6 regions)", ps)


def _uniform(name: str, ps: list[float]) -> Check:
    from scipy.stats import kstest

    rejected = sum(p <= NOMINAL_REJECTION_RATE for p in ps)
    low, high = stats.wilson(rejected, len(ps), JUDGING_LEVEL)
    straight = float(kstest(ps, "uniform").pvalue)
    seen = f"{rejected / len(ps):.1%} ({low:.1%} to {high:.1%}), KS p {straight:.3f}"
    ok = low <= NOMINAL_REJECTION_RATE <= high and straight > 1 - JUDGING_LEVEL
    return name, f"{NOMINAL_REJECTION_RATE:.0%} of p-values at most {NOMINAL_REJECTION_RATE:g}, all uniform", seen, ok


def _paired_p(seed: int, repeats: int) -> Check:
    """Two generators that are equally far from the real set, which they share."""
    rejected = 0
    sets = Sets(16, 16, 3, 8, 0.5, shift=0.7)
    for i in range(repeats):
        first, real = sets.draw(seed, "first", i)
        second = [-group for group in sets.draw(seed, "second", i)[0]]
        pair = stats.frechet_jackknife(first, real), stats.frechet_jackknife(second, real)
        rejected += stats.paired_jackknife(*pair, squared=True).p <= NOMINAL_REJECTION_RATE
    low, high = stats.wilson(rejected, repeats, JUDGING_LEVEL)
    seen = f"{rejected / repeats:.1%} ({low:.1%} to {high:.1%})"
    name = f"paired Fréchet distances, equally far ({sets})"
    return (
        name,
        f"at most {NOMINAL_REJECTION_RATE:.0%} of p-values at most {NOMINAL_REJECTION_RATE:g}",
        seen,
        low <= NOMINAL_REJECTION_RATE,
    )


# ------------------------------------------------------------------------------------------------ coverage of intervals
def _median_coverage(n: int) -> Callable[[int, int], Check]:
    def check(seed: int, repeats: int) -> Check:
        from scipy.stats import binom

        draws = numpy_rng(seed, "median", n).lognormal(0.0, 1.0, (repeats, n))  # median 1, skewed
        found = [stats.median_interval(row) for row in draws]
        inside = sum(one.low is not None and one.high is not None and one.low <= 1.0 <= one.high for one in found)
        tails = binom.cdf(np.arange(n), n, 0.5)
        exact = 1 - 2 * float(tails[tails <= NOMINAL_REJECTION_RATE / 2].max())
        low, high = stats.wilson(inside, repeats, JUDGING_LEVEL)
        seen = f"{inside / repeats:.1%} ({low:.1%} to {high:.1%})"
        return f"median interval, n {n}, log-normal", f"covers the median in {exact:.1%}", seen, low <= exact <= high

    return check


def _kernel_coverage(seed: int, repeats: int) -> Check:
    sets = Sets(16, 24, 3, 16, 0.5, shift=0.5)
    expected = float(np.mean([stats.kernel_distance(*sets.draw(seed, "mean", i), i, 0).value for i in range(repeats)]))
    found = [stats.kernel_distance(*sets.draw(seed, i), i, 0) for i in range(repeats)]
    inside = sum(one.low <= expected <= one.high for one in found)
    low, high = stats.wilson(inside, repeats, JUDGING_LEVEL)
    seen = f"{inside / repeats:.1%} ({low:.1%} to {high:.1%})"
    name = f"kernel distance's interval ({sets})"
    return name, f"covers the expectation in at least {LEAST_KERNEL_COVERAGE:.0%}", seen, high >= LEAST_KERNEL_COVERAGE


CHECKS: tuple[Callable[[int, int], Check], ...] = (
    _kernel_p,
    _energy_p,
    _paired_p,
    *(_median_coverage(n) for n in (6, 16, 31)),
    _kernel_coverage,
)


def _frechet_coverage(seed: int, repeats: int, step: Callable[[int], None]) -> Iterator[Simulated]:
    """Per configuration, then over all, then that no interval misses its own value."""
    covered, own, start = 0, 0, time.monotonic()
    low, high = COVERAGE_RANGE
    for sets in DIFFERENT:
        began = time.monotonic()
        intervals = [_frechet_interval(*sets.draw(seed, i)) for i in range(repeats)]
        step(repeats)
        # The expectation comes from other draws, so that the intervals are not tested on themselves.
        apart = [_frechet(*sets.draw(seed, "mean", i)) for i in range(repeats)]
        step(repeats)
        expected = float(np.mean(apart))
        inside = sum(one.low <= expected <= one.high for one in intervals)
        covered += inside
        own += sum(one.low <= one.value <= one.high for one in intervals)
        at_least, at_most = stats.wilson(inside, repeats, JUDGING_LEVEL)
        yield Simulated(
            f"Fréchet distance's interval ({sets})",
            f"covers the expectation in {low:.0%} to {high:.0%}",
            f"{inside / repeats:.1%} ({at_least:.1%} to {at_most:.1%})",
            at_least <= high and at_most >= low,
            time.monotonic() - began,
        )
    total = repeats * len(DIFFERENT)
    seconds = time.monotonic() - start
    expected_rate, seen = f"covers the expectation in {low:.0%} to {high:.0%}", f"{covered / total:.1%} of {total}"
    name = "Fréchet distance's interval, all of the above"
    yield Simulated(name, expected_rate, seen, low <= covered / total <= high, seconds)
    name = "Fréchet distance's interval and its own value"
    yield Simulated(name, "always contains it", f"{own} of {total}", own == total, seconds)


def _frechet_interval(x: Groups, y: Groups) -> stats.Jackknife:
    found = stats.frechet_jackknife(x, y)
    return stats.jackknife(found.value, found.without_x, found.without_y, squared=True)


def _frechet(x: Groups, y: Groups) -> float:
    return stats.frechet_distance(np.concatenate(x), np.concatenate(y))
