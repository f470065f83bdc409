"""From weights to volumes: codes by the transformer, then the decoder, then the protocol's grid."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from math import prod
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray

from medlord_bench.contracts import Failure, Request, Run, Shape, Volume
from medlord_bench.errors import UserError
from medlord_bench.nn.intensity import Window, scale_hu, unscale_hu
from medlord_bench.nn.offload import on_device
from medlord_bench.nn.vqgan.network import VQGAN
from medlord_bench.nn.vqgan.training import hu_window, load_autoencoder
from medlord_bench.util.hashing import digest, file_sha256
from medlord_bench.volumes.native_grid import from_native, to_native

from .configs import VQTransConfig
from .drawing import TokenFile, draw_saved, in_precision
from .tokens import decode, encode, token_shape
from .transformer import load_transformer

NO_AFFINE = np.eye(4)  # of a volume on the model's grid, which has no position yet


def sample(
    config: VQTransConfig, weights: Mapping[str, Path], requests: Sequence[Request], run: Run
) -> Iterator[Volume | Failure]:
    """One volume per request, `run.batch` at a time through the transformer, one at a time through the decoder.

    Only one of the two is on the card. Codes are kept in the scratch folder until the last volume of their batch is
    returned.
    """
    net, window = load_autoencoder(weights["autoencoder"], "cpu"), hu_window(weights["autoencoder"])
    trained = load_transformer(weights["transformer"])
    if trained.net.codes != net.config.codes:
        raise UserError(
            f"{weights['transformer'] / 'model.json'}: a transformer on {trained.net.codes} codes, the autoencoder has "
            f"{net.config.codes}; give a pair that was trained together"
        )
    in_precision(trained.net, config.sampling)
    length, decides = prod(trained.shape), _decides(config, weights["transformer"])
    for start in range(0, len(requests), run.batch):
        chunk = requests[start : start + run.batch]
        chunk_seeds = [request.seed for request in chunk]
        files = [TokenFile(run.scratch / f"tokens-{digest([decides, seed])[:24]}.safetensors") for seed in chunk_seeds]
        with on_device([trained.net], run.device):
            drawn = draw_saved(trained.net, chunk_seeds, length, config.sampling, files, run.stop)
        with on_device([net], run.device):
            for request, codes in zip(chunk, drawn, strict=True):
                made = _made(config, net, codes.view(1, *trained.shape), window, run)
                yield _on_grid(config, made, request.grid.shape, request.grid.affine(), window)
        for file in files:  # not earlier: after a stop within a batch the whole batch is requested again
            file.remove()


def _decides(config: VQTransConfig, transformer: Path) -> str:
    """The dependencies of a sequence besides its seed."""
    weights = {name: file_sha256(transformer / name) for name in ("model.json", "model.safetensors")}
    return digest([config.sampling.model_dump(mode="json"), weights])


def _made(config: VQTransConfig, net: VQGAN, indices: torch.Tensor, window: Window, run: Run) -> Volume | Failure:
    """The volume on the model's own grid."""
    image = decode(net, indices, config.sampling.precision, config.sampling.tile, run.device)
    hu, not_finite = unscale_hu(image[0, 0], window)
    return Failure(f"{not_finite} voxels are not finite") if not_finite else Volume(hu, NO_AFFINE)


def _on_grid(
    config: VQTransConfig, made: Volume | Failure, grid: Shape, affine: NDArray[np.float64], window: Window
) -> Volume | Failure:
    return made if isinstance(made, Failure) else from_native(made, grid, affine, config.fit, window[0])


def reconstruct(
    config: VQTransConfig, weights: Mapping[str, Path], volumes: Iterable[tuple[str, Volume]], run: Run
) -> Iterator[Volume | Failure]:
    """Each (case id, volume) through the model's grid, encoder, codebook and decoder, and back."""
    net, window = load_autoencoder(weights["autoencoder"], run.device), hu_window(weights["autoencoder"])
    for _, volume in volumes:
        grid = config.native(volume.shape)
        token_shape(grid, net.factor)
        image = scale_hu(to_native(volume, grid, window, config.fit).hu, window)[None, None]
        indices = encode(net, image, config.sampling.precision, config.sampling.tile, run.device)
        yield _on_grid(config, _made(config, net, indices, window, run), volume.shape, volume.affine, window)
