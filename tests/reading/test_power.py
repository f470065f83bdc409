"""`reading plan`: no power without an effect, more with more volumes, and the arithmetic of minutes."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from click.testing import CliRunner
from scipy.stats import binom, binomtest, norm

from medlord_bench.cli.reading import reading
from medlord_bench.reading.power import SIZES, Assumptions, Design, needed, power, table

FEW = Assumptions(simulations=300)


@pytest.mark.parametrize("design", ["ratings", "pairs"])
@pytest.mark.parametrize("readers", [1, 3])
def test_without_an_effect_five_in_a_hundred_studies_find_one(design: Design, readers: int) -> None:
    found = power(design, 0.5, 20, Assumptions(readers=readers, simulations=600))
    assert 0.01 <= found <= 0.08


@pytest.mark.parametrize("design", ["ratings", "pairs"])
def test_power_grows_with_volumes_readers_and_effect(design: Design) -> None:
    base = power(design, 0.7, 15, FEW)
    assert base < power(design, 0.7, 40, FEW) and base < power(design, 0.85, 15, FEW)
    assert base < power(design, 0.7, 15, Assumptions(readers=4, simulations=300))
    assert base > power(design, 0.7, 15, Assumptions(models=5, simulations=300))


@pytest.mark.parametrize("n", [20, 60])
def test_power_of_independent_choices_is_that_of_the_binomial_test(n: int) -> None:
    found = [count for count in range(n + 1) if binomtest(count, n).pvalue <= 0.05]
    expected = binom.pmf(found, n, 0.7).sum()
    assert power("pairs", 0.7, n, Assumptions(simulations=1000)) == pytest.approx(expected, abs=0.04)


def test_power_of_ratings_is_that_of_mann_whitney() -> None:
    from scipy.stats import mannwhitneyu

    rng = np.random.default_rng(0)
    apart = norm.ppf(0.75) * np.sqrt(2)
    x, y = rng.normal(apart, 1, (600, 20)), rng.normal(0, 1, (600, 20))
    expected = np.mean(mannwhitneyu(x, y, axis=1).pvalue <= 0.05)
    assert power("ratings", 0.75, 20, Assumptions(simulations=600)) == pytest.approx(expected, abs=0.08)


def test_the_smallest_n_reaches_the_power_and_the_next_smaller_does_not() -> None:
    found = needed("pairs", 0.8, FEW)
    assert found.n is not None and found.power is not None and found.power >= 0.8
    assert power("pairs", 0.8, SIZES[SIZES.index(found.n) - 1], FEW) < 0.8
    assert needed("pairs", 0.501, FEW).n is None


def test_minutes_are_those_of_all_readers_with_repeats() -> None:
    given = Assumptions(readers=2, models=5, rating_seconds=60, pair_seconds=30)
    assert given.minutes("ratings", 10) == 2 * (60 + 6)
    assert given.minutes("pairs", 10) == 2 * 25


def test_pairs_take_at_most_half_of_the_minutes_of_ratings_at_the_default_times() -> None:
    (row,) = table([0.8], [FEW])
    assert row.ratio is not None and row.ratio <= 0.5
    slow = Assumptions(simulations=300, pair_seconds=90)
    (row,) = table([0.8], [slow])
    assert row.ratio is not None and row.ratio > 0.5
    assert row.half_at_seconds is not None and row.half_at_seconds < 90


def test_the_command_says_what_it_assumes(tmp_path: Path) -> None:
    arguments = ["plan", "--simulations", "100", "--auc", "0.8"]
    done = CliRunner().invoke(reading, [*arguments, "--readers", "1", "--rating-seconds", "90"])
    assert done.exit_code == 0 and "90 s for a volume" in done.output and "| 0.8 | 1 |" in done.output
    (tmp_path / "p.yaml").write_text(
        "sources: [{name: real, folder: a}, {name: m, folder: b}]\nn: 10\nreaders: [R1, R2]\n"
    )
    done = CliRunner().invoke(reading, [*arguments, "--protocol", str(tmp_path / "p.yaml")])
    assert "This protocol: ratings, 10 volumes of each source, 52 reader-minutes. Power at AUC 0.8:" in done.output
    done = CliRunner().invoke(reading, [*arguments, "--protocol", str(tmp_path / "p.yaml"), "--models", "2"])
    assert done.exit_code and "remove --readers and --models" in str(done.exception)


def test_a_protocol_without_real_volumes_is_refused(tmp_path: Path) -> None:
    (tmp_path / "p.yaml").write_text("sources: [{name: a, folder: a}, {name: b, folder: b}]\ndesign: pairs\n")
    done = CliRunner().invoke(reading, ["plan", "--protocol", str(tmp_path / "p.yaml")])
    assert done.exit_code and "no source is named real" in str(done.exception) and "\n" not in str(done.exception)
