"""The two ways from noise to latents against MONAI's schedulers, closed forms, and data whose denoiser is known."""

from __future__ import annotations

import math

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler, RFlowScheduler

from medlord_bench.errors import UserError
from medlord_bench.generators.maisi.configs import DiffusionConfig
from medlord_bench.generators.maisi.schedule import NoiseSchedule, RectifiedFlow, ScaledLinear, make_schedule
from medlord_bench.util.seeds import noise

T = 1000
PAPER_VOXELS = 128 * 128 * 32  # latents of 512 x 512 x 128
SIZE = (3, 4, 2, 2, 2)
DDPM = {"schedule": "scaled_linear_beta", "beta_start": 0.0015, "beta_end": 0.0195, "clip_sample": False}


@pytest.fixture(scope="module")
def flow() -> RectifiedFlow:
    return RectifiedFlow(T, 32**3)


@pytest.fixture(scope="module")
def ddpm() -> ScaledLinear:
    return ScaledLinear(T)


def named(kind: str) -> NoiseSchedule:
    return make_schedule(DiffusionConfig.model_validate({"schedule": kind, "timesteps": T}))


def test_a_name_makes_its_schedule() -> None:
    assert isinstance(named("rflow"), RectifiedFlow)
    assert isinstance(named("ddpm"), ScaledLinear)


# ------------------------------------------------------------------------------------------------------ rectified flow
def test_flow_noises_as_monai_does_and_its_target_leads_from_noise_to_latents(flow: RectifiedFlow) -> None:
    x, eps, t = noise(SIZE, "x"), noise(SIZE, "eps"), torch.tensor([0.0, 333.3, 1000.0])
    noisy = flow.noised(x, eps, t)
    torch.testing.assert_close(noisy, RFlowScheduler(T).add_noise(x, eps, t))
    torch.testing.assert_close(noisy + flow.target(x, eps) * (t / T).view(-1, 1, 1, 1, 1), x)


def test_larger_volumes_are_trained_and_sampled_at_noisier_times(flow: RectifiedFlow) -> None:
    ratio = (PAPER_VOXELS / 32**3) ** (1 / 3)  # a closed form of the shift: t' = r t / (1 + (r - 1) t)
    u = torch.tensor([0.0, 0.1, 0.5, 0.9])
    torch.testing.assert_close(flow.times(u, PAPER_VOXELS), T * ratio * u / (1 + (ratio - 1) * u))
    torch.testing.assert_close(flow.times(u, 32**3), T * u)  # the reference size is not shifted
    torch.testing.assert_close(RectifiedFlow(T, PAPER_VOXELS // 8).times(u, PAPER_VOXELS), T * 2 * u / (1 + u))
    assert ratio > 2 and float(flow.times(u, PAPER_VOXELS)[2]) > 700


@pytest.mark.parametrize("voxels", [32**3, PAPER_VOXELS])
def test_the_flows_ladder_is_monais_before_it_is_rounded_to_float16(flow: RectifiedFlow, voxels: int) -> None:
    theirs = RFlowScheduler(T, use_discrete_timesteps=False, use_timestep_transform=True)
    theirs.set_timesteps(30, input_img_size_numel=voxels)
    ladder = flow.ladder(None, voxels)
    assert len(ladder) == 30 and ladder[0] == T
    torch.testing.assert_close(torch.tensor(ladder), theirs.timesteps.float(), rtol=1e-3, atol=0)


def test_a_flow_step_is_monais_between_whole_times(flow: RectifiedFlow) -> None:
    theirs = RFlowScheduler(T)
    theirs.set_timesteps(4)
    x, v, ladder = noise(SIZE, "x"), noise(SIZE, "v"), [1000.0, 750.0, 500.0, 250.0]
    for place, time in enumerate(ladder):
        following = int(ladder[place + 1]) if place < 3 else 0
        expected, _ = theirs.step(v, int(time), x, following)
        torch.testing.assert_close(flow.step(x, v, ladder, place, None), expected)


def test_a_flows_steps_add_up_to_the_whole_way_whatever_the_ladder(flow: RectifiedFlow) -> None:
    x, eps = noise(SIZE, "x").double(), noise(SIZE, "eps").double()
    for steps in (1, 7, 30):
        ladder, drawn = flow.ladder(steps, PAPER_VOXELS), eps
        for place in range(steps):
            assert not flow.is_noisy(ladder, place)
            drawn = flow.step(drawn, flow.target(x, eps), ladder, place, None)
        torch.testing.assert_close(drawn, x)


# ---------------------------------------------------------------------------------------------------------------- DDPM
def test_the_signal_left_is_that_of_the_scaled_linear_betas(ddpm: ScaledLinear) -> None:
    left = 1.0
    for t in range(T):
        left *= 1 - (math.sqrt(0.0015) + (math.sqrt(0.0195) - math.sqrt(0.0015)) * t / (T - 1)) ** 2
        assert float(ddpm.kept[t]) == pytest.approx(left, rel=1e-3)


def test_ddpm_noises_as_monai_does_and_predicts_the_noise(ddpm: ScaledLinear) -> None:
    x, eps, t = noise(SIZE, "x"), noise(SIZE, "eps"), torch.tensor([0.0, 500.0, 999.0])
    torch.testing.assert_close(ddpm.noised(x, eps, t), DDPMScheduler(T, **DDPM).add_noise(x, eps, t.long()))
    assert ddpm.target(x, eps) is eps
    assert ddpm.times(torch.tensor([0.0, 0.4999, 0.9999]), PAPER_VOXELS).tolist() == [0, 499, 999]


@pytest.mark.parametrize("t", [0, 1, 37, 998, 999])
def test_a_ddpm_step_is_monais(ddpm: ScaledLinear, t: int) -> None:
    x, eps = noise(SIZE, "x"), noise(SIZE, "eps")
    expected, _ = DDPMScheduler(T, **DDPM).step(eps, t, x, generator=torch.Generator().manual_seed(4))
    fresh = torch.randn(x.shape, generator=torch.Generator().manual_seed(4))
    ladder = ddpm.ladder(None, PAPER_VOXELS)
    place = T - 1 - t
    assert ladder[place] == t and ddpm.is_noisy(ladder, place) is (t > 0)
    ours = ddpm.step(x, eps, ladder, place, fresh if t else None)
    torch.testing.assert_close(ours, expected, atol=2e-5, rtol=1e-4)


@pytest.mark.parametrize("place", [0, 20, 48])
def test_fewer_steps_are_monais_ddim(ddpm: ScaledLinear, place: int) -> None:
    x, eps = noise(SIZE, "x"), noise(SIZE, "eps")
    theirs = DDIMScheduler(T, **DDPM)
    theirs.set_timesteps(50)  # its step goes T / 50 = 20 timesteps back, whatever the timesteps are
    ladder = [float(999 - 20 * i) for i in range(50)]
    expected, _ = theirs.step(eps, int(ladder[place]), x, eta=0.0)
    assert not ddpm.is_noisy(ladder, place)
    torch.testing.assert_close(ddpm.step(x, eps, ladder, place, None), expected, atol=2e-5, rtol=1e-4)


# ---------------------------------------------------------------------------------------------------------------- both
@pytest.mark.parametrize(("kind", "steps"), [("rflow", 200), ("rflow", 30), ("ddpm", None), ("ddpm", 100)])
def test_sampling_with_the_exact_denoiser_of_gaussian_data_returns_its_deviation(kind: str, steps: int | None) -> None:
    deviation, schedule = 0.3, named(kind)
    x = noise((50_000,), "start").double()
    ladder = schedule.ladder(steps, 32**3)
    for place, time in enumerate(ladder):
        if isinstance(schedule, ScaledLinear):
            signal = float(schedule.kept[int(time)])
            predicted = x * math.sqrt(1 - signal) / (signal * deviation**2 + 1 - signal)  # E[noise | x_t]
        else:
            share = time / T
            total = (1 - share) ** 2 * deviation**2 + share**2
            predicted = x * ((1 - share) * deviation**2 - share) / total  # E[latents - noise | x_t]
        fresh = noise((50_000,), "step", place).double() if schedule.is_noisy(ladder, place) else None
        x = schedule.step(x, predicted, ladder, place, fresh)
    assert float(x.std()) == pytest.approx(deviation, rel=0.08)
    assert float(x.mean()) == pytest.approx(0, abs=0.01)


@pytest.mark.parametrize("kind", ["rflow", "ddpm"])
@pytest.mark.parametrize("n", [0, T + 1])
def test_more_steps_than_the_schedule_has_are_refused(kind: str, n: int) -> None:
    with pytest.raises(UserError, match=f"{n} given, expected 1 to 1000"):
        named(kind).ladder(n, 32**3)


@pytest.mark.parametrize("n", [1, 2, 50, 999, T])
def test_a_ddpm_ladder_starts_at_the_noisiest_time_and_ends_at_zero(ddpm: ScaledLinear, n: int) -> None:
    ladder = ddpm.ladder(n, PAPER_VOXELS)
    assert len(set(ladder)) == n and ladder == sorted(ladder, reverse=True)
    assert ladder[0] == T - 1 and (n == 1 or ladder[-1] == 0)
