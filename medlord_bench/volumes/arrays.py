"""Arrays on disk without pickles: states and features as safetensors, HU volumes as `.npy` or NIfTI."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from medlord_bench.contracts import State
from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.files import publish

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


def save_state(path: Path, state: State) -> None:
    """Write named arrays to one safetensors file, atomically; equal states give equal bytes."""
    import numpy as np
    from safetensors.numpy import save_file

    arrays = {name: np.ascontiguousarray(state[name]) for name in sorted(state)}
    publish(path, lambda temporary: save_file(arrays, temporary))


def load_state(path: Path) -> dict[str, NDArray[Any]]:
    """The named arrays written by `save_state`. Raises `MissingError` or `UserError` naming the file."""
    from safetensors import SafetensorError
    from safetensors.numpy import load_file

    try:
        state: dict[str, NDArray[Any]] = load_file(path)
    except FileNotFoundError:
        raise MissingError(
            f"{path}: not found; expected a state or features file: run the step that makes it"
        ) from None
    except SafetensorError as error:
        raise UserError(f"{path}: unreadable ({error}); delete it and run the step again") from None
    return state


def read_hu(path: Path) -> NDArray[np.int16]:
    """An int16 (X, Y, Z) volume in HU: `.npy` (a read-only memory map) or NIfTI.

    Raises `MissingError` if the file is absent and `UserError` if it is not a 3D int16 volume.
    """
    if path.suffix != ".npy":
        from medlord_bench.volumes.io import read_volume

        hu: NDArray[np.int16] = read_volume(path).hu
        return hu
    import numpy as np

    try:
        array = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError:
        raise MissingError(f"{path}: not found; expected a prepared volume: run the step that makes it") from None
    except (ValueError, OSError, EOFError) as error:
        raise UserError(f"{path}: unreadable ({error}); expected an int16 .npy volume: prepare it again") from None
    if array.ndim != 3 or array.dtype != np.int16:
        raise UserError(f"{path}: {array.dtype} {array.shape}, expected int16 (X, Y, Z) in HU: prepare it again")
    volume: NDArray[np.int16] = array
    return volume
