"""Latent diffusion: training the U-Net, its weights on disk, and drawing latents from it."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medlord_bench.contracts import AttentionBackend, Precision, Run, Shape
from medlord_bench.errors import Stopped, UserError
from medlord_bench.nn.checkpoints import load_model, load_strict, save_model
from medlord_bench.nn.training import autocast
from medlord_bench.util.seeds import noise as draw

from .configs import DiffusionConfig, UNetConfig
from .controlnet import ControlNet
from .latent_training import LatentRecipe, Latents
from .schedule import CosineSchedule
from .unet import UNet, build_unet, check_latent_shape

__all__ = ["Diffusion", "DiffusionConfig", "DiffusionRecipe", "Latents", "load_diffusion", "sample_latents"]

KIND = "medlord.diffusion"


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A trained denoiser with all that sampling needs. latent_shape: (x, y, z) of the latents it was trained on.

    latent_scale: what latents were multiplied by; divide samples by it before decoding. None: not known.
    """

    unet: UNet
    schedule: CosineSchedule
    latent_shape: Shape | None
    latent_scale: float | None


class DiffusionRecipe(LatentRecipe):
    """The unconditional stage (paper, section 2.2)."""

    def __init__(self, config: DiffusionConfig, latents: Latents, run: Run) -> None:
        torch.manual_seed(run.seed)
        self.unet = build_unet(config.net, run.device)
        super().__init__(
            config, CosineSchedule(config.timesteps), self.unet, self.unet, latents, run, stage="diffusion"
        )
        self.shape = _spatial(latents.latent(self.cases["train"][0]), config.net)

    def export(self, folder: Path) -> None:
        """The averaged weights."""
        model = Diffusion(self.unet, self.schedule, self.shape, self.latents.scale)
        save_diffusion(folder, model, self.ema.shadow)


def _spatial(latent: torch.Tensor, net: UNetConfig) -> Shape:
    channels, x, y, z = latent.shape
    if channels != net.latent_channels:
        raise UserError(
            f"net.latent_channels: {net.latent_channels} given, the autoencoder's latents have {channels}; give that"
        )
    check_latent_shape(net, (x, y, z))
    return x, y, z


def save_diffusion(folder: Path, model: Diffusion, weights: Mapping[str, torch.Tensor]) -> None:
    """Write `weights` of the U-Net with everything that sampling needs."""
    described = {
        "net": model.unet.config.model_dump(mode="json"),
        "timesteps": model.schedule.timesteps,
        "schedule": "cosine",
        "prediction": "velocity",
        "latent_shape": model.latent_shape,
        "latent_scale": model.latent_scale,
    }
    save_model(folder, KIND, described, weights)


def load_diffusion(folder: Path, device: str, attention: AttentionBackend | None = None) -> Diffusion:
    """What `save_diffusion` wrote, frozen, on `device`. attention: instead of the backend it was trained with.

    Raises `MissingError` or `UserError` naming the file.
    """
    described, tensors = load_model(folder, KIND)
    chosen: dict[str, Any] = {} if attention is None else {"attention": attention}
    unet = build_unet(UNetConfig.model_validate({**described["net"], **chosen}), device)
    load_strict(unet, tensors, str(folder / "model.safetensors"))
    shape = described["latent_shape"]
    return Diffusion(
        unet.eval().requires_grad_(False),
        CosineSchedule(described["timesteps"]),
        None if shape is None else (shape[0], shape[1], shape[2]),
        described["latent_scale"],
    )


@torch.inference_mode()
def sample_latents(
    unet: UNet,
    schedule: CosineSchedule,
    seeds: Sequence[int],
    shape: Shape,
    n_steps: int,
    device: str,
    precision: Precision,
    controlnet: ControlNet | None = None,
    condition: torch.Tensor | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> torch.Tensor:
    """One latent per seed: float32 (N, d, x, y, z) on `device`, still multiplied by the latent scale.

    All noise is drawn on the CPU from each sample's own seed, so that a sample does not depend on the batch it is in.
    n_steps: T draws by DDPM; fewer by deterministic DDIM.
    condition: masks of a ControlNet, (N, K, X, Y, Z). Raises `UserError` for a shape or n_steps that cannot be, and
    `Stopped` between steps when `stop()` is true.
    """
    check_latent_shape(unet.config, shape)
    if (controlnet is None) != (condition is None):
        raise ValueError("a ControlNet and its condition go together")
    timesteps = schedule.sampling_timesteps(n_steps)
    size = (unet.config.latent_channels, *shape)
    x = torch.stack([draw(size, seed, "start") for seed in seeds]).to(device)
    embedded = None
    with autocast(precision, device):
        if controlnet is not None and condition is not None:  # one by one: full-resolution masks are large
            embedded = torch.cat([controlnet.embed(masks[None].to(device).float()) for masks in condition])
    for t, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        if stop():
            raise Stopped(f"sampling: stopped at t = {t}; this sample is drawn again")
        times = torch.full((len(seeds),), t, device=device)
        with autocast(precision, device):
            residuals = None if controlnet is None or embedded is None else controlnet(x, times, embedded)
            velocity = unet(x, times, residuals).float()
        if n_steps < schedule.timesteps:
            x = schedule.ddim_step(x, velocity, t, following)
        else:
            fresh = torch.stack([draw(size, seed, "step", t) for seed in seeds]).to(device) if t else None
            x = schedule.ddpm_step(x, velocity, t, fresh)
    return x
