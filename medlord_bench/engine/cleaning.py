"""What of a store no run needs any more, and what a finished run may do without (`--keep`); and its removal."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, get_args

from medlord_bench.engine.plan import Plan, read_plan
from medlord_bench.engine.store import Store, arm_training, training_names
from medlord_bench.engine.worker import missing
from medlord_bench.util.files import TEMPORARY, write_json

Keep = Literal["all", "volumes", "features", "scores"]
KEEPS: tuple[Keep, ...] = get_args(Keep)
DROPPED = "dropped.json"  # in the folder of a run that has done without something
_PREPARED = ("images", "trainings")  # made again from the data set; needed to train on
_VOLUMES = ("samples", "conditional", "reconstructions", "training-samples", "labels", "predictions")
# Weights and the models of arms are always kept: nothing else takes days to make.
DROPS: dict[Keep, tuple[str, ...]] = {
    "all": (),
    "volumes": _PREPARED,
    "features": (*_PREPARED, *_VOLUMES),
    "scores": (*_PREPARED, *_VOLUMES, "features", "states", "training-plan"),
}
Name = tuple[str, str]  # kind and key of an object


@dataclass(frozen=True)
class Unused:
    """Something that may be removed, and its size in bytes."""

    path: Path
    size: int


def names_of(store: Store, plan: Plan) -> set[Name]:
    """Every object that a plan names: as a step, or as the training behind one."""
    used: set[Name] = set()
    for step in plan.steps:
        used.add((step.kind, step.key))
        made = store.object(step.kind, step.key)
        if step.kind in ("arms", "training-plan"):
            used |= {("trainings", arm_training(step.key, item)) for item in step.items}
        if step.kind == "weights":
            budget = step.detail["lineage"], step.detail["steps"], step.detail["seconds"]
            used |= {("trainings", name) for name in training_names(*budget)}
            if made.has("weights"):
                used.add(("trainings", made.sidecar("weights").facts["training"]))
    return used


def is_finished(store: Store, folder: Path, plan: Plan | None = None) -> bool:
    """Whether a run has its results and all of its scores."""
    steps = (plan or read_plan(folder)).steps
    scored = all(not missing(store, step) for step in steps if step.kind == "scores")
    return scored and (folder / "results" / "scores.json").exists()


def used(store: Store, keep: Keep = "all", only: Sequence[Path] | None = None) -> set[Name]:
    """Every object that a run needs. keep: what finished runs need of theirs, in general or (`only`) those of these folders.

    An object that another run refers to as well stays, unless that run does without it too.
    """
    needed: set[Name] = set()
    for folder in store.runs():
        plan = read_plan(folder)
        lean = (only is None or folder in only) and is_finished(store, folder, plan)
        drops = DROPS[keep] if lean else ()
        needed |= {name for name in names_of(store, plan) if name[0] not in drops}
    return needed


def unused(store: Store, keep: Keep = "all", only: Sequence[Path] | None = None) -> list[Unused]:
    """Objects that no run needs. only: of these runs' own, if given."""
    needed = used(store, keep, only)
    own = None if only is None else set[Name]().union(*(names_of(store, read_plan(folder)) for folder in only))
    found = []
    for path in store.objects():
        name = (path.parent.name, path.name)
        if name not in needed and (own is None or name in own):
            found.append(Unused(path, size_of(path)))
    return found


def size_of(place: Path) -> int:
    """Bytes that its removal frees: a file that has other links, as published weights have, frees none."""
    total = 0
    for path in (place, *place.rglob("*")):
        if path.is_file() and not path.is_symlink():
            facts = path.stat()
            total += facts.st_size if facts.st_nlink == 1 else 0
    return total


def note_dropped(store: Store, keep: Keep, only: Sequence[Path] | None = None) -> None:
    """Write down in each finished run what it does without, before it goes: the run's command then makes nothing again."""
    for folder in store.runs() if only is None else only:
        if DROPS[keep] and is_finished(store, folder):
            before = dropped(folder)
            write_json(folder / DROPPED, {"kinds": sorted({*before, *DROPS[keep]})})


def dropped(folder: Path) -> tuple[str, ...]:
    """The kinds of steps whose items a run did without after it was finished."""
    from medlord_bench.util.text_tables import read_json

    path = folder / DROPPED
    return tuple(read_json(path)["kinds"]) if path.exists() else ()


def remove(found: Sequence[Path], needed: Callable[[], set[Name]]) -> set[Path]:
    """Remove objects and leftovers but those that a run has asked for meanwhile, which are returned. needed: what runs need now.

    A run writes its plan before it looks which items are there. So an object is first hidden by its new name, then the plans
    are read again: a plan that is not among them cannot have seen the object.
    """
    hidden = {}
    for path in found:
        if path.is_dir() and not path.name.startswith(TEMPORARY):
            hidden[path] = path.with_name(f"{TEMPORARY}{os.getpid()}-{path.name}")
            path.rename(hidden[path])
        elif path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    wanted = needed()
    kept = {path for path in hidden if (path.parent.name, path.name) in wanted}
    for path, aside in hidden.items():
        if path in kept and not path.exists():
            aside.rename(path)
        else:
            shutil.rmtree(aside)
    return kept


def make_lean(store: Store, folder: Path, keep: Keep) -> int:
    """Remove what a finished run does without; returns the bytes that this frees."""
    found = unused(store, keep, [folder])
    note_dropped(store, keep, [folder])
    kept = remove([one.path for one in found], lambda: used(store, keep, [folder]))
    return sum(one.size for one in found if one.path not in kept)
