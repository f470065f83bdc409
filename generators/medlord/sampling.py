"""Sampling of volumes: latents by diffusion, then the decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from medlord_bench.contracts import Failure, Request, Run, Volume
from medlord_bench.errors import UserError
from medlord_bench.nn.diffusion.config import SamplingConfig
from medlord_bench.nn.diffusion.control import requested_masks
from medlord_bench.nn.vqgan import volumes
from medlord_bench.nn.vqgan.volumes import latent_shape

from .conditioning import Control, load_controlnet
from .diffusion import Diffusion, load_diffusion, sample_latents


def sample(
    config: SamplingConfig, weights: Mapping[str, Path], requests: Sequence[Request], run: Run
) -> Iterator[Volume | Failure]:
    """One volume per request; see `volumes.sample`."""
    diffusion = load_diffusion(weights["diffusion"], run.device, config.attention, config.eta)
    control = load_controlnet(weights["controlnet"], run.device, config.attention) if "controlnet" in weights else None
    denoiser: list[nn.Module] = [diffusion.unet] if control is None else [diffusion.unet, control.net]

    def draw(chunk: Sequence[Request], factor: int) -> torch.Tensor:
        return _latents(config, diffusion, control, chunk, factor, run)

    return volumes.sample(weights["autoencoder"], denoiser, draw, config.precision, config.tile, requests, run)


def _latents(
    config: SamplingConfig,
    diffusion: Diffusion,
    control: Control | None,
    requests: Sequence[Request],
    factor: int,
    run: Run,
) -> torch.Tensor:
    """Unscaled latents (N, d, x, y, z) of N requests on the run's device."""
    if diffusion.latent_scale is None:
        raise UserError("diffusion: the latent scale is not known; set it with --set generator.latents.scale=NUMBER")
    latents = sample_latents(
        diffusion.unet,
        diffusion.schedule,
        [request.seed for request in requests],
        latent_shape(requests[0].grid.shape, factor),
        config.steps,
        run.device,
        config.precision,
        None if control is None else control.net,
        None if control is None else requested_masks(requests, control.regions),
        run.stop,
    )
    return latents / diffusion.latent_scale
