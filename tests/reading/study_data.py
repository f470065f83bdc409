"""A small exported study, and simulated readers who write its returns."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from unittest.mock import patch

import nibabel as nib
import numpy as np

from medlord_bench.contracts.validation import validate
from medlord_bench.engine.store import Store
from medlord_bench.reading.export import export
from medlord_bench.reading.key import Entry, read_key
from medlord_bench.reading.pack import Pack, read_pack
from medlord_bench.reading.protocol import StudyProtocol
from medlord_bench.reading.study import Study

SHAPE = (12, 10, 8)
START = datetime(2026, 1, 2, 9, tzinfo=UTC)


def exported(root: Path, sources: tuple[str, ...] = ("real", "good", "bad"), n: int = 6, **fields: Any) -> Study:
    """A study of folders with thorax-like values, air around soft tissue; of one secret, so that tests repeat."""
    rng = np.random.default_rng(0)
    places = []
    for name in sources:
        folder = root / "data" / f"source-{len(places)}"
        folder.mkdir(parents=True, exist_ok=True)
        for number in range(n + 1):
            hu = rng.normal(40, 20, SHAPE)
            hu[:2] = hu[-2:] = -1000
            image = nib.Nifti1Image(hu.astype(np.int16), np.diag([2.0, 2.0, 3.0, 1.0]))
            nib.save(image, folder / f"v{number}.nii.gz")
        places.append({"name": name, "folder": str(folder)})
    given = {"sources": places, "n": n, "practice": 1, "readers": ("R1", "R2"), **fields}
    study = Study(root / "study")
    with patch("medlord_bench.reading.draw.secrets.token_bytes", return_value=bytes(range(32))):
        export(validate(StudyProtocol, given, "p"), study, Store(root), lambda *_: None, lambda *_: None)
    return study


def header(pack: Pack, **fields: Any) -> dict[str, Any]:
    known = {"schema_version": 1, "pack": pack.id, "pack_sha256": pack.digest(), "reader": pack.reader}
    rest = {"started": START.isoformat(), "reader_version": "0", "display_check": {"passed": True}}
    screen = {"width": 1280, "height": 800, "pixel_ratio": 1}
    return {**known, **rest, "screen": screen, **fields}


def answered(pack: Pack, item: int, levels: Mapping[str, int | str] | None, **fields: Any) -> dict[str, Any]:
    """A line of a return. levels: None for a pair."""
    time = START + timedelta(minutes=item + 1)
    line = {"item": item, "codes": list(pack.items[item]), "practice": False, "answers": dict(levels or {})}
    rest = {"choice": None, "marks": [], "comment": "", "ms": 40_000 + item, "windows": ["lung"]}
    return {**line, **rest, "answered": time.isoformat(), **fields}


def rated(pack: Pack, entries: Mapping[str, Entry], quality: Mapping[str, float], seed: int) -> list[dict[str, Any]]:
    """All lines of a reader of ratings: a volume looks alike to itself, a source as good as its quality."""
    rng = np.random.default_rng(seed)
    looks: dict[str, float] = {}
    lines = []
    for item, (code,) in enumerate(pack.items):
        entry = entries[code]
        looks.setdefault(entry.sha256, quality[entry.source] + rng.normal(0, 0.8))
        seen = looks[entry.sha256] + rng.normal(0, 0.4)
        levels: dict[str, int | str] = {}
        for question in pack.rubric.questions:
            most = len(question.levels)
            if question.kind == "rating":
                levels[question.name] = int(np.clip(round((most + 1) / 2 + seen), 1, most))
            else:
                levels[question.name] = (
                    1 + int(seen > 0) if question.kind == "verdict" else 1 + min(4, int(2 * abs(seen)))
                )
        marks = (
            [{"code": code, "plane": "axial", "point": [3, 4, 5], "cue": "vessel", "words": "ends"}]
            if seen < -1
            else []
        )
        lines.append(answered(pack, item, levels, marks=marks))
    return lines


def chosen(pack: Pack, entries: Mapping[str, Entry], quality: Mapping[str, float], seed: int) -> list[dict[str, Any]]:
    """All lines of a reader of pairs."""
    rng = np.random.default_rng(seed)
    lines = []
    for item, codes in enumerate(pack.items):
        seen = [quality[entries[code].source] + rng.normal(0, 1) for code in codes]
        sure = {"confidence": 1 + min(4, int(2 * abs(seen[0] - seen[1])))}
        lines.append(answered(pack, item, sure, choice="left" if seen[0] > seen[1] else "right"))
    return lines


def write_return(path: Path, lines: list[dict[str, Any]]) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def read_by_all(study: Study, quality: Mapping[str, float]) -> None:
    """Every reader returns a whole file."""
    key = read_key(study.key)
    for seed, folder in enumerate(sorted(study.packs.iterdir())):
        pack = read_pack(folder)
        make = chosen if pack.design == "pairs" else rated
        lines = make(pack, key.of_reader(pack.reader), quality, seed)
        end = {"finished": (START + timedelta(hours=5)).isoformat()}
        write_return(study.returns / f"{pack.reader}.jsonl", [header(pack), *lines, end])
