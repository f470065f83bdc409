"""The loop from noise to latents: whose noise it is, when it stops, and that it is the schedule's steps and no more."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from medlord_bench.errors import Stopped, UserError
from medlord_bench.nn.diffusion.sampling import draw_latents
from medlord_bench.nn.diffusion.schedules import CosineSchedule, NoiseSchedule, RectifiedFlow, ScaledLinearSchedule
from medlord_bench.util.seeds import noise

T = 20
SIZE = (8, 4, 4, 2)
SCHEDULES: dict[str, NoiseSchedule] = {
    "cosine": CosineSchedule(T),
    "scaled linear": ScaledLinearSchedule(T),
    "flow": RectifiedFlow(T, 32),
}


def nothing(x: Tensor, times: Tensor) -> Tensor:
    return torch.zeros_like(x)


def curved(x: Tensor, times: Tensor) -> Tensor:
    """Depends on both inputs, voxel by voxel."""
    return torch.tanh(x + times.float().view(-1, 1, 1, 1, 1) / T)


@pytest.mark.parametrize(("name", "steps"), [("cosine", T), ("cosine", 6), ("scaled linear", None), ("flow", 6)])
def test_a_sample_does_not_depend_on_its_batch(name: str, steps: int | None) -> None:
    together = draw_latents(SCHEDULES[name], curved, [5, 6, 7], SIZE, steps, "cpu", "fp32")
    alone = [draw_latents(SCHEDULES[name], curved, [seed], SIZE, steps, "cpu", "fp32")[0] for seed in (5, 6, 7)]
    torch.testing.assert_close(together, torch.stack(alone), atol=1e-6, rtol=0)
    assert together.dtype == torch.float32 and float((together[0] - together[1]).abs().max()) > 0.1


def test_all_steps_are_ddpm_with_the_noise_of_each_samples_seed_and_timestep() -> None:
    schedule = CosineSchedule(T)  # velocity 0: x_0 = sqrt(abar_t) x_t at every step
    expected = noise(SIZE, 11, "start")
    for t in reversed(range(T)):
        before = schedule.alphas_cumprod[t - 1] if t else 1.0
        now, beta = schedule.alphas_cumprod[t], schedule.betas[t]
        mean = (before * now) ** 0.5 * beta / (1 - now) + (1 - beta) ** 0.5 * (1 - before) / (1 - now)
        expected = mean * expected + ((1 - before) / (1 - now) * beta) ** 0.5 * noise(SIZE, 11, "step", t)
    drawn = draw_latents(schedule, nothing, [11], SIZE, None, "cpu", "fp32")[0]
    torch.testing.assert_close(drawn, expected, atol=1e-6, rtol=1e-5)


def test_a_flow_whose_prediction_is_nothing_stays_at_its_noise() -> None:
    drawn = draw_latents(SCHEDULES["flow"], nothing, [11], SIZE, 5, "cpu", "fp32")
    assert torch.equal(drawn[0], noise(SIZE, 11, "start"))


@pytest.mark.parametrize("name", list(SCHEDULES))
def test_the_network_sees_the_schedules_times_once_for_each_sample(name: str) -> None:
    seen: list[Tensor] = []

    def predict(x: Tensor, times: Tensor) -> Tensor:
        seen.append(times)
        return torch.zeros_like(x)

    draw_latents(SCHEDULES[name], predict, [1, 2], SIZE, 7, "cpu", "fp32")
    expected = SCHEDULES[name].sampling_timesteps(7, 4 * 4 * 2)
    assert [times.tolist() for times in seen] == [pytest.approx([t, t]) for t in expected]
    assert all(times.is_floating_point() is (name == "flow") for times in seen)


def test_sampling_looks_for_a_stop_between_steps() -> None:
    looks = iter([False, False, True])
    with pytest.raises(Stopped, match="stopped after 2 of 6 steps"):
        draw_latents(SCHEDULES["flow"], curved, [1], SIZE, 6, "cpu", "fp32", stop=lambda: next(looks))


def test_more_steps_than_there_are_is_refused() -> None:
    with pytest.raises(UserError, match="expected 1 to 20"):
        draw_latents(SCHEDULES["cosine"], nothing, [1], SIZE, 21, "cpu", "fp32")
