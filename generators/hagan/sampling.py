"""From weights to volumes: z, the whole cube, then the protocol's grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medlord_bench.contracts import Failure, Precision, Request, Run, Shape, Volume
from medlord_bench.nn.optimiser import autocast
from medlord_bench.util.seeds import noise
from medlord_bench.volumes.native_grid import from_native, to_native

from .configs import STAGE, SamplingConfig
from .images import from_cube, to_cube
from .networks import Generator, LatentEncoder, SlabEncoder
from .weights import Trained, load_gan


def sample(
    config: SamplingConfig, weights: Mapping[str, Path], requests: Sequence[Request], run: Run
) -> Iterator[Volume | Failure]:
    """One volume per request, one at a time: a sample takes a second, and a batch would only need memory."""
    trained = load_gan(weights[STAGE], run.device)
    for request in requests:
        z = noise((1, trained.generator.config.latent), request.seed, "z").to(run.device)
        cube = volume(trained.generator, z, config.precision)
        yield _on_grid(trained, cube, request.grid.shape, request.grid.affine())


@torch.inference_mode()
def volume(generator: Generator, z: torch.Tensor, precision: Precision) -> torch.Tensor:
    """The cube (S, S, S) in [-1, 1] of one z (1, latent), float32."""
    with autocast(precision, str(z.device)):
        return generator.volume(z)[0, 0].float()


@torch.inference_mode()
def encoded(encoders: tuple[SlabEncoder, LatentEncoder], image: torch.Tensor, precision: Precision) -> torch.Tensor:
    """The z (1, latent) that the encoders find for one image (1, 1, S, S, S)."""
    slabs, latent = encoders
    with autocast(precision, str(image.device)):
        z: torch.Tensor = latent(slabs.whole(image)).float()
    return z


def reconstruct(
    config: SamplingConfig, weights: Mapping[str, Path], volumes: Iterable[tuple[str, Volume]], run: Run
) -> Iterator[Volume | Failure]:
    """Each (case id, volume) through the encoders to z and back: shows how much of an image z keeps."""
    trained = load_gan(weights[STAGE], run.device)
    for _, given in volumes:
        if trained.encoders is None:
            yield Failure("these weights were adopted without HA-GAN's encoders (E and Sub_E)")
            continue
        native = to_native(given, trained.generator.config.shape, trained.hu_window, "resize")
        image = to_cube(native.hu, trained.hu_window)[None].to(run.device)
        cube = volume(trained.generator, encoded(trained.encoders, image, config.precision), config.precision)
        yield _on_grid(trained, cube, given.shape, given.affine)


def _on_grid(trained: Trained, cube: torch.Tensor, grid: Shape, affine: NDArray[np.float64]) -> Volume | Failure:
    hu, not_finite = from_cube(cube, trained.hu_window)
    if not_finite:
        return Failure(f"{not_finite} voxels are not finite")
    return from_native(Volume(hu, np.eye(4)), grid, affine, "resize", trained.hu_window[0])
