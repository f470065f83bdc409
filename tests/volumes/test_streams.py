"""Compressed images: a changed bit is an error, never another value."""

from __future__ import annotations

from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from numpy.typing import NDArray

from medlord_bench.errors import UserError
from medlord_bench.volumes.io import read_volume
from medlord_bench.volumes.streams import check_packed

NAMES = ("a.nii.gz", "a.mha", "a.mhd", "a.nrrd", "a.nhdr")
HEADER = 700  # bytes that are left alone in a file with header and values


@pytest.fixture
def hu() -> NDArray[np.int16]:
    return np.random.default_rng(0).normal(0, 300, (20, 18, 16)).astype(np.int16)


def write(folder: Path, name: str, hu: NDArray[np.int16]) -> Path:
    """Write a compressed image; returns the file that has the values."""
    if name.endswith(".nii.gz"):
        nib.save(nib.Nifti1Image(hu, np.eye(4)), folder / name)
        return folder / name
    image = sitk.GetImageFromArray(np.ascontiguousarray(hu.T))
    sitk.WriteImage(image, str(folder / name), useCompression=True)
    return next(iter([*folder.glob("*.zraw"), *folder.glob("*.raw.gz"), folder / name]))


@pytest.mark.parametrize("name", NAMES)
def test_a_sound_file_is_read(name: str, hu: NDArray[np.int16], tmp_path: Path) -> None:
    write(tmp_path, name, hu)
    found = read_volume(tmp_path / name).hu
    assert found.shape == hu.shape and np.array_equal(np.sort(found, axis=None), np.sort(hu, axis=None))


@pytest.mark.parametrize("name", NAMES)
def test_a_changed_bit_is_an_error(name: str, hu: NDArray[np.int16], tmp_path: Path) -> None:
    place = write(tmp_path, name, hu)
    content, rng = place.read_bytes(), np.random.default_rng(1)
    first = HEADER if place.name == name else 20
    for at in rng.integers(first, len(content), 25).tolist():
        changed = bytearray(content)
        changed[at] ^= 1 << int(rng.integers(8))
        place.write_bytes(changed)
        with pytest.raises(UserError, match="copy"):
            read_volume(tmp_path / name)


@pytest.mark.parametrize("name", NAMES)
def test_a_file_that_lacks_its_end_is_an_error(name: str, hu: NDArray[np.int16], tmp_path: Path) -> None:
    place = write(tmp_path, name, hu)
    content = place.read_bytes()
    for missing in (1, 4, 100):
        place.write_bytes(content[:-missing])
        with pytest.raises(UserError, match="copy"):
            read_volume(tmp_path / name)


def test_files_without_compression_are_left_alone(hu: NDArray[np.int16], tmp_path: Path) -> None:
    for name in ("a.mha", "a.nrrd"):
        sitk.WriteImage(sitk.GetImageFromArray(hu), str(tmp_path / name), useCompression=False)
        check_packed(tmp_path / name)
