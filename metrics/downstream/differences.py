"""Paired differences in DSC between arms, by test patient: tests, equivalence, and what they support in words."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from math import ceil, log2
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from medlord_bench import stats
from medlord_bench.overlap.cases import LEAST_PATIENTS, Table, by_patient

from .quantities import MARGIN, compared_with, short

ALPHA = 0.05
Verdict = Literal["better", "worse", "equivalent", "undecided"]


@dataclass(frozen=True)
class Difference:
    """An arm minus its base in DSC. region: its place; None for the mean over regions. p, p_equivalence: corrected by
    Holm over `tests` tests: those of the mean over regions, and those of all regions. chance: the absolute difference that
    another seed makes there; None if no arm shows it."""

    arm: str
    base: str
    region: int | None
    value: float
    low: float | None
    high: float | None
    p: float
    p_equivalence: float
    patients: int
    tests: int = 1
    chance: float | None = None

    @property
    def verdict(self) -> Verdict:
        """Equivalence first: a difference that is shown to be within the margin is irrelevant, also if it is not zero.

        The tests are over patients and know nothing of the trainings' chance: a difference that is no larger than what
        another seed makes is undecided.
        """
        if self.p_equivalence <= ALPHA:
            return "equivalent"
        if self.p > ALPHA or not self.value or self._is_chance:
            return "undecided"
        return "better" if self.value > 0 else "worse"

    @property
    def longer(self) -> bool:
        """Whether the arm has more iterations than its base, because the run lacks the control that has as many."""
        return self.base == "real" and compared_with(self.arm) != "real"

    @property
    def _is_chance(self) -> bool:
        return self.chance is not None and abs(self.value) <= self.chance

    @property
    def equivalence(self) -> str:
        return f"equivalence within {MARGIN:g} (TOST, Holm): p {self.p_equivalence:.2g}"

    def sentence(self, region: str) -> str:
        """What the data support. region: its name; empty for the mean over regions."""
        where = f" in {region}" if region else ""
        span = "" if self.low is None or self.high is None else f" [{self.low:+.3f}, {self.high:+.3f}]"
        told = f"{self.value:+.3f}{span} DSC, {self.patients} patients"
        of, base = f"trained on {short(self.arm)}", f"trained on {short(self.base)}"
        if self.longer:
            of += " for twice the iterations"
        if self.verdict == "better":
            return f"supported: a segmenter {of} is better{where} than one {base} ({told})"
        if self.verdict == "worse":
            return f"supported: a segmenter {of} is worse{where} than one {base} ({told})"
        if self.verdict == "equivalent":
            return f"supported: a segmenter {of} is equivalent{where} to one {base} within {MARGIN:g} DSC ({told})"
        if self._is_chance and self.p <= ALPHA:
            return (
                f"undecided: the difference{where} of {of} and {base} is no larger than what another seed of the same "
                f"training makes, {self.chance:.3f} ({told})"
            )
        # A signed-rank test of n pairs has no p below 2 / 2^n, which Holm multiplies by the number of tests.
        least = max(LEAST_PATIENTS, ceil(1 + log2(self.tests / ALPHA)))
        few = (
            f"; {self.tests} test{'s need' if self.tests > 1 else ' needs'} at least {least} patients to support anything"
            if self.patients < least
            else ""
        )
        return f"undecided: the data show neither a difference nor equivalence{where} of {of} and {base} ({told}{few})"


def differences(tables: Mapping[str, Table], places: Sequence[int], bases: Mapping[str, str]) -> Iterator[Difference]:
    """Of every arm to its base: the mean over regions, then each region. places: of the measured regions."""
    whole, regional = [], []
    for arm, base in bases.items():
        by_region = {place: _paired(tables[arm], tables[base], place) for place in places}
        patients = sorted({patient for own in by_region.values() for patient in own})
        means = [float(np.mean([own[who] for own in by_region.values() if who in own])) for who in patients]
        if means:
            whole.append(_tested(arm, base, None, np.array(means)))
        regional += [_tested(arm, base, place, np.array(list(own.values()))) for place, own in by_region.items() if own]
    yield from _beside_chance([*_corrected(whole), *_corrected(regional)])


def _beside_chance(found: Sequence[Difference]) -> Iterator[Difference]:
    """Each with the difference that the control of another seed has in the same place."""
    chance = {one.region: abs(one.value) for one in found if one.arm == "real-other-seed"}
    yield from (replace(one, chance=chance.get(one.region)) for one in found)


def _paired(arm: Table, base: Table, place: int) -> dict[str, float]:
    """Patient -> difference in DSC; a patient's DSC is the median of its cases and of all seeds."""
    ours, theirs = by_patient(arm, place, "dsc"), by_patient(base, place, "dsc")
    return {patient: ours[patient] - theirs[patient] for patient in ours if patient in theirs}


def _tested(arm: str, base: str, region: int | None, apart: NDArray[np.float64]) -> Difference:
    found, same = stats.wilcoxon_paired(apart), stats.tost(apart, MARGIN)
    return Difference(arm, base, region, found.estimate, found.low, found.high, found.p, same.p, len(apart))


def _corrected(family: Sequence[Difference]) -> Iterator[Difference]:
    ps = stats.holm([one.p for one in family]).tolist()
    same = stats.holm([one.p_equivalence for one in family]).tolist()
    for one, p, equal in zip(family, ps, same, strict=True):
        yield replace(one, p=p, p_equivalence=equal, tests=len(family))
