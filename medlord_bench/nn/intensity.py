"""Scaling between Hounsfield units and the range of the networks: a fixed linear map, not one per volume."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np
import torch

if TYPE_CHECKING:
    from numpy.typing import NDArray

Window = tuple[int, int]


def scale_hu(hu: NDArray[np.int16], window: Window) -> torch.Tensor:
    """Clip HU to `window` (lowest, highest) and map them to float32 in [-1, 1] on the CPU; any shape.

    MedLoRD's repository also clips, but then scales each volume by its own extremes. For most volumes the result is the
    same, but that map has no inverse. The window is therefore used instead.
    """
    low, high = window
    values = torch.from_numpy(np.clip(hu, low, high).astype(np.float32))
    return values.sub_(low).mul_(2 / (high - low)).sub_(1)


def unscale_hu(values: torch.Tensor, window: Window) -> tuple[NDArray[np.int16], int]:
    """Exact inverse of `scale_hu`: int16 HU, rounded and clipped to `window`, and the number of non-finite values.

    Non-finite values become the lowest HU of the window. If their number is above 0, the sample has failed.
    """
    low, high = window
    scaled = values.detach().to("cpu", torch.float32, copy=True)
    not_finite = int((~torch.isfinite(scaled)).sum())
    scaled.nan_to_num_(nan=-1.0, posinf=-1.0, neginf=-1.0)
    scaled.add_(1).mul_((high - low) / 2).add_(low).round_().clamp_(low, high)
    return scaled.to(torch.int16).numpy(), not_finite
