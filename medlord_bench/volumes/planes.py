"""The three mid planes of a volume in a small file: for reports that do not have the volume."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from medlord_bench.errors import UserError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


@dataclass(frozen=True, eq=False)
class Planes:
    """Mid planes in HU, int16. axial: (X, Y), coronal: (X, Z), sagittal: (Y, Z), axes towards R, A, S.

    spacing: mm along X, Y, Z; None if the volume states none.
    """

    axial: NDArray[np.int16]
    coronal: NDArray[np.int16]
    sagittal: NDArray[np.int16]
    spacing: tuple[float, float, float] | None = None


def planes_of(hu: NDArray[Any], spacing: tuple[float, float, float] | None = None) -> Planes:
    """The planes through the middle voxel of a volume (X, Y, Z)."""
    x, y, z = (size // 2 for size in hu.shape)
    return Planes(hu[:, :, z], hu[:, y, :], hu[x, :, :], spacing)


def write_planes(path: Path, planes: Planes) -> None:
    """Write planes to a safetensors file."""
    import numpy as np

    from medlord_bench.volumes.arrays import save_state

    arrays = {name: np.asarray(getattr(planes, name), dtype=np.int16) for name in ("axial", "coronal", "sagittal")}
    spacing = {} if planes.spacing is None else {"spacing": np.array(planes.spacing, dtype=np.float64)}
    save_state(path, {**arrays, **spacing})


def read_planes(path: Path) -> Planes:
    """Read a file of `write_planes`. Raises `MissingError` or `UserError` naming the file."""
    from medlord_bench.volumes.arrays import load_state

    state = load_state(path)
    try:
        axial, coronal, sagittal = (state[name] for name in ("axial", "coronal", "sagittal"))
        (width, depth), height = axial.shape, coronal.shape[1]
        if coronal.shape != (width, height) or sagittal.shape != (depth, height) or not axial.size * height:
            raise ValueError(f"shapes {axial.shape}, {coronal.shape} and {sagittal.shape} are not of one volume")
        spacing = tuple(map(float, state["spacing"])) if "spacing" in state else None
    except (KeyError, ValueError) as error:
        raise UserError(f"{path}: not the planes of a volume ({error}); run the same command again") from None
    return Planes(axial, coronal, sagittal, spacing)  # type: ignore[arg-type]
