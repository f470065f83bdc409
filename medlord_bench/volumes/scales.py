"""The number of MS-SSIM scales that a grid supports, and their weights."""

from __future__ import annotations

SCALE_WEIGHTS = (0.0448, 0.2856, 0.3001, 0.2363, 0.1333)  # Wang, Simoncelli & Bovik 2003, section 3.2


def scale_weights(smallest_side: int, kernel: int) -> tuple[float, ...]:
    """Weights of as many of the five scales as fit, renormalised to one; empty if fewer than two fit.

    A scale fits if the smallest side, halved once per scale before it, is not smaller than the kernel: five need 16
    times the kernel (48 voxels for kernel 3), four 8 times, three 4 times.
    """
    fitting = [w for scale, w in enumerate(SCALE_WEIGHTS) if smallest_side // 2**scale >= kernel]
    if len(fitting) < 2:
        return ()
    return tuple(w / sum(fitting) for w in fitting)
