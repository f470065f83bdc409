"""`medicalnet`: one vector for each whole volume, of MedicalNet's 3D ResNets. Weights from the hub or a folder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from medlord_bench.contracts import FrozenConfig, HUWindow, Run, Spacing, State, Volume
from medlord_bench.contracts.weights import NeededWeights
from medlord_bench.nn import pretrained
from medlord_bench.plugins.extractors.windowed import Window

if TYPE_CHECKING:
    from torch import Tensor

TINY = 1e-6  # standard deviation below which a volume is constant


class MedicalNetConfig(FrozenConfig):
    """Which network, and how volumes are brought to its voxel size and range."""

    depth: Literal[10, 18, 34, 50] = Field(50, description="layers of the ResNet; 512 features up to 34, 2048 at 50")
    hu_window: HUWindow = Field((-1000, 1000), description="HU window to which volumes are clipped")
    spacing: Spacing | None = Field(
        (1.5, 1.5, 1.5), description="voxel size in mm that volumes are resampled to; null: their own voxels"
    )
    window: Window = Field(
        (256, 256, 256), description="most voxels along X, Y, Z in one pass; larger volumes in equal parts, averaged"
    )


class MedicalNetExtractor:
    """3D ResNets of MedicalNet, trained to segment 23 data sets of CT and MR, weights from the hub or a folder.

    {"volume": float32 (1, 512 or 2048)}: the average over the volume of the last stage's activations.
    """

    Config: ClassVar[type[MedicalNetConfig]] = MedicalNetConfig
    version: ClassVar[int] = 1
    reads_spacing: ClassVar[bool] = True
    licence: ClassVar[str] = "weights: MIT (Tencent MedicalNet)"

    def __init__(self, config: MedicalNetConfig) -> None:
        self.config = config

    def needed_weights(self) -> Sequence[NeededWeights]:
        return [weights_file(self.config.depth).needed(self.licence)]

    @cached_property
    def weights(self) -> pretrained.Found:
        """The file on disk, fetched if the network may be used. Raises `MissingError` if it is not available."""
        return pretrained.find(weights_file(self.config.depth))

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Everything that decides the features besides the volume; hashed into every protocol id."""
        config, file = self.config, weights_file(self.config.depth)
        size = "none: the volume's own voxels" if config.spacing is None else f"to {list(config.spacing)} mm, linear"
        return {
            "backbone": f"MedicalNet ResNet-{config.depth} ({file.repo}, {file.file})",
            "weights_sha256": self.weights.sha256,
            "weights_locked": self.weights.locked,
            "features": f"{512 if config.depth < 50 else 2048}: last stage, average over the volume",
            "resampling": size,
            "intensity": f"clipped to {list(config.hu_window)} HU, then mean 0 and standard deviation 1 of each volume",
            "windows": f"equal parts of at most {list(config.window)} voxels, features averaged by their voxels",
            "axes": "the network's depth, height and width are Z, Y and X, towards head, front and right",
        }

    def features(self, volumes: Iterable[Volume], run: Run) -> Iterator[State]:
        """Per volume {"volume": float32 (1, features)}."""
        from medlord_bench.plugins.extractors.medicalnet.network import load
        from medlord_bench.plugins.extractors.resnet3d import forward
        from medlord_bench.plugins.extractors.whole_volumes import averaged, resampled

        network = load(self.weights.path, self.config.depth).to(run.device)

        def one(part: Tensor) -> Tensor:
            return forward(network, part.to(run.device).permute(2, 1, 0)[None].contiguous())

        for volume in volumes:
            small = resampled(volume.hu, volume.spacing, self.config.spacing or volume.spacing)
            small = small.clamp_(*self.config.hu_window)
            deviation, mean = (float(value) for value in _moments(small))
            yield {"volume": averaged(small.sub_(mean).div_(max(deviation, TINY)), self.config.window, one)}


def weights_file(depth: int) -> pretrained.WeightsFile:
    """The published file of the weights trained on 23 data sets."""
    return pretrained.WeightsFile(
        repo=f"TencentMedicalNet/MedicalNet-Resnet{depth}", file=f"resnet_{depth}_23dataset.pth"
    )


def _moments(volume: Tensor) -> tuple[Tensor, Tensor]:
    """Standard deviation and mean of all voxels."""
    import torch

    return torch.std_mean(volume.double(), correction=0)
