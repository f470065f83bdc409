"""Predictions to scores: a missing prediction counts, and a note says what a reader must know."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medlord_bench.contracts import DataProtocol, Grid, Item, LabelMap, MetricInputs, Run, Source
from medlord_bench.contracts.arms import Prediction
from medlord_bench.contracts.results import CaseRow, Score
from medlord_bench.metrics.downstream.metric import NEEDS, Downstream, DownstreamConfig
from medlord_bench.volumes.arrays import save_state
from medlord_bench.volumes.io import write_labels

NAMES = {1: "aorta", 2: "lungs"}
PATIENTS = 8
DATA = DataProtocol(
    name="toy",
    grid=Grid(shape=(12, 12, 12)),
    fit="crop-pad",
    split="by hand",
    split_sha256="0" * 64,
    counts={"train": 4, "val": 0, "test": PATIENTS},
    masks="dataset",
    adherence_regions=("aorta", "lungs"),
)


def mask(patient: int, worse: int = 0) -> np.ndarray:
    """Two boxes whose size depends on the patient; `worse` voxels of the first are missing."""
    made = np.zeros((12, 12, 12), np.uint8)
    made[1:5, 1:5, 1 : 5 + patient % 3] = 1
    made[1 : 1 + worse, 1:5] = 0
    made[6:10, 6:10, 6:10] = 2
    return made


def predicted(
    folder: Path, run: Run, metric: Downstream, arm: str, made: Mapping[int, np.ndarray | None], seed: int = 0
) -> list[Item]:
    """Predictions of one arm through `extract`; None where there is none."""
    items = []
    for patient, labels in made.items():
        truth = folder / f"mask-{patient}.npy"
        np.save(truth, mask(patient))
        item = Prediction(arm, seed, "test", f"c{patient}").item
        common: dict[str, Any] = {"patient": f"p{patient}", "spacing": (2.0, 2.0, 2.0), "reference": truth}
        common |= {"reference_names": NAMES, "source": Source.PREDICTIONS}
        if labels is None:
            items.append(Item(item, path=None, failed="killed", **common))
            continue
        write_labels(folder / f"{item}.nii.gz", LabelMap(labels, np.diag([2.0, 2.0, 2.0, 1.0]), NAMES))
        (state,) = metric.extract([Item(item, path=folder / f"{item}.nii.gz", names=NAMES, **common)], run)
        save_state(folder / f"{item}.safetensors", state)
        items.append(Item(item, path=folder / f"{item}.safetensors", **common))
    return items


@pytest.fixture
def metric() -> Downstream:
    return Downstream(DownstreamConfig(trainer="tiny").for_data(DATA))


def reduce(
    metric: Downstream, run: Run, own: list[Item], real: list[Item], data: DataProtocol = DATA, **facts: Any
) -> tuple[dict[tuple[str, str], Score], list[CaseRow]]:
    trained = {
        "synthetic.seed0": {"cases": 4, "iterations": 300, **facts},
        "real.seed0": {"cases": 4, "iterations": 300},
    }
    inputs = MetricInputs("g", "toy", data, dict(zip(NEEDS, (own, real), strict=True)), "downstream-1", trained)
    made = list(metric.reduce(inputs, run))
    scores = {(one.metric, one.region): one for one in made if isinstance(one, Score)}
    return scores, [one for one in made if isinstance(one, CaseRow)]


def test_a_prediction_that_is_missing_counts_as_zero(metric: Downstream, run: Run, tmp_path: Path) -> None:
    good = {patient: mask(patient) for patient in range(PATIENTS)}
    real = predicted(tmp_path, run, metric, "real", good)
    own = predicted(tmp_path, run, metric, "synthetic", {**good, 0: None, 1: None})
    scores, rows = reduce(metric, run, own, real)
    score = scores["dt_dsc_synthetic", "aorta"]
    assert (score.n, score.failed, score.value) == (PATIENTS, 2, 1.0)
    assert score.quartiles is not None and score.quartiles[0] == pytest.approx(0.75)
    assert "2 without a prediction, counted as DSC 0" in score.note_text
    assert score.warning == "2 of 8 predictions lack this region"
    zeros = [row for row in rows if row.metric == "dt_dsc_synthetic" and row.value == 0]
    assert {(row.case, row.region) for row in zeros} == {(c, r) for c in ("c0", "c1") for r in ("aorta", "lungs")}
    assert scores["dt_dsc_real", ""].value == 1.0 and scores["dt_gain_synthetic", ""].n == PATIENTS


def test_a_worse_arm_is_called_worse_and_the_note_says_what_is_compared(
    metric: Downstream, run: Run, tmp_path: Path
) -> None:
    real = predicted(tmp_path, run, metric, "real", {patient: mask(patient) for patient in range(PATIENTS)})
    own = predicted(tmp_path, run, metric, "synthetic", {patient: mask(patient, 2) for patient in range(PATIENTS)})
    scores, _ = reduce(metric, run, own, real)
    gain = scores["dt_gain_synthetic", "aorta"]
    assert gain.value == pytest.approx(2 / 3 - 1) and gain.p is not None and gain.p < 0.05
    assert "supported: a segmenter trained on syn is worse in aorta than one trained on real" in gain.note_text
    assert "equivalent in lungs" in scores["dt_gain_synthetic", "lungs"].note_text
    assert "n = 1 for the generator" in gain.note_text
    assert "n = 1" not in scores["dt_dsc_real", ""].note_text
    assert scores["dt_dsc_real", ""].better == "" and gain.p_of.startswith("Wilcoxon signed-rank, Holm over 2 tests")


@pytest.mark.parametrize(
    ("change", "told"),
    [
        ({}, "labels by the data set, as given"),
        ({"synthetic": True}, "labels by the program that generates the phantom"),
        ({"masks": "totalsegmentator"}, "DSC is agreement with totalsegmentator (circular)"),
    ],
)
def test_who_made_the_labels_is_told(
    change: dict[str, Any], told: str, metric: Downstream, run: Run, tmp_path: Path
) -> None:
    real = predicted(tmp_path, run, metric, "real", {patient: mask(patient) for patient in range(2)})
    own = predicted(tmp_path, run, metric, "synthetic", {patient: mask(patient) for patient in range(2)})
    scores, _ = reduce(metric, run, own, real, DATA.model_copy(update=change))
    assert told in scores["dt_dsc_synthetic", ""].note_text and told in scores["dt_dsc_real", "aorta"].note_text


def test_what_a_training_lacked_is_told(metric: Downstream, run: Run, tmp_path: Path) -> None:
    real = predicted(tmp_path, run, metric, "real", {patient: mask(patient) for patient in range(2)})
    own = predicted(tmp_path, run, metric, "synthetic", {patient: mask(patient) for patient in range(2)})
    scores, _ = reduce(metric, run, own, real, absent_regions=["aorta"], failed_samples={"a": "NaN"})
    text = scores["dt_dsc_synthetic", ""].note_text
    assert "no training case contains aorta: it cannot be learned" in text
    assert "1 generated training cases failed and are missing" in text
    assert "4 cases, 300 iterations, 1 seed" in text


def test_without_conditional_samples_it_is_not_run(metric: Downstream, run: Run) -> None:
    scores = list(metric.reduce(MetricInputs("g", "toy", DATA, {}, "downstream-1"), run))
    assert len(scores) == len(metric.quantities)
    assert {(one.status, one.reason) for one in scores if isinstance(one, Score)} == {
        ("not_run", "the generator has no conditional samples")
    }


def test_a_dose_response_says_what_samples_add_to_the_same_real_cases(run: Run, tmp_path: Path) -> None:
    metric = Downstream(DownstreamConfig(trainer="tiny", doses=(0.5, 1), multiples=(0, 1)).for_data(DATA))
    everyone = range(PATIENTS)
    worse = {"real": 1, "real-longer": 1, "real-50pct+0x": 3}
    better = {"synthetic": 2, "real+synthetic": 1, "real-50pct+1x": 1}
    real, own = (
        [
            item
            for arm, lost in arms.items()
            for item in predicted(tmp_path, run, metric, arm, {p: mask(p, lost) for p in everyone})
        ]
        for arms in (worse, better)
    )
    scores, rows = reduce(metric, run, own, real)
    half, whole = "50 % of real patients", "100 % of real patients"
    # Of the aorta, k of 4 layers are missing: DSC 2 (4 - k) / (8 - k); the lungs are whole.
    dsc = {lost: (2 * (4 - lost) / (8 - lost) + 1) / 2 for lost in (1, 3)}
    values = {name: scores[name].value for name in scores if name[0] in ("dt_dose_0x", "dt_dose_1x")}
    assert values == pytest.approx(
        {
            ("dt_dose_0x", half): dsc[3],
            ("dt_dose_0x", whole): dsc[1],
            ("dt_dose_1x", half): dsc[1],
            ("dt_dose_1x", whole): dsc[1],
        }
    )
    gains = {region: scores["dt_dose_gain_1x", region] for region in (half, whole)}
    assert (
        gains[half].value == pytest.approx(dsc[1] - dsc[3]) and "is better than one trained on" in gains[half].note_text
    )
    assert "equivalent" in gains[whole].note_text and gains[half].p_of.endswith("Holm over 2 tests")
    assert "trained on all real training cases, also where" in scores["dt_dose_1x", half].note_text
    assert len([row for row in rows if row.metric == "dt_dose_1x" and row.region == half]) == PATIENTS
