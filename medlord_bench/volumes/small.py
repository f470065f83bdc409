"""A volume on a coarse grid in a small file: for reports that let the reader scroll and do not have the volume."""

from __future__ import annotations

import io
import zipfile
import zlib
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medlord_bench.errors import UserError
from medlord_bench.util.files import publish
from medlord_bench.volumes.arrays import npz_shapes

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

SIDE = 96  # most voxels along an axis
STEP_HU = 4  # values are rounded to multiples of it, below the noise of CT, so that they compress


@dataclass(frozen=True, eq=False)
class SmallVolume:
    """hu: int16 (X, Y, Z), axes towards R, A, S. spacing: mm along X, Y, Z; None if the volume states none.

    labels: uint8, on the same grid, or None.
    """

    hu: NDArray[np.int16]
    spacing: tuple[float, float, float] | None
    labels: NDArray[np.uint8] | None = None


def small_of(
    hu: NDArray[Any],
    spacing: tuple[float, float, float] | None = None,
    labels: NDArray[Any] | None = None,
    side: int = SIDE,
) -> SmallVolume:
    """Means of boxes of whole voxels, so that no axis has more than `side` of them; a remainder at the end is left out.

    Labels are those of each box's middle voxel.
    """
    import numpy as np

    steps = [-(-n // side) for n in hu.shape]
    shape = [n // step for n, step in zip(hu.shape, steps, strict=True)]
    part = hu[tuple(slice(n * step) for n, step in zip(shape, steps, strict=True))]
    boxes = part.reshape([size for pair in zip(shape, steps, strict=True) for size in pair])
    means = boxes.mean((1, 3, 5), dtype=np.float64)
    rounded = (np.round(means / STEP_HU) * STEP_HU).clip(-(2**15), 2**15 - 1).astype(np.int16)
    size = None if spacing is None else tuple(mm * step for mm, step in zip(spacing, steps, strict=True))
    if labels is not None:
        labels = labels[tuple(slice(step // 2, n * step, step) for n, step in zip(shape, steps, strict=True))]
        labels = np.ascontiguousarray(labels, np.uint8)
    return SmallVolume(rounded, size, labels)


def write_small(path: Path, small: SmallVolume) -> None:
    """Write a compressed `.npz`, atomically; equal volumes give equal bytes."""
    import numpy as np

    arrays: dict[str, NDArray[Any]] = {"hu": small.hu}
    if small.spacing is not None:
        arrays["spacing"] = np.array(small.spacing, np.float64)
    if small.labels is not None:
        arrays["labels"] = small.labels
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)  # type: ignore[arg-type]
    publish(path, lambda temporary: temporary.write_bytes(buffer.getvalue()))


def read_small(path: Path) -> SmallVolume:
    """Read a file of `write_small`. Raises `UserError` naming a file that is damaged or not one."""
    import numpy as np

    try:
        npz_shapes(path)  # before anything is allocated
        with np.load(path, allow_pickle=False) as arrays:
            hu, labels = arrays["hu"], arrays.get("labels")
            spacing = tuple(map(float, arrays["spacing"])) if "spacing" in arrays else None
        if hu.ndim != 3 or hu.dtype != np.int16 or (labels is not None and labels.shape != hu.shape):
            raise ValueError(f"holds {hu.dtype} {hu.shape}")
    except (OSError, EOFError, KeyError, ValueError, zipfile.BadZipFile, zlib.error) as error:
        raise UserError(f"{path}: not a small volume ({error}); run the same command again") from None
    return SmallVolume(hu, spacing, labels)  # type: ignore[arg-type]
