"""`memorisation:masks`: samples of training masks are held against samples of test masks, which follow masks as closely."""

from __future__ import annotations

import dataclasses
from typing import Any

import numpy as np
import pytest
from scipy.stats import betabinom, mannwhitneyu

from medlord_bench.contracts import Item, Need, Run
from medlord_bench.metrics.memorisation.metric import OF_MASKS
from tests.metrics.test_memorisation import SIDE, Bench, Volumes, field, fields

OF_TRAINING, TRAIN, CONTROL, TEST = OF_MASKS


def explained(first: int, n: int, share: float) -> list[np.ndarray]:
    """What a sample shares with its patient by the mask alone: a part of the detail, beside detail of its own."""
    return [share * field(seed) + (1 - share) * field(1000 + seed) for seed in range(first, first + n)]


@pytest.fixture
def bench(run: Run) -> Bench:
    """Ten training and ten test patients."""
    made = Bench(run, (SIDE,) * 3, rule="masks")
    made.real = {TRAIN: made.items(TRAIN, fields(0, 10)), TEST: made.items(TEST, fields(200, 10))}
    return made


def named(items: list[Item], real: list[Item]) -> list[Item]:
    """With the ids and patients of the cases whose masks they follow."""
    return [dataclasses.replace(one, id=case.id, patient=case.patient) for one, case in zip(items, real, strict=False)]


def audited(bench: Bench, training: Volumes, control: Volumes) -> tuple[dict[str, Any], list[Any]]:
    items: dict[Need, list[Item]] = dict(bench.real)
    items[OF_TRAINING] = named(bench.items(OF_TRAINING, training), bench.real[TRAIN])
    items[CONTROL] = named(bench.items(CONTROL, control), bench.real[TEST])
    return bench.reduced(items)


def test_resemblance_that_the_mask_explains_is_no_copy(bench: Bench) -> None:
    scores, rows = audited(bench, explained(0, 10, 0.6), explained(200, 10, 0.6))
    rate, correlation = scores["mask_copy_rate"], scores["mask_correlation"]
    assert rate.value <= 0.2 and not rate.warning and rate.p > 0.05
    assert correlation.value == pytest.approx(correlation.floor, abs=0.1) and correlation.value > 0.3
    assert (rate.floor, rate.floor_n) == (1 / 11, 10)
    seen = [row.value for row in rows if row.case.startswith("train")]
    unseen = [row.value for row in rows if row.case.startswith("test")]
    assert correlation.p == mannwhitneyu(seen, unseen, alternative="greater").pvalue
    assert rate.value == np.mean(np.array(seen) > max(unseen))


def test_samples_that_are_the_masks_patients_are_copies(bench: Bench) -> None:
    scores, rows = audited(bench, [*fields(0, 6), *explained(6, 4, 0.4)], explained(200, 10, 0.6))
    rate = scores["mask_copy_rate"]
    assert rate.value == 0.6 and "6 of 10 samples of training masks resemble" in rate.warning
    assert rate.p == betabinom.sf(5, 10, 1, 10)
    assert min(row.value for row in rows if row.case in {f"train-{i:02d}" for i in range(6)}) > 0.99


def test_a_copy_of_another_patient_is_not_counted(bench: Bench) -> None:
    """It is what the audit of unconditional samples looks for."""
    scores, _ = audited(bench, fields(0, 10)[::-1], explained(200, 10, 0.6))
    assert scores["mask_copy_rate"].value == 0


def test_failed_samples_stay_in_n_and_are_no_copies(bench: Bench) -> None:
    scores, _ = audited(bench, [*fields(0, 5), None, *fields(6, 4)], [*explained(200, 9, 0.6), None])
    rate = scores["mask_copy_rate"]
    assert (rate.value, rate.n, rate.failed, rate.floor_n) == (0.9, 10, 1, 9)


def test_several_cases_of_a_patient_give_no_p(bench: Bench) -> None:
    train = bench.real[TRAIN]
    bench.real[TRAIN] = [*(dataclasses.replace(one, patient="one") for one in train[:2]), *train[2:]]
    scores, _ = audited(bench, fields(0, 10), explained(200, 10, 0.6))
    assert scores["mask_copy_rate"].p is None and "several cases per patient" in scores["mask_copy_rate"].note_text


def test_few_training_masks_are_enough_since_the_threshold_is_the_control_s(bench: Bench) -> None:
    bench.real[TRAIN] = bench.real[TRAIN][:3]
    scores, _ = audited(bench, fields(0, 3), explained(200, 10, 0.6))
    assert scores["mask_copy_rate"].value == 1 and scores["mask_copy_rate"].n == 3


def test_progress_counts_each_volume_once(bench: Bench) -> None:
    """Ten training and ten test volumes, and a sample for each."""
    counted = bench.counted()
    audited(bench, fields(0, 10), explained(200, 10, 0.6))
    assert counted == [[40, 40]]


@pytest.mark.parametrize(
    ("training", "control", "reason"),
    [
        ([], 10, "no conditional samples"),
        ([None, None], 10, "all 2 samples failed"),
        (fields(0, 10), 7, "7 samples of test masks; the threshold needs at least 8"),
    ],
)
def test_too_little_is_not_run_with_the_reason(bench: Bench, training: Volumes, control: int, reason: str) -> None:
    scores, rows = audited(bench, training, explained(200, control, 0.6))
    assert set(scores) == {"mask_copy_rate", "mask_correlation"} and not rows
    assert all(score.status == "not_run" and reason in score.reason for score in scores.values())
