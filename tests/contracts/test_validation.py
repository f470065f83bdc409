"""Bounds of the shared field types, and messages that stay one short line whatever was given."""

from __future__ import annotations

from typing import Any

import pytest

from medlord_bench.contracts import FrozenConfig, HUWindow, LabelNames, Shape, Spacing
from medlord_bench.contracts.validation import LONGEST, validate
from medlord_bench.errors import UserError


class Inner(FrozenConfig):
    rate: float = 0.5


class Outer(FrozenConfig):
    places: tuple[Inner, ...] | None = None


class Config(FrozenConfig):
    shape: Shape = (64, 64, 48)
    spacing: Spacing | None = None
    hu_window: HUWindow = (-1000, 1000)
    rate: float = 0.5
    count: int = 1
    name: str = ""
    flag: bool = False
    names: LabelNames = {}
    inner: Inner = Inner()


@pytest.mark.parametrize(
    "given",
    [
        {"shape": [1, 4096, 2]},
        {"spacing": [0.05, 20, 1]},
        {"hu_window": [-32768, 32767]},
        {"hu_window": [-1, 0]},
        {"flag": True},
    ],
)
def test_bounds_are_inclusive(given: dict[str, Any]) -> None:
    (name,) = given
    found = getattr(validate(Config, given, "f"), name)
    assert (list(found) if isinstance(found, tuple) else found) == given[name]


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ({"shape": [0, 64, 64]}, r"f: field 'shape.0': .*greater than or equal to 1, got 0"),
        ({"shape": [64, -1, 64]}, "field 'shape.1'"),
        ({"shape": [64, 64, 100_000]}, "field 'shape.2': .*less than or equal to 4096, got 100000"),
        ({"shape": [64, 64]}, "field 'shape.2': Field required"),
        ({"spacing": [0, 1, 1]}, "field 'spacing.0'"),
        ({"spacing": [1, 1e-6, 1]}, "field 'spacing.1'"),
        ({"spacing": [1, 1, 21]}, "field 'spacing.2'"),
        ({"spacing": [1, 1, float("nan")]}, "field 'spacing.2': .*(finite|greater)"),
        ({"hu_window": [-99_999, 0]}, "field 'hu_window.0'"),
        ({"hu_window": [0, 40_000]}, "field 'hu_window.1'"),
        ({"hu_window": [5, 5]}, "field 'hu_window': the first value must be below the second"),
        ({"hu_window": [0.5, 2]}, "field 'hu_window.0'"),
        ({"rate": float("inf")}, "field 'rate': Input should be a finite number, got inf"),
        ({"rate": float("nan")}, "field 'rate': Input should be a finite number, got nan"),
        ({"count": "9" * 5000}, "field 'count'"),
        ({"count": True}, "field 'count': expected a number, got true or false"),
        ({"shape": [True, 2, 3]}, "field 'shape.0': expected a number, got true or false"),
        ({"names": {True: "aorta"}}, "field 'names.True': expected a number"),
        ({"names": {-1: "aorta"}}, "field 'names': label value -1; expected values from 1 up"),
        ({"inner": {"rate": False}}, "field 'inner.rate': expected a number"),
        ({"name": [10**5000]}, "field 'name'.*, got a list of thousands of digits"),
        ({"name": list(range(10**5))}, "field 'name'"),
    ],
)
def test_a_value_out_of_bounds_is_one_short_line(given: dict[str, Any], words: str) -> None:
    with pytest.raises(UserError, match=words) as error:
        validate(Config, given, "f")
    assert "\n" not in str(error.value) and len(str(error.value)) < LONGEST + 200


def test_a_wrong_field_in_a_list_of_models_has_the_nearest_name() -> None:
    with pytest.raises(UserError, match=r"unknown field 'places.1.rat'; did you mean 'places.1.rate'\?"):
        validate(Outer, {"places": [{}, {"rat": 1}]}, "f")


def test_background_needs_no_name() -> None:
    assert validate(Config, {"names": {0: "background", 2: "aorta"}}, "f").names == {2: "aorta"}
