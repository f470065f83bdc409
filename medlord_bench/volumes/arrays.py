"""Arrays on disk without pickles: states and features as safetensors, HU volumes as `.npy` or NIfTI."""

from __future__ import annotations

import math
import tokenize
import zipfile
from pathlib import Path
from typing import IO, TYPE_CHECKING, Any

from medlord_bench.contracts import State
from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.files import publish
from medlord_bench.volumes.streams import DEFLATE_RATIO

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


NOT_A_HEADER = (SyntaxError, tokenize.TokenError, RecursionError, MemoryError)  # of Python's parser, which NumPy uses


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


def declared(stream: IO[bytes], size: int, where: str) -> tuple[int, ...]:
    """The shape that the header of a `.npy` declares. size: bytes that there are for header and values. where: for messages.

    Raises `UserError` if the values would be more than that, and ValueError or KeyError for another kind of file.
    """
    import numpy as np

    from medlord_bench.volumes.stored import check_memory

    version = np.lib.format.read_magic(stream)
    read = {(1, 0): np.lib.format.read_array_header_1_0, (2, 0): np.lib.format.read_array_header_2_0}[version]
    try:
        shape, _, dtype = read(stream)
    except NOT_A_HEADER as error:
        raise ValueError(f"its header is not one of NumPy: {' '.join(str(error).split())}") from None
    needed = math.prod(shape) * dtype.itemsize
    if needed > size - stream.tell():
        raise UserError(
            f"{where}: its header declares shape {shape}, {needed} bytes, and {max(size - stream.tell(), 0)} are there; expected a whole "
            "array: the header is damaged, or copy the file again"
        )
    check_memory(Path(where), shape, dtype.itemsize)
    found: tuple[int, ...] = shape
    return found


def load_npy(path: Path) -> NDArray[Any]:
    """A `.npy` in memory, its size checked before anything is allocated. Raises as `declared`, and OSError."""
    import numpy as np

    with open(path, "rb") as file:
        declared(file, path.stat().st_size, str(path))
    values: NDArray[Any] = np.load(path, allow_pickle=False)
    return values


def npz_shapes(path: Path) -> dict[str, tuple[int, ...]]:
    """The shape of each array of an `.npz`, from the headers. Raises as `declared`, and `zipfile.BadZipFile`."""
    shapes = {}
    with zipfile.ZipFile(path) as archive:
        there = path.stat().st_size
        for one in archive.infolist():
            if not one.filename.endswith(".npy"):
                continue
            if one.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
                raise ValueError(f"{one.filename} is packed in a way that NumPy does not write")
            packed = min(one.compress_size, there)
            most = packed if one.compress_type == zipfile.ZIP_STORED else packed * DEFLATE_RATIO
            with archive.open(one) as file:
                name = one.filename.removesuffix(".npy")
                shapes[name] = declared(file, min(one.file_size, most), f"{path}: array {name!r}")
    return shapes


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
    except (ValueError, OSError, EOFError, *NOT_A_HEADER) as error:
        raise UserError(f"{path}: unreadable ({error}); expected an int16 .npy volume: prepare it again") from None
    if array.ndim != 3 or array.dtype != np.int16:
        raise UserError(f"{path}: {array.dtype} {array.shape}, expected int16 (X, Y, Z) in HU: prepare it again")
    volume: NDArray[np.int16] = array
    return volume
