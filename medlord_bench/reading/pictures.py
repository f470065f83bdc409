"""A case as stacks of 8-bit pictures in fixed windows: for printing, and for computers that have no viewer."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from .rebuild import StudyGrid

PRESETS: Mapping[str, tuple[int, int]] = {"lung": (-1350, 150), "mediastinum": (-160, 240), "bone": (-300, 1500)}  # HU


def write_stacks(folder: Path, hu: NDArray[np.int16], grid: StudyGrid) -> None:
    """`WINDOW/0001.png` ...: axial slices from the lowest, patient's right at the left, front at the top.

    hu: (X, Y, Z), axes towards R, A, S. The pictures are not compressed, so that all have the same size, and say the size
    of a pixel in mm.
    """
    from PIL import Image

    x, y, _ = grid.spacing
    for name, (low, high) in PRESETS.items():
        place = folder / name
        place.mkdir(parents=True)
        for k in range(grid.shape[2]):
            grey = np.clip((hu[:, :, k].T[::-1, ::-1].astype(np.float32) - low) / (high - low), 0, 1)
            picture = Image.fromarray(np.rint(255 * grey).astype(np.uint8))
            picture.save(place / f"{k + 1:04d}.png", compress_level=0, dpi=(25.4 / x, 25.4 / y))
