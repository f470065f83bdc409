"""The training sets of the arms, and their lengths.

`real` has every real training case. `synthetic` has one sample for the mask of each, and `mixed` has one half of both: the
same number of cases and of iterations. `real+synthetic` has twice the cases and twice the iterations, so that each case
is seen as often; `real-longer` is its control with the iterations alone, `real-other-seed` shows what chance does.

The arms of a dose-response have a fraction of the real patients, and for the mask of each of these cases some samples. All
have the iterations of `real+synthetic`, which is one of them, as `real-longer` is.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from medlord_bench.contracts.arms import Arm, Synthetic
from medlord_bench.errors import UserError
from medlord_bench.util.seeds import numpy_rng

from .config import ArmName

LEAST_CASES = 2  # training cases that nnU-Net needs
OTHER_SEED = 1000  # added to the seed of the control of another seed
LONGER = 2.0  # length of the arms of twice the cases, and of their control

MEANING: Mapping[str, str] = {
    "real": "all real training cases",
    "synthetic": "one sample for each training mask, and no real image",
    "real+synthetic": "all real training cases and as many samples; twice the iterations",
    "mixed": "one half real cases, for the others' masks samples",
    "real-longer": "all real training cases with twice the iterations: the control of real+synthetic",
    "real-other-seed": "all real training cases with another seed: what chance does",
}


@dataclass(frozen=True)
class Dose:
    """real: fraction of the real patients. synthetic: samples for each of their cases."""

    real: float
    synthetic: int

    @property
    def arm(self) -> str:
        """The name of its arm: that of an equal arm, if there is one."""
        equal = {(1.0, 0): "real-longer", (1.0, 1): "real+synthetic"}
        return equal.get((self.real, self.synthetic), f"real-{100 * self.real:g}pct+{self.synthetic}x")

    @property
    def meaning(self) -> str:
        made = f" and {self.synthetic} samples for the mask of each" if self.synthetic else " alone"
        return f"{100 * self.real:g} % of the real training patients{made}, twice the iterations"


def define(
    names: Sequence[ArmName], seeds: int, cases: Sequence[tuple[str, str]], doses: Sequence[Dose] = ()
) -> list[Arm]:
    """Every arm with every seed. cases: (item id, patient). Raises `UserError` for too few cases."""
    if len(cases) < LEAST_CASES:
        raise UserError(
            f"metric downstream: {len(cases)} training cases, expected at least {LEAST_CASES}: give more training cases"
        )
    found = []
    for name in names:
        for seed in range(seeds):
            found.append(_arm(name, cases, seed))
    for dose in doses:
        if dose.arm not in names:
            found += [_dosed(dose, cases, seed) for seed in range(seeds)]
    return found


def _dosed(dose: Dose, cases: Sequence[tuple[str, str]], seed: int) -> Arm:
    kept = chosen(cases, dose.real)
    real = tuple(item for item, _ in cases if item in kept)
    if len(real) < LEAST_CASES:
        raise UserError(
            f"metric downstream: dose {dose.real:g} of {len(cases)} training cases is {len(real)}, expected at least "
            f"{LEAST_CASES}: set downstream.doses to larger fractions, or give more training cases"
        )
    draws = range(1, dose.synthetic + 1)
    made = tuple(Synthetic(case=item, draw=draw) for draw in draws for item in real)
    return Arm(name=dose.arm, real=real, synthetic=made, length=LONGER, seed=seed)


def _arm(name: ArmName, cases: Sequence[tuple[str, str]], seed: int) -> Arm:
    every = tuple(item for item, _ in cases)
    made = tuple(Synthetic(case=item, draw=1) for item in every)
    if name == "synthetic":
        return Arm(name=name, synthetic=made, seed=seed)
    if name == "real+synthetic":
        return Arm(name=name, real=every, synthetic=made, length=LONGER, seed=seed)
    if name == "mixed":
        kept = half(cases)
        others = tuple(one for one in made if one.case not in kept)
        return Arm(name=name, real=tuple(item for item in every if item in kept), synthetic=others, seed=seed)
    if name == "real-longer":
        return Arm(name=name, real=every, length=LONGER, seed=seed)
    return Arm(name=name, real=every, seed=seed + (OTHER_SEED if name == "real-other-seed" else 0))


def half(cases: Sequence[tuple[str, str]]) -> set[str]:
    """The cases of about one half of the patients, drawn once for a set of cases."""
    return chosen(cases, 0.5)


def chosen(cases: Sequence[tuple[str, str]], fraction: float) -> set[str]:
    """The cases of a fraction of the patients, at least one. Smaller fractions are part of larger ones."""
    patients = sorted({patient for _, patient in cases})
    order = numpy_rng(0, "downstream", "patients", *patients).permutation(len(patients))
    kept = {patients[place] for place in order[: max(1, round(fraction * len(patients)))]}
    return {item for item, patient in cases if patient in kept}
