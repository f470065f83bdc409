"""The files of the browser reader: its page, and for small packs the cases as scripts, which a page opened from its file
can load."""

from __future__ import annotations

import base64
import json
import math
from collections.abc import Mapping, Sequence
from importlib.resources import files
from pathlib import Path
from typing import Any

from medlord_bench.drawing import viewer
from medlord_bench.util.files import publish, write_text
from medlord_bench.util.version import __version__

from .pack import RAW, Pack, case_file, hashes_of

INDEX, STUDY = "index.html", "study.js"
KINDS = {
    ".html": "text/html; charset=utf-8",
    ".js": "text/javascript; charset=utf-8",
    ".css": "text/css; charset=utf-8",
}
MOST_VOXELS = 256 * 256 * 128  # of a case that is also written as a script


def page_files() -> dict[str, str]:
    """Name -> text of each file of the page, the same for all packs."""
    folder = files(__package__).joinpath("reader")
    texts = {
        path.name: path.read_text(encoding="utf-8") for path in folder.iterdir() if Path(path.name).suffix in KINDS
    }
    return {**texts, "viewer.js": viewer.script()}


def study_script(pack: Pack, lines: Sequence[Mapping[str, Any]] = (), served: bool = False) -> str:
    """`study.js`: the pack without its files, and the answers so far. served: answers are sent to `reading serve`."""
    study = {
        "pack": pack.model_dump(mode="json", exclude={"files"}),
        "pack_sha256": pack.digest(),
        "reader_version": __version__,
        "served": served,
        "lines": list(lines),
    }
    return f"window.study = {json.dumps(study, ensure_ascii=False, sort_keys=True)};\n"


def write_reader(folder: Path, pack: Pack) -> None:
    """Add the reader to a pack that has its raw cases.

    Every pack gets the page. A pack whose grid has at most 256x256x128 voxels also gets `study.js` and each case as a script,
    so that `index.html` works when it is opened from its file; a larger one is read with `reading serve`. Scripts of
    cases are not compressed, so that all have one size.
    """
    for name, text in page_files().items():
        write_text(folder / name, text)
    if math.prod(pack.grid.shape) > MOST_VOXELS:
        return
    raw = {name: sha for name, sha in hashes_of(folder).items() if name.endswith(RAW)}
    write_text(folder / STUDY, study_script(pack.model_copy(update={"files": raw})))
    for items, practice in ((pack.items, False), (pack.practice, True)):
        for code in sorted({code for item in items for code in item}):
            _write_script(case_file(folder, code, practice), code)


def _write_script(raw: Path, code: str) -> None:
    content = base64.b64encode(raw.read_bytes()).decode()
    publish(raw.with_suffix(".js"), lambda temporary: temporary.write_text(f'readingCase("{code}", "{content}");\n'))
