"""Doubts about real images and samples: padding of the grid, values that are no CT."""

from __future__ import annotations

import pytest

from medlord_bench.contracts import DataProtocol, Grid
from medlord_bench.engine.doubts import copies_doubt, padded, padding_doubt, values_doubt


def protocol(fit: str = "crop-pad") -> DataProtocol:
    return DataProtocol(
        name="x", grid=Grid(shape=(20, 10, 8)), fit=fit, split="", split_sha256="", counts={}, masks="none"
    )  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("shape", "share"),
    [((20, 10, 8), 0), ((40, 40, 40), 0), ((10, 10, 8), 0.5), ((10, 5, 80), 0.75), ((20, 10, 1), 0.875)],
)
def test_the_part_of_the_grid_that_an_image_does_not_fill(shape: tuple[int, int, int], share: float) -> None:
    assert padded(shape, protocol()) == pytest.approx(share)
    assert padded(shape, protocol("resize")) == 0


def test_padding_above_half_is_one_line_with_the_worst() -> None:
    shapes = {"a": (20, 10, 8), "b": (20, 10, 2), "c": (9, 10, 8)}
    said = padding_doubt(shapes, protocol())
    assert said is not None
    assert "2 of 3 images" in said
    assert "b by 75 % (20x10x2 voxels on a grid of 20x10x8)" in said
    assert padding_doubt({"a": (20, 10, 8)}, protocol()) is None


def test_values_name_the_first_volume_and_count_the_rest() -> None:
    assert values_doubt({}, 5) is None
    said = values_doubt({"s1": "values are in 0..9", "s4": "other"}, 5)
    assert said is not None
    assert said.startswith("2 of 5 volumes are not plausible CT in HU, e.g. s1: values are in 0..9")


def test_a_copy_in_another_split_is_named_and_one_in_the_same_is_not() -> None:
    first = list(range(-256, 256))
    outlines = {"a": first, "b": [value + 2 for value in first], "c": first[::-1], "d": ()}
    said = copies_doubt(outlines, {"a": "train", "b": "test", "c": "test", "d": "val"})
    assert said is not None and "nearly the same image in two splits: a (train) and b (test);" in said
    assert copies_doubt(outlines, {"a": "train", "b": "train", "c": "test", "d": "val"}) is None
