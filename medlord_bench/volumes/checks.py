"""Whether a volume is CT in HU, whether two share a grid, which regions a mask lacks."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from pathlib import Path

import numpy as np

from medlord_bench.contracts import Item, LabelMap, Volume
from medlord_bench.contracts.values import LARGEST_MM, LEAST_MM
from medlord_bench.errors import UserError
from medlord_bench.volumes.arrays import load_npy
from medlord_bench.volumes.io import read_labels
from medlord_bench.volumes.plausible import implausible

GRID_TOLERANCE = 0.1  # of a voxel: tolerates rounded headers; real shifts are larger


def not_ct(volume: Volume, window: tuple[int, int] | None = None) -> str | None:
    """Why the values cannot be a CT in HU, or None (`plausible`). window: the HU window that the image is used in."""
    return implausible(volume.hu, window)


def check_ct(volume: Volume, where: Path | str, window: tuple[int, int] | None = None) -> None:
    """Raise `UserError` if the values cannot be a CT in HU. where: the file or another name of the volume."""
    problem = not_ct(volume, window)
    if problem:
        raise UserError(
            f"{where}: not a CT in HU: {problem}; expected HU (air -1000, water 0): "
            "convert it, or exclude it with dataset.exclude"
        )


def check_voxel_size(volume: Volume, where: Path | str) -> None:
    """Raise `UserError` for voxel sizes that no CT has. where: the file or another name of the volume."""
    sizes = volume.spacing
    if min(sizes) >= LEAST_MM and max(sizes) <= LARGEST_MM:
        return
    voxels = " x ".join(f"{size:.3g}" for size in sizes)
    view = " x ".join(f"{size * n:.3g}" for size, n in zip(sizes, volume.shape, strict=True))
    raise UserError(
        f"{where}: voxels of {voxels} mm, a field of view of {view} mm; expected voxel sizes from {LEAST_MM} to "
        f"{LARGEST_MM:g} mm: the header may be in metres or cm; repair its affine or its unit"
    )


def check_same_grid(volume: Volume | LabelMap, labels: LabelMap, image: Path | str, mask: Path | str) -> None:
    """Raise `UserError` if a mask is not on its image's grid, within a tenth of a voxel.

    image, mask: the two files, for the message.
    """
    if volume.shape != labels.shape:
        raise UserError(
            f"{mask}: its grid is {labels.shape}, that of {image} is {volume.shape} (both in R, A, S); "
            "expected one grid: resample the mask onto the image"
        )
    corners = np.array([[x, y, z, 1] for x in (0, 1) for y in (0, 1) for z in (0, 1)], dtype=np.float64)
    corners[:, :3] *= np.array(volume.shape) - 1
    apart = float(np.linalg.norm(corners @ (volume.affine - labels.affine).T, axis=1).max())
    if apart > GRID_TOLERANCE * float(np.linalg.norm(volume.affine[:3, :3], axis=0).min()):
        raise UserError(
            f"{mask}: its affine differs from that of {image} by up to {apart:.3g} mm; "
            "expected one grid: repair the wrong header, or resample the mask onto the image"
        )


def missing_regions(labels: LabelMap, regions: Iterable[str]) -> tuple[list[str], list[str]]:
    """Which of the regions a label map lacks, and which of them are cut off by the border of its grid."""
    missing, cropped = [], []
    for name in regions:
        try:
            mask = labels.region(name)
        except KeyError:
            missing.append(name)
            continue
        if not mask.any():
            missing.append(name)
        elif any(mask.take(at, axis=axis).any() for axis in range(3) for at in (0, -1)):
            cropped.append(name)
    return missing, cropped


def item_labels(item: Item) -> LabelMap:
    """A segmenter's label map of an item. Raises `UserError` if the item failed."""
    return _labels_of(item.path, item.names, item.id)


def item_reference(item: Item) -> LabelMap:
    """The case's own mask, which an item is compared with. Raises `UserError` if it has none."""
    return _labels_of(item.reference, item.reference_names, item.id)


def _labels_of(path: Path | None, names: Mapping[int, str], case: str) -> LabelMap:
    if path is None:
        raise UserError(f"case {case}: no label map; expected one: give masks, or leave the metric out")
    if path.suffix != ".npy":
        return read_labels(path, names)
    return LabelMap(load_npy(path), np.eye(4), names)


def problem_of(volume: Volume, shape: tuple[int, int, int]) -> str | None:
    """Why a generated volume counts as failed, or None."""
    if volume.shape != shape:
        return f"shape {volume.shape}, asked for {shape}"
    low, high = int(volume.hu.min()), int(volume.hu.max())
    if low == high:
        return f"constant ({low} HU)"
    if high - low <= 2:
        return f"values are in {low}..{high}: scaled to [0, 1] or [-1, 1], not HU"
    return None
