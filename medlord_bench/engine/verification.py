"""Whether published files are still what was published, and what to remove so that the same command makes them again.

A sidecar has the sha256 of each file of its item, the manifest that of each sidecar, and `step.json` is the content of the
object's key. A training's checkpoint has checksums inside. The results of a run have their hashes in `results/sha256.json`.
"""

from __future__ import annotations

import logging
import zipfile
from collections.abc import Iterable, Iterator, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medlord_bench.engine.plan import Plan, Step
from medlord_bench.engine.store import SIDECAR, Store, StoredObject
from medlord_bench.engine.worker import output
from medlord_bench.errors import StepError
from medlord_bench.util.documents import parse_json
from medlord_bench.util.files import write_json
from medlord_bench.util.hashing import digest, file_sha256
from medlord_bench.util.progress import make_progress

log = logging.getLogger("medlord_bench")
RESULTS, HASHES = "results", "sha256.json"
OWN = (
    "plan.json",
    "run.yaml",
    "provenance.json",
    "settings.json",
    "objects.tsv",
)  # files of a run folder that never change after its results are written
ADDED = ("ratings.csv",)  # results that another command adds later


@dataclass(frozen=True)
class Damage:
    """A file that is not what was published. remove: what must go so that it is made again."""

    path: Path
    what: str
    remove: tuple[Path, ...] = ()

    def __str__(self) -> str:
        return f"{self.path}: {self.what}"


@dataclass
class Checked:
    """What was read. files, bytes: so far."""

    damages: list[Damage] = field(default_factory=list)
    files: int = 0
    bytes: int = 0

    def sha256(self, path: Path) -> str:
        self.files += 1
        self.bytes += path.stat().st_size
        return file_sha256(path)


def check_object(made: StoredObject, items: Iterable[str] | None = None, checked: Checked | None = None) -> Checked:
    """Check items of an object, all that are published without `items`, and its manifest and `step.json`."""
    checked = checked or Checked()
    manifest = _json(made.path / "manifest.json", checked, (made.path / "manifest.json",))
    if items is None:
        items = _published(made)
        identity = _json(made.path / "step.json", checked, (made.path / "step.json",))
        if identity is not None and digest(identity) != made.path.name:
            what = "is not the content of this object's key"
            checked.damages.append(Damage(made.path / "step.json", what, (made.path / "step.json",)))
        lost = next((name for name in manifest or {} if name not in items), None)
        if lost is not None:
            path = made.path / "manifest.json"
            checked.damages.append(Damage(path, f"has item {lost}, which is not there", (path,)))
    for item in items:
        known = (manifest or {}).get(item, {})
        if not isinstance(known, dict):
            path = made.path / "manifest.json"
            checked.damages.append(Damage(path, f"has no hashes of {item}", (path,)))
            known = {}
        checked.damages += _item(made, item, known, checked)
    return checked


def _published(made: StoredObject) -> list[str]:
    """The items of an object: every JSON file but those that a sidecar lists."""
    names = sorted(path.name.removesuffix(SIDECAR) for path in made.items.glob(f"*{SIDECAR}"))
    listed = set()
    for name in names:
        with suppress(OSError, ValueError, TypeError, AttributeError):
            listed |= {made.file(name, suffix) for suffix in made.sidecar(name).files}
    return [name for name in names if made.file(name, SIDECAR) not in listed]


def _item(made: StoredObject, item: str, known: dict[str, str], checked: Checked) -> Iterator[Damage]:
    sidecar = made.file(item, SIDECAR)
    try:
        files = made.sidecar(item).files
        paths = {suffix: made.file(item, suffix) for suffix in files}
    except (OSError, ValueError, TypeError, AttributeError):
        yield Damage(sidecar, "is not a sidecar of the bench", (sidecar,))
        return
    remove = (*paths.values(), sidecar)
    now = {**files, SIDECAR: checked.sha256(sidecar)}
    if SIDECAR in known and known[SIDECAR] != now[SIDECAR]:
        yield Damage(sidecar, "changed since it was published", remove)
    elif (SIDECAR in known and known != now) or known.keys() - now.keys():
        manifest = made.path / "manifest.json"
        yield Damage(manifest, f"has other hashes of {item} than its sidecar", (manifest,))
    for suffix, path in paths.items():
        if not path.is_file():
            yield Damage(path, "is missing", remove)
        elif checked.sha256(path) != files[suffix]:
            yield Damage(path, "changed since it was published", remove)


def check_training(folder: Path, checked: Checked) -> None:
    """Checkpoints by the checksums in them; JSON files and curves by their syntax."""
    for path in sorted(folder.rglob("*.pt")):
        checked.files += 1
        checked.bytes += path.stat().st_size
        try:
            with zipfile.ZipFile(path) as archive:
                sound = archive.testzip() is None
        except (zipfile.BadZipFile, OSError, ValueError, NotImplementedError, EOFError):
            sound = False
        if not sound:
            checked.damages.append(Damage(path, "its checksums are wrong; training begins anew without it", (path,)))
    for path in sorted(folder.rglob("*.json")):
        _json(path, checked, (path,))


def check_run(folder: Path, checked: Checked) -> None:
    """The files of a run folder that its results are read from."""
    known = _json(folder / RESULTS / HASHES, checked, ())
    for name, sha in (known or {}).items():
        path = folder / name
        if not path.is_file():
            checked.damages.append(Damage(path, "is missing; the run's own command writes it again"))
        elif checked.sha256(path) != sha:
            checked.damages.append(Damage(path, "changed since it was written; the run's own command writes it again"))


def write_hashes(folder: Path) -> None:
    """`results/sha256.json` of a run folder, after all other results."""
    found = sorted(path for path in (folder / RESULTS).rglob("*") if path.is_file() and path.name not in ADDED)
    own = [folder / name for name in OWN if (folder / name).exists()]
    files = [path for path in (*own, *found) if path.name != HASHES and not path.name.startswith(".")]
    write_json(folder / RESULTS / HASHES, {path.relative_to(folder).as_posix(): file_sha256(path) for path in files})


def _json(path: Path, checked: Checked, remove: tuple[Path, ...]) -> dict[str, Any] | None:
    """A JSON object; None if there is no file, or it is damaged."""
    if not path.exists():
        return None
    checked.files += 1
    checked.bytes += path.stat().st_size
    try:
        found = parse_json(path.read_text(encoding="utf-8"))
    except (OSError, ValueError):
        found = None
    if not isinstance(found, dict):
        checked.damages.append(Damage(path, "is not JSON with fields", remove))
        return None
    return found


class Reused:
    """Items that were there before this run. Each is checked once, before a step reads it: the files of another process
    may have changed since. What this run itself publishes is not read again."""

    def __init__(self, store: Store, plan: Plan) -> None:
        self.store, self.plan = store, plan
        self.there: dict[str, list[str]] = {}

    def note(self, step: Step, missing: Sequence[str]) -> None:
        """Keep in mind which items of a step are there already."""
        lacking = set(missing)
        self.there[step.id] = [item for item in step.items if item not in lacking]

    def check_inputs(self, step: Step) -> None:
        """Check what a step reads. Raises `StepError` naming the first damaged file and the command that repairs it."""
        for source in dict.fromkeys(step.inputs.values()):
            if self.there.get(source):
                log.info("%s: checking %d items of an earlier run", source, len(self.there[source]))
            self.check(self.plan.step(source))

    def check(self, step: Step) -> None:
        items = self.there.pop(step.id, [])
        if not items:
            return
        checked = check_object(output(self.store, step), items)
        if checked.damages:
            more = f" (and {len(checked.damages) - 1} more)" if len(checked.damages) > 1 else ""
            raise StepError(
                f"{checked.damages[0]}{more}; remove what is damaged with: medlord-bench verify --remove --store "
                f"{self.store.root}; then give the same command again"
            )


def check_store(store: Store, steps: Iterable[Step] | None) -> Checked:
    """Check all objects of a store, or those of the steps of one run."""
    checked = Checked()
    if steps is None:
        objects = store.objects()
    else:
        made = [output(store, step) for step in steps]
        trained = [one.sidecar("weights").facts.get("training") for one in made if one.has("weights")]
        folders = [store.object("trainings", name).path for name in trained if name]
        objects = list(dict.fromkeys([*(one.path for one in made), *folders]))
    with make_progress().task("objects", len(objects)) as task:
        for path in objects:
            if path.parent.name == "trainings":
                check_training(path, checked)
            elif path.is_dir():
                check_object(StoredObject(path), None, checked)
            task.advance()
    return checked
