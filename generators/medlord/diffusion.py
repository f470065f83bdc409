"""Latent diffusion: training the U-Net, storing its weights, and sampling latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from medlord_bench.contracts import AttentionBackend, Precision, Run, Shape
from medlord_bench.errors import UserError
from medlord_bench.nn.checkpoints import load_frozen, save_model
from medlord_bench.nn.diffusion.latents import Latents
from medlord_bench.nn.diffusion.sampling import draw_latents
from medlord_bench.nn.diffusion.schedules import CosineSchedule, NoiseSchedule
from medlord_bench.nn.diffusion.training import LatentRecipe
from medlord_bench.nn.optimiser import autocast

from .configs import DiffusionConfig, UNetConfig
from .controlnet import ControlNet
from .unet import UNet, build_unet, check_latent_shape

KIND = "medlord.diffusion"


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A trained denoiser with all facts that sampling needs. latent_shape: (x, y, z) of its training latents.

    latent_scale: factor on the training latents; divide samples by it before decoding. None: not known.
    """

    unet: UNet
    schedule: NoiseSchedule
    latent_shape: Shape | None
    latent_scale: float | None


def condition_draw(rng: torch.Generator) -> float:
    """A random number in [0, 1) that decides whether the condition is dropped.

    The unconditional stage draws it too and ignores it: the item's noise comes next from the same generator, so
    omitting the draw would change the noise of every training.
    """
    return float(torch.rand((), generator=rng))


class DiffusionRecipe(LatentRecipe):
    """The unconditional stage (paper, section 2.2)."""

    def __init__(self, config: DiffusionConfig, latents: Latents, run: Run) -> None:
        torch.manual_seed(run.seed)
        self.unet = build_unet(config.net, run.device)
        schedule = CosineSchedule(config.timesteps)
        super().__init__(config, schedule, self.unet, self.unet, latents, run, stage="diffusion")
        self.shape = _spatial(latents.latent(self.cases["train"][0]), config.net)

    def conditions(self, case_id: str, rng: torch.Generator | None) -> tuple[torch.Tensor, ...]:
        if rng is not None:
            condition_draw(rng)
        return ()

    def export(self, folder: Path) -> None:
        """Write the averaged weights."""
        model = Diffusion(self.unet, self.schedule, self.shape, self.latents.scale)
        save_diffusion(folder, model, self.ema.shadow)


def _spatial(latent: torch.Tensor, net: UNetConfig) -> Shape:
    channels, x, y, z = latent.shape
    if channels != net.latent_channels:
        raise UserError(
            f"net.latent_channels: is {net.latent_channels}, the autoencoder's latents have {channels}; set {channels}"
        )
    check_latent_shape(net, (x, y, z))
    return x, y, z


def save_diffusion(folder: Path, model: Diffusion, weights: Mapping[str, torch.Tensor]) -> None:
    """Write `weights` of the U-Net and all facts that sampling needs."""
    described = {
        "net": model.unet.config.model_dump(mode="json"),
        "timesteps": model.schedule.timesteps,
        "schedule": "cosine",
        "prediction": "velocity",
        "latent_shape": model.latent_shape,
        "latent_scale": model.latent_scale,
    }
    save_model(folder, KIND, described, weights)


def load_diffusion(folder: Path, device: str, attention: AttentionBackend | None = None, eta: float = 0.0) -> Diffusion:
    """Load the U-Net that `save_diffusion` wrote, frozen, on `device`. attention: replaces the trained backend.

    eta: of `SamplingConfig`. Raises `MissingError` or `UserError` with the path of the file.
    """

    def build(described: dict[str, Any]) -> tuple[UNet, tuple[NoiseSchedule, Shape | None, float | None]]:
        chosen: dict[str, Any] = {} if attention is None else {"attention": attention}
        unet = build_unet(UNetConfig.model_validate({**described["net"], **chosen}), device)
        shape = described["latent_shape"]
        known = None if shape is None else (shape[0], shape[1], shape[2])
        return unet, (CosineSchedule(described["timesteps"], eta), known, described["latent_scale"])

    unet, facts = load_frozen(folder, KIND, build)
    return Diffusion(unet, *facts)


@torch.inference_mode()
def sample_latents(
    unet: UNet,
    schedule: NoiseSchedule,
    seeds: Sequence[int],
    shape: Shape,
    steps: int | None,
    device: str,
    precision: Precision,
    controlnet: ControlNet | None = None,
    condition: torch.Tensor | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> torch.Tensor:
    """`draw_latents` with the U-Net: float32 (N, d, x, y, z) on `device`, still multiplied by the latent scale.

    shape: (x, y, z) of the latents. condition: masks of a ControlNet, (N, K, X, Y, Z). Raises `UserError` for an
    invalid shape or number of steps, and `Stopped` between steps if `stop()` is true.
    """
    check_latent_shape(unet.config, shape)
    if (controlnet is None) != (condition is None):
        raise ValueError("controlnet and condition: expected both or neither")
    embedded = None
    with autocast(precision, device):
        if controlnet is not None and condition is not None:  # one by one: full-resolution masks are large
            # N masks (K, X, Y, Z) -> (N, c, x, y, z)
            embedded = torch.cat([controlnet.embed(masks[None].to(device).float()) for masks in condition])

    def predict(x: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        residuals = None if controlnet is None or embedded is None else controlnet(x, times, embedded)
        return unet(x, times, residuals)

    size = (unet.config.latent_channels, *shape)
    return draw_latents(schedule, predict, seeds, size, steps, device, precision, stop)
