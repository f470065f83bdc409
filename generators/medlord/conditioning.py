"""Conditioning on anatomy: masks of regions, and training the ControlNet that follows them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import nn

from medlord_bench.contracts import AttentionBackend, Cohort, Run
from medlord_bench.contracts.regions import members
from medlord_bench.errors import UserError
from medlord_bench.nn.checkpoints import load_model, load_strict, save_model

from .configs import ControlNetConfig, ControlUNetConfig, UNetConfig
from .controlnet import ControlNet, build_controlnet
from .diffusion import Diffusion
from .latent_training import LatentRecipe, Latents
from .unet import UNet

__all__ = ["Control", "ControlNetConfig", "ControlNetRecipe", "load_controlnet", "region_masks"]

KIND = "medlord.controlnet"
PREFIX = "controlnet."


def region_masks(labels: NDArray[np.uint8], names: Mapping[int, str], regions: Sequence[str]) -> torch.Tensor:
    """One binary mask per region: labels uint8 (X, Y, Z) to uint8 (K, X, Y, Z).

    names: label value to region name. Raises `UserError` for a region that the label map does not know; one that it
    knows and that is empty in this volume is an empty mask.
    """
    masks = np.empty((len(regions), *labels.shape), dtype=np.uint8)
    for mask, region in zip(masks, regions, strict=True):
        values = [value for value, name in names.items() if name in members(region)]
        if not values:
            known = ", ".join(sorted(set(names.values())))
            raise UserError(
                f"condition region {region!r} is not in the label map (it knows: {known}); give masks of it"
            )
        belongs = np.zeros(256, dtype=np.uint8)
        belongs[values] = 1
        mask[...] = belongs[labels]
    return torch.from_numpy(masks)


class ControlledUNet(nn.Module):
    """The frozen U-Net with the ControlNet that is being trained, as one network over masks."""

    def __init__(self, unet: UNet, controlnet: ControlNet) -> None:
        super().__init__()
        self.unet, self.controlnet = unet, controlnet

    def forward(self, x: torch.Tensor, timesteps: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """x: latents (N, d, x, y, z); timesteps: int (N,); masks: float (N, K, X, Y, Z). Returns the velocity."""
        return self.unet(x, timesteps, self.controlnet(x, timesteps, self.controlnet.embed(masks)))


class ControlNetRecipe(LatentRecipe):
    """The conditional stage (paper, section 2.3): the U-Net's averaged weights stay as they are.

    diffusion: as `load_diffusion` gives it. downsampling: the autoencoder's factor.
    The condition regions are the protocol's; in training the whole condition is dropped with a stated probability.
    """

    def __init__(
        self,
        config: ControlNetConfig,
        diffusion: Diffusion,
        latents: Latents,
        cohort: Cohort,
        downsampling: int,
        run: Run,
    ) -> None:
        self.cohort, self.regions, self.dropout = cohort, cohort.protocol.condition_regions, config.condition_dropout
        if not self.regions:
            raise UserError(f"protocol {cohort.protocol.id()}: no condition_regions; name those to condition on")
        self.downsampling, self.unet = downsampling, diffusion.unet.requires_grad_(False)
        torch.manual_seed(run.seed)
        self.controlnet = build_controlnet(config.net, self.unet.config, len(self.regions), downsampling, run.device)
        model = ControlledUNet(self.unet, self.controlnet)
        super().__init__(config, diffusion.schedule, model, self.controlnet, latents, run, stage="controlnet")

    def masks(self, case_id: str, drop: torch.Tensor | None) -> torch.Tensor:
        labels = self.cohort.labels(case_id)
        if labels is None:
            raise UserError(f"case {case_id}: has no mask; conditional training needs one per case")
        if drop is not None and float(drop) < self.dropout:
            return torch.zeros(len(self.regions), *labels.shape, dtype=torch.uint8)
        return region_masks(labels, self.cohort.label_names, self.regions)

    def export(self, folder: Path) -> None:
        """The averaged weights."""
        weights = {name.removeprefix(PREFIX): value for name, value in self.ema.shadow.items()}
        save_controlnet(folder, self.controlnet, self.unet.config, self.regions, self.downsampling, weights)


@dataclass(frozen=True, eq=False)
class Control:
    """A trained ControlNet and the regions its masks stand for, in order."""

    net: ControlNet
    regions: tuple[str, ...]


def save_controlnet(
    folder: Path,
    net: ControlNet,
    unet: UNetConfig,
    regions: Sequence[str],
    downsampling: int,
    weights: Mapping[str, torch.Tensor],
) -> None:
    """Write `weights` of the ControlNet with everything that sampling needs."""
    described = {
        "net": net.config.model_dump(mode="json"),
        "unet": unet.model_dump(mode="json"),
        "regions": list(regions),
        "downsampling": downsampling,
    }
    save_model(folder, KIND, described, weights)


def load_controlnet(folder: Path, device: str, attention: AttentionBackend | None = None) -> Control:
    """What `save_controlnet` wrote, frozen, on `device`. attention: instead of the backend it was trained with.

    Raises `MissingError` or `UserError` naming the file.
    """
    described, tensors = load_model(folder, KIND)
    chosen: dict[str, Any] = {} if attention is None else {"attention": attention}
    unet = UNetConfig.model_validate({**described["unet"], **chosen})
    regions = tuple(described["regions"])
    config = ControlUNetConfig.model_validate(described["net"])
    net = build_controlnet(config, unet, len(regions), described["downsampling"], device)
    load_strict(net, tensors, str(folder / "model.safetensors"))
    return Control(net.eval().requires_grad_(False), regions)
