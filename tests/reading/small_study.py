"""A small study from folders of made-up volumes, exported for the tests of formats and of the leak check."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Volume
from medlord_bench.contracts.validation import validate
from medlord_bench.engine.store import Store
from medlord_bench.reading import export as exporting
from medlord_bench.reading.draw import Secret
from medlord_bench.reading.formats import finish
from medlord_bench.reading.key import Key
from medlord_bench.reading.protocol import StudyProtocol
from medlord_bench.reading.study import Study
from medlord_bench.volumes.io import write_volume

SHAPE = (12, 10, 8)
SPACING = (1.5, 2.0, 3.0)
REPEATS = {"ratings": {"repeats": 2}}
SECRET, NONCE = bytes(range(32)), "ab" * 32
Check = Callable[[Study, Key], None]


def anatomy(seed: int) -> NDArray[np.int16]:
    """Air around an ellipsoid of noise: every volume differs, and no source differs from another."""
    rng = np.random.default_rng(seed)
    x, y, z = np.meshgrid(*(np.linspace(-1, 1, n) for n in SHAPE), indexing="ij")
    hu = np.where(x**2 + y**2 + z**2 / 2 < 0.8, rng.normal(40, 120, SHAPE), -1000)
    hu[0, 0, 0] = -1100
    hu[6, 5, 4] = 2100
    return np.rint(hu).astype(np.int16)


def write_sources(root: Path, names: tuple[str, ...] = ("real", "wizard", "oracle9"), n: int = 12) -> None:
    affine = np.diag([*SPACING, 1.0])
    for number, name in enumerate(names):
        for i in range(n):
            volume = Volume(anatomy(1000 * number + i), affine)
            write_volume(root / name / f"scan-{number}{i:02d}-zebra.nii", volume)


def protocol_of(root: Path, names: tuple[str, ...] = ("real", "wizard", "oracle9"), **fields: Any) -> StudyProtocol:
    """names: of the folders, in order."""
    sources = [{"name": name, "folder": str(root / name)} for name in names]
    return validate(
        StudyProtocol,
        {"sources": sources, "n": 10, **REPEATS.get(fields.get("design", "ratings"), {}), **fields},
        "test",
    )


def nothing(study: Study, key: Key) -> None:
    """No leak check."""


def exported(protocol: StudyProtocol, out: Path, monkeypatch: Any, check: Check = nothing) -> Path:
    """Export with a fixed secret and nonce; returns the folder of the study."""
    monkeypatch.setattr(exporting, "_begun", lambda study, given: (Secret(SECRET), NONCE))
    exporting.export(protocol, Study(out), Store(out / "store"), finish, check)
    return out
