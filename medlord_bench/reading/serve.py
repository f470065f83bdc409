"""Serves a pack to one reader's browser on this machine, and keeps the answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from functools import partial
from http import HTTPStatus
from pathlib import Path

from medlord_bench.errors import UserError
from medlord_bench.util.files import DISK_FULL
from medlord_bench.util.hashing import file_sha256
from medlord_bench.util.local_server import Answer, LocalServer, Route

from .answer_log import AnswerLog, Refused
from .lock import FILE as LOCK
from .pack import CASES, MANIFEST, PRACTICE, RAW, Pack, damaged, read_pack
from .protocol import ALIAS
from .reader_files import INDEX, KINDS, STUDY, page_files, study_script
from .study import Study, no_key_below

CSP = (
    "default-src 'self'; img-src 'self' data:; object-src 'none'; base-uri 'none'; form-action 'none'; "
    "frame-ancestors 'none'"
)
HEADERS = {"Content-Security-Policy": CSP, "Cross-Origin-Resource-Policy": "same-origin"}


def sound_pack(folder: Path) -> Pack:
    """The pack, if it can be read without harm. Raises `UserError` for a key in it and for damaged files.

    Sizes of the raw cases are checked here, their hashes when a case is first read. A file that is not of the pack, such
    as those that file managers leave, is never served.
    """
    pack = read_pack(folder)
    no_key_below(folder)
    wrong = [one for one in damaged(folder, pack, raw=False) if one.partition(":")[0] in pack.files]
    if wrong:
        more = f", and {len(wrong) - 1} more" if len(wrong) > 1 else ""
        raise UserError(f"{folder / wrong[0]}{more}: copy the pack again")
    links = next((path for path in folder.rglob("*") if path.is_symlink()), None)
    if links is not None:
        raise UserError(f"{links}: is a link; a pack has files only: copy the pack again")
    if not any(name.endswith(RAW) for name in pack.files):
        raise UserError(
            f"{folder}: was made without the format browser, so the page has no cases; open it with the program of its format, "
            "or add browser to the protocol's formats and export again"
        )
    for place, items in ((CASES, pack.items), (PRACTICE, pack.practice)):
        for code in (code for item in items for code in item):
            if f"{place}/{code}{RAW}" not in pack.files:
                raise UserError(f"{folder / MANIFEST}: files: case {code} is missing; copy the pack again")
    if not ALIAS.fullmatch(pack.reader):
        raise UserError(f"{folder / MANIFEST}: reader: {pack.reader!r} is not an alias; copy the pack again")
    if pack.language not in pack.rubric.languages():
        raise UserError(f"{folder / MANIFEST}: rubric: has no complete texts in {pack.language!r}; copy the pack again")
    sides = 2 if pack.design == "pairs" else 1
    if any(len(item) != sides for item in (*pack.items, *pack.practice)):
        raise UserError(f"{folder / MANIFEST}: items: expected {sides} codes each in the design {pack.design!r}")
    return pack


def returns_of(folder: Path, pack: Pack, out: Path | None) -> Path:
    """Where the answers go: `out`, else the study's `returns`, else `returns` here. Raises `UserError` below the pack."""
    study = Study(folder.resolve().parent.parent)
    place = out or (study.returns if study.pack(folder.resolve().name).exists() and study.protocol.exists() else None)
    place = (place or Path("returns")).resolve()
    if place.is_relative_to(folder.resolve()):
        raise UserError(f"--out {place}: is inside the pack, which must not change; give a folder outside it")
    if (place / LOCK).exists():
        raise UserError(f"{place / LOCK}: the returns are locked; no answer can be added: the reading is over")
    return place / f"{pack.reader}.jsonl"


def server_of(folder: Path, pack: Pack, log: AnswerLog, port: int = 0) -> LocalServer:
    """A server of the page, the cases of the manifest and the two addresses that take answers; nothing else."""
    routes: dict[str, Route] = {
        name: partial(_constant, Answer(KINDS[Path(name).suffix], text.encode())) for name, text in page_files().items()
    }
    routes[STUDY] = lambda query: Answer(KINDS[".js"], study_script(pack, log.lines, served=True).encode())
    checked: set[str] = set()
    for name in pack.files:
        if name.endswith(RAW):
            routes[name] = partial(_case, folder, pack, name, checked)
    posts = {"begin": partial(_saved, log.begin), "answer": partial(_saved, log.answer)}
    return LocalServer(routes, port, posts, HEADERS)


def address(server: LocalServer) -> str:
    """What the reader opens."""
    return server.url(INDEX)


def _constant(answer: Answer, query: Mapping[str, str]) -> Answer:
    return answer


def _case(folder: Path, pack: Pack, name: str, checked: set[str], query: Mapping[str, str]) -> Answer:
    """A raw case, whose hash is checked the first time."""
    path = folder / name
    try:
        if name not in checked and file_sha256(path) != pack.files[name]:
            return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "damaged", "the case was changed")
    except OSError:
        return _error(HTTPStatus.INTERNAL_SERVER_ERROR, "damaged", "the case cannot be read")
    checked.add(name)
    return Answer("application/octet-stream", path)


def _saved(save: Callable[[bytes], None], content: bytes) -> Answer:
    try:
        save(content)
    except Refused as error:
        status = HTTPStatus.BAD_REQUEST if error.reason == "invalid" else HTTPStatus.CONFLICT
        return _error(status, error.reason, str(error))
    except OSError as error:
        full = error.errno in DISK_FULL
        return _error(HTTPStatus.INSUFFICIENT_STORAGE, "disk" if full else "unsaved", error.strerror or "not saved")
    return Answer("application/json", b'{"saved": true}')


def _error(status: HTTPStatus, reason: str, detail: str) -> Answer:
    return Answer("application/json", json.dumps({"error": reason, "detail": detail}).encode(), status=status)
