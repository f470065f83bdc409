"""Patterns of a decoder: closed forms."""

from __future__ import annotations

import numpy as np
import pytest

from medlord_bench.metrics.artefacts.lattice import patterns

SHAPE = (40, 32, 24)


def checkerboard(side: int) -> np.ndarray:
    return 1 - 2 * (sum(index // side for index in np.indices(SHAPE)) % 2)


def test_a_checkerboard_has_its_amplitude() -> None:
    found = patterns((40 + 27 * checkerboard(1)).astype(np.int16))
    assert found[2] == pytest.approx(27 + 27 / 27, rel=0.05)  # the mean of 27 voxels is -1/27 of the middle one
    assert found[4] < 2 and found[8] < 2  # borders only


def test_a_coarser_checkerboard_is_of_period_4() -> None:
    found = patterns((40 + 30 * checkerboard(2)).astype(np.int16))
    assert found[4] > 20 and found[2] < 2 and found[8] < 2


def test_noise_has_hardly_a_pattern() -> None:
    found = patterns(np.random.default_rng(0).normal(40, 20, (64, 64, 64)).astype(np.int16))
    assert found[2] < 0.5 and found[8] < 2


@pytest.mark.parametrize("hu", [np.full((16, 16, 16), -1000), np.full((7, 16, 16), 40), np.full((8, 8, 8), 40)])
def test_no_tissue_or_too_few_voxels(hu: np.ndarray) -> None:
    assert all(np.isnan(value) for value in patterns(hu.astype(np.int16)).values())
