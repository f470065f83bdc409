"""Noise schedules with one interface: the training target of a network, and the steps from noise to latents.

Names follow the field, as in diffusers: `prediction_type`, `add_noise`, `step`, DDPM, DDIM. The formulas are MONAI's
(`DDPMScheduler`, `DDIMScheduler`, `RFlowScheduler`) unless a class states otherwise. The caller provides the noise of
each sample, so that a sample does not depend on its batch. Coefficients are float64 numbers instead of tensors, because
tensors have no values in a dry run. Latents keep their type.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import accumulate
from operator import mul
from typing import Literal, Protocol, TypeVar

import numpy as np
import torch
from torch import Tensor

from medlord_bench.errors import UserError

PredictionType = Literal["epsilon", "v_prediction", "flow"]
Time = TypeVar("Time", float, Tensor)

OFFSET = 0.008  # s of Nichol & Dhariwal 2021, equation 17
LARGEST_BETA = 0.9999  # as in the authors' code; the text of equation 17 has 0.999, which differs only in the last step
BETA_START, BETA_END = 0.0015, 0.0195  # NV-Generate's numbers
RFLOW_STEPS = 30  # NV-Generate's number


class NoiseSchedule(Protocol):
    """The interface of a schedule for training and sampling. timesteps: T, its number of steps.

    prediction_type: the network's target: the noise ("epsilon"), sqrt(abar_t) noise - sqrt(1 - abar_t) x_0
    ("v_prediction", Salimans & Ho 2022), or x_0 - noise ("flow"). voxels: number of latent voxels of one sample,
    x * y * z. A time is a number from 0 (no noise) to T; the schedule defines whether it is an integer.
    """

    timesteps: int
    prediction_type: PredictionType

    def draw_time(self, rng: torch.Generator, voxels: int) -> Tensor:
        """The time of one training item: a scalar tensor on the CPU."""
        ...

    def time_at(self, fraction: float, voxels: int) -> Tensor:
        """The time at `fraction` in [0, 1) of the way to pure noise; same type as `draw_time`.

        For a uniformly distributed fraction it is distributed as `draw_time`.
        """
        ...

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """Latents (N, ...) with `noise` (N, ...) added for the times (N,); same shape and type."""
        ...

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """The network's target for the input `add_noise(latents, noise, times)`."""
        ...

    def sampling_timesteps(self, steps: int | None, voxels: int) -> Sequence[float]:
        """The times of sampling in `steps` steps, noisiest first; None: the schedule's default number.

        Raises `UserError` for fewer than 1 or more than T.
        """
        ...

    def is_stochastic(self, timesteps: Sequence[float], place: int) -> bool:
        """Whether the step from `timesteps[place]` adds fresh noise."""
        ...

    def step(
        self, x: Tensor, predicted: Tensor, timesteps: Sequence[float], place: int, fresh: Tensor | None
    ) -> Tensor:
        """Move x (N, ...) from `timesteps[place]` to the next time, or from the last time to the latents.

        timesteps: from `sampling_timesteps`. predicted: the network's output, shaped as x. fresh: standard normal
        noise, shaped as x, if `is_stochastic`; otherwise unused.
        """
        ...


def _allowed(steps: int, timesteps: int) -> int:
    if not 1 <= steps <= timesteps:
        raise UserError(f"sampling.steps: {steps} given, expected 1 to {timesteps} (the schedule's timesteps)")
    return steps


class GaussianSchedule:
    """A diffusion process over T = len(betas) integer timesteps, sampled by DDPM in T steps, by DDIM in fewer.

    Conventions as in Ho et al. 2020: timestep t in 0..T-1, abar_t = prod (1 - beta), and x_t = sqrt(abar_t) x_0 +
    sqrt(1 - abar_t) noise. MONAI's DDPM always steps to t - 1, also if the next timestep is another; the result is then
    not a sample of any posterior. Here, sampling in fewer than T steps follows Song et al. 2021, equations 12 and 16.
    eta: their factor on the fresh noise of a step: 0 is deterministic DDIM, 1 is the posterior between the two times.
    """

    def __init__(
        self, betas: Sequence[float], prediction_type: Literal["epsilon", "v_prediction"], eta: float = 0.0
    ) -> None:
        self.betas, self.eta = list(betas), eta
        self.alphas_cumprod = list(accumulate((1 - beta for beta in self.betas), mul))
        self.timesteps = len(self.betas)
        self.prediction_type: PredictionType = prediction_type

    def draw_time(self, rng: torch.Generator, voxels: int) -> Tensor:
        """A timestep, uniformly distributed: int64 ()."""
        return torch.randint(self.timesteps, (), generator=rng)

    def time_at(self, fraction: float, voxels: int) -> Tensor:
        return torch.tensor(min(int(fraction * self.timesteps), self.timesteps - 1))

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        """q(x_t | x_0) at the timesteps `times`, int (N,)."""
        signal, spread = self._scales(times, latents)
        return signal * latents + spread * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        if self.prediction_type == "epsilon":
            return noise
        signal, spread = self._scales(times, latents)
        return signal * noise - spread * latents

    def _scales(self, times: Tensor, like: Tensor) -> tuple[Tensor, Tensor]:
        cumulated = torch.tensor(self.alphas_cumprod, dtype=torch.float64)[times.cpu()]
        cumulated = cumulated.reshape(-1, *[1] * (like.ndim - 1))  # (N,) -> (N, 1, ..., 1)
        return cumulated.sqrt().to(like), (1 - cumulated).sqrt().to(like)

    def sampling_timesteps(self, steps: int | None, voxels: int) -> list[int]:
        """From T-1 down to 0, evenly spaced; None: all T."""
        n = _allowed(self.timesteps if steps is None else steps, self.timesteps)
        last = self.timesteps - 1
        return [last] if n == 1 else [round(last * (n - 1 - i) / (n - 1)) for i in range(n)]

    def is_stochastic(self, timesteps: Sequence[float], place: int) -> bool:
        if len(timesteps) == self.timesteps:
            return timesteps[place] > 0
        return self.eta > 0 and place + 1 < len(timesteps)

    def denoised(self, x: Tensor, predicted: Tensor, t: int) -> tuple[Tensor, Tensor]:
        """x_0 and noise, computed from x_t and the network's prediction."""
        signal, spread = self.alphas_cumprod[t] ** 0.5, (1 - self.alphas_cumprod[t]) ** 0.5
        if self.prediction_type == "epsilon":
            return (x - spread * predicted) / signal, predicted
        return signal * x - spread * predicted, signal * predicted + spread * x

    def step(
        self, x: Tensor, predicted: Tensor, timesteps: Sequence[float], place: int, fresh: Tensor | None
    ) -> Tensor:
        t = int(timesteps[place])
        if len(timesteps) == self.timesteps:
            return self._ddpm_step(x, predicted, t, fresh)
        following = int(timesteps[place + 1]) if place + 1 < len(timesteps) else None
        return self._ddim_step(x, predicted, t, following, fresh)

    def _ddpm_step(self, x: Tensor, predicted: Tensor, t: int, fresh: Tensor | None) -> Tensor:
        """x_{t-1} drawn from q(x_{t-1} | x_t, x_0) (Ho et al. 2020, equations 6 and 7). fresh: unused at t = 0."""
        start, _ = self.denoised(x, predicted, t)
        if t == 0:
            return start
        now, before, beta = self.alphas_cumprod[t], self.alphas_cumprod[t - 1], self.betas[t]
        mean = before**0.5 * beta / (1 - now) * start + (1 - beta) ** 0.5 * (1 - before) / (1 - now) * x
        if fresh is None:
            raise ValueError("fresh: expected noise for a DDPM step at t > 0")
        drawn: Tensor = mean + ((1 - before) / (1 - now) * beta) ** 0.5 * fresh
        return drawn

    def _ddim_step(self, x: Tensor, predicted: Tensor, t: int, following: int | None, fresh: Tensor | None) -> Tensor:
        """x at the timestep `following`; None: the end (Song et al. 2021, equation 12). fresh: unused if eta is 0."""
        start, noise = self.denoised(x, predicted, t)
        if following is None:
            return start
        now, after = self.alphas_cumprod[t], self.alphas_cumprod[following]
        sigma = self.eta * ((1 - after) / (1 - now) * (1 - now / after)) ** 0.5  # equation 16
        rest = max(0.0, 1 - after - sigma**2)  # rounding may make it negative
        moved: Tensor = after**0.5 * start + rest**0.5 * noise
        if self.eta == 0:
            return moved
        if fresh is None:
            raise ValueError("fresh: expected noise for a step with eta > 0")
        drawn: Tensor = moved + sigma * fresh
        return drawn


class CosineSchedule(GaussianSchedule):
    """beta_t = 1 - f(t + 1) / f(t), f(t) = cos^2((t / T + s) / (1 + s) * pi / 2) (Nichol & Dhariwal 2021, eq. 17).

    The network predicts velocities. MONAI's betas are equal except for the last, which MONAI clips at 0.999.
    """

    def __init__(self, timesteps: int, eta: float = 0.0) -> None:
        def level(t: int) -> float:
            return math.cos((t / timesteps + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2

        betas = [min(1 - level(t + 1) / level(t), LARGEST_BETA) for t in range(timesteps)]
        super().__init__(betas, "v_prediction", eta)


class ScaledLinearSchedule(GaussianSchedule):
    """sqrt(beta) increases linearly from `BETA_START` to `BETA_END`; the network predicts the noise.

    "scaled_linear" of the code of Rombach et al. 2022, with NV-Generate's numbers.
    """

    def __init__(self, timesteps: int) -> None:
        betas: list[float] = (np.linspace(BETA_START**0.5, BETA_END**0.5, timesteps) ** 2).tolist()
        super().__init__(betas, "epsilon")


class RectifiedFlow:
    """x_t = (1 - t/T) latents + (t/T) noise; predicts latents - noise (Liu et al. 2022). Times are floats in [0, T].

    Times are shifted towards noise for volumes larger than `reference_voxels` latent voxels, as in NV-Generate. MONAI
    rounds its times to float16 and each next time down to an integer, so that the sum of its steps is slightly larger
    than the distance from noise to latents. Here the sum is exact.
    """

    prediction_type: PredictionType = "flow"

    def __init__(self, timesteps: int, reference_voxels: int) -> None:
        self.timesteps, self.reference_voxels = timesteps, reference_voxels

    def draw_time(self, rng: torch.Generator, voxels: int) -> Tensor:
        """Uniform in [0, T), then shifted: float32 ()."""
        return self._moved(torch.rand((), generator=rng) * self.timesteps, voxels)

    def time_at(self, fraction: float, voxels: int) -> Tensor:
        return self._moved(torch.tensor(fraction) * self.timesteps, voxels)

    def _moved(self, time: Time, voxels: int) -> Time:
        """r t / (1 + (r - 1) t) for t in [0, 1], where r is the ratio of sides: MONAI's `timestep_transform`."""
        ratio: float = (voxels / self.reference_voxels) ** (1.0 / 3)
        share = time / self.timesteps
        return ratio * share / (1 + (ratio - 1) * share) * self.timesteps

    def add_noise(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        share = (times.float() / self.timesteps).view(-1, *[1] * (latents.ndim - 1))  # (N,) -> (N, 1, ..., 1)
        return (1 - share) * latents + share * noise

    def target(self, latents: Tensor, noise: Tensor, times: Tensor) -> Tensor:
        return latents - noise

    def sampling_timesteps(self, steps: int | None, voxels: int) -> list[float]:
        """From T, evenly spaced before the shift; None: `RFLOW_STEPS`, or T if T is smaller."""
        n = _allowed(min(RFLOW_STEPS, self.timesteps) if steps is None else steps, self.timesteps)
        return [self._moved((1 - i / n) * self.timesteps, voxels) for i in range(n)]

    def is_stochastic(self, timesteps: Sequence[float], place: int) -> bool:
        return False

    def step(
        self, x: Tensor, predicted: Tensor, timesteps: Sequence[float], place: int, fresh: Tensor | None
    ) -> Tensor:
        following = timesteps[place + 1] if place + 1 < len(timesteps) else 0.0
        return x + predicted * ((timesteps[place] - following) / self.timesteps)
