"""The whole volumes of a run, through the links of its folder into the store."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path

from medlord_bench.results.run_results import RunResults
from medlord_bench.util.local_server import Answer
from medlord_bench.volumes.arrays import read_hu
from medlord_bench.volumes.io import read_volume

REAL = "real"
KINDS = ("images", "samples", "conditional", "reconstructions")
ITEM = re.compile(r"[\w.+-]+")


def full_volume(run: RunResults, query: Mapping[str, str]) -> Answer | None:
    """The values of a volume as int16 in HU, z fastest, with its shape and voxel size in the header ``X-Volume``.

    query: {"id": "KIND/CONTESTANT/ITEM"}, as in the page. None for a volume that the run does not have.
    """
    kind, _, rest = query.get("id", "").partition("/")
    contestant, _, item = rest.rpartition("/")
    if kind not in KINDS or not ITEM.fullmatch(item) or contestant not in (REAL, *run.contestants):
        return None
    path = next((place for place in _places(run, kind, contestant, item) if place.exists()), None)
    if path is None:
        return None
    if path.suffix == ".npy":
        hu, spacing = read_hu(path), run.montage.spacing if run.montage else None
    else:
        volume = read_volume(path)
        hu, spacing = volume.hu, volume.spacing
    about = json.dumps({"shape": hu.shape, "spacing": spacing or (1.0, 1.0, 1.0)})
    return Answer("application/octet-stream", hu.astype("<i2").tobytes(), {"X-Volume": about})


def _places(run: RunResults, kind: str, contestant: str, item: str) -> list[Path]:
    if kind == "images":
        return [origin.folder / "images" / "images" / f"{item}.npy" for origin in run.origins]
    named = ((origin, origin.contestants.get(contestant)) for origin in run.origins)
    return [
        origin.folder / kind / name.replace(":", "_").replace("/", "_") / f"{item}.nii.gz"
        for origin, name in named
        if name is not None
    ]
