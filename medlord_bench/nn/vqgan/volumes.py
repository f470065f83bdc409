"""Volumes from a diffusion model on a VQ-GAN's latents, and reconstructions of volumes."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import torch
from torch import nn

from medlord_bench.contracts import Failure, Precision, Request, Run, Shape, Volume
from medlord_bench.errors import UserError
from medlord_bench.nn.intensity import Window, scale_hu, unscale_hu
from medlord_bench.nn.offload import on_device
from medlord_bench.nn.vqgan.config import LatentsConfig
from medlord_bench.nn.vqgan.latents import decode, encode
from medlord_bench.nn.vqgan.training import hu_window, load_autoencoder


def latent_shape(shape: Shape, factor: int) -> Shape:
    """The sides of the latents of a volume of `shape`. Raises `UserError` if `factor` does not divide them."""
    if any(side % factor for side in shape):
        near = tuple(factor * max(1, round(side / factor)) for side in shape)
        raise UserError(f"grid {shape}: the autoencoder downsamples {factor} times; the nearest valid grid is {near}")
    x, y, z = (side // factor for side in shape)
    return x, y, z


def sample(
    autoencoder: Path,
    denoiser: Sequence[nn.Module],
    draw: Callable[[Sequence[Request], int], torch.Tensor],
    precision: Precision,
    tile: Shape | None,
    requests: Sequence[Request],
    run: Run,
) -> Iterator[Volume | Failure]:
    """One volume per request: `draw` processes `run.batch` requests at a time, the decoder one.

    Either the denoiser or the autoencoder is on the GPU, never both.
    draw: maps N requests and the autoencoder's factor to unscaled latents (N, d, x, y, z) on the run's device.
    precision, tile: of decoding.
    """
    net, window = load_autoencoder(autoencoder, "cpu"), hu_window(autoencoder)
    for start in range(0, len(requests), run.batch):
        chunk = requests[start : start + run.batch]
        with on_device(denoiser, run.device):
            latents = draw(chunk, net.factor)
        with on_device([net], run.device):
            for request, latent in zip(chunk, latents, strict=True):
                if not bool(torch.isfinite(latent).all()):
                    yield Failure("the latent is not finite")
                    continue
                image = decode(net, latent[None], precision, tile)  # (d, x, y, z) -> (1, d, x, y, z)
                yield _in_hu(image, window, request)


def reconstruct(
    weights: Mapping[str, Path],
    volumes: Iterable[tuple[str, Volume]],
    precision: Precision,
    tile: Shape | None,
    run: Run,
) -> Iterator[Volume | Failure]:
    """Reconstruct each (case id, volume) with encoder, codebook and decoder."""
    net = load_autoencoder(weights["autoencoder"], run.device)
    window = hu_window(weights["autoencoder"])
    encoding = LatentsConfig(precision=precision, tile=tile)
    for _, volume in volumes:
        latent_shape(volume.shape, net.factor)
        z = encode(net, scale_hu(volume.hu, window)[None, None], encoding, run.device)  # (X, Y, Z) -> (1, 1, X, Y, Z)
        yield _in_hu(decode(net, z.to(run.device), precision, tile), window, volume)


def _in_hu(image: torch.Tensor, window: Window, request: Request | Volume) -> Volume | Failure:
    hu, not_finite = unscale_hu(image[0, 0], window)
    if not_finite:
        return Failure(f"{not_finite} voxels are not finite")
    affine = request.grid.affine() if isinstance(request, Request) else request.affine
    return Volume(hu, affine)
