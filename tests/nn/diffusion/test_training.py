"""Training on latents: batches that depend on the step alone, the loss that was asked for, and the averaged weights."""

from __future__ import annotations

import dataclasses
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn

from medlord_bench.contracts import Precision, Run, Split
from medlord_bench.errors import Stopped, UserError
from medlord_bench.memory.dry_run import is_dry_run, run_dry
from medlord_bench.nn.checkpoints import load_model, save_model
from medlord_bench.nn.diffusion.config import Times
from medlord_bench.nn.diffusion.dry_runs import MadeLatents, train_latents
from medlord_bench.nn.diffusion.schedules import (
    CosineSchedule,
    NoiseSchedule,
    RectifiedFlow,
    ScaledLinearSchedule,
)
from medlord_bench.nn.diffusion.training import LatentBatch, LatentRecipe, Loss
from medlord_bench.nn.stage_config import OptimiserKind
from medlord_bench.nn.training import Horizon, fit
from medlord_bench.util.seeds import noise

T = 20
SHAPE = (4, 4, 4, 2)
SCHEDULES: dict[str, NoiseSchedule] = {
    "cosine": CosineSchedule(T),
    "scaled linear": ScaledLinearSchedule(T),
    "flow": RectifiedFlow(T, 32),
}


@dataclass(frozen=True)
class Config:
    batch: int = 4
    parts_of: int = 4
    lr: float = 2e-3
    weight_decay: float = 0.0
    clip: float | None = 1.0
    ema_decay: float = 0.9
    precision: Precision = "fp32"
    loss: Loss = "l1"
    times: Times = "independent"
    optimiser: OptimiserKind = "adamw"

    def lr_factor(self, step: int) -> float:
        return 1.0


class FewLatents:
    """Five training and two validation latents that are all the same pattern, with a little noise."""

    scale = 2.5

    def __init__(self, splits: Mapping[str, int] | None = None) -> None:
        self.splits = splits or {"train": 5, "val": 2, "test": 0}

    def ids(self, split: Split) -> Sequence[str]:
        return [f"{split}-{i}" for i in range(self.splits[split])]

    def latent(self, case_id: str) -> Tensor:
        return noise(SHAPE, "pattern") + 0.1 * noise(SHAPE, case_id)


class Denoiser(nn.Module):
    """Two convolutions, the last of which starts at zero; remembers what it was called with."""

    def __init__(self) -> None:
        super().__init__()
        self.first, self.last = nn.Conv3d(4, 8, 3, padding=1), nn.Conv3d(8, 4, 1)
        for value in self.last.parameters():
            nn.init.zeros_(value)
        self.calls: list[tuple[Tensor, ...]] = []

    def forward(self, x: Tensor, times: Tensor, *conditions: Tensor) -> Tensor:
        if not is_dry_run(x):  # kept tensors would count
            self.calls.append((times, *conditions))
        h = self.first(x) + times.float().view(-1, 1, 1, 1, 1) / T
        out: Tensor = self.last(torch.nn.functional.silu(h))
        return out


class Recipe(LatentRecipe):
    """Conditioned on the case's number, a mask and a number that is drawn."""

    def conditions(self, case_id: str, rng: torch.Generator | None) -> tuple[Tensor, ...]:
        drawn = torch.tensor(-1.0) if rng is None else torch.rand((), generator=rng)
        return torch.tensor(int(case_id[-1]), dtype=torch.uint8), torch.tensor([True, False]), drawn

    def export(self, folder: Path) -> None:
        save_model(folder, "test", {}, self.ema.shadow)


def recipe(run: Run, latents: FewLatents | None = None, schedule: str = "cosine", **changes: object) -> Recipe:
    torch.manual_seed(0)
    net, config = Denoiser(), dataclasses.replace(Config(), **changes)  # type: ignore[arg-type]
    return Recipe(config, SCHEDULES[schedule], net, net, latents or FewLatents(), run, "diffusion")


# ------------------------------------------------------------------------------------------------------------- batches
@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_a_batch_depends_on_the_step_alone(run: Run, schedule: str) -> None:
    first, second = recipe(run, schedule=schedule), recipe(run, schedule=schedule)
    second.batch(3)  # another history
    a, b, other = first.batch(5), second.batch(5), first.batch(6)
    for name in ("latents", "noise", "times"):
        assert torch.equal(getattr(a, name), getattr(b, name)), name
    assert all(torch.equal(x, y) for x, y in zip(a.conditions, b.conditions, strict=True))
    assert not torch.equal(a.noise, other.noise) and not torch.equal(a.conditions[2], other.conditions[2])
    assert not torch.equal(a.noise, recipe(dataclasses.replace(run, seed=1)).batch(5).noise)


def test_an_item_draws_its_time_then_its_condition_then_its_noise(run: Run) -> None:
    """Another order would be another training from the same seed."""
    from medlord_bench.util.seeds import torch_rng

    made = recipe(run).batch(2)
    for place in range(4):
        rng = torch_rng(run.seed, "diffusion", "item", 2 * 4 + place)
        assert int(made.times[place]) == int(torch.randint(T, (), generator=rng))
        assert float(made.conditions[2][place]) == float(torch.rand((), generator=rng))
        assert torch.equal(made.noise[place], torch.randn(SHAPE, generator=rng))


def test_an_epoch_shows_every_case_once_with_its_own_condition_and_every_time_can_come(run: Run) -> None:
    shown = recipe(run, batch=5, parts_of=5)
    cases = torch.stack([shown.latents.latent(case) for case in shown.latents.ids("train")])
    orders = []
    for epoch in range(3):
        batch = shown.batch(epoch)
        orders.append([int((cases - latent).abs().flatten(1).sum(1).argmin()) for latent in batch.latents])
        assert sorted(orders[-1]) == [0, 1, 2, 3, 4]
        assert batch.conditions[0].tolist() == orders[-1]
    assert orders[0] != orders[1] or orders[1] != orders[2]
    assert {int(t) for step in range(60) for t in shown.batch(step).times} == set(range(T))


@pytest.mark.parametrize("schedule", list(SCHEDULES))
def test_stratified_times_cover_all_noise_levels_in_every_batch(run: Run, schedule: str) -> None:
    """At the flow's reference size its times are not shifted, so a time / T is the fraction for all schedules."""
    drawn = recipe(run, schedule=schedule, times="stratified")
    batches = [drawn.batch(step) for step in range(60)]
    for batch in batches:
        quarters = sorted((batch.times.double() / T * 4).tolist())
        assert all(place - 0.2 - 1e-6 <= quarter < place + 1 for place, quarter in enumerate(quarters))  # T is 20
    assert torch.equal(drawn.batch(7).times, batches[7].times)
    # Every item alone is spread over all times, as an independent one is.
    for place in range(4):
        own = torch.stack([batch.times[place] for batch in batches]).double() / T
        assert 0.4 < own.mean() < 0.6 and own.min() < 0.1 and own.max() > 0.85
    independent = recipe(run, schedule=schedule).batch(7)
    assert torch.equal(independent.noise, batches[7].noise)
    assert all(torch.equal(a, b) for a, b in zip(independent.conditions, batches[7].conditions, strict=True))


def test_masks_become_floats_on_the_device_and_labels_stay_bytes() -> None:
    made = LatentBatch(
        torch.zeros(3, *SHAPE),
        torch.zeros(3, *SHAPE),
        torch.arange(3),
        (torch.ones(3, 2, dtype=torch.bool), torch.ones(3, 2, dtype=torch.uint8), torch.arange(3)),
    )
    part = made.part(1, 3, "cpu")
    assert len(part.latents) == len(part.noise) == 2 and part.times.tolist() == [1, 2]
    assert [x.dtype for x in part.conditions] == [torch.float32, torch.uint8, torch.int64]
    assert part.conditions[2].tolist() == [1, 2] and bool((part.conditions[0] == 1).all())


def test_validation_draws_no_condition_and_looks_at_evenly_spread_times(run: Run) -> None:
    looked = recipe(run)
    looked.validate(0)
    calls = looked.model.calls
    assert Counter(int(times) for times, *_ in calls) == dict.fromkeys((2, 7, 12, 17), 2)
    assert all(float(drawn) == -1 for *_, drawn in calls)


@pytest.mark.parametrize("split", ["train", "val"])
def test_an_empty_split_is_refused(run: Run, split: str) -> None:
    with pytest.raises(UserError, match=f"the {split} split is empty"):
        recipe(run, FewLatents({"train": 1, "val": 1} | {split: 0}))


# ------------------------------------------------------------------------------------------------------------ training
def test_micro_batches_give_the_step_of_the_whole_batch(run: Run) -> None:
    results = []
    for part in (4, 1, 2):
        made = recipe(run, parts_of=part)
        figures = made.step(0, made.batch(0))
        results.append((float(figures["loss"]), made.model.last.weight.detach().clone()))
        assert [len(times) for times, *_ in made.model.calls] == [part] * (4 // part)
    for loss, weight in results[1:]:
        assert loss == pytest.approx(results[0][0], rel=1e-5)
        # Adam's first step is lr * sign(gradient): rounding shows only where a gradient is nearly 0.
        assert float(((weight - results[0][1]).abs() < 1e-4).float().mean()) > 0.95


@pytest.mark.parametrize("schedule", list(SCHEDULES))
@pytest.mark.parametrize("loss", ["l1", "huber"])
def test_the_loss_is_the_mean_distance_to_what_the_schedule_asks_for(run: Run, schedule: str, loss: str) -> None:
    made = recipe(run, schedule=schedule, loss=loss)
    batch = made.batch(0)
    if schedule == "cosine":
        left = torch.tensor(CosineSchedule(T).alphas_cumprod)[batch.times].view(-1, 1, 1, 1, 1)
        target = left.sqrt() * batch.noise - (1 - left).sqrt() * batch.latents
    else:
        target = batch.noise if schedule == "scaled linear" else batch.latents - batch.noise
    apart = target.abs()  # an untrained network predicts 0
    expected = apart if loss == "l1" else torch.where(apart < 1, apart**2 / 2, apart - 0.5)
    assert float(made.step(0, batch)["loss"]) == pytest.approx(float(expected.mean()), rel=1e-5)


def test_validation_repeats_itself_and_looks_at_the_averaged_weights(run: Run) -> None:
    made = recipe(run)
    for step in range(3):
        made.step(step, made.batch(step))
    before = made.validate(3)
    assert made.validate(9) == before
    with torch.no_grad():
        for value in made.model.parameters():
            value.zero_()
    assert made.validate(3) == before
    made.ema.shadow["last.bias"] += 1
    assert made.validate(3) != before


def test_a_stopped_training_ends_in_the_weights_of_one_that_was_not(run: Run, tmp_path: Path) -> None:
    horizon = Horizon(6, 3, 2, "best")
    straight = fit(recipe(run), horizon, tmp_path / "a", run, "diffusion")
    looks = iter([False, False, False, True])
    with pytest.raises(Stopped):
        stopping = dataclasses.replace(run, stop=lambda: next(looks))
        fit(recipe(run), horizon, tmp_path / "b", stopping, "diffusion")
    resumed = fit(recipe(run), horizon, tmp_path / "b", run, "diffusion")
    a, b = (load_model(folder, "test")[1] for folder in (straight, resumed))
    assert all(torch.equal(a[name], b[name]) for name in a)


# ------------------------------------------------------------------------------------------------------------- dry runs
def test_a_dry_run_takes_two_micro_batches_and_has_the_peak_of_all(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls: Counter[int] = Counter()

    def peak(batch: int) -> int:
        def work() -> None:
            torch.manual_seed(0)
            net = Denoiser()
            net.register_forward_pre_hook(lambda module, inputs: calls.update([batch]))
            config = dataclasses.replace(Config(), batch=batch, parts_of=1)
            made = LatentRecipe(config, SCHEDULES["flow"], net, net, MadeLatents((4, 16, 16, 16)), run, "diffusion")
            train_latents(made, (4, 16, 16, 16), [((2,), torch.bool)], 2)

        return int(run_dry(work).allocated)

    short = peak(6)
    assert calls[6] == 2
    with monkeypatch.context() as patch:
        patch.setattr("medlord_bench.nn.diffusion.training.is_dry_run", lambda tensor: False)
        assert peak(6) == short
    assert calls[6] == 2 + 6
    assert peak(1) < short
