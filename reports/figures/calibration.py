"""What the bench was tested on: expectation and observation of every finding."""

from __future__ import annotations

import math
import re
import textwrap
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from medlord_bench.contracts.calibration import Finding, Observed, observed
from medlord_bench.drawing.files import Drawn, Value
from medlord_bench.drawing.style import BAND, COLOURS, GREY, SMALL, digits, plain, sheet, shorten
from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults

if TYPE_CHECKING:
    from matplotlib.axes import Axes

PAGE = 44  # findings on a page
ROW_MM, LINES_OF = 3.5, {1: 1.0, 2: 1.5}  # of a row; rows that so many lines of text take
COLUMNS = ("fault", "metric", "expected", "seen", "status", "value", "low", "high", "limit")
LOOKS = {"ok": ("o", COLOURS[0]), "failed": ("X", COLOURS[5]), "not_checked": ("s", GREY)}
# Places in the figure, in mm from the left: texts, and the axis of the values.
FAULT, METRIC, EXPECTED, AXIS, NUMBERS, WIDTH = 1.0, 31.0, 73.0, 121.0, 151.0, 180.0
NUMBERS_MOST = 28  # letters of the numbers beside the axis
TEXT_MM = 1.06  # of a letter of small text


def calibration(run: RunResults, options: ReportOptions) -> Iterator[Drawn]:
    """Pages of findings in their order; nothing in a store that was never calibrated."""
    found = run.calibration.findings if run.calibration else ()
    for start in range(0, len(found), PAGE):
        page = found[start : start + PAGE]
        yield _page("calibration" if start == 0 else f"calibration-{start // PAGE + 1}", page)


def _page(name: str, found: Sequence[Finding]) -> Drawn:
    lines = [max(len(_wrapped(*cell)) for cell in _cells(one)) for one in found]
    places = [sum(LINES_OF[count] for count in lines[:row]) + LINES_OF[lines[row]] / 2 for row in range(len(found))]
    total = sum(LINES_OF[count] for count in lines)
    height = 13 + ROW_MM * total
    figure = sheet(WIDTH, height, constrained=False)
    axes = figure.add_axes((0, 8 / height, 1, 1 - 8 / height))
    axes.set(xlim=(0, WIDTH), ylim=(total, -1.4))
    axes.set_axis_off()
    for x, text in ((FAULT, "fault"), (METRIC, "number"), (EXPECTED, "expected"), (AXIS, "observed")):
        axes.text(x, -0.7, text, va="center", fontweight="bold", fontsize=SMALL)
    for row, (one, place) in enumerate(zip(found, places, strict=True)):
        again = row > 0 and found[row - 1].fault == one.fault
        if not again:
            axes.plot([FAULT, WIDTH - 1], [place - LINES_OF[lines[row]] / 2] * 2, color=BAND, lw=0.5)
        for x, cell in zip((FAULT, METRIC, EXPECTED), _cells(one), strict=True):
            if x != FAULT or not again:
                axes.text(x, place, "\n".join(_wrapped(*cell)), va="center", fontsize=SMALL, linespacing=1.0)
        _observation(axes, place, one)
    figure.text(
        FAULT / WIDTH, 1.2 / height,
        "Circle: as expected. Cross: not. Square: not checked. Several values of a row are joined in their order. Bar: "
        "interval. Grey: what was expected, or a tick at the floor or ceiling.\nEach row has its own scale.",
        fontsize=SMALL, color=GREY, va="bottom",
    )  # fmt: skip
    return Drawn(name, figure, COLUMNS, [row for one in found for row in _rows(one)])


def _cells(one: Finding) -> list[tuple[str, float]]:
    """Texts with the width of their columns, in mm."""
    widths = METRIC - FAULT, EXPECTED - METRIC, AXIS - EXPECTED
    return list(zip((one.fault, plain(one.metric), one.expected), widths, strict=True))


def _wrapped(text: str, width: float) -> list[str]:
    """One line, or two."""
    most = int((width - 1.5) / TEXT_MM)
    lines = textwrap.wrap(text, most) or [""]
    return lines if len(lines) <= 2 else [lines[0], shorten(" ".join(lines[1:]), most)]


def _rows(one: Finding) -> Iterator[list[Value]]:
    told: list[Value] = [one.fault, one.metric, one.expected, one.seen, one.status]
    numbers: Sequence[Sequence[Value]] = observed(one.seen) or [(None,) * 4]
    for number in numbers:
        yield [*told, *number]


def _observation(axes: Axes, row: float, one: Finding) -> None:
    marker, colour = LOOKS[one.status]
    numbers = [number for number in observed(one.seen) if math.isfinite(number.value)]
    if not numbers or one.status == "not_checked":
        axes.plot([AXIS], [row], marker, color=colour, ms=3)
        axes.text(AXIS + 3, row, shorten(one.seen, int((WIDTH - AXIS - 4) / TEXT_MM)), va="center", fontsize=SMALL)
        return
    expected = _expected(one.expected)
    place = _scale(numbers, expected)
    if expected is not None:
        low, high = (place(bound) for bound in expected)
        axes.fill_between([low, max(high, low + 0.5)], row - 0.36, row + 0.36, color=BAND, lw=0)
    xs = [place(number.value) for number in numbers]
    axes.plot(xs, [row] * len(xs), color=colour, lw=0.3)
    for number, x in zip(numbers, xs, strict=True):
        if number.low is not None and number.high is not None:
            axes.plot([place(number.low), place(number.high)], [row, row], color=colour, lw=0.9)
        if number.limit is not None:
            axes.plot([place(number.limit)] * 2, [row - 0.36, row + 0.36], color=GREY, lw=0.8)
        axes.plot([x], [row], marker, color=colour, ms=3, mew=0)
    percent = "%" in one.expected and "%" in one.seen
    texts = [f"{100 * number.value:.3g} %" if percent else digits(number.value) for number in numbers]
    told = " → ".join(texts)
    told = told if len(told) <= NUMBERS_MOST else f"{texts[0]} → … → {texts[-1]}"
    axes.text(NUMBERS, row, told, va="center", fontsize=SMALL - 0.5)


def _scale(numbers: Sequence[Observed], expected: tuple[float, float] | None) -> _Scale:
    values = [one for number in numbers for one in number if one is not None and math.isfinite(one)]
    values += [one for one in expected or () if math.isfinite(one)]
    return _Scale(min(values), max(values))


class _Scale:
    """A value's place on the axis, in mm; beyond its ends at the end."""

    def __init__(self, low: float, high: float) -> None:
        self.low, self.high = (low, high) if high > low else (low - 1, high + 1)

    def __call__(self, value: float) -> float:
        share = (value - self.low) / (self.high - self.low)
        return AXIS + (NUMBERS - 4 - AXIS) * min(max(share, 0.0), 1.0)


def _expected(text: str) -> tuple[float, float] | None:
    """The range that an expectation states in numbers, if it does."""
    if text.startswith("p ") or "p-value" in text:
        return None
    number = r"(\d+(?:\.\d+)?)%?"
    unit = 0.01 if "%" in text else 1.0
    for pattern, make in (
        (rf"{number} to {number}", lambda found: (float(found[1]), float(found[2]))),
        (rf"^(?:.* in )?(?:at least|above) {number}", lambda found: (float(found[1]), math.inf)),
        (rf"^(?:at most|below) {number}", lambda found: (-math.inf, float(found[1]))),
        (rf"nominal {number}", lambda found: (float(found[1]), float(found[1]))),
        (rf"^(?:covers .* in )?{number}(?:$|,)", lambda found: (float(found[1]), float(found[1]))),
    ):
        found = re.search(pattern, text)
        if found:
            low, high = make(found)
            return low * unit, high * unit
    return None
