"""HU to [-1, 1] and back without loss."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from medlord_bench.nn.intensity import scale_hu, unscale_hu


@pytest.mark.parametrize("window", [(-1000, 2000), (-1000, 1000), (-1024, 3071)])
def test_every_hu_of_the_window_comes_back(window: tuple[int, int]) -> None:
    hu = np.arange(window[0], window[1] + 1, dtype=np.int16)
    scaled = scale_hu(hu, window)
    assert (float(scaled.min()), float(scaled.max())) == (-1.0, pytest.approx(1.0, abs=1e-6))
    back, not_finite = unscale_hu(scaled, window)
    assert back.dtype == np.int16
    assert not_finite == 0
    np.testing.assert_array_equal(back, hu)


def test_values_outside_the_window_are_clipped_both_ways() -> None:
    scaled = scale_hu(np.array([-3024, 32767], dtype=np.int16), (-1000, 2000))
    torch.testing.assert_close(scaled, torch.tensor([-1.0, 1.0]))
    assert unscale_hu(torch.tensor([-1.7, 1.2]), (-1000, 2000))[0].tolist() == [-1000, 2000]


def test_values_that_are_not_finite_are_counted() -> None:
    values = torch.tensor([0.0, float("nan"), float("inf"), float("-inf")])
    hu, not_finite = unscale_hu(values, (-1000, 2000))
    assert not_finite == 3
    assert hu.tolist() == [500, -1000, -1000, -1000]
    assert torch.isnan(values[1])  # the caller's tensor is left as it was
