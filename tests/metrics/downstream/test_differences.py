"""Differences between arms: known answers, against SciPy and statsmodels, and the words for them."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.stats import wilcoxon
from statsmodels.stats.multitest import multipletests

from medlord_bench.contracts import Item, Source
from medlord_bench.metrics.downstream.differences import Difference, differences
from medlord_bench.overlap.cases import Table


def table(scores: np.ndarray, seeds: int = 1) -> Table:
    """scores: (patients, regions); every seed has the same plus or minus a little that cancels."""
    items, rows = [], []
    for seed in range(seeds):
        for patient, own in enumerate(scores):
            items.append(Item(f"x.seed{seed}--test--{patient}", Source.PREDICTIONS, None, patient=f"p{patient}"))
            rows.append(own + 0.01 * (seed - (seeds - 1) / 2))
    return Table(items, np.full((len(rows), scores.shape[1]), "measured", dtype="<U20"), {"dsc": np.array(rows)})


def found(arm: np.ndarray, real: np.ndarray, seeds: int = 1) -> dict[int | None, Difference]:
    tables = {"real": table(real), "synthetic": table(arm, seeds)}
    return {one.region: one for one in differences(tables, range(real.shape[1]), {"synthetic": "real"})}


RNG = np.random.default_rng(0)
REAL = 0.8 + 0.03 * RNG.standard_normal((12, 3))


@pytest.mark.parametrize(
    ("shift", "spread", "verdict"),
    [
        (-0.1, 0.01, "worse"),
        (0.1, 0.01, "better"),
        (0.0, 0.01, "equivalent"),
        (0.0, 0.2, "undecided"),
    ],
)
def test_known_answers(shift: float, spread: float, verdict: str) -> None:
    noise = spread * np.random.default_rng(1).standard_normal(REAL.shape)
    one = found(REAL + shift + noise - noise.mean(), REAL)[None]
    assert one.verdict == verdict
    words = {"worse": "is worse than one", "better": "is better than", "equivalent": "is equivalent to one"}
    assert words.get(verdict, "undecided: ") in one.sentence("")


@pytest.mark.parametrize("base", ["real", "real-longer"])
def test_twice_the_iterations_are_told_where_the_control_lacks(base: str) -> None:
    arm = REAL + 0.1 + 0.01 * RNG.standard_normal(REAL.shape)
    tables = {"real": table(REAL), "real-longer": table(REAL), "real+synthetic": table(arm)}
    (one, *_) = differences(tables, range(3), {"real+synthetic": base})
    assert one.verdict == "better"
    assert ("for twice the iterations is better" in one.sentence("")) == one.longer == (base == "real")


def test_a_dose_has_the_iterations_of_its_base() -> None:
    tables = {"real-50pct+0x": table(REAL), "real-50pct+1x": table(REAL)}
    (one, *_) = differences(tables, range(3), {"real-50pct+1x": "real-50pct+0x"})
    assert not one.longer


def test_regions_are_tested_by_patient_and_corrected_together() -> None:
    arm = REAL + np.array([-0.1, 0.0, 0.01]) + 0.02 * RNG.standard_normal(REAL.shape)
    made = found(arm, REAL)
    plain = [wilcoxon(arm[:, place] - REAL[:, place], zero_method="pratt").pvalue for place in range(3)]
    assert [made[place].p for place in range(3)] == pytest.approx(multipletests(plain, method="holm")[1].tolist())
    assert all(made[place].tests == 3 and made[place].patients == 12 for place in range(3))
    means = (arm - REAL).mean(axis=1)
    assert made[None].p == pytest.approx(wilcoxon(means, zero_method="pratt").pvalue) and made[None].tests == 1
    walsh = [(a + b) / 2 for i, a in enumerate(means) for b in means[i:]]
    assert made[None].value == pytest.approx(np.median(walsh))


def test_seeds_are_nested_under_patients() -> None:
    """Three seeds of 12 patients are 12 units, not 36."""
    arm = REAL - 0.02 + 0.02 * RNG.standard_normal(REAL.shape)
    once, thrice = found(arm, REAL)[None], found(arm, REAL, seeds=3)[None]
    assert (thrice.patients, thrice.value, thrice.p) == (12, pytest.approx(once.value), once.p)


def test_a_difference_within_the_margin_is_equivalent_also_if_it_is_not_zero() -> None:
    one = found(REAL - 0.02 + 0.001 * RNG.standard_normal(REAL.shape), REAL)[None]
    assert one.p < 0.01 and one.verdict == "equivalent"


def test_a_difference_that_another_seed_makes_too_is_undecided() -> None:
    """A region that one of two equal trainings did not learn is no difference between training sets."""
    unlearned, half = np.array([0.8, 0.0, 0.0]), np.array([0.4, 0.0, 0.4])
    tables = {"real": table(REAL), "real-other-seed": table(REAL - unlearned), "synthetic": table(REAL - half)}
    made = {
        (one.arm, one.region): one
        for one in differences(tables, range(3), {"synthetic": "real", "real-other-seed": "real"})
    }
    assert {made["real-other-seed", place].verdict for place in (None, 0)} == {"undecided"}
    assert made["synthetic", 0].verdict == "undecided" and made["synthetic", 2].verdict == "worse"
    assert made["synthetic", 0].p < 0.01
    assert "is no larger than what another seed of the same training makes, 0.800" in made["synthetic", 0].sentence("")


def test_with_few_patients_nothing_is_supported() -> None:
    one = found(REAL[:5] - 0.3, REAL[:5])[None]
    assert one.verdict == "undecided" and one.low is None
    assert "5 patients; 1 test needs at least 6 patients to support anything" in one.sentence("")


def test_patients_that_are_too_few_for_the_correction_are_told() -> None:
    """With 8 patients no p is below 2 / 2^8, and 14 tests need 0.05 / 14."""
    patients, regions = 8, 14
    real = np.full((patients, regions), 0.8)
    made = found(real - 0.5 - 0.01 * np.arange(patients)[:, None], real)
    assert made[0].verdict == "undecided" and "14 tests need at least 10 patients to support anything" in made[
        0
    ].sentence("x")
    more = np.full((10, regions), 0.8)
    assert found(more - 0.5 - 0.01 * np.arange(10)[:, None], more)[0].verdict == "worse"
