"""States and volumes on disk."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest

from medlord_bench.errors import MissingError, UserError
from medlord_bench.volumes.arrays import load_state, read_hu, save_state


def test_a_state_comes_back_as_it_was_and_in_equal_bytes(tmp_path: Path) -> None:
    state = {"b": np.arange(6.0).reshape(2, 3).T, "a": np.array([np.nan, 1], np.float32), "n": np.array([3])}
    save_state(tmp_path / "one.safetensors", state)
    save_state(tmp_path / "deeper" / "two.safetensors", dict(reversed(state.items())))
    found = load_state(tmp_path / "one.safetensors")
    assert set(found) == set(state)
    for name, array in state.items():
        np.testing.assert_array_equal(found[name], array)
        assert found[name].dtype == array.dtype
    assert (tmp_path / "one.safetensors").read_bytes() == (tmp_path / "deeper" / "two.safetensors").read_bytes()


def test_npy_and_nifti_read_alike(tmp_path: Path) -> None:
    hu = np.random.default_rng(0).integers(-1000, 2000, (5, 6, 7)).astype(np.int16)
    np.save(tmp_path / "v.npy", hu)
    nibabel.save(nibabel.Nifti1Image(hu, np.eye(4)), tmp_path / "v.nii.gz")
    for name in ("v.npy", "v.nii.gz"):
        found = read_hu(tmp_path / name)
        assert found.dtype == np.int16
        np.testing.assert_array_equal(found, hu)


def test_files_that_cannot_be_used_are_named(tmp_path: Path) -> None:
    np.save(tmp_path / "float.npy", np.zeros((2, 2, 2)))
    np.save(tmp_path / "flat.npy", np.zeros((2, 2), np.int16))
    for name in ("broken.npy", "broken.safetensors"):
        (tmp_path / name).write_bytes(b"no")
    for name in ("float.npy", "flat.npy", "broken.npy"):
        with pytest.raises(UserError, match=name):
            read_hu(tmp_path / name)
    with pytest.raises(UserError, match=r"broken\.safetensors"):
        load_state(tmp_path / "broken.safetensors")
    with pytest.raises(MissingError, match=r"none\.npy"):
        read_hu(tmp_path / "none.npy")
    with pytest.raises(MissingError, match=r"none\.safetensors"):
        load_state(tmp_path / "none.safetensors")
