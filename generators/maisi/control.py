"""Conditioning on anatomy: label maps as bits, and training the ControlNet that follows them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn

from medlord_bench.contracts import AttentionBackend, Cohort, Run, Shape
from medlord_bench.contracts.regions import members
from medlord_bench.errors import UserError
from medlord_bench.nn.checkpoints import load_model, load_strict, save_model
from medlord_bench.volumes.native_grid import labels_to_native

from .configs import ControlNetConfig, DiffusionConfig, Levels
from .diffusion import ARCHITECTURE, Diffusion, read_config
from .latent_training import LatentRecipe, Latents
from .unet import ControlNet, UNet, bit_planes, build_controlnet, copy_encoder

KIND = "maisi.controlnet"
PREFIX = "controlnet."


def numbered(labels: NDArray[np.uint8], names: Mapping[int, str], regions: Mapping[str, int]) -> NDArray[np.uint8]:
    """The label map that the ControlNet reads: each region's number where the region is, 0 elsewhere; uint8, same shape.

    names: label value to region name. Where regions overlap, the later one counts. Raises `UserError` for a region that
    the label map does not know; one that it knows may be empty in this volume.
    """
    table = np.zeros(256, dtype=np.uint8)
    for region, number in regions.items():
        values = [value for value, name in names.items() if name in members(region)]
        if not values:
            known = ", ".join(sorted(set(names.values())))
            raise UserError(
                f"condition region {region!r} is not in the label map (it knows: {known}); give masks of it"
            )
        table[values] = number
    return table[labels]


class ControlledUNet(nn.Module):
    """The frozen U-Net with the ControlNet that is being trained, as one network over label maps."""

    def __init__(self, unet: UNet, controlnet: ControlNet) -> None:
        super().__init__()
        self.unet, self.controlnet = unet, controlnet

    def forward(self, x: Tensor, times: Tensor, spacing: Tensor, labels: Tensor) -> Tensor:
        """labels: numbered, uint8 (N, X, Y, Z); the rest as `UNet` takes it."""
        return self.unet(x, times, spacing, self.controlnet(x, times, self.controlnet.embed(bit_planes(labels))))


class ControlNetRecipe(LatentRecipe):
    """The conditional stage: the U-Net's averaged weights stay as they are, the ControlNet starts from its encoder.

    The condition regions are the protocol's, numbered from 1. shape: MAISI's grid.
    """

    def __init__(
        self,
        config: ControlNetConfig,
        diffusion: Diffusion,
        latents: Latents,
        cohort: Cohort,
        shape: Shape,
        run: Run,
    ) -> None:
        named = cohort.protocol.condition_regions
        if not named:
            raise UserError(f"protocol {cohort.protocol.id()}: no condition_regions; name those to condition on")
        self.cohort, self.shape, self.unet = cohort, shape, diffusion.unet.requires_grad_(False)
        self.regions = {region: number for number, region in enumerate(named, 1)}
        torch.manual_seed(run.seed)
        channels = self.unet.in_channels
        self.controlnet = build_controlnet(self.unet.config, config.embedding_channels, channels, run.device)
        copy_encoder(self.unet, self.controlnet)
        self.embedding_channels = config.embedding_channels
        model = ControlledUNet(self.unet, self.controlnet)
        super().__init__(config, diffusion.schedule, model, self.controlnet, latents, run, stage="controlnet")

    def labels(self, case_id: str) -> Tensor:
        labels = self.cohort.labels(case_id)
        if labels is None:
            raise UserError(f"case {case_id}: has no mask; conditional training needs one per case")
        values = numbered(np.asarray(labels), self.cohort.label_names, self.regions)
        return torch.from_numpy(labels_to_native(values, self.shape, "resize"))

    def export(self, folder: Path) -> None:
        """The averaged weights."""
        weights = {name.removeprefix(PREFIX): value for name, value in self.ema.shadow.items()}
        save_controlnet(folder, self.unet.config, self.embedding_channels, self.regions, weights)


@dataclass(frozen=True, eq=False)
class Control:
    """A trained ControlNet and the number that stands for each region in its label maps."""

    net: ControlNet
    regions: Mapping[str, int]


def save_controlnet(
    folder: Path,
    config: DiffusionConfig,
    embedding_channels: Levels,
    regions: Mapping[str, int],
    weights: Mapping[str, Tensor],
) -> None:
    """Write `weights` of the ControlNet with everything that sampling needs."""
    described = config.model_dump(mode="json", include=set(ARCHITECTURE))
    channels = weights["conv_in.conv.weight"].shape[1]
    facts = {
        "embedding_channels": list(embedding_channels),
        "latent_channels": channels,
        "regions": [[region, number] for region, number in regions.items()],
    }
    save_model(folder, KIND, described | facts, weights)


def load_controlnet(folder: Path, device: str, attention: AttentionBackend | None = None) -> Control:
    """What `save_controlnet` wrote, frozen, on `device`. Raises `MissingError` or `UserError` naming the file."""
    described, tensors = load_model(folder, KIND)
    try:
        embedding, regions = tuple(described["embedding_channels"]), dict(described["regions"])
        net = build_controlnet(read_config(described, attention), embedding, described["latent_channels"], device)
    except (KeyError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder / 'model.json'}: damaged ({reason}); restore it or train again") from None
    load_strict(net, tensors, str(folder / "model.safetensors"))
    return Control(net.eval().requires_grad_(False), regions)
