"""Conditioning on anatomy: masks of regions, and training of the ControlNet that reads them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medlord_bench.contracts import AttentionBackend, Cohort, Run
from medlord_bench.nn.checkpoints import load_frozen, save_model
from medlord_bench.nn.diffusion.control import ControlRecipe, condition_regions, region_masks
from medlord_bench.nn.diffusion.latents import Latents

from .configs import ControlNetConfig, ControlUNetConfig, UNetConfig
from .controlnet import ControlNet, build_controlnet
from .diffusion import Diffusion, condition_draw

KIND = "medlord.controlnet"


class ControlNetRecipe(ControlRecipe):
    """The conditional stage (paper, section 2.3). The averaged weights of the U-Net are frozen.

    diffusion: returned by `load_diffusion`. downsampling: the autoencoder's factor.
    The protocol defines the condition regions. Training drops the whole condition with probability `condition_dropout`.
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
        self.regions, self.dropout = condition_regions(cohort), config.condition_dropout
        self.downsampling, self.unet = downsampling, diffusion.unet
        torch.manual_seed(run.seed)
        net = build_controlnet(config.net, self.unet.config, len(self.regions), downsampling, run.device)
        self.controlnet = net
        super().__init__(config, diffusion.schedule, self.unet, net, net.embed, latents, cohort, run)

    def conditions(self, case_id: str, rng: torch.Generator | None) -> tuple[torch.Tensor]:
        """The masks of a case, bool (K, X, Y, Z); all False if the condition is dropped."""
        labels = self.labels(case_id)
        if rng is not None and condition_draw(rng) < self.dropout:
            return (torch.zeros(len(self.regions), *labels.shape, dtype=torch.bool),)
        return (region_masks(labels, self.cohort.label_names, self.regions),)

    def export(self, folder: Path) -> None:
        """Write the averaged weights."""
        save_controlnet(folder, self.controlnet, self.unet.config, self.regions, self.downsampling, self.averaged())


@dataclass(frozen=True, eq=False)
class Control:
    """A trained ControlNet and the regions of its mask channels, in order."""

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
    """Write `weights` of the ControlNet and all facts that sampling needs."""
    described = {
        "net": net.config.model_dump(mode="json"),
        "unet": unet.model_dump(mode="json"),
        "regions": list(regions),
        "downsampling": downsampling,
    }
    save_model(folder, KIND, described, weights)


def load_controlnet(folder: Path, device: str, attention: AttentionBackend | None = None) -> Control:
    """Load the ControlNet that `save_controlnet` wrote, frozen, on `device`. attention: replaces the trained backend.

    Raises `MissingError` or `UserError` with the path of the file.
    """

    def build(described: dict[str, Any]) -> tuple[ControlNet, tuple[str, ...]]:
        chosen: dict[str, Any] = {} if attention is None else {"attention": attention}
        unet = UNetConfig.model_validate({**described["unet"], **chosen})
        regions = tuple(described["regions"])
        config = ControlUNetConfig.model_validate(described["net"])
        return build_controlnet(config, unet, len(regions), described["downsampling"], device), regions

    return Control(*load_frozen(folder, KIND, build))
