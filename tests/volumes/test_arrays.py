"""Arrays on disk: the header decides what is read, and NumPy's own writers and readers are the reference."""

from __future__ import annotations

import io
from pathlib import Path

import numpy as np
import pytest

from medlord_bench.errors import MissingError, UserError
from medlord_bench.volumes.arrays import declared, load_npy, npz_shapes, read_hu

VALUES = np.arange(24, dtype=np.int16).reshape(2, 3, 4)


def npy(version: tuple[int, int]) -> bytes:
    content = io.BytesIO()
    np.lib.format.write_array(content, VALUES, version=version)
    return content.getvalue()


@pytest.mark.parametrize("version", [(1, 0), (2, 0)])
def test_both_versions_of_npy_are_read(tmp_path: Path, version: tuple[int, int]) -> None:
    (tmp_path / "a.npy").write_bytes(npy(version))
    assert np.array_equal(load_npy(tmp_path / "a.npy"), VALUES)
    assert np.array_equal(read_hu(tmp_path / "a.npy"), VALUES)


@pytest.mark.parametrize("missing", [0, 1])
def test_a_file_has_all_bytes_that_its_header_declares(missing: int) -> None:
    content = npy((1, 0))
    if not missing:
        assert declared(io.BytesIO(content), len(content), "a.npy") == VALUES.shape
        return
    with pytest.raises(UserError, match=r"a\.npy: its header declares shape \(2, 3, 4\), 48 bytes, and 47 are there"):
        declared(io.BytesIO(content), len(content) - missing, "a.npy")


def test_a_header_that_ends_after_the_file_leaves_no_bytes() -> None:
    with pytest.raises(UserError, match="48 bytes, and 0 are there"):
        declared(io.BytesIO(npy((1, 0))), 20, "a.npy")


@pytest.mark.parametrize("packed", [False, True])
def test_shapes_of_an_npz_come_from_its_headers(tmp_path: Path, packed: bool) -> None:
    arrays = {"a": VALUES, "b": np.zeros((200, 300), np.float32), "c": np.float64(3)}
    (np.savez_compressed if packed else np.savez)(tmp_path / "a.npz", **arrays)
    assert npz_shapes(tmp_path / "a.npz") == {"a": (2, 3, 4), "b": (200, 300), "c": ()}


def test_hu_are_one_int16_volume(tmp_path: Path) -> None:
    np.save(tmp_path / "four.npy", VALUES[None])
    np.save(tmp_path / "float.npy", VALUES.astype(np.float32))
    for name in ("four", "float"):
        with pytest.raises(UserError, match=rf"{name}\.npy: .*expected int16 \(X, Y, Z\) in HU"):
            read_hu(tmp_path / f"{name}.npy")
    with pytest.raises(MissingError, match="not found; expected a prepared volume"):
        read_hu(tmp_path / "none.npy")
