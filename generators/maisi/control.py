"""Conditioning on anatomy: label maps as bits, and training of the ControlNet that reads them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from medlord_bench.contracts import AttentionBackend, Cohort, Run, Shape
from medlord_bench.contracts.regions import condition_values
from medlord_bench.nn.checkpoints import load_frozen, save_model
from medlord_bench.nn.diffusion.control import ControlRecipe, condition_regions
from medlord_bench.volumes.native_grid import labels_to_native

from .configs import ControlNetConfig, DiffusionConfig, Levels
from .diffusion import ARCHITECTURE, Diffusion, read_config
from .latents import SpacedLatents
from .unet import ControlNet, bit_planes, build_controlnet, copy_encoder

KIND = "maisi.controlnet"


def numbered(labels: NDArray[np.uint8], names: Mapping[int, str], regions: Mapping[str, int]) -> NDArray[np.uint8]:
    """The ControlNet's label map, uint8 (X, Y, Z): the region's number in each region, 0 elsewhere.

    names: label value to region name. If regions overlap, the later one counts. Raises `UserError` for a region that
    the label map does not define. A defined region may be absent from this volume.
    """
    table = np.zeros(256, dtype=np.uint8)
    for region, number in regions.items():
        table[condition_values(region, names)] = number
    return table[labels]  # table (256,) indexed by labels (X, Y, Z) -> (X, Y, Z)


class ControlNetRecipe(ControlRecipe):
    """The conditional stage. The averaged weights of the U-Net are frozen; the ControlNet starts from its encoder.

    The protocol defines the condition regions; they are numbered from 1. shape: MAISI's grid.
    """

    latents: SpacedLatents

    def __init__(
        self,
        config: ControlNetConfig,
        diffusion: Diffusion,
        latents: SpacedLatents,
        cohort: Cohort,
        shape: Shape,
        run: Run,
    ) -> None:
        self.regions = {region: number for number, region in enumerate(condition_regions(cohort), 1)}
        self.shape, self.unet, self.embedding_channels = shape, diffusion.unet, config.embedding_channels
        torch.manual_seed(run.seed)
        net = build_controlnet(self.unet.config, config.embedding_channels, self.unet.in_channels, run.device)
        copy_encoder(self.unet, net)

        def embed(labels: Tensor) -> Tensor:
            return net.embed(bit_planes(labels))

        super().__init__(config, diffusion.schedule, self.unet, net, embed, latents, cohort, run)

    def conditions(self, case_id: str, rng: torch.Generator | None) -> tuple[Tensor, Tensor]:
        """Voxel size in mm, float32 (3,), and numbered labels, uint8 (X, Y, Z), on MAISI's grid."""
        values = numbered(np.asarray(self.labels(case_id)), self.cohort.label_names, self.regions)
        labels = torch.from_numpy(labels_to_native(values, self.shape, "resize"))
        return self.latents.spacing(case_id), labels

    def export(self, folder: Path) -> None:
        """Write the averaged weights."""
        save_controlnet(folder, self.unet.config, self.embedding_channels, self.regions, self.averaged())


@dataclass(frozen=True, eq=False)
class Control:
    """A trained ControlNet and the number of each region in its label maps."""

    net: ControlNet
    regions: Mapping[str, int]


def save_controlnet(
    folder: Path,
    config: DiffusionConfig,
    embedding_channels: Levels,
    regions: Mapping[str, int],
    weights: Mapping[str, Tensor],
) -> None:
    """Write `weights` of the ControlNet and all facts that sampling needs."""
    described = config.model_dump(mode="json", include=set(ARCHITECTURE))
    channels = weights["conv_in.conv.weight"].shape[1]
    facts = {
        "embedding_channels": list(embedding_channels),
        "latent_channels": channels,
        "regions": [[region, number] for region, number in regions.items()],
    }
    save_model(folder, KIND, described | facts, weights)


def load_controlnet(folder: Path, device: str, attention: AttentionBackend | None = None) -> Control:
    """Load what `save_controlnet` wrote, frozen, on `device`. Raises `MissingError` or `UserError` with the path."""

    def build(described: dict[str, Any]) -> tuple[ControlNet, dict[str, int]]:
        embedding, regions = tuple(described["embedding_channels"]), dict(described["regions"])
        config = read_config(described, attention)
        return build_controlnet(config, embedding, described["latent_channels"], device), regions

    return Control(*load_frozen(folder, KIND, build))
