"""Dry runs of the VQ-GAN's training, to predict its memory, and the options that reduce it.

Generators use them in their `dry_runs`; see `contracts.HasDryRuns`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING

import torch

from medlord_bench.contracts import DataProtocol, MemoryOption, Run, Shape, Split
from medlord_bench.memory.dry_run import on_host
from medlord_bench.nn.losses import Perceptual
from medlord_bench.nn.vqgan.config import AutoencoderConfig
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
    for step in range(times):
        recipe.step(step, batch)


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
