"""The diffusion process against closed forms, MONAI's schedulers, and a problem whose answer is known."""

from __future__ import annotations

import math

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler

from medlord_bench.errors import UserError
from medlord_bench.generators.medlord.schedule import CosineSchedule
from medlord_bench.util.seeds import noise

T = 300


@pytest.fixture(scope="module")
def schedule() -> CosineSchedule:
    return CosineSchedule(T)


def _monai(kind: type, schedule: CosineSchedule):  # type: ignore[no-untyped-def]
    """MONAI's scheduler over our betas: its own differ in the last step, which it clips at 0.999."""
    theirs = kind(T, schedule="cosine", prediction_type="v_prediction", clip_sample=False)
    theirs.betas = torch.tensor(schedule.betas, dtype=torch.float64)
    theirs.alphas = 1 - theirs.betas
    theirs.alphas_cumprod = torch.tensor(schedule.alphas_cumprod, dtype=torch.float64)
    return theirs


def test_the_signal_left_at_each_timestep_is_the_squared_cosine(schedule: CosineSchedule) -> None:
    def f(t: int) -> float:
        return math.cos((t / T + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in range(T - 1):
        assert schedule.alphas_cumprod[t] == pytest.approx(f(t + 1) / f(0), rel=1e-9)
    assert schedule.betas[-1] == 0.9999  # where the cosine reaches 0 the beta is clipped


def test_the_schedule_is_monais_but_for_the_last_step(schedule: CosineSchedule) -> None:
    theirs = DDPMScheduler(T, schedule="cosine")
    ours = torch.tensor(schedule.alphas_cumprod)
    torch.testing.assert_close(ours[:-1], theirs.alphas_cumprod[:-1], atol=1e-6, rtol=0)


def test_noising_and_velocity_are_monais(schedule: CosineSchedule) -> None:
    x, eps = noise((4, 8, 2, 2, 2), "x"), noise((4, 8, 2, 2, 2), "eps")
    t = torch.tensor([0, 7, 150, 299])
    theirs = _monai(DDPMScheduler, schedule)
    torch.testing.assert_close(schedule.noised(x, eps, t), theirs.add_noise(x, eps, t), atol=2e-6, rtol=1e-5)
    torch.testing.assert_close(schedule.velocity(x, eps, t), theirs.get_velocity(x, eps, t), atol=2e-6, rtol=1e-5)


@pytest.mark.parametrize("t", [0, 1, 150, 298, 299])
def test_a_velocity_gives_back_the_latent_and_the_noise(schedule: CosineSchedule, t: int) -> None:
    x, eps = noise((1, 8, 2, 2, 2), "x").double(), noise((1, 8, 2, 2, 2), "eps").double()
    at = torch.tensor([t])
    start, back = schedule.denoised(schedule.noised(x, eps, at), schedule.velocity(x, eps, at), t)
    torch.testing.assert_close(start, x)
    torch.testing.assert_close(back, eps)


@pytest.mark.parametrize("t", [0, 1, 37, 298, 299])
def test_a_ddpm_step_is_monais(schedule: CosineSchedule, t: int) -> None:
    x, v = noise((2, 8, 2, 2, 2), "x").double(), noise((2, 8, 2, 2, 2), "v").double()
    expected, _ = _monai(DDPMScheduler, schedule).step(v, t, x, generator=torch.Generator().manual_seed(4))
    fresh = torch.randn(x.shape, generator=torch.Generator().manual_seed(4), dtype=x.dtype)
    torch.testing.assert_close(schedule.ddpm_step(x, v, t, fresh), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("t", [294, 150, 6])
def test_a_ddim_step_is_monais(schedule: CosineSchedule, t: int) -> None:
    x, v = noise((2, 8, 2, 2, 2), "x").double(), noise((2, 8, 2, 2, 2), "v").double()
    theirs = _monai(DDIMScheduler, schedule)
    theirs.set_timesteps(50)  # its step goes T / 50 = 6 timesteps back, whatever the timesteps are
    expected, _ = theirs.step(v, t, x, eta=0.0)
    torch.testing.assert_close(schedule.ddim_step(x, v, t, t - 6), expected, atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("steps", [T, 50])
def test_sampling_with_the_exact_denoiser_of_gaussian_data_returns_its_deviation(
    schedule: CosineSchedule, steps: int
) -> None:
    deviation = 0.3  # x_0 ~ N(0, 0.3^2): E[v | x_t] is linear in x_t
    x = noise((200_000,), "start").double()
    timesteps = schedule.sampling_timesteps(steps)
    for t, following in zip(timesteps, [*timesteps[1:], None], strict=True):
        signal = schedule.alphas_cumprod[t]
        total = signal * deviation**2 + 1 - signal
        velocity = x * math.sqrt(signal * (1 - signal)) * (1 - deviation**2) / total
        if steps == T:
            x = schedule.ddpm_step(x, velocity, t, noise(tuple(x.shape), "step", t).double() if t else None)
        else:
            x = schedule.ddim_step(x, velocity, t, following)
    assert float(x.std()) == pytest.approx(deviation, rel=0.05)
    assert float(x.mean()) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("n", [1, 2, 7, 50, 299, T])
def test_sampling_starts_at_the_noisiest_timestep_and_ends_at_zero(schedule: CosineSchedule, n: int) -> None:
    timesteps = schedule.sampling_timesteps(n)
    assert len(timesteps) == len(set(timesteps)) == n
    assert timesteps == sorted(timesteps, reverse=True)
    assert timesteps[0] == T - 1
    assert n == 1 or timesteps[-1] == 0
    assert n < T or timesteps == list(range(T - 1, -1, -1))


@pytest.mark.parametrize("n", [0, T + 1])
def test_more_steps_than_the_schedule_has_are_refused(schedule: CosineSchedule, n: int) -> None:
    with pytest.raises(UserError, match=f"{n} given, expected 1 to 300"):
        schedule.sampling_timesteps(n)


def test_a_ddpm_step_without_noise_is_a_bug_not_a_sample(schedule: CosineSchedule) -> None:
    with pytest.raises(ValueError, match="needs noise"):
        schedule.ddpm_step(torch.zeros(1), torch.zeros(1), 5, None)
