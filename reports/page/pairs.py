"""The samples most like a training image, each beside that image: what an audit's number must be looked at with."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from .montage import MontageRow, draw_montage

if TYPE_CHECKING:
    from .figures import FigureFolder
    from .run_folder import RunFolder

METRIC = "copy_pair"  # case rows: the sample, the training item in the place of the region, their correlation
SHOWN = 3  # pairs of a contestant


@dataclass(frozen=True)
class Pairs:
    contestant: str
    rows: Sequence[MontageRow]


def draw_pairs(run: RunFolder, folder: Path, figures: FigureFolder) -> list[Pairs]:
    """The top pairs of every contestant, the likest first; nothing where no audit ran."""
    found: dict[str, list[tuple[float, str, str]]] = {}
    for row in run.rows:
        if row.metric == METRIC:
            found.setdefault(row.generator, []).append((row.value, row.case, row.region))
    described = {key: (run.montage or {}).get(key) for key in ("window", "spacing")}
    drawn = []
    for contestant, pairs in found.items():
        rows = [
            {
                "title": f"{contestant}: {sample} beside its nearest training image, correlation {value:.3f}",
                "items": [
                    {"id": sample, "path": f"samples/{_link(contestant)}/{sample}.nii.gz"},
                    {"id": image, "path": f"images/images/{image}.npy"},
                ],
            }
            for value, sample, image in sorted(pairs, reverse=True)[:SHOWN]
        ]
        drawn.append(Pairs(contestant, draw_montage({**described, "rows": rows}, folder, figures).rows))
    return drawn


def _link(contestant: str) -> str:
    """The name of a contestant's link in the run folder."""
    return contestant.replace(":", "_").replace("/", "_")
