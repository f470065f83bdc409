"""Sampling of volumes: latents by diffusion, then the decoder."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from medlord_bench.contracts import Failure, Request, Run, Volume
from medlord_bench.nn.diffusion.config import SamplingConfig
from medlord_bench.nn.diffusion.control import requested_masks
from medlord_bench.nn.vqgan import volumes

from .conditioning import load_tgca
from .diffusion import load_diffusion, sample_latents


def sample(
    config: SamplingConfig, weights: Mapping[str, Path], requests: Sequence[Request], run: Run
) -> Iterator[Volume | Failure]:
    """One volume per request; see `volumes.sample`."""
    diffusion = load_diffusion(weights["diffusion"], run.device, config.attention, config.eta)
    control = load_tgca(weights["tgca"], run.device) if "tgca" in weights else None
    denoiser: list[nn.Module] = [diffusion.net] if control is None else [diffusion.net, control.net]

    def draw(chunk: Sequence[Request], factor: int) -> torch.Tensor:
        latents = sample_latents(
            diffusion,
            [request.seed for request in chunk],
            volumes.latent_shape(chunk[0].grid.shape, factor),
            config.steps,
            run.device,
            config.precision,
            None if control is None else control.net,
            None if control is None else requested_masks(chunk, control.regions),
            run.stop,
        )
        return latents / diffusion.latent_scale

    return volumes.sample(weights["autoencoder"], denoiser, draw, config.precision, config.tile, requests, run)
