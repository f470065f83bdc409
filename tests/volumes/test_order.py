"""The copy in blocks is the copy."""

from __future__ import annotations

import numpy as np
import pytest

from medlord_bench.volumes.order import BLOCK, in_c_order


@pytest.mark.parametrize("shape", [(1, 1, 1), (3, 200, 5), BLOCK, (65, 33, 17), (130, 40, 50)])
@pytest.mark.parametrize("steps", [(1, 1, 1), (-1, -1, 1), (1, 1, -1)])
def test_it_has_the_same_values_in_c_order(shape: tuple[int, int, int], steps: tuple[int, int, int]) -> None:
    values = np.asfortranarray(np.arange(np.prod(shape), dtype=np.int32).reshape(shape))
    turned = values[tuple(slice(None, None, step) for step in steps)].transpose(1, 0, 2)
    found = in_c_order(turned)
    assert found.flags.c_contiguous and found.dtype == np.int32
    assert np.array_equal(found, turned)


def test_an_array_in_c_order_is_not_copied() -> None:
    values = np.zeros((4, 5, 6), np.int16)
    assert in_c_order(values) is values
