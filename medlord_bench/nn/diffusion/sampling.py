"""Sampling of latents: from noise through all steps of a schedule."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from math import prod

import torch
from torch import Tensor

from medlord_bench.contracts import Precision
from medlord_bench.errors import Stopped
from medlord_bench.nn.diffusion.schedules import NoiseSchedule
from medlord_bench.nn.optimiser import autocast
from medlord_bench.util.seeds import noise as draw


@torch.inference_mode()
def draw_latents(
    schedule: NoiseSchedule,
    predict: Callable[[Tensor, Tensor], Tensor],
    seeds: Sequence[int],
    size: tuple[int, ...],
    steps: int | None,
    device: str,
    precision: Precision,
    stop: Callable[[], bool] = lambda: False,
) -> Tensor:
    """One latent per seed: float32 (N, *size) on `device`, still multiplied by the latent scale.

    All noise is drawn on the CPU from each sample's own seed, so that a sample does not depend on its batch.
    predict: maps noisy latents (N, *size) and times (N,) to the network's prediction (N, *size); called with autocast.
    size: (C, x, y, z). steps: see `NoiseSchedule.sampling_timesteps`, which raises `UserError` for an invalid number.
    Raises `Stopped` between steps if `stop()` is true.
    """
    timesteps = schedule.sampling_timesteps(steps, prod(size[1:]))
    x = torch.stack([draw(size, seed, "start") for seed in seeds]).to(device)  # (N, *size)
    for place, t in enumerate(timesteps):
        if stop():
            raise Stopped(f"sampling: stopped after {place} of {len(timesteps)} steps; this sample is drawn again")
        times = torch.full((len(seeds),), t, device=device)
        with autocast(precision, device):
            predicted = predict(x, times).float()
        fresh = None
        if schedule.is_stochastic(timesteps, place):
            fresh = torch.stack([draw(size, seed, "step", int(t)) for seed in seeds]).to(device)  # (N, *size)
        x = schedule.step(x, predicted, timesteps, place, fresh)
    return x
