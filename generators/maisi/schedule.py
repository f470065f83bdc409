"""The two ways from noise to latents: a rectified flow, and a DDPM with the scaled linear schedule.

Both share one interface; times are floats in [0, T], T is pure noise. The formulas are MONAI's (`RFlowScheduler`,
`DDPMScheduler`), with each sample's noise given from outside, so that a sample does not depend on its batch.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import numpy as np
import torch
from monai.networks.schedulers.rectified_flow import timestep_transform

from medlord_bench.errors import UserError

from .configs import DiffusionConfig

RFLOW_STEPS = 30  # NV-Generate's number
BETA_START, BETA_END = 0.0015, 0.0195


class NoiseSchedule(Protocol):
    """What training and sampling ask of a schedule. voxels: latent voxels of one sample, x * y * z."""

    timesteps: int

    def times(self, uniform: torch.Tensor, voxels: int) -> torch.Tensor:
        """Training times (N,) of numbers drawn uniformly from [0, 1)."""
        ...

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor: ...

    def target(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        """What the U-Net predicts."""
        ...

    def ladder(self, steps: int | None, voxels: int) -> list[float]:
        """The times of a sampling in `steps` steps, from the noisiest; None for the schedule's own number."""
        ...

    def is_noisy(self, ladder: Sequence[float], place: int) -> bool:
        """Whether the step from `ladder[place]` adds fresh noise."""
        ...

    def step(
        self, x: torch.Tensor, predicted: torch.Tensor, ladder: Sequence[float], place: int, fresh: torch.Tensor | None
    ) -> torch.Tensor:
        """From `ladder[place]` to the next time, or to the latents at the last."""
        ...


def make_schedule(config: DiffusionConfig) -> NoiseSchedule:
    """The schedule that a configuration names."""
    if config.schedule == "rflow":
        return RectifiedFlow(config.timesteps, config.reference_voxels)
    return ScaledLinear(config.timesteps)


def _allowed(steps: int, timesteps: int) -> int:
    if not 1 <= steps <= timesteps:
        raise UserError(f"sampling.steps: {steps} given, expected 1 to {timesteps}")
    return steps


class RectifiedFlow:
    """x_t = (1 - t/T) latents + (t/T) noise; predicts latents - noise (Liu et al. 2022).

    Times are moved towards noise for volumes larger than `reference_voxels` latent voxels, as NV-Generate does. MONAI
    rounds its times to float16 and each next one down to a whole number, so that its steps add up to a little more
    than the way from noise to latents; here they add up to it exactly.
    """

    def __init__(self, timesteps: int, reference_voxels: int) -> None:
        self.timesteps, self.reference_voxels = timesteps, reference_voxels

    def times(self, uniform: torch.Tensor, voxels: int) -> torch.Tensor:
        moved: torch.Tensor = timestep_transform(
            uniform * self.timesteps, voxels, self.reference_voxels, num_train_timesteps=self.timesteps
        )
        return moved

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        share = (times.float() / self.timesteps).view(-1, *[1] * (latents.ndim - 1))
        return (1 - share) * latents + share * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return latents - noise

    def ladder(self, steps: int | None, voxels: int) -> list[float]:
        count = _allowed(min(RFLOW_STEPS, self.timesteps) if steps is None else steps, self.timesteps)
        # In plain numbers, which a dry run of memory can do too.
        even = [(1 - i / count) * self.timesteps for i in range(count)]
        reference, timesteps = self.reference_voxels, self.timesteps
        return [float(timestep_transform(t, voxels, reference, num_train_timesteps=timesteps)) for t in even]

    def is_noisy(self, ladder: Sequence[float], place: int) -> bool:
        return False

    def step(
        self, x: torch.Tensor, predicted: torch.Tensor, ladder: Sequence[float], place: int, fresh: torch.Tensor | None
    ) -> torch.Tensor:
        following = ladder[place + 1] if place + 1 < len(ladder) else 0.0
        return x + predicted * ((ladder[place] - following) / self.timesteps)


class ScaledLinear:
    """DDPM (Ho et al. 2020) predicting the noise; fewer steps than T are DDIM (Song et al. 2021), without fresh noise.

    MONAI's DDPM takes the step to t - 1 whatever the next time is, which is no sample of any posterior.
    """

    def __init__(self, timesteps: int) -> None:
        self.timesteps = timesteps
        # In NumPy, not by MONAI's scheduler: a dry run of memory has tensors without values.
        betas = np.linspace(BETA_START**0.5, BETA_END**0.5, timesteps) ** 2
        self.kept = np.cumprod(1 - betas)  # (T,), share of the latents' variance at each time

    def times(self, uniform: torch.Tensor, voxels: int) -> torch.Tensor:
        return (uniform * self.timesteps).floor()

    def noised(self, latents: torch.Tensor, noise: torch.Tensor, times: torch.Tensor) -> torch.Tensor:
        kept = torch.from_numpy(self.kept).to(times.device)[times.long()].view(-1, *[1] * (latents.ndim - 1))
        return kept.sqrt().float() * latents + (1 - kept).sqrt().float() * noise

    def target(self, latents: torch.Tensor, noise: torch.Tensor) -> torch.Tensor:
        return noise

    def ladder(self, steps: int | None, voxels: int) -> list[float]:
        count = _allowed(self.timesteps if steps is None else steps, self.timesteps)
        if count == 1:
            return [float(self.timesteps - 1)]
        return [float(round((self.timesteps - 1) * (1 - i / (count - 1)))) for i in range(count)]

    def is_noisy(self, ladder: Sequence[float], place: int) -> bool:
        return len(ladder) == self.timesteps and ladder[place] > 0

    def step(
        self, x: torch.Tensor, predicted: torch.Tensor, ladder: Sequence[float], place: int, fresh: torch.Tensor | None
    ) -> torch.Tensor:
        kept = self._kept(ladder, place)
        before = self._kept(ladder, place + 1)
        latents = (x - (1 - kept) ** 0.5 * predicted) / kept**0.5
        if len(ladder) < self.timesteps:
            return before**0.5 * latents + (1 - before) ** 0.5 * predicted
        ratio = kept / before
        mean = before**0.5 * (1 - ratio) / (1 - kept) * latents + ratio**0.5 * (1 - before) / (1 - kept) * x
        if fresh is None:
            return mean
        return mean + ((1 - before) / (1 - kept) * (1 - ratio)) ** 0.5 * fresh

    def _kept(self, ladder: Sequence[float], place: int) -> float:
        return float(self.kept[int(ladder[place])]) if place < len(ladder) else 1.0
