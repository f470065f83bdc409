"""The ways from noise to latents against MONAI's schedulers, closed forms, and data whose denoiser is known."""

from __future__ import annotations

import copy
import math
from typing import Any

import pytest
import torch
from monai.networks.schedulers import DDIMScheduler, DDPMScheduler, RFlowScheduler
from monai.networks.schedulers.rectified_flow import timestep_transform
from torch import Tensor

from medlord_bench.errors import UserError
from medlord_bench.nn.diffusion.schedules import (
    CosineSchedule,
    GaussianSchedule,
    NoiseSchedule,
    RectifiedFlow,
    ScaledLinearSchedule,
)
from medlord_bench.util.seeds import noise

T = {"cosine": 300, "scaled linear": 1000}
GAUSSIAN: dict[str, GaussianSchedule] = {
    "cosine": CosineSchedule(T["cosine"]),
    "scaled linear": ScaledLinearSchedule(T["scaled linear"]),
}
FLOW = RectifiedFlow(1000, 32**3)
ALL: dict[str, NoiseSchedule] = {**GAUSSIAN, "flow": FLOW}
PAPER_VOXELS = 128 * 128 * 32  # latents of 512 x 512 x 128
SIZE = (4, 8, 2, 2, 2)

each_gaussian = pytest.mark.parametrize("name", list(GAUSSIAN))
each = pytest.mark.parametrize("name", list(ALL))


def rng(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


def monai(kind: type, name: str) -> Any:
    """MONAI's scheduler of the same betas and prediction."""
    ours = GAUSSIAN[name]
    if name == "scaled linear":
        return kind(T[name], schedule="scaled_linear_beta", beta_start=0.0015, beta_end=0.0195, clip_sample=False)
    theirs = kind(T[name], schedule="cosine", prediction_type="v_prediction", clip_sample=False)
    # Its own betas differ in the last step, which it clips at 0.999.
    theirs.betas = torch.tensor(ours.betas, dtype=torch.float64)
    theirs.alphas = 1 - theirs.betas
    theirs.alphas_cumprod = torch.tensor(ours.alphas_cumprod, dtype=torch.float64)
    return theirs


# ---------------------------------------------------------------------------------------------------------- the betas
def test_the_cosines_signal_left_at_each_timestep_is_the_squared_cosine() -> None:
    schedule = GAUSSIAN["cosine"]

    def f(t: int) -> float:
        return math.cos((t / T["cosine"] + 0.008) / 1.008 * math.pi / 2) ** 2

    for t in range(T["cosine"] - 1):
        assert schedule.alphas_cumprod[t] == pytest.approx(f(t + 1) / f(0), rel=1e-9)
    assert schedule.betas[-1] == 0.9999  # where the cosine reaches 0 the beta is clipped


def test_the_cosine_schedule_is_monais_but_for_the_last_step() -> None:
    theirs = DDPMScheduler(T["cosine"], schedule="cosine")
    ours = torch.tensor(GAUSSIAN["cosine"].alphas_cumprod)
    torch.testing.assert_close(ours[:-1], theirs.alphas_cumprod[:-1], atol=1e-6, rtol=0)


def test_the_signal_left_is_that_of_the_scaled_linear_betas() -> None:
    schedule, left = GAUSSIAN["scaled linear"], 1.0
    low, high, last = math.sqrt(0.0015), math.sqrt(0.0195), T["scaled linear"] - 1
    for t in range(T["scaled linear"]):
        left *= 1 - (low + (high - low) * t / last) ** 2
        assert schedule.alphas_cumprod[t] == pytest.approx(left, rel=1e-9)
    theirs = torch.as_tensor(monai(DDPMScheduler, "scaled linear").alphas_cumprod)
    torch.testing.assert_close(torch.tensor(schedule.alphas_cumprod), theirs.float(), atol=1e-6, rtol=1e-3)


# ------------------------------------------------------------------------------------------- noising and the target
@each_gaussian
def test_noising_and_targets_are_monais(name: str) -> None:
    x, eps, ours = noise(SIZE, "x"), noise(SIZE, "eps"), GAUSSIAN[name]
    t, theirs = torch.tensor([0, 7, 150, T[name] - 1]), monai(DDPMScheduler, name)
    torch.testing.assert_close(ours.add_noise(x, eps, t), theirs.add_noise(x, eps, t), atol=2e-6, rtol=1e-5)
    if ours.prediction_type == "epsilon":
        assert ours.target(x, eps, t) is eps
    else:
        torch.testing.assert_close(ours.target(x, eps, t), theirs.get_velocity(x, eps, t), atol=2e-6, rtol=1e-5)


def test_each_schedule_says_what_its_network_predicts() -> None:
    assert [schedule.prediction_type for schedule in ALL.values()] == ["v_prediction", "epsilon", "flow"]


@each_gaussian
@pytest.mark.parametrize("share", [0.0, 0.004, 0.5, 0.995, 1.0])
def test_an_exact_prediction_gives_back_the_latent_and_the_noise(name: str, share: float) -> None:
    x, eps, ours = noise((1, 8, 2, 2, 2), "x").double(), noise((1, 8, 2, 2, 2), "eps").double(), GAUSSIAN[name]
    t = round(share * (T[name] - 1))
    at = torch.tensor([t])
    start, back = ours.denoised(ours.add_noise(x, eps, at), ours.target(x, eps, at), t)
    torch.testing.assert_close(start, x)
    torch.testing.assert_close(back, eps)


def test_flow_noises_as_monai_does_and_its_target_leads_from_noise_to_latents() -> None:
    x, eps, t = noise((3, 4, 2, 2, 2), "x"), noise((3, 4, 2, 2, 2), "eps"), torch.tensor([0.0, 333.3, 1000.0])
    noisy = FLOW.add_noise(x, eps, t)
    torch.testing.assert_close(noisy, RFlowScheduler(1000).add_noise(x, eps, t))
    torch.testing.assert_close(noisy + FLOW.target(x, eps, t) * (t / 1000).view(-1, 1, 1, 1, 1), x)


# ------------------------------------------------------------------------------------------------------ training times
@each_gaussian
def test_every_timestep_is_drawn_and_validation_sees_both_ends(name: str) -> None:
    schedule = type(GAUSSIAN[name])(20)  # type: ignore[call-arg,arg-type]
    generator = rng()
    drawn = [schedule.draw_time(generator, PAPER_VOXELS) for _ in range(400)]
    assert {int(time) for time in drawn} == set(range(20))
    assert all(time.dtype == torch.int64 and time.shape == () for time in drawn)
    assert [int(schedule.time_at(fraction, 1)) for fraction in (0.0, 0.125, 0.5, 0.999)] == [0, 2, 10, 19]
    # Equal shares of the fractions are equal shares of the timesteps, as `draw_time` draws them.
    assert [int(schedule.time_at((i + 0.5) / 60, 1)) for i in range(60)] == [t for t in range(20) for _ in range(3)]
    assert int(schedule.time_at(1 - 1e-16, 1)) == 19


def test_larger_volumes_are_trained_and_sampled_at_noisier_times() -> None:
    ratio = (PAPER_VOXELS / 32**3) ** (1 / 3)  # a closed form of the shift: t' = r t / (1 + (r - 1) t)
    for u in (0.0, 0.1, 0.5, 0.9):
        assert float(FLOW.time_at(u, PAPER_VOXELS)) == pytest.approx(1000 * ratio * u / (1 + (ratio - 1) * u))
        assert float(FLOW.time_at(u, 32**3)) == pytest.approx(1000 * u)  # the reference size is not shifted
        halved = RectifiedFlow(1000, PAPER_VOXELS // 8)
        assert float(halved.time_at(u, PAPER_VOXELS)) == pytest.approx(1000 * 2 * u / (1 + u))
    assert ratio > 2 and float(FLOW.time_at(0.5, PAPER_VOXELS)) > 700


@pytest.mark.parametrize("voxels", [1000, 32**3, PAPER_VOXELS])
def test_the_flows_training_times_are_monais_of_a_uniform_number(voxels: int) -> None:
    uniform = torch.rand((), generator=rng(5))
    theirs = timestep_transform(uniform * 1000, voxels, 32**3, num_train_timesteps=1000)
    ours = FLOW.draw_time(rng(5), voxels)
    assert torch.equal(ours, theirs) and ours.dtype == torch.float32 and 0 <= float(ours) < 1000


# ------------------------------------------------------------------------------------------------------------ the steps
@each_gaussian
@pytest.mark.parametrize("share", [0.0, 0.004, 0.12, 0.995, 1.0])
def test_a_ddpm_step_is_monais(name: str, share: float) -> None:
    x, predicted, ours = noise(SIZE, "x").double(), noise(SIZE, "v").double(), GAUSSIAN[name]
    t = round(share * (T[name] - 1))
    expected, _ = monai(DDPMScheduler, name).step(predicted, t, x, generator=rng(4))
    fresh = torch.randn(x.shape, generator=rng(4), dtype=x.dtype)
    timesteps = ours.sampling_timesteps(None, PAPER_VOXELS)
    place = T[name] - 1 - t
    assert timesteps[place] == t and ours.is_stochastic(timesteps, place) is (t > 0)
    drawn = ours.step(x, predicted, timesteps, place, fresh if t else None)
    torch.testing.assert_close(drawn, expected, **TOLERANCE[name])


@each_gaussian
@pytest.mark.parametrize("place", [0, 20, 48])
def test_fewer_steps_are_monais_ddim(name: str, place: int) -> None:
    x, predicted, ours = noise(SIZE, "x").double(), noise(SIZE, "v").double(), GAUSSIAN[name]
    theirs = monai(DDIMScheduler, name)
    theirs.set_timesteps(50)  # its step goes T / 50 timesteps back, whatever the timesteps are
    timesteps = [T[name] - 1 - T[name] // 50 * i for i in range(50)]
    expected, _ = theirs.step(predicted, timesteps[place], x, eta=0.0)
    assert not ours.is_stochastic(timesteps, place)
    torch.testing.assert_close(ours.step(x, predicted, timesteps, place, None), expected, **TOLERANCE[name])


@each_gaussian
@pytest.mark.parametrize("eta", [0.3, 1.0])
@pytest.mark.parametrize("place", [0, 20, 48])
def test_fewer_steps_with_fresh_noise_are_monais(name: str, place: int, eta: float) -> None:
    x, predicted, ours = noise(SIZE, "x").double(), noise(SIZE, "v").double(), copy.copy(GAUSSIAN[name])
    ours.eta = eta
    theirs = monai(DDIMScheduler, name)
    theirs.set_timesteps(50)
    timesteps = [T[name] - 1 - T[name] // 50 * i for i in range(50)]
    expected, _ = theirs.step(predicted, timesteps[place], x, eta=eta, generator=rng(4))
    fresh = torch.randn(x.shape, generator=rng(4), dtype=x.dtype)
    assert ours.is_stochastic(timesteps, place) and not ours.is_stochastic(timesteps, 49)
    torch.testing.assert_close(ours.step(x, predicted, timesteps, place, fresh), expected, **TOLERANCE[name])


def test_fresh_noise_of_eta_one_is_the_posteriors() -> None:
    x, predicted, fresh = (noise(SIZE, name).double() for name in "xvn")
    ours, every = CosineSchedule(300, eta=1.0), list(range(299, -1, -1))
    for place in (1, 150, 298):  # of two times beside each other, DDPM's step is the reference
        drawn = ours.step(x, predicted, every[place : place + 2], 0, fresh)
        torch.testing.assert_close(drawn, ours.step(x, predicted, every, place, fresh))


# MONAI's scaled linear coefficients are float32.
TOLERANCE = {"cosine": {"atol": 1e-6, "rtol": 1e-6}, "scaled linear": {"atol": 2e-5, "rtol": 1e-4}}


def test_a_flow_step_is_monais_between_whole_times() -> None:
    theirs = RFlowScheduler(1000)
    theirs.set_timesteps(4)
    x, v, timesteps = noise(SIZE, "x"), noise(SIZE, "v"), [1000.0, 750.0, 500.0, 250.0]
    for place, time in enumerate(timesteps):
        following = int(timesteps[place + 1]) if place < 3 else 0
        expected, _ = theirs.step(v, int(time), x, following)
        torch.testing.assert_close(FLOW.step(x, v, timesteps, place, None), expected)


def test_a_flows_steps_add_up_to_the_whole_way_whatever_the_times() -> None:
    x, eps = noise(SIZE, "x").double(), noise(SIZE, "eps").double()
    for steps in (1, 7, 30):
        timesteps, drawn = FLOW.sampling_timesteps(steps, PAPER_VOXELS), eps
        for place in range(steps):
            assert not FLOW.is_stochastic(timesteps, place)
            drawn = FLOW.step(drawn, FLOW.target(x, eps, torch.zeros(4)), timesteps, place, None)
        torch.testing.assert_close(drawn, x)


@each_gaussian
def test_a_ddpm_step_without_noise_is_a_bug_not_a_sample(name: str) -> None:
    timesteps = GAUSSIAN[name].sampling_timesteps(None, 1)
    with pytest.raises(ValueError, match="expected noise"):
        GAUSSIAN[name].step(torch.zeros(1), torch.zeros(1), timesteps, 5, None)


# ------------------------------------------------------------------------------------------------------ whole samplings
def exact(schedule: NoiseSchedule, x: Tensor, t: float, deviation: float) -> Tensor:
    """What a perfect network predicts where x_0 ~ N(0, deviation^2): its expectation given x_t is linear in x_t."""
    if isinstance(schedule, GaussianSchedule):
        signal = schedule.alphas_cumprod[int(t)]
        total = signal * deviation**2 + 1 - signal
        if schedule.prediction_type == "epsilon":
            return x * math.sqrt(1 - signal) / total
        return x * math.sqrt(signal * (1 - signal)) * (1 - deviation**2) / total
    share = t / schedule.timesteps
    return x * ((1 - share) * deviation**2 - share) / ((1 - share) ** 2 * deviation**2 + share**2)


@pytest.mark.parametrize(
    ("name", "steps", "within"),
    [
        *(("cosine", None, 0.05), ("cosine", 50, 0.05)),
        *(("scaled linear", None, 0.08), ("scaled linear", 100, 0.08)),
        *(("flow", 200, 0.08), ("flow", None, 0.08)),
    ],
)
def test_sampling_with_the_exact_denoiser_of_gaussian_data_returns_its_deviation(
    name: str, steps: int | None, within: float
) -> None:
    deviation, schedule, size = 0.3, ALL[name], (100_000,)
    x = noise(size, "start").double()
    timesteps = schedule.sampling_timesteps(steps, 32**3)
    for place, t in enumerate(timesteps):
        fresh = noise(size, "step", place).double() if schedule.is_stochastic(timesteps, place) else None
        x = schedule.step(x, exact(schedule, x, t, deviation), timesteps, place, fresh)
    assert float(x.std()) == pytest.approx(deviation, rel=within)
    assert float(x.mean()) == pytest.approx(0, abs=0.01)


@each_gaussian
@pytest.mark.parametrize("n", [1, 2, 7, 50, 299, None])
def test_sampling_starts_at_the_noisiest_timestep_and_ends_at_zero(name: str, n: int | None) -> None:
    timesteps, last = GAUSSIAN[name].sampling_timesteps(n, PAPER_VOXELS), T[name] - 1
    assert len(timesteps) == len(set(timesteps)) == (n or T[name])
    assert timesteps == sorted(timesteps, reverse=True)
    assert timesteps[0] == last and (n == 1 or timesteps[-1] == 0)
    assert n is not None or timesteps == list(range(last, -1, -1))


@pytest.mark.parametrize("voxels", [32**3, PAPER_VOXELS])
def test_the_flows_sampling_times_are_monais_before_they_are_rounded_to_float16(voxels: int) -> None:
    theirs = RFlowScheduler(1000, use_discrete_timesteps=False, use_timestep_transform=True)
    theirs.set_timesteps(30, input_img_size_numel=voxels)
    timesteps = FLOW.sampling_timesteps(None, voxels)
    assert len(timesteps) == 30 and timesteps[0] == 1000
    torch.testing.assert_close(torch.tensor(timesteps), theirs.timesteps.float(), rtol=1e-3, atol=0)


@each
@pytest.mark.parametrize("beyond", [False, True])
def test_more_steps_than_the_schedule_has_are_refused(name: str, beyond: bool) -> None:
    total = ALL[name].timesteps
    n = total + 1 if beyond else 0
    with pytest.raises(UserError, match=f"{n} given, expected 1 to {total}"):
        ALL[name].sampling_timesteps(n, 32**3)
