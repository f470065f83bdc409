"""Descriptors of samples and real volumes: scores, floors, rows, failures, and what is missing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medlord_bench.contracts import DataProtocol, Grid, Item, Made, MetricInputs, Need, Source
from medlord_bench.contracts.results import CaseRow, Replicates, Score
from medlord_bench.descriptors.compare import Compared, DescriptorConfig
from medlord_bench.descriptors.table import Descriptor, Table, state_of
from medlord_bench.errors import UserError
from medlord_bench.volumes.arrays import save_state

NEEDS = tuple(Need(source, Made.STATES) for source in (Source.SAMPLES, Source.REAL_TRAIN, Source.REAL_TEST))
DESCRIPTORS = (Descriptor("hu", "lung"), Descriptor("hu", "bone"), Descriptor("noise", "lung"))
DATA = DataProtocol(
    name="d", grid=Grid(shape=(8, 8, 8)), fit="crop-pad", split="s", split_sha256="0", counts={}, masks="none"
)


def items(folder: Path, need: Need, rows: np.ndarray, failed: int = 0, patients: int = 0) -> list[Item]:
    made = []
    for i, row in enumerate(rows):
        path = folder / f"{need.source.value.replace(':', '-')}-{i}.safetensors"
        save_state(path, state_of(row))
        made.append(Item(path.stem, need.source, path, patient=f"p{i % patients}" if patients else None))
    made += [Item(f"failed-{i}", need.source, None, failed="constant") for i in range(failed)]
    return made


def compared(folder: Path, samples: np.ndarray, train: np.ndarray, test: np.ndarray, failed: int = 0) -> Compared:
    given = {
        need: items(folder, need, rows, failed if need is NEEDS[0] else 0)
        for need, rows in zip(NEEDS, (samples, train, test), strict=True)
    }
    inputs = MetricInputs("g@smoke", "d", DATA, given, "toy-1")
    return Compared.of("toy", DESCRIPTORS, inputs, NEEDS, DescriptorConfig(permutations=499))


def scores(one: Compared) -> dict[tuple[str, str, str], Score]:
    found = [score for score in one.scores() if isinstance(score, Score)]
    return {(score.metric, score.region, score.reference): score for score in found}


def normal(seed: int, n: int = 12) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((n, 3)) * [30, 50, 2] + [-800, 400, 20]


def test_a_change_of_one_descriptor_is_seen_measured_and_named(tmp_path: Path) -> None:
    samples = normal(1)
    samples[:, 1] += 200
    found = scores(compared(tmp_path, samples, normal(2), normal(3)))
    joint, shift = found["toy_joint", "", "train"], found["hu_shift", "bone", "train"]
    assert joint.p is not None and joint.p < 0.01 and joint.warning.startswith("1 of 3 descriptors differ")
    assert "hu bone" in joint.warning and not found["toy_joint", "", "test"].warning
    assert shift.low is not None and shift.high is not None and shift.low < 200 < shift.high
    assert shift.p is not None and shift.p < 0.01 and shift.floor is not None and abs(shift.floor) < 60
    assert found["hu_shift", "lung", "train"].p > 0.05  # type: ignore[operator]
    level = found["hu", "bone", "train"]
    assert level.value == np.median(samples[:, 1]) and "real test: median" in level.note_text


def test_equal_sets_get_no_warning_and_the_floor_is_near_zero(tmp_path: Path) -> None:
    joint = scores(compared(tmp_path, normal(1), normal(2), normal(3)))["toy_joint", "", "train"]
    assert joint.p is not None and joint.p > 0.05 and not joint.warning
    assert joint.floor is not None and abs(joint.floor) < 0.3


def test_replicates_pair_samples_and_patients(tmp_path: Path) -> None:
    made = [one for one in compared(tmp_path, normal(1), normal(2), normal(3)).scores() if isinstance(one, Replicates)]
    assert [one.reference for one in made] == ["train", "test"]
    assert len(made[0].samples) == len(made[0].real) == 12


def test_failed_samples_are_counted_and_left_out(tmp_path: Path) -> None:
    found = scores(compared(tmp_path, normal(1), normal(2), normal(3), failed=3))
    joint = found["toy_joint", "", "train"]
    assert (joint.n, joint.failed) == (15, 3) and "3 failed samples are left out" in joint.note_text


def test_a_descriptor_that_samples_lack(tmp_path: Path) -> None:
    samples, everywhere = normal(1), normal(2)
    samples[:, 0] = np.nan
    everywhere[:, 2] = np.nan
    one = compared(tmp_path, samples, everywhere, everywhere)
    found = scores(one)
    assert found["hu", "lung", "train"].reason == "none of 12 samples has it"
    assert found["hu_shift", "lung", "train"].reason.startswith("0 samples have it")
    assert found["noise_shift", "lung", "train"].reason.startswith("0 real train patients have it")
    assert not any(row.metric == "hu" and row.region == "lung" and row.generator for row in one.rows())


def test_a_descriptor_that_no_volume_has_is_left_out(tmp_path: Path) -> None:
    sets = [normal(seed) for seed in (1, 2, 3)]
    for rows in sets:
        rows[:, 2] = np.nan
    assert not [key for key in scores(compared(tmp_path, *sets)) if key[0].startswith("noise")]


@pytest.mark.parametrize(
    ("samples", "reason"),
    [
        (normal(1, 0), "the generator has no unconditional samples"),
        (normal(1, 3), "3 samples were measured; at least 6 are needed"),
    ],
)
def test_too_few_samples(tmp_path: Path, samples: np.ndarray, reason: str) -> None:
    found = scores(compared(tmp_path, samples, normal(2), normal(3)))
    assert found["toy_joint", "", "train"].reason == reason


def test_a_patient_counts_once_with_the_median_of_the_volumes(tmp_path: Path) -> None:
    rows = np.array([[1.0, np.nan, 1], [3.0, np.nan, 1], [5.0, 4.0, 1], [9.0, np.nan, 1]])
    table = Table.of(items(tmp_path, NEEDS[1], rows, patients=2), 3)
    patients, values = table.by_patient()
    assert patients == ["p0", "p1"]
    np.testing.assert_array_equal(values, [[3.0, 4.0, 1], [6.0, np.nan, 1]])


def test_rows_of_real_volumes_name_their_split(tmp_path: Path) -> None:
    rows = list(compared(tmp_path, normal(1, 6), normal(2, 6), normal(3, 6)).rows())
    assert len(rows) == 3 * 6 * 3 and all(isinstance(row, CaseRow) for row in rows)
    assert {(row.generator, row.split) for row in rows} == {("g@smoke", ""), ("", "train"), ("", "test")}


def test_a_state_of_other_descriptors_is_an_error(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=r"expected \(2,\) finite numbers"):
        Table.of(items(tmp_path, NEEDS[0], normal(1, 2)), 2)
