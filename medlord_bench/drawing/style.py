"""How figures look: journal widths, small text that is never read as mathematics, colours told apart by anybody."""

from __future__ import annotations

import difflib
import textwrap
import warnings
from collections.abc import Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medlord_bench.errors import UserError

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from matplotlib.ticker import Formatter

WIDTHS_MM = (85, 122, 180)  # one column, the text of a small page (LNCS), two columns
HEIGHT_MM = 225  # most that fits a page with a caption below
MM = 1 / 25.4  # inches
TEXT, SMALL = 7.0, 5.5  # points; nothing is smaller than 5
DPI = 300
FONT = "DejaVu Sans"  # comes with matplotlib, so that figures are the same on every machine
NEAR = 5  # fonts that an error names

# Okabe and Ito's colours, in an order whose greys differ between neighbours; black is for real volumes.
COLOURS = ("#0072B2", "#E69F00", "#009E73", "#CC79A7", "#56B4E9", "#D55E00", "#F0E442")
REAL = "#000000"
GREY, BAND, FAINT = "#6b6b6b", "#dcdcdc", "#b4b4b4"
MARKERS = ("o", "s", "^", "D", "v", "P", "X", "<", ">", "h")
LINES = ("-", "--", "-.", ":")

RULES: Mapping[str, Any] = {
    "font.size": TEXT,
    "axes.titlesize": TEXT,
    "axes.labelsize": TEXT,
    "xtick.labelsize": SMALL,
    "ytick.labelsize": SMALL,
    "legend.fontsize": SMALL,
    "legend.frameon": False,
    "legend.handlelength": 1.6,
    "figure.dpi": DPI,
    "savefig.dpi": DPI,
    "text.parse_math": False,
    "text.usetex": False,
    "axes.formatter.use_mathtext": False,
    "axes.formatter.limits": (-4, 5),
    "axes.unicode_minus": True,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.linewidth": 0.5,
    "axes.titlelocation": "left",
    "axes.titlepad": 3.0,
    "axes.titley": 1.0,  # where it is anyway; looking for a place takes longer than drawing
    "axes.labelpad": 2.0,
    "xtick.major.width": 0.5,
    "ytick.major.width": 0.5,
    "xtick.major.size": 2.0,
    "ytick.major.size": 2.0,
    "xtick.major.pad": 1.5,
    "ytick.major.pad": 1.5,
    "xtick.minor.size": 1.2,
    "ytick.minor.size": 1.2,
    "lines.linewidth": 0.9,
    "lines.markersize": 3.0,
    "hatch.linewidth": 0.4,
    "patch.linewidth": 0.5,
    "pdf.fonttype": 42,  # the font itself, not drawn letters (Type 3), which journals refuse
    "ps.fonttype": 42,
    "pdf.compression": 6,
    "svg.fonttype": "path",
    "svg.hashsalt": "medlord-bench",  # ids of elements, else random
    "image.composite_image": False,
    "figure.constrained_layout.h_pad": 0.03,
    "figure.constrained_layout.w_pad": 0.03,
}
OF_THE_MACHINE = ("backend", "interactive", "toolbar", "timezone", "webagg", "tk.", "keymap", "docstring")


@contextmanager
def boxes_for_missing_letters() -> Iterator[None]:
    """matplotlib draws a box for a letter that its font lacks, of a name in another script, and does not warn."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", message="Glyph .* missing from")
        yield


@contextmanager
def style(font: str | None = None) -> Iterator[None]:
    """The style of all figures, whatever the user's own matplotlibrc says; nothing is changed afterwards.

    Raises `UserError` for a font that is not installed.
    """
    import matplotlib

    names = [FONT] if font is None else [installed(font), FONT]
    rules: dict[str, Any] = dict(matplotlib.rcParamsDefault.items())
    rules = {key: value for key, value in rules.items() if not key.startswith(OF_THE_MACHINE)}
    with boxes_for_missing_letters(), matplotlib.rc_context():
        matplotlib.rcParams.update({**rules, **RULES, "font.family": names})  # type: ignore[dict-item]
        yield


def installed(font: str) -> str:
    """The font's name as it is installed, whatever its case. Raises `UserError` that names similar ones."""
    from matplotlib import font_manager

    known = {entry.name.lower(): entry.name for entry in font_manager.fontManager.ttflist}
    if font.lower() not in known:  # matplotlib remembers the fonts of its first start
        _look_for_new_fonts(font_manager)
        known = {entry.name.lower(): entry.name for entry in font_manager.fontManager.ttflist}
    if font.lower() in known:
        return known[font.lower()]
    near = difflib.get_close_matches(font.lower(), known, NEAR, 0.5)
    names = ", ".join(known[name] for name in near) or ", ".join(sorted(set(known.values()))[:NEAR])
    raise UserError(f"--font: {font!r} is not installed; near it: {names}. Install it, or name one of these")


def _look_for_new_fonts(font_manager: Any) -> None:
    paths = {entry.fname for entry in font_manager.fontManager.ttflist}
    for path in sorted(set(font_manager.findSystemFonts()) - paths):
        try:
            font_manager.fontManager.addfont(path)
        except (OSError, RuntimeError, ValueError):  # a damaged font file is none
            continue


def sheet(width_mm: float, height_mm: float, constrained: bool = True) -> Figure:
    """An empty figure of this size, without pyplot and its global state."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width_mm * MM, height_mm * MM), layout="constrained" if constrained else None)
    FigureCanvasAgg(figure)
    return figure


def footnote(figure: Figure, text: str) -> None:
    """Small text below everything, wrapped to the figure's width; constrained layout leaves room for it."""
    width = figure.get_figwidth() / MM
    figure.supxlabel(wrapped(text, width), x=0.01, ha="left", fontsize=SMALL, color=GREY)


def wrapped(text: str, width_mm: float) -> str:
    """Lines that fit a width, in small text."""
    return "\n".join(textwrap.wrap(text, max(int(width_mm / 1.08), 20)))


@dataclass(frozen=True)
class Look:
    """How a contestant is drawn in every figure. number: told in a legend, for readers without colours."""

    number: int
    colour: str
    marker: str
    line: str


def looks(names: Sequence[str]) -> dict[str, Look]:
    """By the order of names; the eighth repeats the first one's colour with another marker and line."""
    return {
        name: Look(
            place + 1,
            COLOURS[place % len(COLOURS)],
            MARKERS[place % len(MARKERS)],
            LINES[place // len(COLOURS) % len(LINES)],
        )
        for place, name in enumerate(names)
    }


def shorten(text: str, most: int) -> str:
    """A long name without its middle, in one line."""
    text = " ".join(text.split())
    if len(text) <= most:
        return text
    head = (most - 1) // 2
    return f"{text[:head]}…{text[len(text) - (most - 1 - head) :]}"


def plain(name: str) -> str:
    """A region or quantity for a reader."""
    return name.replace("_", " ").strip()


def digits(value: float) -> str:
    """Three significant digits, without an exponent for everyday sizes."""
    if value != 0 and not 1e-3 <= abs(value) < 1e5:
        return f"{value:.1e}"
    return f"{value:.0f}" if abs(value) >= 1000 else f"{value:.3g}"


def logarithmic(values: Iterable[float]) -> bool:
    """Whether positive values span so much that a logarithmic axis shows them better."""
    known = list(values)
    return min(known) > 0 and max(known) > 10 * min(known)


def plain_numbers() -> Formatter:
    """Numbers on a logarithmic axis, which matplotlib writes as mathematics."""
    from matplotlib.ticker import FuncFormatter

    return FuncFormatter(lambda value, place: f"{value:g}")
