"""`radiomics`: radiomic features of each whole volume, for `frd`."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, ClassVar, Literal

from pydantic import Field

from medlord_bench.contracts import FrozenConfig, Run, Spacing, State, Volume

Intensities = Literal["normalised", "hu"]


class RadiomicsConfig(FrozenConfig):
    """The intensities and the voxel size that features are measured at."""

    intensities: Intensities = Field(
        "normalised",
        description="normalised: mean 0 and standard deviation 100 in each volume, bins of 5, as frd-score; "
        "hu: HU as they are, bins of 25 HU",
    )
    spacing: Spacing = Field((2.0, 2.0, 2.0), description="voxel size in mm that volumes are resampled to")


class RadiomicsExtractor:
    """1014 radiomic features of each whole volume, as frd-score takes them from pyradiomics; without weights.

    {"volume": float32 (1, 1014)}, in the order of `library.NAMES`; NaN where a feature has no value.
    """

    Config: ClassVar[type[RadiomicsConfig]] = RadiomicsConfig
    version: ClassVar[int] = 1
    reads_spacing: ClassVar[bool] = True

    def __init__(self, config: RadiomicsConfig) -> None:
        self.config = config

    @property
    def _own(self) -> Mapping[str, Any]:
        from medlord_bench.plugins.extractors.radiomics import library

        return library.NORMALISED if self.config.intensities == "normalised" else library.IN_HU

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Everything that decides the features besides the volume. Raises `MissingError` without the library."""
        from medlord_bench.plugins.extractors.radiomics import library

        return {
            "backbone": f"flash-radiomics {library.installed()}",
            "settings": {**library.SHARED, **self._own, "resampledPixelSpacing": list(self.config.spacing)},
            "images": list(library.IMAGES),
            "features": list(library.PER_IMAGE),
            "diagnostics": list(library.DIAGNOSTICS),
            "region": "the volume without its padding, less its first voxel",
        }

    def features(self, volumes: Iterable[Volume], run: Run) -> Iterator[State]:
        """Per volume {"volume": float32 (1, 1014)}."""
        import numpy as np

        from medlord_bench.plugins.extractors.radiomics.library import measured
        from medlord_bench.volumes.padding import image_box

        for volume in volumes:
            box = image_box(volume.hu) or (slice(None),) * 3
            values = measured(volume.hu[box], volume.spacing, self.config.spacing, self._own)
            yield {"volume": np.asarray([values], dtype=np.float32)}
