"""Latent diffusion: training the transformer, storing its weights, and sampling latents."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor

from medlord_bench.contracts import AttentionBackend, Precision, Run, Shape
from medlord_bench.errors import UserError
from medlord_bench.nn.checkpoints import load_frozen, save_model
from medlord_bench.nn.diffusion.latents import Latents
from medlord_bench.nn.diffusion.sampling import draw_latents
from medlord_bench.nn.diffusion.schedules import CosineSchedule, NoiseSchedule
from medlord_bench.nn.diffusion.training import LatentRecipe
from medlord_bench.nn.optimiser import autocast
from medlord_bench.util import seeds as seeding

from .adapter import TGCA
from .configs import DiffusionConfig, DiTConfig
from .transformer import DiT, build_transformer

KIND = "voldit.diffusion"


@dataclass(frozen=True, eq=False)
class Diffusion:
    """A trained transformer with all facts that sampling needs.

    shape: (x, y, z) of its latents. latent_scale: factor on the training latents; divide samples by it before decoding.
    """

    net: DiT
    schedule: NoiseSchedule
    shape: Shape
    latent_scale: float


class DiffusionRecipe(LatentRecipe):
    """The unconditional stage."""

    def __init__(self, config: DiffusionConfig, latents: Latents, run: Run) -> None:
        self.shape = _spatial(latents.latent(latents.ids("train")[0]), config.net)
        torch.manual_seed(seeding.derive(run.seed, "diffusion", "initial weights"))
        self.net = build_transformer(config.net, self.shape, run.device)
        schedule = CosineSchedule(config.timesteps)
        super().__init__(config, schedule, self.net, self.net, latents, run, stage="diffusion")

    def export(self, folder: Path) -> None:
        """Write the averaged weights."""
        save_diffusion(folder, Diffusion(self.net, self.schedule, self.shape, self.latents.scale), self.ema.shadow)


def _spatial(latent: Tensor, net: DiTConfig) -> Shape:
    channels, x, y, z = latent.shape
    if channels != net.latent_channels:
        raise UserError(
            f"net.latent_channels: is {net.latent_channels}, the autoencoder's latents have {channels}; set {channels}"
        )
    return x, y, z


def save_diffusion(folder: Path, model: Diffusion, weights: Mapping[str, Tensor]) -> None:
    """Write `weights` of the transformer and all facts that sampling needs."""
    described = {
        "net": model.net.config.model_dump(mode="json"),
        "timesteps": model.schedule.timesteps,
        "schedule": "cosine",
        "prediction": "velocity",
        "latent_shape": list(model.shape),
        "latent_scale": model.latent_scale,
    }
    save_model(folder, KIND, described, weights)


def load_diffusion(folder: Path, device: str, attention: AttentionBackend | None = None, eta: float = 0.0) -> Diffusion:
    """Load the transformer that `save_diffusion` wrote, frozen, on `device`. attention: replaces the trained backend.

    eta: of `SamplingConfig`. Raises `MissingError` or `UserError` with the path of the file.
    """

    def build(described: dict[str, Any]) -> tuple[DiT, tuple[NoiseSchedule, Shape, float]]:
        chosen: dict[str, Any] = {} if attention is None else {"attention": attention}
        x, y, z = (int(side) for side in described["latent_shape"])
        net = build_transformer(DiTConfig.model_validate({**described["net"], **chosen}), (x, y, z), device)
        return net, (CosineSchedule(described["timesteps"], eta), (x, y, z), float(described["latent_scale"]))

    net, facts = load_frozen(folder, KIND, build)
    return Diffusion(net, *facts)


@torch.inference_mode()
def sample_latents(
    diffusion: Diffusion,
    seeds: Sequence[int],
    shape: Shape,
    steps: int | None,
    device: str,
    precision: Precision,
    tgca: TGCA | None = None,
    masks: Tensor | None = None,
    stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """`draw_latents` with the transformer: float32 (N, d, x, y, z) on `device`, still multiplied by the latent scale.

    shape: (x, y, z) of the latents. masks: of an adapter, bool (N, K, X, Y, Z) on the CPU. Raises `UserError` for
    another shape than that of training or an invalid number of steps, and `Stopped` between steps if `stop()` is true.
    """
    if shape != diffusion.shape:
        raise UserError(
            f"latents of {shape} asked for, the transformer's positions are those of {diffusion.shape}; "
            "sample on the grid of its training"
        )
    if (tgca is None) != (masks is None):
        raise ValueError("tgca and masks: expected both or neither")
    tokens = None
    with autocast(precision, device):
        if tgca is not None and masks is not None:  # one by one: full-resolution masks are large
            # N masks (K, X, Y, Z) -> (N, T, C)
            tokens = torch.cat([tgca.embed(one[None].to(device).float()) for one in masks])

    def predict(x: Tensor, times: Tensor) -> Tensor:
        control = None if tgca is None or tokens is None else tgca(x, times, tokens)
        predicted: Tensor = diffusion.net(x, times, control)
        return predicted

    size = (diffusion.net.config.latent_channels, *shape)
    return draw_latents(diffusion.schedule, predict, seeds, size, steps, device, precision, stop)
