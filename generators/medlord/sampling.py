"""Sampling and reconstruction of volumes: latents by diffusion, then the decoder."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from medlord_bench.contracts import Failure, Request, Run, Shape, Volume
from medlord_bench.errors import UserError
from medlord_bench.nn.intensity import Window, scale_hu, unscale_hu
from medlord_bench.nn.offload import on_device
from medlord_bench.nn.vqgan.network import VQGAN
from medlord_bench.nn.vqgan.training import hu_window, load_autoencoder

from .conditioning import Control, load_controlnet, region_masks
from .configs import LatentsConfig, SamplingConfig
from .diffusion import Diffusion, load_diffusion, sample_latents
from .latents import decode, encode


def sample(
    config: SamplingConfig, weights: Mapping[str, Path], requests: Sequence[Request], run: Run
) -> Iterator[Volume | Failure]:
    """One volume per request: the U-Net processes `run.batch` requests at a time, the decoder one.

    Either the denoiser or the autoencoder is on the GPU, never both.
    """
    net = load_autoencoder(weights["autoencoder"], "cpu")
    window = hu_window(weights["autoencoder"])
    diffusion = load_diffusion(weights["diffusion"], run.device, config.attention)
    control = load_controlnet(weights["controlnet"], run.device, config.attention) if "controlnet" in weights else None
    denoiser: list[nn.Module] = [diffusion.unet] if control is None else [diffusion.unet, control.net]
    for start in range(0, len(requests), run.batch):
        chunk = requests[start : start + run.batch]
        with on_device(denoiser, run.device):
            latents = _latents(config, diffusion, control, chunk, net.factor, run)
        with on_device([net], run.device):
            for request, latent in zip(chunk, latents, strict=True):
                yield _volume(config, net, latent[None], window, request)  # latent[None]: (1, d, x, y, z)


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
    # N masks (K, X, Y, Z) -> (N, K, X, Y, Z)
    condition = None if control is None else torch.stack([_masks(request, control) for request in requests])
    latents = sample_latents(
        diffusion.unet,
        diffusion.schedule,
        [request.seed for request in requests],
        _latent_shape(requests[0].grid.shape, factor),
        config.steps,
        run.device,
        config.precision,
        None if control is None else control.net,
        condition,
        run.stop,
    )
    return latents / diffusion.latent_scale


def _masks(request: Request, control: Control) -> torch.Tensor:
    if request.condition is None:
        raise UserError(f"sample {request.index}: no condition; conditional sampling needs a label map")
    return region_masks(request.condition.labels, request.condition.names, control.regions)


def _latent_shape(shape: Shape, factor: int) -> Shape:
    if any(side % factor for side in shape):
        near = tuple(factor * max(1, round(side / factor)) for side in shape)
        raise UserError(f"grid {shape}: the autoencoder downsamples {factor} times; the nearest valid grid is {near}")
    x, y, z = (side // factor for side in shape)
    return x, y, z


def _volume(
    config: SamplingConfig, net: VQGAN, latent: torch.Tensor, window: Window, request: Request
) -> Volume | Failure:
    if not bool(torch.isfinite(latent).all()):
        return Failure("the latent is not finite")
    image = decode(net, latent, config.precision, config.tile)
    return _in_hu(image, window, request)


def _in_hu(image: torch.Tensor, window: Window, request: Request | Volume) -> Volume | Failure:
    hu, not_finite = unscale_hu(image[0, 0], window)
    if not_finite:
        return Failure(f"{not_finite} voxels are not finite")
    affine = request.grid.affine() if isinstance(request, Request) else request.affine
    return Volume(hu, affine)


def reconstruct(
    config: SamplingConfig, weights: Mapping[str, Path], volumes: Iterable[tuple[str, Volume]], run: Run
) -> Iterator[Volume | Failure]:
    """Reconstruct each (case id, volume) with encoder, codebook and decoder."""
    net = load_autoencoder(weights["autoencoder"], run.device)
    window = hu_window(weights["autoencoder"])
    encoding = LatentsConfig(precision=config.precision, tile=config.tile)
    for _, volume in volumes:
        _latent_shape(volume.shape, net.factor)
        z = encode(net, scale_hu(volume.hu, window)[None, None], encoding, run.device)  # (X, Y, Z) -> (1, 1, X, Y, Z)
        yield _in_hu(decode(net, z.to(run.device), config.precision, config.tile), window, volume)
