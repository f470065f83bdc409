"""What all figures share: names, numbers, colours, files."""

from __future__ import annotations

import csv
import io

import pytest

from medlord_bench.drawing.curves import quantities, running_mean, thinned
from medlord_bench.drawing.files import safe_name, table
from medlord_bench.drawing.style import COLOURS, MM, digits, looks, sheet, shorten, style


@pytest.mark.parametrize("text", ["../../etc/passwd", "a/b\\c:d*e?f", "..", "", "x" * 300, "con\n\0", "ä"])
def test_a_file_name_is_one_file(text: str) -> None:
    name = safe_name(text)
    assert 0 < len(name) <= 80
    assert not set(name) & set("/\\:*?\n\0")
    assert name.strip(".") == name


def test_a_cell_that_a_spreadsheet_would_run_gets_an_apostrophe_and_numbers_stay() -> None:
    text = table(["a", "b", "c"], [["=1+1", -0.1, None], ['x,"y', 1e-12, 3]])
    rows = list(csv.reader(io.StringIO(text)))
    assert rows == [["a", "b", "c"], ["'=1+1", "-0.1", ""], ['x,"y', "1e-12", "3"]]


def test_long_names_lose_their_middle_and_become_one_line() -> None:
    assert shorten("short", 10) == "short"
    assert shorten("holdout:through-32x32x32", 11) == "holdo…32x32"
    assert shorten("two\nlines", 20) == "two lines"


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (0, "0"),
        (0.12345, "0.123"),
        (98.765, "98.8"),
        (1234.5, "1234"),
        (1e-5, "1.0e-05"),
        (2e6, "2.0e+06"),
        (-3.14159, "-3.14"),
    ],
)
def test_numbers_have_three_digits(value: float, text: str) -> None:
    assert digits(value) == text


def test_contestants_differ_in_more_than_colour() -> None:
    found = list(looks([str(place) for place in range(20)]).values())
    assert len({(one.colour, one.marker) for one in found}) == 20
    assert len({one.colour for one in found[:7]}) == 7
    assert "#000000" not in COLOURS, "black is for real volumes"


def test_a_sheet_has_its_size_and_leaves_nothing_behind() -> None:
    import matplotlib
    import matplotlib.pyplot as plt

    before = dict(matplotlib.rcParams)
    with style():
        figure = sheet(85, 50)
        assert matplotlib.rcParams["pdf.fonttype"] == 42
    assert dict(matplotlib.rcParams) == before
    assert plt.get_fignums() == []
    assert (figure.get_figwidth() / MM, figure.get_figheight() / MM) == pytest.approx((85, 50))


def test_a_training_record_becomes_lines() -> None:
    rows = [
        {"step": 1, "loss": 3.0, "time": 5},
        {"step": 2, "loss": float("nan")},
        {"step": 3, "loss": 1.0},
        {"step": 3, "loss": 2.0, "word": "x"},
        {"step": 3, "loss": 2.5, "split": "val"},
        {"loss": 9.0},
    ]
    assert quantities(rows) == {"loss": {"train": [(1, 3), (3, 2)], "val": [(3, 2.5)]}}
    assert running_mean([1, 2, 3, 4], 2) == [1, 1.5, 2.5, 3.5]
    points = [(float(step), 2.0 * step) for step in range(1000)]
    few = thinned(points, 100)
    assert len(few) == 100 and few[0] == (4.5, 9.0)
    assert thinned(points, 1000) == points
