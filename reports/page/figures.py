"""Figures of the page: PNG inside it, so that it is one file."""

from __future__ import annotations

import base64
import io
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

LIGHT = {"text": "#46505a", "grid": "#d9dee3", "train": "#2463ad", "val": "#b8480c"}
DARK = {"text": "#b4bec8", "grid": "#39424b", "train": "#7cb3f2", "val": "#f2a468"}
DPI = 160


@dataclass(frozen=True)
class Picture:
    """A figure on the page. `dark`: its version for a dark page, if it differs. Sources are data URIs."""

    source: str
    alt: str
    dark: str | None = None


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def both(size: tuple[float, float], draw: Callable[[Axes, Mapping[str, str]], None], alt: str) -> Picture:
    """A figure of one pair of axes for a light and for a dark page. size: inches. draw: called with the colours of each."""
    from matplotlib.figure import Figure

    light = Figure(figsize=size, dpi=DPI, layout="constrained")
    axes = light.add_subplot()
    draw(axes, LIGHT)
    source = data_uri(_png(light))
    dark = Figure(figsize=size, dpi=DPI)
    draw(dark.add_axes(axes.get_position().bounds), DARK)  # at the same place: finding it takes as long as drawing
    return Picture(source, alt, data_uri(_png(dark)))


def _png(figure: Figure) -> bytes:
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    FigureCanvasAgg(figure)
    buffer = io.BytesIO()
    figure.savefig(buffer, format="png", transparent=True, metadata={"Software": None})
    return buffer.getvalue()
