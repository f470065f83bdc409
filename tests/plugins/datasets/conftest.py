"""Small CTs on disk, and a fingerprint memory of the test's own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from medlord_bench.contracts import LabelMap, Volume
from medlord_bench.volumes.io import write_labels, write_volume

WriteCT = Callable[..., Path]


@pytest.fixture(autouse=True)
def _own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDLORD_BENCH_CACHE", str(tmp_path / "memory" / "fingerprints.json"))
    monkeypatch.delenv("MEDLORD_BENCH_DATA_ROOT", raising=False)


@pytest.fixture
def write_ct() -> WriteCT:
    """write_ct(path, seed, mask=path): a small CT with air around a block of tissue, and a mask of two regions."""

    def write(path: Path, seed: int = 0, mask: Path | None = None, shape: tuple[int, int, int] = (16, 14, 12)) -> Path:
        path.parent.mkdir(parents=True, exist_ok=True)
        rng = np.random.default_rng(seed)
        hu = np.full(shape, -1000, np.int16)
        hu[2:-2, 2:-2, 1:-1] = rng.integers(-60, 200, hu[2:-2, 2:-2, 1:-1].shape)
        affine = np.diag([2.0, 2.0, 3.0, 1.0])
        write_volume(path, Volume(hu, affine))
        if mask is not None:
            mask.parent.mkdir(parents=True, exist_ok=True)
            labels = np.zeros(shape, np.uint8)
            labels[4:8, 4:8, 4:8], labels[9:12, 4:8, 4:8] = 1, 2
            write_labels(mask, LabelMap(labels, affine, {1: "a", 2: "b"}))
        return path

    return write
