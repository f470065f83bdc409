"""Slices of a volume in three planes as input of a 2D network: grey, oriented, resized, a few at a time."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import numpy as np
import torch
from torch.nn import functional as F

from medlord_bench.contracts import State, Volume
from medlord_bench.errors import UserError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

T = TypeVar("T")

PLANES = {"axial": 2, "coronal": 1, "sagittal": 0}  # plane -> its normal axis in (X, Y, Z)


@dataclass(frozen=True)
class View:
    """The chosen slices of each plane, and the mapping of HU to grey values.

    window: HU mapped to 0 and 1; values beyond are clipped. count: slices per plane, evenly spaced over the
    middle `centre_ratio` of the axis, or None for every slice. size: pixels on a side that slices are resized
    to, or None. own_range: scale by the smallest and largest value of the chosen slices, plane by plane, after
    clipping. upright: in radiological orientation, or as stored in the (X, Y, Z) array.
    """

    window: tuple[int, int]
    count: int | None
    size: int | None
    centre_ratio: float = 1.0
    own_range: bool = False
    upright: bool = True


def slice_indices(depth: int, count: int | None, centre_ratio: float = 1.0) -> list[int]:
    """`count` slices evenly spaced over the middle of `depth` (the middles of as many equal slabs).

    All of the middle if `count` is None or there are fewer. The middle is defined as in the MAISI script.
    """
    start, stop = (int(part / 2 * depth) for part in (1.0 - centre_ratio, 1.0 + centre_ratio))
    if count is None or stop - start <= count:
        return list(range(start, stop))
    return [start + (2 * i + 1) * (stop - start) // (2 * count) for i in range(count)]


def as_stored(hu: NDArray[np.int16], plane: str, indices: list[int]) -> Tensor:
    """Slices as stored in the array, float32 (n, u, v) with u before v in (X, Y, Z)."""
    axis = PLANES[plane]
    return torch.from_numpy(hu.take(indices, axis=axis).astype("float32")).movedim(axis, 0)


def upright(hu: NDArray[np.int16], plane: str, indices: list[int]) -> Tensor:
    """Slices in radiological orientation, float32 (n, rows, columns).

    Axial: anterior above, the patient's right on the left. Coronal: head above, right on the left. Sagittal: head
    above, anterior on the left.
    """
    # Both axes of a stored slice run towards R, A or S: rows are v from its far end, columns u from its far end.
    return as_stored(hu, plane, indices).transpose(1, 2).flip(1, 2)


def chunks(hu: NDArray[np.int16], plane: str, view: View, chunk: int, device: str) -> Iterator[Tensor]:
    """Grey slices in [0, 1], float32 (at most `chunk`, 1, rows, columns), of int16 (X, Y, Z) `hu`.

    Values are clipped before the resize, so that the resize cannot mix in values outside. Raises `UserError`
    if `view.centre_ratio` leaves no slice.
    """
    indices = slice_indices(hu.shape[PLANES[plane]], view.count, view.centre_ratio)
    if not indices:
        raise UserError(
            f"centre_ratio: {view.centre_ratio:g} of {hu.shape[PLANES[plane]]} {plane} slices leaves none; "
            "expected at least one: raise it"
        )
    parts = [indices[start : start + chunk] for start in range(0, len(indices), chunk)]
    low, high = _own_range(hu, plane, parts, view.window) if view.own_range else view.window
    turned = upright if view.upright else as_stored
    for part in parts:
        grey = turned(hu, plane, part).to(device).clamp_(low, high)
        grey = (grey - low).div_(max(high - low, 1))[:, None]  # 1: a constant stack becomes 0, not NaN
        if view.size is not None:
            grey = F.interpolate(grey, (view.size,) * 2, mode="bilinear", align_corners=False, antialias=True)
        yield grey


def _own_range(hu: NDArray[np.int16], plane: str, parts: list[list[int]], window: tuple[int, int]) -> tuple[int, int]:
    """The smallest and largest clipped HU of the slices, exact, computed a few slices at a time."""
    low, high = window[1], window[0]
    for part in parts:
        stack = hu.take(part, axis=PLANES[plane])
        low, high = min(low, int(stack.min())), max(high, int(stack.max()))
    return max(low, window[0]), min(high, window[1])


def chunk_size(device: str) -> int:
    """The fastest number of slices per forward pass of ResNet-50; features depend on it only by rounding.

    On a CPU two per thread: their activations stay in the cache (measured on two cores: a sixth faster than sixteen).
    A single thread takes sixteen, since PyTorch uses slow 1x1 convolutions for fewer.
    """
    if device != "cpu":
        return 32
    threads = torch.get_num_threads()
    return 16 if threads == 1 else min(16, 2 * threads)


def slice_features(volume: Volume, view: View, network: Callable[[Tensor], Tensor], chunk: int, device: str) -> State:
    """`network`, from grey slices (n, 1, rows, columns) to (n, channels), over the slices of each plane.

    Per plane float32 (slices, channels). In float32 throughout, deterministic, with `chunk` slices in memory.
    """
    hu = np.ascontiguousarray(volume.hu)  # with another layout each chunk would copy the whole volume
    exact = torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False)
    with torch.inference_mode(), exact:
        return {
            plane: torch.cat([network(grey).float().cpu() for grey in chunks(hu, plane, view, chunk, device)]).numpy()
            for plane in PLANES
        }


def ahead(items: Iterable[T]) -> Iterator[T]:
    """The same items in the same order, the next one read in a thread while the caller processes the current one."""
    iterator, end = iter(items), object()
    with ThreadPoolExecutor(1, "read-ahead") as pool:
        coming = pool.submit(next, iterator, end)
        while (item := coming.result()) is not end:
            coming = pool.submit(next, iterator, end)
            yield item  # type: ignore[misc]  # not the end
