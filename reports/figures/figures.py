"""Figures for a paper: PDF, SVG and PNG, each with its numbers as CSV."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from medlord_bench.results.report import ReportOptions
from medlord_bench.results.run_results import RunResults

if TYPE_CHECKING:
    from medlord_bench.drawing.files import Drawn

    Draw = Callable[[RunResults, ReportOptions], Iterable[Drawn]]

FOLDER = "figures"


class Figures:
    """The figures of a paper on such a benchmark. What a run has nothing to show of is not drawn."""

    def render(self, run: RunResults, out: Path, options: ReportOptions) -> Sequence[Path]:
        """Write `out/figures/NAME.{pdf,svg,png,csv}`; figures of an earlier report that this one lacks are removed.

        Raises `UserError` for a font that is not installed, or a picture or ratings file that cannot be read.
        """
        from medlord_bench.drawing.files import write
        from medlord_bench.drawing.style import style

        folder = out / FOLDER
        written: list[Path] = []
        with style(options.font):
            for draw in _figures().values():
                for drawn in draw(run, options):
                    written += write(drawn, folder)
                    drawn.figure.clear()  # figures hold on to themselves, and to their pictures
        _remove_others(folder, written)
        return written


def _figures() -> dict[str, Draw]:
    """Name -> what draws it. A figure of several pages is NAME, NAME-2, ..."""
    from .calibration import calibration
    from .conditional import conditional
    from .curves import curves
    from .distributions import distributions
    from .doses import doses
    from .fid_n import fid_n
    from .forest import forest
    from .memory import memory
    from .montage import montage
    from .ratings import ratings
    from .samples import samples

    return {
        "montage": montage,
        "rvr": distributions,
        "ratings": ratings,
        "conditional": conditional,
        "samples": samples,
        "curves": curves,
        "fid_n": fid_n,
        "doses": doses,
        "memory": memory,
        "calibration": calibration,
        "forest": forest,
    }


def _remove_others(folder: Path, written: Sequence[Path]) -> None:
    """An earlier report's figures are not mistaken for this one's, nor its pictures of real volumes shared."""
    from medlord_bench.drawing.files import SUFFIXES

    own = re.compile(rf"({'|'.join(_figures())})(-\d+)?\.({'|'.join(SUFFIXES)})")
    for path in sorted(folder.glob("*")) if folder.is_dir() else ():
        if own.fullmatch(path.name) and path not in written:
            path.unlink()
