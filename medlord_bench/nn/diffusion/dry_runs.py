"""Dry runs of training on generated latents, to predict its memory; see `contracts.HasDryRuns`."""

from __future__ import annotations

from collections.abc import Sequence

import torch

from medlord_bench.contracts import MemoryOption, Split
from medlord_bench.memory.dry_run import on_host
from medlord_bench.nn.diffusion.training import LatentBatch, LatentRecipe
from medlord_bench.nn.vqgan.dry_runs import CASE, take_steps


class MadeLatents:
    """`Latents` of one shape (C, x, y, z)."""

    scale = 1.0

    def __init__(self, shape: tuple[int, ...]) -> None:
        self.shape = shape

    def ids(self, split: Split) -> Sequence[str]:
        return [CASE]

    def latent(self, case_id: str) -> torch.Tensor:
        with on_host():
            return torch.zeros(self.shape)


def train_latents(
    recipe: LatentRecipe, shape: tuple[int, ...], conditions: Sequence[tuple[tuple[int, ...], torch.dtype]], times: int
) -> None:
    """`times` training steps on latents of `shape` (C, x, y, z). conditions: shape and type of an item's conditions."""
    batch = recipe.config.batch
    with on_host():
        made = LatentBatch(
            torch.randn(batch, *shape),
            torch.randn(batch, *shape),
            recipe.schedule.time_at(0.0, 1).expand(batch),
            tuple(torch.zeros(batch, *size, dtype=dtype) for size, dtype in conditions),
        )
    take_steps(recipe.step, made, times)


def fused_attention(part: str, attention: str) -> list[MemoryOption]:
    """The option of a fused kernel. part: dotted path of the settings with `attention`, whose value is `attention`."""
    return [MemoryOption({f"{part}.attention": "auto"}, "none")] if attention == "math" else []
