"""Which slices are taken, how they lie, and that reading ahead changes nothing."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
import torch

from medlord_bench.plugins.extractors import slices
from medlord_bench.plugins.extractors.slices import View, ahead, chunks


@pytest.mark.parametrize(("depth", "count"), [(10, 3), (64, 32), (48, 32), (5, 9), (1, 1)])
def test_slices_are_spread_evenly_and_symmetrically(depth: int, count: int) -> None:
    found = slices.slice_indices(depth, count)
    assert len(found) == min(depth, count) == len(set(found))
    assert abs(found[0] - (depth - 1 - found[-1])) <= 1


@pytest.mark.parametrize("depth", [1, 7, 128, 131])
def test_without_a_count_every_slice_is_taken(depth: int) -> None:
    assert slices.slice_indices(depth, None) == list(range(depth))


@pytest.mark.parametrize(
    ("depth", "ratio", "start", "stop"), [(10, 0.4, 3, 7), (133, 0.4, 39, 93), (512, 0.5, 128, 384)]
)
def test_the_middle_is_cut_as_the_maisi_script_cuts_it(depth: int, ratio: float, start: int, stop: int) -> None:
    assert slices.slice_indices(depth, None, ratio) == list(range(start, stop))
    few = slices.slice_indices(depth, 3, ratio)
    assert len(few) == 3
    assert start <= few[0] < few[1] < few[2] < stop


def coded() -> np.ndarray:
    """100 x + 10 y + z: grows to the patient's right, front and head."""
    x, y, z = np.meshgrid(np.arange(4), np.arange(5), np.arange(6), indexing="ij")
    return (100 * x + 10 * y + z).astype(np.int16)


def test_slices_stand_upright() -> None:
    axial, coronal, sagittal = (slices.upright(coded(), plane, [2])[0] for plane in slices.PLANES)
    assert axial.shape == (5, 4)
    assert axial[0, 0] == 100 * 3 + 10 * 4 + 2  # top left: right front
    assert coronal[0, 0] == 100 * 3 + 10 * 2 + 5  # top left: right, head
    assert sagittal[0, 0] == 100 * 2 + 10 * 4 + 5  # top left: front, head
    assert sagittal[-1, -1] == 200  # bottom right: back, feet


def test_stored_slices_are_those_of_the_array() -> None:
    hu = coded()
    expected = {"axial": hu[:, :, 2], "coronal": hu[:, 2, :], "sagittal": hu[2, :, :]}
    for plane, values in expected.items():
        np.testing.assert_array_equal(slices.as_stored(hu, plane, [2])[0].numpy(), values)


def test_a_range_of_its_own_spans_0_to_1_over_all_chunks_after_clipping() -> None:
    hu = np.random.default_rng(0).integers(-3000, 400, (9, 8, 7)).astype(np.int16)
    view = View((-1000, 1000), None, None, own_range=True, upright=False)
    grey = torch.cat(list(chunks(hu, "axial", view, 2, "cpu")))[:, 0].numpy()
    clipped = np.moveaxis(hu, 2, 0).clip(-1000, 1000).astype(np.float64)
    np.testing.assert_allclose(grey, (clipped + 1000) / (clipped.max() + 1000), atol=1e-6)


@pytest.mark.parametrize("value", [-2000, 0, 2000])
def test_a_stack_of_one_value_becomes_zero_not_nan(value: int) -> None:
    view = View((-1000, 1000), None, None, own_range=True)
    grey = torch.cat(list(chunks(np.full((4, 4, 4), value, np.int16), "axial", view, 3, "cpu")))
    assert (grey == 0).all()


def test_reading_ahead_keeps_the_order_and_reads_one_item_in_advance() -> None:
    read: list[int] = []
    second = threading.Event()

    def items() -> Iterator[int]:
        for item in range(4):
            read.append(item)
            if item == 1:
                second.set()
            yield item

    made = ahead(items())
    assert next(made) == 0
    assert second.wait(10)  # read while we hold the first
    assert read == [0, 1]  # and no further, so that memory holds two
    assert list(made) == [1, 2, 3]


def test_an_error_while_reading_ahead_comes_in_its_turn() -> None:
    def items() -> Iterator[int]:
        yield 0
        raise OSError("unreadable")

    made = ahead(items())
    assert next(made) == 0
    with pytest.raises(OSError, match="unreadable"):
        next(made)


def test_leaving_early_ends_the_reader() -> None:
    before = threading.active_count()
    made = ahead(iter(range(5)))
    next(made)
    made.close()  # type: ignore[attr-defined]
    assert threading.active_count() == before
