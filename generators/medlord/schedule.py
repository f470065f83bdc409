"""The diffusion process: cosine noise schedule, velocity prediction, DDPM and DDIM steps.

Conventions as in Ho et al. 2020: timestep t in 0..T-1, abar_t = prod (1 - beta), and x_t = sqrt(abar_t) x_0 +
sqrt(1 - abar_t) noise. Coefficients are float64 numbers; latents keep their own type.
"""

from __future__ import annotations

import math
from itertools import accumulate
from operator import mul

import torch

from medlord_bench.errors import UserError

OFFSET = 0.008  # s of Nichol & Dhariwal 2021, equation 17
LARGEST_BETA = 0.9999  # of the authors' code; equation 17's text has 0.999, which differs in the last step alone


def cosine_betas(timesteps: int) -> list[float]:
    """beta_t = 1 - f(t + 1) / f(t), f(t) = cos^2((t / T + s) / (1 + s) * pi / 2) (Nichol & Dhariwal 2021, eq. 17)."""

    def level(t: int) -> float:
        return math.cos((t / timesteps + OFFSET) / (1 + OFFSET) * math.pi / 2) ** 2

    return [min(1 - level(t + 1) / level(t), LARGEST_BETA) for t in range(timesteps)]


class CosineSchedule:
    """The schedule of T = `timesteps` steps, its training targets, and one step of sampling."""

    def __init__(self, timesteps: int) -> None:
        self.timesteps = timesteps
        self.betas = cosine_betas(timesteps)
        self.alphas_cumprod = list(accumulate((1 - beta for beta in self.betas), mul))

    def noised(self, x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """q(x_t | x_0): latents x (N, ...) noised to the timesteps t, int (N,)."""
        signal, spread = self._scales(t, x)
        return signal * x + spread * noise

    def velocity(self, x: torch.Tensor, noise: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        """v = sqrt(abar_t) noise - sqrt(1 - abar_t) x_0 (Salimans & Ho 2022), what the U-Net predicts."""
        signal, spread = self._scales(t, x)
        return signal * noise - spread * x

    def _scales(self, t: torch.Tensor, like: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        cumulated = torch.tensor(self.alphas_cumprod, dtype=torch.float64)[t.cpu()]
        cumulated = cumulated.reshape(-1, *[1] * (like.ndim - 1))
        return cumulated.sqrt().to(like), (1 - cumulated).sqrt().to(like)

    def sampling_timesteps(self, n: int) -> list[int]:
        """The n timesteps that sampling visits, from T-1 down to 0, evenly spaced. Raises `UserError` for n > T."""
        if not 1 <= n <= self.timesteps:
            raise UserError(f"sampling steps: {n} given, expected 1 to {self.timesteps} (the schedule's timesteps)")
        if n == 1:
            return [self.timesteps - 1]
        last = self.timesteps - 1
        return [round(last * (n - 1 - i) / (n - 1)) for i in range(n)]

    def denoised(self, x: torch.Tensor, velocity: torch.Tensor, t: int) -> tuple[torch.Tensor, torch.Tensor]:
        """The x_0 and the noise that x_t and its velocity imply."""
        signal, spread = self.alphas_cumprod[t] ** 0.5, (1 - self.alphas_cumprod[t]) ** 0.5
        return signal * x - spread * velocity, signal * velocity + spread * x

    def ddpm_step(self, x: torch.Tensor, velocity: torch.Tensor, t: int, noise: torch.Tensor | None) -> torch.Tensor:
        """x_{t-1} drawn from q(x_{t-1} | x_t, x_0) (Ho et al. 2020, equations 6 and 7). noise: not used at t = 0."""
        start, _ = self.denoised(x, velocity, t)
        if t == 0:
            return start
        now, before, beta = self.alphas_cumprod[t], self.alphas_cumprod[t - 1], self.betas[t]
        mean = before**0.5 * beta / (1 - now) * start + (1 - beta) ** 0.5 * (1 - before) / (1 - now) * x
        if noise is None:
            raise ValueError("a DDPM step at t > 0 needs noise")
        return mean + ((1 - before) / (1 - now) * beta) ** 0.5 * noise

    def ddim_step(self, x: torch.Tensor, velocity: torch.Tensor, t: int, following: int | None) -> torch.Tensor:
        """x at the timestep `following` (None: the end), deterministic (Song et al. 2021, equation 12, sigma = 0)."""
        start, noise = self.denoised(x, velocity, t)
        if following is None:
            return start
        after = self.alphas_cumprod[following]
        return after**0.5 * start + (1 - after) ** 0.5 * noise
