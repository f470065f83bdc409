"""The volumes that the page's viewer offers: real ones, samples, and the cases worth a look."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from medlord_bench.drawing.viewer import Shown, embedded
from medlord_bench.results.picks import Pick, picks
from medlord_bench.results.pictures import short_id
from medlord_bench.results.run_results import RunResults
from medlord_bench.results.words import number

KINDS = {
    "images": "real",
    "samples": "sample",
    "conditional": "conditional sample",
    "reconstructions": "reconstruction",
}
REAL = "real"


@dataclass(frozen=True)
class Look:
    """A pick as a choice of the viewer: the volume on the right, the real one beside it on the left."""

    metric: str
    contestant: str
    text: str
    left: str
    right: str


@dataclass(frozen=True)
class Offer:
    """volumes: as `viewer.js` reads them. left, right: what is shown first. looks: the cases worth a look. regions: name
    -> its labels in the masks, of those that samples are conditioned on."""

    volumes: Sequence[dict[str, Any]]
    left: str
    right: str
    looks: Sequence[Look]
    regions: Mapping[str, Sequence[int]]


def offer(run: RunResults) -> Offer | None:
    """None if the run folder has no volumes to scroll through."""
    shown: dict[str, Shown] = {}
    for row in run.montage.rows if run.montage else ():
        for item in row.items:
            if item.path is not None:
                _add(run, shown, row.contestant, row.kind, item.id)
    found = picks(run.rows, run.quantities)
    for pick in found:
        _add(run, shown, pick.contestant, "images", pick.beside)
        _add(run, shown, pick.contestant, pick.kind, pick.item)
    order = sorted(
        shown.values(),
        key=lambda one: (
            one.group != REAL,
            list(run.contestants).index(one.group) if one.group in run.contestants else -1,
        ),
    )
    volumes = embedded(order)
    known = {one["id"] for one in volumes}
    if not known:
        return None
    looks = [look for look in map(_look, found) if {look.left, look.right} <= known]
    left = next((one["id"] for one in volumes if one["group"] == REAL), volumes[0]["id"])
    right = next((one["id"] for one in volumes if one["group"] != REAL), volumes[-1]["id"])
    return Offer(volumes, left, right, looks, run.montage.regions if run.montage else {})


def _add(run: RunResults, shown: dict[str, Shown], contestant: str, kind: str, item: str) -> None:
    real = kind == "images"
    group = REAL if real else contestant
    id = _id(group, kind, item)
    beside = _id(REAL, "images", item) if kind in ("conditional", "reconstructions") else ""
    title = short_id(item) if real else f"{KINDS.get(kind, kind)} {short_id(item)}"
    path = run.volume(contestant, kind, item, real=real)
    shown.setdefault(id, Shown(id, group, title.replace("sample sample-", "sample "), path, beside))


def _id(group: str, kind: str, item: str) -> str:
    return f"{kind}/{group}/{item}"


def _look(pick: Pick) -> Look:
    return Look(
        metric=pick.metric,
        contestant=pick.contestant,
        text=f"{pick.which} {pick.metric}, {pick.contestant}: {number(pick.value)}",
        left=_id(REAL, "images", pick.beside),
        right=_id(pick.contestant, pick.kind, pick.item),
    )
