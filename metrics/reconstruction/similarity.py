"""Mean squared error and MS-SSIM of two volumes, over the whole and inside the body."""

from __future__ import annotations

import numpy as np
import torch
from monai.metrics.regression import compute_ssim_and_cs
from numpy.typing import NDArray
from scipy import ndimage
from torch import Tensor
from torch.nn import functional as F

from medlord_bench.contracts import State
from medlord_bench.volumes.scales import scale_weights

SLAB_PLANES = 32  # planes along X whose similarity maps are in memory at once
LEAST_BODY = 0.01  # of the voxels: with less there is no body


def body_mask(hu: NDArray[np.int16], threshold: int) -> NDArray[np.bool_]:
    """The largest connected component above `threshold` HU, holes filled slice by slice (lungs reach the ends)."""
    labels, count = ndimage.label(hu > threshold)
    if count == 0:
        return np.zeros(hu.shape, dtype=bool)
    sizes = np.bincount(labels.ravel())
    sizes[0] = 0
    body = labels == sizes.argmax()
    for z in range(body.shape[2]):
        body[:, :, z] = ndimage.binary_fill_holes(body[:, :, z])
    return body


def compare(
    made: NDArray[np.int16],
    real: NDArray[np.int16],
    window: tuple[int, int],
    kernel: int,
    sigma: float,
    threshold: int,
    device: str,
) -> State:
    """{"mse": HU^2, "ms_ssim"}, each float64 (2,): whole volume, body; NaN if there is none."""
    body = body_mask(real, threshold)
    if body.mean() < LEAST_BODY:
        body[:] = False
    mse = [mean_squared_error(made, real, window, mask) for mask in (None, body)]
    low, high = window
    unit = [
        torch.from_numpy(image.astype(np.float32)).to(device).clamp_(low, high).sub_(low).div_(high - low)
        for image in (made, real)
    ]
    return {"mse": np.array(mse), "ms_ssim": np.array(ms_ssim(unit[0], unit[1], body, kernel, sigma))}


def mean_squared_error(
    made: NDArray[np.int16], real: NDArray[np.int16], window: tuple[int, int], mask: NDArray[np.bool_] | None
) -> float:
    """In HU^2, of voxels clipped to `window`; exact for integers. NaN for an empty mask."""
    total, count = 0, 0
    for x in range(made.shape[0]):  # plane by plane: memory does not grow with the volume
        apart = made[x].clip(*window).astype(np.int64) - real[x].clip(*window)
        squared = apart**2 if mask is None else apart[mask[x]] ** 2
        total, count = total + int(squared.sum()), count + squared.size
    return total / count if count else float("nan")


@torch.inference_mode()
def ms_ssim(made: Tensor, real: Tensor, body: NDArray[np.bool_], kernel: int, sigma: float) -> tuple[float, float]:
    """MS-SSIM of two volumes (X, Y, Z) in [0, 1]: of the whole, and of the voxels of `body` at each scale.

    Wang, Simoncelli & Bovik 2003, eq. 7: contrast-structure at every scale, luminance at the coarsest. The whole is
    the value of MONAI's MultiScaleSSIMMetric. In the body each window counts with the fraction of it that is body: to count
    only windows centred in it would leave none of a body along the side of a patch at the coarsest scale.
    """
    weights = scale_weights(min(made.shape), kernel)
    if not weights:
        return float("nan"), float("nan")
    x, y = made[None, None], real[None, None]
    mask = torch.from_numpy(body.astype(np.float32)).to(made.device)[None, None]
    result = np.ones(2)
    for scale, weight in enumerate(weights):
        last = scale == len(weights) - 1
        result *= np.maximum(_similarity(x, y, mask, kernel, sigma, last), 0.0) ** weight
        if not last:
            x, y, mask = (F.avg_pool3d(image, 2) for image in (x, y, mask))
    return float(result[0]), float(result[1])


def _similarity(x: Tensor, y: Tensor, mask: Tensor, kernel: int, sigma: float, luminance: bool) -> NDArray[np.float64]:
    """Mean similarity (with luminance) or contrast-structure of the whole and, weighted by `mask`, of the body; in slabs along X."""
    sums, counts = np.zeros(2), np.zeros(2)
    for start in range(0, x.shape[2] - kernel + 1, SLAB_PLANES):
        part = slice(start, start + SLAB_PLANES + kernel - 1)
        maps = compute_ssim_and_cs(x[:, :, part], y[:, :, part], 3, (kernel,) * 3, (sigma,) * 3)
        values = maps[0 if luminance else 1].double()
        inside = F.avg_pool3d(mask[:, :, part], kernel, stride=1).double()
        sums += [values.sum().item(), (values * inside).sum().item()]
        counts += [values.numel(), inside.sum().item()]
    with np.errstate(invalid="ignore"):
        mean: NDArray[np.float64] = sums / counts  # NaN without any body
    return mean
