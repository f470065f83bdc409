"""The noise of a part of a volume."""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

TO_SD = 1.4826  # median absolute deviation to standard deviation, of a Gaussian


def noise_of(hu: NDArray[Any], inside: NDArray[np.bool_]) -> float:
    """Standard deviation of the noise of the voxels `inside`, from the differences of neighbours along X; 0 without any.

    The median of the differences, so that borders within the part count little.
    """
    pairs = inside[1:] & inside[:-1]
    apart = np.abs(hu[1:][pairs].astype(np.float32) - hu[:-1][pairs])
    return float(TO_SD * np.median(apart) / 2**0.5) if apart.size else 0.0
