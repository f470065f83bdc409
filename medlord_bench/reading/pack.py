"""A pack: the only thing that a reader gets. Its manifest, and the bytes of its cases."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Literal

import numpy as np
from numpy.typing import NDArray
from pydantic import Field

from medlord_bench.contracts import FrozenConfig
from medlord_bench.contracts.validation import validate
from medlord_bench.errors import UserError
from medlord_bench.util.documents import parse_json
from medlord_bench.util.files import publish, write_text
from medlord_bench.util.hashing import canonical, digest, file_sha256

from .rebuild import StudyGrid
from .rubric import Rubric

MANIFEST, CASES, PRACTICE, RAW = "pack.json", "cases", "practice", ".i16"
MTIME = 946684800  # 2000-01-01, of every file of every pack
CODE = r"[2-9A-HJ-NP-Z]{6}"


class Pack(FrozenConfig):
    """`pack.json`. It names no source, path or person.

    id: of the pack. items: what is read, in order: a code, or two codes of a pair, left and right. sessions: the first
    item of each session. real_share: told to the reader, if the protocol discloses it. files: relative path -> sha256.
    commitment: of the key, which the reader may keep.
    """

    schema_version: Literal[1] = 1
    id: str
    title: str = ""
    reader: str
    design: Literal["ratings", "pairs"]
    language: Literal["en", "de"]
    rubric: Rubric
    grid: StudyGrid
    items: tuple[tuple[str, ...], ...] = Field(min_length=1)
    practice: tuple[tuple[str, ...], ...] = ()
    sessions: tuple[int, ...] = (0,)
    real_share: float | None = None
    commitment: str
    files: Mapping[str, str]

    @property
    def codes(self) -> list[str]:
        """Of all cases, in order."""
        return [code for item in self.items for code in item]

    def digest(self) -> str:
        """Identifies the pack in returns: what was shown, in which order, and what was asked.

        Of the files it has the raw cases alone, so that a file of the pack may hold it; all files of a pack without raw cases.
        """
        raw = {name: sha for name, sha in self.files.items() if name.endswith(RAW)}
        return digest({**self.model_dump(mode="json"), "files": raw or dict(self.files)})


def read_pack(folder: Path) -> Pack:
    """Read a pack's manifest. Raises `UserError` naming what is wrong."""
    path = folder / MANIFEST
    try:
        data = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        raise UserError(f"{folder}: not a pack (no {MANIFEST}); expected a folder packs/READER of a study") from None
    except (UnicodeDecodeError, ValueError) as error:
        raise UserError(f"{path}: not JSON ({error}); copy the pack again") from None
    return validate(Pack, data, str(path))


def write_manifest(folder: Path, pack: Pack) -> None:
    """The same pack gives the same bytes."""
    write_text(folder / MANIFEST, canonical(pack.model_dump(mode="json")) + "\n")


def case_file(folder: Path, code: str, practice: bool = False) -> Path:
    """The raw values of a case: int16, little endian, z fastest."""
    return folder / (PRACTICE if practice else CASES) / f"{code}{RAW}"


def write_case(path: Path, hu: NDArray[np.int16]) -> None:
    content = np.ascontiguousarray(hu, dtype="<i2").tobytes()
    publish(path, lambda temporary: temporary.write_bytes(content))


def hashes_of(folder: Path) -> dict[str, str]:
    """Relative path -> sha256 of every file of a pack but its manifest, in order of the paths."""
    files = sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST)
    return {path.relative_to(folder).as_posix(): file_sha256(path) for path in files}


def set_times(folder: Path) -> None:
    """One modification time for all files and folders, deepest first."""
    for path in sorted(folder.rglob("*"), key=lambda one: -len(one.parts)):
        os.utime(path, (MTIME, MTIME))
    os.utime(folder, (MTIME, MTIME))


def session_starts(items: int, sessions: int) -> tuple[int, ...]:
    """The first item of each session, as equal as possible."""
    return tuple(dict.fromkeys(items * session // sessions for session in range(sessions)))


def practice_items(codes: Sequence[str], design: str) -> tuple[tuple[str, ...], ...]:
    """Practice cases as they are read: one at a time, or two in the design `pairs`, where an odd one is left out."""
    if design == "pairs":
        return tuple(zip(codes[::2], codes[1::2], strict=False))
    return tuple((code,) for code in codes)


def damaged(folder: Path, pack: Pack, raw: bool = True) -> Sequence[str]:
    """Files that are missing, changed, or not in the manifest; none in a sound pack.

    raw: also read the raw cases, which takes seconds for each GB; else only their sizes are compared.
    """
    found = hashes_of(folder) if raw else _hashes_or_sizes(folder, pack)
    wrong = [f"{name}: missing" for name in pack.files if name not in found]
    wrong += [f"{name}: changed" for name, sha in pack.files.items() if found.get(name, sha) != sha]
    return [*wrong, *(f"{name}: not of this pack" for name in found if name not in pack.files)]


def _hashes_or_sizes(folder: Path, pack: Pack) -> dict[str, str]:
    """As `hashes_of`; a raw case of the right size has the hash of the manifest."""
    found = {}
    for path in sorted(path for path in folder.rglob("*") if path.is_file() and path.name != MANIFEST):
        name = path.relative_to(folder).as_posix()
        if name.endswith(RAW) and name in pack.files:
            found[name] = pack.files[name] if path.stat().st_size == pack.grid.bytes else ""
        else:
            found[name] = file_sha256(path)
    return found
