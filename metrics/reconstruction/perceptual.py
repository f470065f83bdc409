"""LPIPS of two volumes, slice by slice in three planes (Zhang et al. 2018, arXiv 1801.03924)."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from .backbones import Net
from .similarity import LEAST_BODY

BATCH = 8  # slices at once
LEAST_SIDE = {"alex": 31, "vgg": 16, "squeeze": 17}  # pixels; smaller inputs are empty after the last pooling


class Network:
    """The package's network with its linear heads, and a backbone from a file of torchvision's."""

    def __init__(self, net: Net, path: Path, device: str) -> None:
        from lpips import LPIPS

        with warnings.catch_warnings():  # lpips uses torchvision's old API
            warnings.simplefilter("ignore")
            network = LPIPS(net=net, pnet_rand=True, spatial=True, verbose=False)
        _load(network.net, path)
        self.network = network.to(device).eval().requires_grad_(False)
        self.device = device
        self.least = LEAST_SIDE[net]

    def difference(
        self,
        made: NDArray[np.int16],
        real: NDArray[np.int16],
        window: tuple[int, int],
        stride: int,
        body: NDArray[np.bool_],
    ) -> NDArray[np.float64]:
        """Float64 (2,): of the whole volumes (X, Y, Z), and inside `body`; NaN if there is none.

        The mean over the pixels of a plane's slices (for the body: over those inside it), then over the three planes.
        NaN if a slice is too small for the network.
        """
        nothing = np.full(2, np.nan)
        if sorted(made.shape)[0] < self.least:
            return nothing
        planes = [self._plane(made, real, window, stride, body, axis) for axis in range(3)]
        found: NDArray[np.float64] = np.mean(planes, axis=0)
        return np.where([True, bool(body.mean() >= LEAST_BODY)], found, nothing)

    @torch.inference_mode()
    def _plane(
        self,
        made: NDArray[np.int16],
        real: NDArray[np.int16],
        window: tuple[int, int],
        stride: int,
        body: NDArray[np.bool_],
        axis: int,
    ) -> NDArray[np.float64]:
        sums, counts = np.zeros(2), np.zeros(2)
        places = slices(made.shape[axis], stride)
        for start in range(0, len(places), BATCH):
            batch = places[start : start + BATCH]
            images = [self._images(volume, axis, batch, window) for volume in (made, real)]
            values = self.network(*images)[:, 0].double().cpu().numpy()
            inside = upright(body, axis, batch)
            sums += [values.sum(), values[inside].sum()]
            counts += [values.size, inside.sum()]
        with np.errstate(invalid="ignore"):
            mean: NDArray[np.float64] = sums / counts
        return mean

    def _images(self, hu: NDArray[np.int16], axis: int, places: list[int], window: tuple[int, int]) -> Tensor:
        low, high = window
        grey = np.clip(upright(hu, axis, places), low, high).astype(np.float32)
        image = torch.from_numpy(grey).to(self.device).sub_(low).mul_(2 / (high - low)).sub_(1)
        return image[:, None].expand(-1, 3, -1, -1)


def slices(count: int, stride: int) -> list[int]:
    """Every `stride`-th of `count` slices, with equal margins before the first and after the last (or one more
    slice)."""
    return list(range((count - 1) % stride // 2, count, stride))


def upright(volume: NDArray[np.generic], axis: int, places: list[int]) -> NDArray[np.generic]:
    """Slices (n, rows, columns) in radiological orientation: the patient's front or head up, right or front to the
    left."""
    taken = np.moveaxis(np.take(volume, places, axis=axis), axis, 0)
    return np.ascontiguousarray(np.flip(taken, (1, 2)).swapaxes(1, 2))


def _load(backbone: torch.nn.Module, path: Path) -> None:
    """torchvision's weights into the package's backbone, whose slices keep the layers' numbers: slice2.3 is features.3.

    Raises `UserError` if a tensor of `features` is missing or of another shape. The classifier is not read.
    """
    from medlord_bench.nn.checkpoints import load_strict, read_torch

    found = read_torch(path)
    names = {name: f"features.{name.partition('.')[2]}" for name in backbone.state_dict()}
    tensors = found if isinstance(found, dict) else {}
    load_strict(backbone, {name: tensors[old] for name, old in names.items() if old in tensors}, str(path))
