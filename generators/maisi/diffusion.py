"""Latent diffusion: training the U-Net, storing its weights, and sampling latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medlord_bench.contracts import AttentionBackend, Precision, Run, Shape
from medlord_bench.nn.checkpoints import load_frozen, save_model
from medlord_bench.nn.diffusion.sampling import draw_latents
from medlord_bench.nn.diffusion.schedules import NoiseSchedule, RectifiedFlow, ScaledLinearSchedule
from medlord_bench.nn.diffusion.training import LatentRecipe
from medlord_bench.nn.optimiser import autocast
from medlord_bench.util import seeds

from .configs import DiffusionConfig
from .latents import SpacedLatents
from .spacing import Spacing
from .unet import ControlNet, UNet, build_unet

KIND = "maisi.diffusion"
# The fields of the configuration that a trained U-Net needs.
ARCHITECTURE = ("net", "schedule", "timesteps", "reference_voxels", "top_region", "bottom_region")


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A trained denoiser with all facts that sampling needs.

    latent_scale: factor on the training latents; divide samples by it before decoding. spacing: median voxel size of
    the training cases on MAISI's grid in mm, for samples of a protocol without spacing; None: not known.
    """

    unet: UNet
    schedule: NoiseSchedule
    latent_scale: float
    spacing: Spacing | None


def make_schedule(config: DiffusionConfig) -> NoiseSchedule:
    """The schedule that a configuration names."""
    if config.schedule == "rflow":
        return RectifiedFlow(config.timesteps, config.reference_voxels)
    return ScaledLinearSchedule(config.timesteps)


class DiffusionRecipe(LatentRecipe):
    """The unconditional stage. The U-Net receives the voxel size of each case."""

    latents: SpacedLatents

    def __init__(self, config: DiffusionConfig, latents: SpacedLatents, channels: int, run: Run) -> None:
        torch.manual_seed(seeds.derive(run.seed, "diffusion", "initial weights"))
        self.unet = build_unet(config, channels, run.device)
        schedule = make_schedule(config)
        super().__init__(config, schedule, self.unet, self.unet, latents, run, stage="diffusion")

    def conditions(self, case_id: str, rng: torch.Generator | None) -> tuple[Tensor]:
        """Voxel size in mm, float32 (3,)."""
        return (self.latents.spacing(case_id),)

    def export(self, folder: Path) -> None:
        """Write the averaged weights."""
        save_diffusion(folder, self.unet.config, self.ema.shadow, self.latents.scale, self.latents.spacing_of_a_sample)


def save_diffusion(
    folder: Path, config: DiffusionConfig, weights: Mapping[str, Tensor], scale: float, spacing: Spacing | None
) -> None:
    """Write `weights` of the U-Net and all facts that sampling needs."""
    described = config.model_dump(mode="json", include=set(ARCHITECTURE))
    channels = weights["conv_in.conv.weight"].shape[1]
    facts = {"latent_channels": channels, "latent_scale": scale, "spacing": None if spacing is None else list(spacing)}
    save_model(folder, KIND, described | facts, weights)


def read_config(described: Mapping[str, Any], attention: AttentionBackend | None = None) -> DiffusionConfig:
    """The configuration of a saved U-Net. attention: replaces the backend of its training."""
    net = {**described["net"], **({} if attention is None else {"attention": attention})}
    return DiffusionConfig.model_validate({name: described[name] for name in ARCHITECTURE} | {"net": net})


def load_diffusion(folder: Path, device: str, attention: AttentionBackend | None = None) -> Diffusion:
    """Load what `save_diffusion` wrote, frozen, on `device`. Raises `MissingError` or `UserError` with the path."""

    def build(described: dict[str, Any]) -> tuple[UNet, tuple[NoiseSchedule, float, Spacing | None]]:
        config, spacing = read_config(described, attention), described["spacing"]
        known = None if spacing is None else (spacing[0], spacing[1], spacing[2])
        unet = build_unet(config, described["latent_channels"], device)
        return unet, (make_schedule(config), described["latent_scale"], known)

    unet, facts = load_frozen(folder, KIND, build)
    return Diffusion(unet, *facts)


@torch.inference_mode()
def sample_latents(
    diffusion: Diffusion,
    seeds: Sequence[int],
    shape: Shape,
    spacing: Sequence[Spacing],
    steps: int | None,
    device: str,
    precision: Precision,
    controlnet: ControlNet | None = None,
    planes: Sequence[Callable[[], Tensor]] = (),
    stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """`draw_latents` with the U-Net: float32 (N, C, x, y, z) on `device`, still multiplied by the latent scale.

    shape: (x, y, z) of the latents. spacing: each sample's voxel size in mm. planes: with a ControlNet, one
    function per sample that returns its bit planes (1, 8, X, Y, Z) on `device`. Raises `Stopped` between steps if
    `stop()` is true.
    """
    unet, embedded = diffusion.unet, None
    sizes = torch.tensor(spacing, dtype=torch.float32).to(device)
    if controlnet is not None:
        with autocast(precision, device):  # one by one: full-resolution planes are large
            # N planes (1, 8, X, Y, Z) -> (N, c, x, y, z)
            embedded = torch.cat([controlnet.embed(make()) for make in planes])

    def predict(x: Tensor, times: Tensor) -> Tensor:
        residuals = None if controlnet is None or embedded is None else controlnet(x, times, embedded)
        return unet(x, times, sizes, residuals)

    size = (unet.in_channels, *shape)
    return draw_latents(diffusion.schedule, predict, seeds, size, steps, device, precision, stop)
