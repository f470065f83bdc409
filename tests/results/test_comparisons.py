"""Comparisons between contestants: who is better, what is a tie, and that pairing and Holm are what they claim."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
from scipy.stats import t, wilcoxon

from medlord_bench.contracts import registry
from medlord_bench.contracts.metrics import quantities_of
from medlord_bench.contracts.results import CaseRow, Replicates, Score
from medlord_bench.results.comparisons import Comparison, ComparisonsFile, compare, read, write

N = 12


def paired(scores: Sequence[Score], rows: Sequence[CaseRow], replicates: Sequence[Replicates]) -> ComparisonsFile:
    """With the quantities of the built-in metrics."""
    metrics = {one.name: registry.load("metrics", one.name) for one in registry.entries("metrics")}
    return compare(scores, rows, replicates, quantities_of(metrics))


def replicates(name: str, value: float, seed: int, real_seed: int = 0, patients: int = N) -> Replicates:
    """A distance whose leave-one-out values move with the real patients alike for every generator."""
    own = np.random.default_rng(seed).normal(0, 0.05, N)
    shared = np.random.default_rng(real_seed).normal(0, 1.0, patients)
    return Replicates(
        metric="fid",
        protocol="p",
        generator=name,
        dataset="d",
        reference="test",
        value=value,
        samples={f"s{i}": value + x for i, x in enumerate(own)},
        real={f"r{i}": value + x for i, x in enumerate(shared)},
    )


def rows(name: str, values: np.ndarray, region: str = "aorta") -> tuple[Score, list[CaseRow]]:
    score = Score(
        metric="dsc", protocol="p", generator=name, dataset="d", region=region, value=float(np.median(values)),
        better="higher",
    )  # fmt: skip
    found = [
        CaseRow(metric="dsc", generator=name, case=f"c{i}", region=region, value=float(x), patient=f"p{i}")
        for i, x in enumerate(values)
    ]
    return score, found


def compared(*members: Replicates) -> list[Comparison]:
    return list(paired([], [], members).comparisons)


def test_the_shared_real_set_cancels_out_of_a_difference() -> None:
    (one,) = compared(replicates("a", 10.0, 1), replicates("b", 14.0, 2))
    assert (one.first, one.second, one.difference, one.verdict) == ("a", "b", pytest.approx(-4.0), "first")
    own = [np.random.default_rng(seed).normal(0, 0.05, N) for seed in (1, 2)]
    error = np.sqrt(sum((N - 1) / N * ((x - x.mean()) ** 2).sum() for x in own))
    assert one.high is not None and (one.high + 4.0) / error == pytest.approx(t.ppf(0.975, 22), rel=0.05)


def test_a_small_difference_is_a_tie_and_says_how_many_would_tell() -> None:
    (one,) = compared(replicates("a", 10.0, 1), replicates("b", 10.05, 2))
    assert one.verdict == "tie" and one.p > 0.05
    assert one.n_needed is not None and one.n_needed > N
    assert one.detectable is not None and one.detectable > abs(one.difference)


def test_a_decided_comparison_has_no_detectable_difference() -> None:
    (one,) = compared(replicates("a", 10.0, 1), replicates("b", 14.0, 2))
    assert (one.verdict, one.n_needed, one.detectable) == ("first", None, None)


def test_p_values_are_corrected_for_all_pairs_of_the_metric() -> None:
    found = compared(replicates("a", 10.0, 1), replicates("b", 10.6, 2), replicates("c", 11.2, 3))
    ps = sorted(one.p for one in found)
    assert len(found) == 3
    holm = np.maximum.accumulate([min(1.0, p * (3 - i)) for i, p in enumerate(ps)])
    assert sorted(one.p_holm for one in found) == pytest.approx(list(holm))


def test_sets_of_different_real_patients_are_not_compared() -> None:
    found = paired([], [], [replicates("a", 10.0, 1), replicates("b", 14.0, 2, patients=N - 1)])
    assert found.comparisons == () and "different real volumes" in found.not_compared[0]


def test_planes_apart_are_left_to_their_mean() -> None:
    plane = replicates("a", 10.0, 1).model_copy(update={"region": "axial"})
    other = replicates("b", 20.0, 2).model_copy(update={"region": "axial"})
    assert paired([], [], [plane, other]).comparisons == ()


def test_cases_are_paired_by_patient() -> None:
    base = np.random.default_rng(0).uniform(0.5, 0.9, N)
    step = np.random.default_rng(1).normal(0.06, 0.01, N)
    (a, a_rows), (b, b_rows) = rows("a", base), rows("b", base + step)
    (one,) = paired([a, b], [*a_rows, *b_rows], []).comparisons
    assert one.verdict == "second" and one.n == N
    assert one.p == pytest.approx(wilcoxon(-step, zero_method="pratt").pvalue)
    walsh = [(x + y) / 2 for i, x in enumerate(-step) for y in -step[i:]]
    assert one.difference == pytest.approx(np.median(walsh))


def test_nearly_equal_adherence_is_equivalent_within_the_margin() -> None:
    base = np.random.default_rng(0).uniform(0.5, 0.9, N)
    (a, a_rows), (b, b_rows) = rows("a", base), rows("b", base + np.random.default_rng(1).normal(0, 0.005, N))
    (one,) = paired([a, b], [*a_rows, *b_rows], []).comparisons
    assert (one.verdict, one.margin) == ("equivalent", 0.05)
    assert one.p_equivalence is not None and one.p_equivalence < 0.05


def test_samples_that_only_share_their_numbers_are_not_paired() -> None:
    (a, a_rows), (b, b_rows) = rows("a", np.full(N, 0.5)), rows("b", np.full(N, 0.7))
    unowned = [row.model_copy(update={"patient": ""}) for row in (*a_rows, *b_rows)]
    found = paired([a, b], unowned, [])
    assert found.comparisons == () and found.not_compared == ()


def test_five_patients_are_too_few() -> None:
    (a, a_rows), (b, b_rows) = rows("a", np.full(5, 0.5)), rows("b", np.full(5, 0.7))
    assert "5 shared patients" in paired([a, b], [*a_rows, *b_rows], []).not_compared[0]


def test_a_missed_structure_in_both_is_no_difference() -> None:
    values = np.array([np.inf] * 4 + [3.0] * 8)
    (a, a_rows), (b, b_rows) = rows("a", values), rows("b", values + 1)
    (one,) = paired([a, b], [*a_rows, *b_rows], []).comparisons
    assert one.difference == pytest.approx(-0.5, abs=0.51) and np.isfinite(one.difference)


def test_an_infinite_difference_survives_the_file(tmp_path: Path) -> None:
    """HD95 is infinite for a structure that one generator always misses."""
    (a, a_rows), (b, b_rows) = rows("a", np.full(N, 3.0)), rows("b", np.full(N, np.inf))
    found = paired([a, b.model_copy(update={"value": 99.0})], [*a_rows, *b_rows], [])
    assert found.comparisons[0].difference == -np.inf
    write(tmp_path, found)
    assert read(tmp_path) == found


def test_what_is_written_is_read_again(tmp_path: Path) -> None:
    found = paired([], [], [replicates("a", 10.0, 1), replicates("b", 14.0, 2)])
    write(tmp_path, found)
    assert read(tmp_path) == found
    assert read(tmp_path / "elsewhere") == ComparisonsFile()
