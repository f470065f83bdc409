"""A small pack without a study, as a reader gets it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal

import numpy as np

from medlord_bench.reading.pack import Pack, case_file, hashes_of, write_case, write_manifest
from medlord_bench.reading.reader_files import write_reader
from medlord_bench.reading.rebuild import StudyGrid
from medlord_bench.reading.rubric import read_rubric

CODES = ("K7Q2MA", "B4WX9C", "T8NPR3", "H5JD6E")
PRACTICE = ("P2VYZL", "P3GSFU")


def thorax(seed: int, shape: tuple[int, int, int]) -> np.ndarray[Any, np.dtype[np.int16]]:
    """Something like a chest: a body, two lungs and a spine, with noise."""
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, size) for size in shape), indexing="ij")
    hu = np.full(shape, -1000.0)
    hu[(x / 0.9) ** 2 + (y / 0.7) ** 2 < 1] = 40
    for side in (-1, 1):
        hu[((x - side * 0.42) / 0.32) ** 2 + (y / 0.5) ** 2 + (z / 0.9) ** 2 < 1] = -850
    hu[(x / 0.14) ** 2 + ((y + 0.48) / 0.14) ** 2 < 1] = 500
    return np.clip(hu + np.random.default_rng(seed).normal(0, 25, shape), -1000, 2000).round().astype(np.int16)


def write_pack(
    folder: Path,
    *,
    design: Literal["ratings", "pairs"] = "ratings",
    language: Literal["en", "de"] = "en",
    rubric: str = "ct-synthesis-v1",
    shape: tuple[int, int, int] = (32, 28, 24),
    practice: bool = True,
    **fields: Any,
) -> Pack:
    """Ratings: a practice case and three cases. Pairs: a practice pair and two pairs."""
    sides = 2 if design == "pairs" else 1
    codes = CODES[: 4 if design == "pairs" else 3]
    items = tuple(codes[i : i + sides] for i in range(0, len(codes), sides))
    trials = (PRACTICE[:sides],) if practice else ()
    for places, trial in ((codes, False), (PRACTICE[:sides] if practice else (), True)):
        for seed, code in enumerate(places):
            write_case(case_file(folder, code, trial), thorax(seed, shape))
    given: dict[str, Any] = {
        "id": "PACK22",
        "reader": "R1",
        "design": design,
        "language": language,
        "rubric": read_rubric(rubric, language),
        "grid": StudyGrid(shape=shape, spacing=(10.0, 10.0, 12.5), window=(-1000, 2000)),
        "items": items,
        "practice": trials,
        "commitment": "0" * 64,
        "files": {},
        **fields,
    }
    pack = Pack(**given)
    write_reader(folder, pack)
    pack = pack.model_copy(update={"files": hashes_of(folder)})
    write_manifest(folder, pack)
    return pack
