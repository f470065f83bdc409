"""The content-addressed store: every computed result, under the key of its inputs.

``<root>/objects/<kind>/<key>/items/`` holds one published file (or a few) per item and a sidecar ``<item>.json``,
which is written last: an item exists exactly when its sidecar does. Publishing is a temporary file in the same folder,
fsync, rename. To resume is to list the existing items and compute the missing ones. There is no database and no lock
server.
"""

from __future__ import annotations

import os
import shutil
import time
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from medlord_bench.util.documents import parse_json
from medlord_bench.util.files import TEMPORARY, Write, publish_folder, write_json
from medlord_bench.util.hashing import digest, file_sha256

SIDECAR = ".json"
FEW = 8  # items that are looked for one by one


@dataclass(frozen=True)
class Sidecar:
    """The record of a published item. failed: reason why there is no file.

    files: suffix -> sha256; of a folder, `/` and the path in it -> sha256.
    """

    files: Mapping[str, str] = field(default_factory=dict)
    failed: str | None = None
    facts: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class StoredObject:
    """One object of the store: the items of one step. common: facts of every sidecar that is written through it."""

    path: Path
    common: Callable[[], Mapping[str, Any]] = field(default=dict, compare=False)

    @property
    def items(self) -> Path:
        return self.path / "items"

    def declare(self, step: Mapping[str, Any]) -> None:
        """Write `step.json`: the content of the key in readable form."""
        if not (self.path / "step.json").exists():
            write_json(self.path / "step.json", step)

    def has(self, item: str) -> bool:
        return (self.items / f"{item}.json").exists()

    def missing(self, items: Iterable[str]) -> list[str]:
        """Those that are not published. One look into the folder: a look for each item takes minutes on a network disk."""
        wanted = list(items)
        if len(wanted) < FEW:
            return [item for item in wanted if not self.has(item)]
        try:
            with os.scandir(self.items) as entries:
                there = {entry.name for entry in entries}
        except FileNotFoundError:
            return wanted
        return [item for item in wanted if f"{item}{SIDECAR}" not in there]

    def file(self, item: str, suffix: str) -> Path:
        return self.items / f"{item}{suffix}"

    def put(self, item: str, writers: Mapping[str, Write], facts: Mapping[str, Any]) -> None:
        """Publish an item: one file per suffix, then the sidecar. Each writer publishes the path that it is given."""
        for suffix, write in writers.items():
            write(self.file(item, suffix))
        files = {suffix: file_sha256(self.file(item, suffix)) for suffix in writers}
        self._put_sidecar(item, Sidecar(files, None, facts))

    def put_folder(self, item: str, source: Path, facts: Mapping[str, Any]) -> None:
        """Publish a folder as an item, by hard links where the file system has them."""
        # Without hidden files: remains of a killed writer are not part of the item.
        hidden = shutil.ignore_patterns(".*")
        publish_folder(
            self.items / item,
            lambda folder: shutil.copytree(source, folder, copy_function=_link_or_copy, ignore=hidden),
        )
        folder = self.items / item
        files = sorted(path for path in folder.rglob("*") if path.is_file())
        hashes = {f"/{path.relative_to(folder).as_posix()}": file_sha256(path) for path in files}
        self._put_sidecar(item, Sidecar(hashes, None, facts))

    def put_failure(self, item: str, reason: str, facts: Mapping[str, Any]) -> None:
        """Publish the failure of an item: it is counted and not retried."""
        self._put_sidecar(item, Sidecar({}, reason, facts))

    def _put_sidecar(self, item: str, known: Sidecar) -> None:
        facts = {**self.common(), **known.facts}
        write_json(self.items / f"{item}.json", {"files": known.files, "failed": known.failed, "facts": facts})

    def sidecar(self, item: str) -> Sidecar:
        return Sidecar(**parse_json((self.items / f"{item}.json").read_text()))

    def manifest(self) -> dict[str, Any]:
        """Item -> hashes of its files and of its sidecar, of every item that `complete` was told of."""
        path = self.path / "manifest.json"
        found: dict[str, Any] = parse_json(path.read_text()) if path.exists() else {}
        return found

    def complete(self, items: Iterable[str]) -> None:
        """Write `manifest.json`: every item requested so far, with the hashes of its files and of its sidecar."""
        known = self.manifest()
        fresh = {item: {**self.sidecar(item).files, SIDECAR: file_sha256(self.file(item, SIDECAR))} for item in items}
        if any(known.get(item) != files for item, files in fresh.items()):
            write_json(self.path / "manifest.json", known | fresh)


def _link_or_copy(source: str, target: str) -> str:
    try:
        os.link(source, target)
    except OSError:  # another file system, or one without links
        shutil.copy2(source, target)
    return target


def training_names(lineage: str, steps: int | None, seconds: float | None) -> tuple[str, str]:
    """The possible folders of a training: its lineage's, or its own if the lineage exceeds its budget."""
    return lineage, digest([lineage, steps, seconds])


def arm_training(key: str, item: str) -> str:
    """The folder below `trainings` in which an arm trains until it is published. key: of its step."""
    return digest([key, item])


@dataclass(frozen=True)
class Store:
    """The folder that holds objects and runs."""

    root: Path

    def object(self, kind: str, key: str) -> StoredObject:
        return StoredObject(self.root / "objects" / kind / key)

    def objects(self) -> list[Path]:
        """Every object folder, sorted."""
        return sorted(path for path in (self.root / "objects").glob("*/*") if path.is_dir())

    def leftovers(self, age: float) -> list[Path]:
        """Temporaries below `objects`, files and folders, untouched for `age` seconds: remains of a killed process."""
        oldest = time.time() - age
        found = (self.root / "objects").glob(f"*/*/**/{TEMPORARY}*")
        return sorted(path for path in found if path.lstat().st_mtime < oldest)

    def runs(self) -> list[Path]:
        """Every run folder, the oldest first."""
        found = (path.parent for path in (self.root / "runs").glob("*/plan.json"))
        return sorted(found, key=lambda path: (path / "plan.json").stat().st_mtime)
