"""The radiomics library of `radiomics`: where it is, its settings, and one volume through it.

The settings are those of frd-score 1.0.1 for 3D images (Konz, Osuala et al. 2026, arXiv 2412.01496). Its features are named
as in pyradiomics.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import cache
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from medlord_bench.errors import MissingError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

INSTALL = "pip install 'medlord-bench[radiomics]'"
# flash-radiomics declares none of the packages that it imports.
PACKAGES = ("flash_radiomics", "h5py", "pykwalify", "pywt", "sklearn")
SIGMAS = (2.0, 3.0, 4.0, 5.0)  # mm
IMAGES = (
    "original",
    *(f"log-sigma-{sigma:.0f}-0-mm-3D" for sigma in SIGMAS),
    *(f"wavelet-{x}{y}{z}" for x in "LH" for y in "LH" for z in "LH"),
)
CLASSES: dict[str, tuple[str, ...]] = {
    "firstorder": (
        *("10Percentile", "90Percentile", "Energy", "Entropy", "InterquartileRange", "Kurtosis", "Maximum"),
        *("MeanAbsoluteDeviation", "Mean", "Median", "Minimum", "Range", "RobustMeanAbsoluteDeviation"),
        *("RootMeanSquared", "Skewness", "TotalEnergy", "Uniformity", "Variance"),
    ),
    "glcm": (
        *("Autocorrelation", "JointAverage", "ClusterProminence", "ClusterShade", "ClusterTendency", "Contrast"),
        *("Correlation", "DifferenceAverage", "DifferenceEntropy", "DifferenceVariance", "JointEnergy"),
        *("JointEntropy", "Imc1", "Imc2", "Idm", "Idmn", "Id", "Idn", "InverseVariance", "MaximumProbability"),
        *("SumEntropy", "SumSquares"),
    ),
    "glrlm": (
        *("GrayLevelNonUniformity", "GrayLevelNonUniformityNormalized", "GrayLevelVariance"),
        *("HighGrayLevelRunEmphasis", "LongRunEmphasis", "LongRunHighGrayLevelEmphasis"),
        *("LongRunLowGrayLevelEmphasis", "LowGrayLevelRunEmphasis", "RunEntropy", "RunLengthNonUniformity"),
        *("RunLengthNonUniformityNormalized", "RunPercentage", "RunVariance", "ShortRunEmphasis"),
        *("ShortRunHighGrayLevelEmphasis", "ShortRunLowGrayLevelEmphasis"),
    ),
    "glszm": (
        *("GrayLevelNonUniformity", "GrayLevelNonUniformityNormalized", "GrayLevelVariance"),
        *("HighGrayLevelZoneEmphasis", "LargeAreaEmphasis", "LargeAreaHighGrayLevelEmphasis"),
        *("LargeAreaLowGrayLevelEmphasis", "LowGrayLevelZoneEmphasis", "SizeZoneNonUniformity"),
        *("SizeZoneNonUniformityNormalized", "SmallAreaEmphasis", "SmallAreaHighGrayLevelEmphasis"),
        *("SmallAreaLowGrayLevelEmphasis", "ZoneEntropy", "ZonePercentage", "ZoneVariance"),
    ),
    "ngtdm": ("Busyness", "Coarseness", "Complexity", "Contrast", "Strength"),
}
# frd-score keeps the numbers among pyradiomics' diagnostics; those of the original image are in HU in either form.
DIAGNOSTICS = (
    *("diagnostics_Image-original_Mean", "diagnostics_Image-original_Minimum", "diagnostics_Image-original_Maximum"),
    *("diagnostics_Mask-original_VoxelNum", "diagnostics_Mask-original_VolumeNum"),
    *("diagnostics_Image-interpolated_Mean", "diagnostics_Image-interpolated_Minimum"),
    *("diagnostics_Image-interpolated_Maximum", "diagnostics_Mask-interpolated_VoxelNum"),
    *("diagnostics_Mask-interpolated_VolumeNum", "diagnostics_Mask-interpolated_Mean"),
    *("diagnostics_Mask-interpolated_Minimum", "diagnostics_Mask-interpolated_Maximum"),
)
PER_IMAGE = tuple(f"{name}_{feature}" for name, features in CLASSES.items() for feature in features)
NAMES = (*(f"{image}_{feature}" for image in IMAGES for feature in PER_IMAGE), *DIAGNOSTICS)
LEAST_VOXELS = 8  # after resampling: the library refuses a volume of one
SHARED: dict[str, Any] = {
    "interpolator": "sitkBSpline",
    "padDistance": 10,
    "preCrop": True,
    "correctMask": True,
    "minimumROIDimensions": 1,
    "label": 1,
}
NORMALISED: dict[str, Any] = {"normalize": True, "normalizeScale": 100, "binWidth": 5, "voxelArrayShift": 300}
IN_HU: dict[str, Any] = {"normalize": False, "binWidth": 25, "voxelArrayShift": 1000}


def installed() -> str:
    """The library's version. Raises `MissingError` with what to install."""
    for package in PACKAGES:
        if find_spec(package) is None:
            raise MissingError(f"extractor radiomics: package {package} is not installed: {INSTALL}")
    try:
        return version("flash-radiomics")
    except PackageNotFoundError:
        raise MissingError(f"extractor radiomics: package flash-radiomics is not installed: {INSTALL}") from None


def measured(
    hu: NDArray[np.int16], spacing: Sequence[float], wanted: Sequence[float], own: Mapping[str, Any]
) -> list[float]:
    """A number for each of `NAMES`, NaN where there is none: all of a constant volume or one below eight voxels of the
    wanted size; those of the Laplacian of a volume of fewer than four such voxels along an axis.

    hu: (X, Y, Z), all of it measured but its first voxel, as frd-score does. wanted: voxel size in mm that it is
    resampled to. own: `NORMALISED` or `IN_HU`. Raises `MissingError` as `installed`.
    """
    import numpy as np
    import SimpleITK

    installed()
    if np.ptp(hu) == 0 or hu.size * math.prod(spacing) < LEAST_VOXELS * math.prod(wanted):
        return [math.nan] * len(NAMES)
    mask = np.ones(hu.shape, np.uint8)
    mask[0, 0, 0] = 0
    images = [SimpleITK.GetImageFromArray(one.transpose(2, 1, 0)) for one in (hu.astype(np.float32), mask)]
    for image in images:
        image.SetSpacing([float(mm) for mm in spacing])
    settings = {**SHARED, **own, "resampledPixelSpacing": list(wanted)}
    parameters = {
        "imageType": {"Original": {}, "LoG": {"sigma": list(SIGMAS)}, "Wavelet": {}},
        "featureClass": {name: list(features) for name, features in CLASSES.items()},
        "setting": settings,
    }
    # One thread: a sum does not depend on how the work is divided.
    extractor = _extractor_class()(parameters, backend="cpu", num_threads=1)
    # `execute` would write a file, and keeps volumes by their addresses in memory.
    found = extractor.extract_from_preprocessed(extractor.preprocess_case(*images))
    values = (float(found.get(name, math.nan)) for name in NAMES)
    return [value if math.isfinite(value) else math.nan for value in values]


@cache
def _extractor_class() -> Any:
    import flash_radiomics

    flash_radiomics.setVerbosity(40)  # errors only

    class Extractor(flash_radiomics.RadiomicsFeatureExtractor):  # type: ignore[misc]
        """Version 1.0.0 keeps grey levels by an image's address in memory, where another filtered image may be by now:
        most features of such an image would be those of an earlier one."""

        def computeFeatures(self, *args: Any, **kwargs: Any) -> Any:
            self._discretization_cache: dict[Any, Any] = {}
            return super().computeFeatures(*args, **kwargs)

    return Extractor
