"""`radimagenet`: slice features of the Keras-layout ResNet-50 trained on RadImageNet, the network of the MAISI script.

The weights may not be redistributed: the user fetches them, or they are in the offline folder.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field

from medlord_bench.contracts import FrozenConfig, HUWindow, Run, State, Volume
from medlord_bench.contracts.weights import NeededWeights
from medlord_bench.nn import pretrained

if TYPE_CHECKING:
    from torch import Tensor

WEIGHTS = pretrained.WeightsFile(repo="MONAI/checkpoints", file="RadImageNet-ResNet50_notop.pth")
MEAN = (0.406, 0.456, 0.485)  # of blue, green, red; the usual input of these weights, without a standard deviation


class RadImageNetConfig(FrozenConfig):
    """How slices are chosen and converted to images; `RadImageNetExtractor.variants` names the settings in use."""

    hu_window: HUWindow = Field((-1000, 1000), description="HU window to which volumes are clipped")
    normalisation: Literal["window", "volume-min-max"] = Field(
        "window",
        description="values mapped to 0 and 1: the window's ends, or the extreme clipped values of a plane's slices",
    )
    slices: int | None = Field(32, ge=1, description="per plane, evenly spaced, all if there are fewer; null: all")
    centre_ratio: float = Field(1.0, gt=0, le=1, description="central fraction of each axis that slices come from")
    size: int | None = Field(
        224, ge=32, description="slices are resized to this many pixels on a side; null: no resizing"
    )
    orientation: Literal["upright", "array"] | None = Field(
        None, description="as a radiologist sees them, or as stored; null: upright, array with volume-min-max"
    )

    @property
    def upright(self) -> bool:
        return (self.orientation or ("upright" if self.normalisation == "window" else "array")) == "upright"


class RadImageNetExtractor:
    """ResNet-50 in Keras layout trained on RadImageNet, weights from the hub or a folder: 2048 features per slice.

    Per volume and plane, float32 (slices, 2048): the average over the image of the last stage."""

    Config: ClassVar[type[RadImageNetConfig]] = RadImageNetConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "no licence of the RadImageNet weights was found"
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {
        "fixed-window": {},
        # compute_fid_2-5d_ct.py of MAISI; its --enable_center_slices_ratio is centre_ratio
        "maisi-compat": {"normalisation": "volume-min-max", "slices": None, "size": None, "orientation": "array"},
    }

    def __init__(self, config: RadImageNetConfig) -> None:
        self.config = config

    def needed_weights(self) -> Sequence[NeededWeights]:
        return [WEIGHTS.needed(self.licence)]

    @cached_property
    def weights(self) -> pretrained.Found:
        """The file on disk, fetched if the network may be used. Raises `MissingError` if it is not available."""
        return pretrained.find(WEIGHTS)

    @property
    def weights_sha256(self) -> str:
        """sha256 of the weights file."""
        return self.weights.sha256

    @property
    def preprocessing(self) -> Mapping[str, Any]:
        """Everything that decides the features besides the volume; hashed into every protocol id."""
        config = self.config
        scale = {
            "window": "to [0, 1]",
            "volume-min-max": "each plane's chosen slices by their own least and largest value to [0, 1]",
        }[config.normalisation]
        count = "all" if config.slices is None else f"{config.slices}, evenly spread, all where there are fewer"
        return {
            "backbone": f"ResNet-50 in Keras layout, RadImageNet ({WEIGHTS.repo}, {WEIGHTS.file})",
            "weights_sha256": self.weights.sha256,
            "weights_locked": self.weights.locked,
            "features": "2048: last stage, average over the image",
            "hu_window": list(config.hu_window),
            "intensity": f"clipped to the window, {scale}, grey three times, minus {list(MEAN)}",
            "slices": f"{count}, of the middle {config.centre_ratio:g} of each axis; none left out as empty",
            "planes": ["axial", "coronal", "sagittal"],
            "resize": f"{config.size} x {config.size}, bilinear, antialiased, after clipping"
            if config.size
            else "none",
            "orientation": "upright: anterior or head above, the patient's right or front on the left"
            if config.upright
            else "array: rows and columns in the order X, Y, Z, towards right, front and head",
        }

    def features(self, volumes: Iterable[Volume], run: Run) -> Iterator[State]:
        """Per volume {"axial", "coronal", "sagittal"}: float32 (slices, 2048); memory does not grow with the slices."""
        import torch

        from medlord_bench.plugins.extractors.radimagenet.network import load
        from medlord_bench.plugins.extractors.slices import View, ahead, chunk_size, slice_features

        config = self.config
        network = load(self.weights.path).to(run.device)
        mean = torch.tensor(MEAN, device=run.device).view(3, 1, 1)
        view = View(
            config.hu_window,
            config.slices,
            config.size,
            config.centre_ratio,
            own_range=config.normalisation == "volume-min-max",
            upright=config.upright,
        )

        def forward(grey: Tensor) -> Tensor:
            features: Tensor = network((grey - mean).contiguous(memory_format=torch.channels_last))
            return features

        for volume in ahead(volumes):
            yield slice_features(volume, view, forward, chunk_size(run.device), run.device)
