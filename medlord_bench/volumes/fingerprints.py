"""sha256 of a case's files, cached between runs by path, size, modification and change time, and inode.

The cache is a JSON file: MEDLORD_BENCH_CACHE, else `~/.cache/medlord-bench/fingerprints.json`. Losing it costs
only time: a damaged or unwritable cache is ignored.
"""

from __future__ import annotations

import logging
import os
import time
from collections.abc import Iterable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medlord_bench.contracts import Case, Split
from medlord_bench.util.documents import parse_json
from medlord_bench.util.files import write_json
from medlord_bench.util.hashing import digest, file_sha256
from medlord_bench.volumes.formats import data_file

log = logging.getLogger("medlord_bench")
SAVE_SECONDS = 10.0  # interval at which a long first reading logs progress and is saved


def cache_path() -> Path:
    """The file of cached hashes."""
    given = os.environ.get("MEDLORD_BENCH_CACHE")
    return Path(given) if given else Path.home() / ".cache" / "medlord-bench" / "fingerprints.json"


@dataclass(frozen=True)
class Found:
    """An image on disk. mask: a label map, or a folder with one binary file for each region.

    files: of a DICOM series, its files, if `image` (its folder, or its first file) does not say which they are.
    """

    id: str
    patient: str
    image: Path
    mask: Path | None = None
    split: Split | None = None
    files: tuple[Path, ...] = ()


def fingerprint(found: Iterable[Found], facts: Mapping[str, Any]) -> list[Case]:
    """Cases whose sha256 covers the image, its mask and `facts`: all else that decides the loaded case."""
    cache = _read()
    known = dict(cache)
    cases = []
    saved = time.monotonic()
    for case in found:
        if time.monotonic() - saved > SAVE_SECONDS:
            log.info("hashing images, once: %d files so far, now %s", len(known), case.image)
            _write(known)
            saved = time.monotonic()
        image = _image(case, known)
        mask = _content(case.mask, known) if case.mask is not None else None
        content = digest({"image": image, "mask": mask, "facts": dict(facts)})
        cases.append(Case(case.id, case.patient, content, case.image, case.mask))
    if known != cache:
        _write(known)
    return cases


def _image(case: Found, known: dict[str, Any]) -> list[str]:
    """The hashes of an image's files."""
    return [_file(part, known) for part in case.files] if case.files else _content(case.image, known)


def contents(found: Iterable[Found]) -> dict[str, list[Found]]:
    """sha256 of an image alone, without its mask -> the images of that content."""
    known = _read()
    before = dict(known)
    groups: dict[str, list[Found]] = {}
    for case in found:
        groups.setdefault(digest(_image(case, known)), []).append(case)
    if known != before:
        _write(known)
    return groups


def _content(path: Path, known: dict[str, Any]) -> list[str]:
    return [_file(part, known) for part in _parts(path)]


def _parts(path: Path) -> list[Path]:
    """The files that make up an image: all of a folder, or a header with the data file it names."""
    if path.is_dir():
        return sorted(entry for entry in path.iterdir() if entry.is_file() and not entry.name.startswith("."))
    data = data_file(path)
    return [path, data] if data is not None and os.path.isfile(data) else [path]  # noqa: PTH113 - no error for an impossible name


def _file(path: Path, known: dict[str, Any]) -> str:
    facts = path.stat()
    # Size and modification time are not enough: container images and data versioning give many files one time.
    key, state = str(path.resolve()), [facts.st_size, facts.st_mtime_ns, facts.st_ctime_ns, facts.st_ino]
    entry = known.get(key)
    if isinstance(entry, list) and entry[:-1] == state and isinstance(entry[-1], str):
        return entry[-1]
    known[key] = [*state, file_sha256(path)]
    return str(known[key][-1])


def _read() -> dict[str, Any]:
    try:
        found = parse_json(cache_path().read_text())
    except (OSError, ValueError):
        return {}
    return found if isinstance(found, dict) else {}


def _write(known: Mapping[str, Any]) -> None:
    with suppress(OSError):  # a read-only cache folder: files are hashed again next time
        write_json(cache_path(), _read() | dict(known))
