"""`ctfm`: one vector for each whole volume, of CT-FM's encoder. Weights from the hub or a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import FrozenConfig, HUWindow, Run, Spacing, State, Volume
from medlord_bench.contracts.weights import NeededWeights
from medlord_bench.nn import pretrained
from medlord_bench.plugins.extractors.windowed import Window

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = pretrained.WeightsFile(repo="project-lighter/ct_fm_feature_extractor", file="model.safetensors")


class CTFMConfig(FrozenConfig):
    """How volumes are brought to the network's voxel size and range."""

    hu_window: HUWindow = Field(
        (-1024, 2048),
        description="HU that become 0 and 1; values beyond are clipped. The default is that of its training",
    )
    spacing: Spacing = Field((1.0, 1.0, 3.0), description="voxel size in mm that volumes are resampled to")
    window: Window = Field(
        (256, 256, 128), description="most voxels along X, Y, Z in one pass; larger volumes in equal parts, averaged"
    )


class CTFMExtractor:
    """SegResEncoder of CT-FM, trained by contrast on 148,000 CT, weights from the hub or a folder: 512 features.

    {"volume": float32 (1, 512)}: the average over the volume of the last level's activations.
    """

    Config: ClassVar[type[CTFMConfig]] = CTFMConfig
    version: ClassVar[int] = 1
    reads_spacing: ClassVar[bool] = True
    licence: ClassVar[str] = "code: MIT (project-lighter/CT-FM); of the weights: see their model card"

    def __init__(self, config: CTFMConfig) -> None:
        self.config = config

    def needed_weights(self) -> Sequence[NeededWeights]:
        return [WEIGHTS.needed(self.licence)]

    @cached_property
    def weights(self) -> pretrained.Found:
        """The file on disk, fetched if the network may be used. Raises `MissingError` if it is not available."""
        return pretrained.find(WEIGHTS)

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Everything that decides the features besides the volume; hashed into every protocol id."""
        config = self.config
        return {
            "backbone": f"CT-FM SegResEncoder ({WEIGHTS.repo}, {WEIGHTS.file})",
            "weights_sha256": self.weights.sha256,
            "weights_locked": self.weights.locked,
            "features": "512: last level, average over the volume",
            "resampling": f"to {list(config.spacing)} mm, linear along each axis, without averaging",
            "intensity": f"clipped to {list(config.hu_window)} HU, to [0, 1]",
            "windows": f"equal parts of at most {list(config.window)} voxels, features averaged by their voxels",
            "axes": "the network's depth, height and width are Z, Y and X, towards head, back and left (SPL)",
        }

    def features(self, volumes: Iterable[Volume], run: Run) -> Iterator[State]:
        """Per volume {"volume": float32 (1, 512)}."""
        from medlord_bench.plugins.extractors.ctfm.network import forward, load
        from medlord_bench.plugins.extractors.whole_volumes import averaged, resampled

        low, high = self.config.hu_window
        encoder = load(self.weights.path).to(run.device)

        def one(part: Tensor) -> Tensor:
            return forward(encoder, part.to(run.device).permute(2, 1, 0).flip(1, 2)[None])

        for volume in volumes:
            small = resampled(volume.hu, volume.spacing, self.config.spacing)
            grey = small.clamp_(low, high).sub_(low).div_(high - low)
            yield {"volume": averaged(grey, self.config.window, one)}
