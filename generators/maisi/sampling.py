"""Sampling and reconstruction of volumes: latents by diffusion, then the decoder, then the protocol's grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import nn

from medlord_bench.contracts import Failure, Request, Run, Shape, Volume
from medlord_bench.errors import UserError
from medlord_bench.nn.intensity import Window, unscale_hu
from medlord_bench.nn.offload import on_device
from medlord_bench.volumes.native_grid import from_native, labels_to_native, to_native

from .autoencoder import for_precision, load_autoencoder, to_unit
from .configs import MAISIConfig, check_grid
from .control import Control, load_controlnet, numbered
from .diffusion import Diffusion, load_diffusion, sample_latents
from .latents import decode, encode
from .spacing import Spacing, spacing_on
from .unet import bit_planes


def sample(
    config: MAISIConfig, weights: Mapping[str, Path], requests: Sequence[Request], run: Run
) -> Iterator[Volume | Failure]:
    """One volume per request: the U-Net processes `run.batch` requests at a time, the decoder one.

    Either the denoiser or the autoencoder is on the GPU, never both.
    """
    sampling = config.sampling
    net, window = load_autoencoder(weights["autoencoder"], "cpu", "fp32")
    diffusion = load_diffusion(weights["diffusion"], "cpu", sampling.attention)
    control = load_controlnet(weights["controlnet"], "cpu", sampling.attention) if "controlnet" in weights else None
    if diffusion.unet.in_channels != net.config.latent_channels:
        raise UserError(
            f"{weights['diffusion']}: the U-Net expects latents of {diffusion.unet.in_channels} channels, the "
            f"autoencoder's have {net.config.latent_channels}; give a pair that was trained together"
        )
    denoiser: list[nn.Module] = [diffusion.unet] if control is None else [diffusion.unet, control.net]
    for start in range(0, len(requests), run.batch):
        chunk = requests[start : start + run.batch]
        with on_device(denoiser, run.device):
            latents = _latents(config, diffusion, control, chunk, net.config.factor, run).cpu()
        with on_device([net], run.device):
            for_precision(net, run.device, sampling.precision)
            for request, latent in zip(chunk, latents, strict=True):
                if not bool(torch.isfinite(latent).all()):
                    yield Failure("the latent is not finite")
                    continue
                image = decode(net, latent[None], sampling, run.device)  # (1, C, x, y, z) -> (1, 1, X, Y, Z)
                yield _volume(image, window, request)


def _latents(
    config: MAISIConfig,
    diffusion: Diffusion,
    control: Control | None,
    requests: Sequence[Request],
    factor: int,
    run: Run,
) -> torch.Tensor:
    """Unscaled latents (N, C, x, y, z) of N requests on the run's device."""
    shape = config.native(requests[0].grid.shape)
    latents = sample_latents(
        diffusion,
        [request.seed for request in requests],
        latent_shape(shape, factor * diffusion.unet.config.net.divisor, factor),
        [_spacing(request, shape, diffusion.spacing) for request in requests],
        config.sampling.steps,
        run.device,
        config.sampling.precision,
        None if control is None else control.net,
        [] if control is None else [partial(_planes, request, shape, control, run.device) for request in requests],
        run.stop,
    )
    return latents / diffusion.latent_scale


def _spacing(request: Request, shape: Shape, trained: Spacing | None) -> Spacing:
    """The voxel size of a sample: the mask's, else the protocol's, else the median of the training cases."""
    if request.condition is not None:
        x, y, z = np.linalg.norm(request.condition.affine[:3, :3], axis=0).tolist()
        return spacing_on((x, y, z), request.condition.shape, shape)
    if request.grid.spacing is None and trained is not None:
        return trained
    return spacing_on(request.grid.spacing, request.grid.shape, shape)


def _planes(request: Request, shape: Shape, control: Control, device: str) -> torch.Tensor:
    if request.condition is None:
        raise UserError(f"sample {request.index}: no condition; conditional sampling needs a label map")
    labels = numbered(request.condition.labels, request.condition.names, control.regions)
    # (X, Y, Z) -> (1, X, Y, Z) -> (1, 8, X, Y, Z)
    return bit_planes(torch.from_numpy(labels_to_native(labels, shape, "resize"))[None].to(device))


def latent_shape(shape: Shape, multiple: int, factor: int) -> Shape:
    """The shape of the latents of a grid. Raises `UserError` if the grid does not fit the networks."""
    check_grid(shape, multiple)
    x, y, z = (side // factor for side in shape)
    return x, y, z


def _volume(image: torch.Tensor, window: Window, source: Request | Volume) -> Volume | Failure:
    """Decoded image (1, 1, X, Y, Z), about [0, 1], as HU on the grid of `source`."""
    hu, not_finite = unscale_hu(image[0, 0] * 2 - 1, window)
    if not_finite:
        return Failure(f"{not_finite} voxels are not finite")
    made = Volume(hu, np.eye(4))
    if isinstance(source, Volume):
        return from_native(made, source.shape, source.affine, "resize", window[0])
    volume = from_native(made, source.grid.shape, source.grid.affine(), "resize", window[0])
    return Volume(np.clip(volume.hu, *source.grid.hu_window), volume.affine)


def reconstruct(
    config: MAISIConfig, weights: Mapping[str, Path], volumes: Iterable[tuple[str, Volume]], run: Run
) -> Iterator[Volume | Failure]:
    """Reconstruct each (case id, volume) with encoder and decoder on MAISI's grid."""
    sampling = config.sampling
    net, window = load_autoencoder(weights["autoencoder"], run.device, sampling.precision)
    for _, volume in volumes:
        shape = config.native(volume.shape)
        latent_shape(shape, net.config.factor, net.config.factor)
        image = to_unit(to_native(volume, shape, window, "resize").hu, window)[None, None]  # (1, 1, X, Y, Z)
        latent = encode(net, image, sampling, run.device)
        yield _volume(decode(net, latent, sampling, run.device), window, volume)
