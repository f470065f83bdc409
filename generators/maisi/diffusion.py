"""Latent diffusion: training the U-Net, its weights on disk, and drawing latents from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from math import prod
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medlord_bench.contracts import AttentionBackend, Precision, Run, Shape
from medlord_bench.errors import Stopped, UserError
from medlord_bench.nn.checkpoints import load_model, load_strict, save_model
from medlord_bench.nn.training import autocast
from medlord_bench.util import seeds
from medlord_bench.util.seeds import noise as draw

from .configs import DiffusionConfig
from .latent_training import LatentRecipe, Latents
from .schedule import NoiseSchedule, make_schedule
from .spacing import Spacing
from .unet import ControlNet, UNet, build_unet

KIND = "maisi.diffusion"
# The part of the configuration that a trained U-Net is used with.
ARCHITECTURE = ("net", "schedule", "timesteps", "reference_voxels", "top_region", "bottom_region")


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A trained denoiser with all that sampling needs.

    latent_scale: what latents were multiplied by; divide samples by it before decoding. spacing: the training cases'
    median voxel size on MAISI's grid in mm, for samples of a protocol that has none; None: not known.
    """

    unet: UNet
    schedule: NoiseSchedule
    latent_scale: float
    spacing: Spacing | None


class DiffusionRecipe(LatentRecipe):
    """The unconditional stage."""

    def __init__(self, config: DiffusionConfig, latents: Latents, channels: int, run: Run) -> None:
        torch.manual_seed(seeds.derive(run.seed, "diffusion", "initial weights"))
        self.unet = build_unet(config, channels, run.device)
        schedule = make_schedule(config)
        super().__init__(config, schedule, self.unet, self.unet, latents, run, stage="diffusion")

    def export(self, folder: Path) -> None:
        """The averaged weights."""
        save_diffusion(folder, self.unet.config, self.ema.shadow, self.latents.scale, self.latents.spacing_of_a_sample)


def save_diffusion(
    folder: Path, config: DiffusionConfig, weights: Mapping[str, Tensor], scale: float, spacing: Spacing | None
) -> None:
    """Write `weights` of the U-Net with everything that sampling needs."""
    described = config.model_dump(mode="json", include=set(ARCHITECTURE))
    channels = weights["conv_in.conv.weight"].shape[1]
    facts = {"latent_channels": channels, "latent_scale": scale, "spacing": None if spacing is None else list(spacing)}
    save_model(folder, KIND, described | facts, weights)


def read_config(described: Mapping[str, Any], attention: AttentionBackend | None = None) -> DiffusionConfig:
    """The configuration of a saved U-Net. attention: instead of the backend it was trained with."""
    net = {**described["net"], **({} if attention is None else {"attention": attention})}
    return DiffusionConfig.model_validate({name: described[name] for name in ARCHITECTURE} | {"net": net})


def load_diffusion(folder: Path, device: str, attention: AttentionBackend | None = None) -> Diffusion:
    """What `save_diffusion` wrote, frozen, on `device`. Raises `MissingError` or `UserError` naming the file."""
    described, tensors = load_model(folder, KIND)
    try:
        config, scale, spacing = read_config(described, attention), described["latent_scale"], described["spacing"]
        unet = build_unet(config, described["latent_channels"], device)
    except (KeyError, ValueError, TypeError) as error:
        reason = str(error).splitlines()[0]
        raise UserError(f"{folder / 'model.json'}: damaged ({reason}); restore it or train again") from None
    load_strict(unet, tensors, str(folder / "model.safetensors"))
    schedule = make_schedule(config)
    known = None if spacing is None else (spacing[0], spacing[1], spacing[2])
    return Diffusion(unet.eval().requires_grad_(False), schedule, scale, known)


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
    """One latent per seed: float32 (N, C, x, y, z) on `device`, still multiplied by the latent scale.

    All noise is drawn on the CPU from each sample's own seed, so that a sample does not depend on the batch it is in.
    planes: with a ControlNet, gives each sample's bit planes (1, 8, X, Y, Z) on `device` when they are needed.
    Raises `Stopped` between steps when `stop()` is true.
    """
    unet, schedule = diffusion.unet, diffusion.schedule
    ladder = schedule.ladder(steps, prod(shape))
    size = (unet.in_channels, *shape)
    x = torch.stack([draw(size, seed, "start") for seed in seeds]).to(device)
    sizes = torch.tensor(spacing, dtype=torch.float32).to(device)
    embedded = None
    if controlnet is not None:
        with autocast(precision, device):  # one by one: full-resolution planes are large
            embedded = torch.cat([controlnet.embed(make()) for make in planes])
    for place, time in enumerate(ladder):
        if stop():
            raise Stopped(f"sampling: stopped after {place} of {len(ladder)} steps; this sample is drawn again")
        times = torch.full((len(seeds),), time, device=device)
        with autocast(precision, device):
            residuals = None if controlnet is None or embedded is None else controlnet(x, times, embedded)
            predicted = unet(x, times, sizes, residuals).float()
        fresh = None
        if schedule.is_noisy(ladder, place):
            fresh = torch.stack([draw(size, seed, "step", place) for seed in seeds]).to(device)
        x = schedule.step(x, predicted, ladder, place, fresh)
    return x
