"""Dry runs of the VQ-GAN's training, to predict its memory, and the options that reduce it.

Generators use them in their `dry_runs`; see `contracts.HasDryRuns`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import torch

from medlord_bench.contracts import DataProtocol, MemoryOption, Precision, Run, Shape, Split
from medlord_bench.memory.dry_run import is_dry_run, on_host
from medlord_bench.nn.losses import Perceptual
from medlord_bench.nn.vqgan.config import AutoencoderConfig, LatentsConfig, VQGANConfig
from medlord_bench.nn.vqgan.latents import decode, encode
from medlord_bench.nn.vqgan.network import VQGAN
from medlord_bench.nn.vqgan.training import AutoencoderRecipe

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

CASE = "dry run"


class UnreadCohort:
    """A cohort with names and shapes but without images."""

    def __init__(self, data: DataProtocol) -> None:
        self.protocol = data
        self.label_names: Mapping[int, str] = {}

    def ids(self, split: Split) -> Sequence[str]:
        return [CASE]

    def hu(self, case_id: str) -> NDArray[np.int16]:
        raise AssertionError("nothing is read in a dry run")

    def labels(self, case_id: str) -> NDArray[np.uint8] | None:
        raise AssertionError("nothing is read in a dry run")


class _Recipe(AutoencoderRecipe):
    def _perceptual(self) -> Perceptual:
        loss = Perceptual(None, self.config.perceptual_slices)  # the weights affect neither memory nor time
        loss.to(self.device)
        return loss


def train_autoencoder(config: AutoencoderConfig, data: DataProtocol, run: Run, times: int) -> None:
    """`times` training steps on generated patches. data: protocol with the grid of the patches."""
    recipe = _Recipe(config, UnreadCohort(data), run)
    with on_host():
        batch = torch.rand(config.batch, 1, *config.patch)
    take_steps(recipe.step, batch, times)


def take_steps(step: Callable[[int, Any], Any], batch: Any, times: int) -> None:
    """`times` training steps, of which a dry run needs the first only: its `Optimiser` has a state from the start.

    step: as `training.Recipe.step`.
    """
    for number in range(1 if is_dry_run(torch.empty(0)) else times):
        step(number, batch)


def encode_volume(net: VQGANConfig, latents: LatentsConfig, shape: Shape, run: Run, times: int) -> None:
    """Encode a volume of `shape` `times` times."""
    network, image = _network(net, run), _image(shape)
    for _ in range(times):
        encode(network, image, latents, run.device)


def decode_latent(
    net: VQGANConfig, precision: Precision, tile: Shape | None, shape: Shape, run: Run, times: int
) -> None:
    """Decode the latent of a volume of `shape` `times` times."""
    network = _network(net, run)
    latent = torch.zeros(1, net.dim, *(side // net.factor for side in shape), device=run.device)
    for _ in range(times):
        decode(network, latent, precision, tile)


def reconstruct_volume(
    net: VQGANConfig, precision: Precision, tile: Shape | None, shape: Shape, run: Run, times: int
) -> None:
    """Encode and decode a volume of `shape` `times` times."""
    network, image = _network(net, run), _image(shape)
    for _ in range(times):
        z = encode(network, image, LatentsConfig(precision=precision, tile=tile), run.device)
        decode(network, z.to(run.device), precision, tile)


def _network(net: VQGANConfig, run: Run) -> VQGAN:
    return VQGAN(net).to(run.device).eval().requires_grad_(False)


def _image(shape: Shape) -> torch.Tensor:
    with on_host():
        return torch.zeros(1, 1, *shape)


# ------------------------------------------------------------------------------------------------------ memory options
def smaller_micro_batches(part: str, batch: int, now: int) -> list[MemoryOption]:
    """The options of smaller micro-batches. part: dotted path of the settings with `micro_batch`."""
    smaller = [size for size in range(now - 1, 0, -1) if batch % size == 0]
    return [MemoryOption({f"{part}.micro_batch": size}, "smaller kernels, slightly slower") for size in smaller]


def recomputed(part: str) -> MemoryOption:
    """The option of recomputed activations. part: dotted path of the settings with `checkpointing`."""
    return MemoryOption({f"{part}.checkpointing": True}, "activations are computed twice: about a third slower")


def smaller_tiles(part: str, tile: Shape | None) -> list[MemoryOption]:
    """The options of smaller tiles. part: dotted path of the settings with `tile`."""
    sizes = [(256, 256, 128), (128, 128, 128), (128, 128, 64)]
    smaller = [size for size in sizes if tile is None or prod(size) < prod(tile)]
    return [MemoryOption({f"{part}.tile": size}, "borders of tiles are computed twice") for size in smaller]
