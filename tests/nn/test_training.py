"""The training loop on a model small enough to know what it should do."""

import dataclasses
import json
from collections.abc import Mapping
from pathlib import Path
from types import SimpleNamespace
from typing import Any, get_args

import pytest
import torch
from torch import nn

from medlord_bench.contracts import CheckpointSelection, Run, Stage
from medlord_bench.errors import StepError, Stopped
from medlord_bench.nn.checkpoints import load_model, save_model
from medlord_bench.nn.optimiser import Optimiser
from medlord_bench.nn.stage_config import OptimiserKind
from medlord_bench.nn.training import TRAINED, Horizon, fit
from medlord_bench.util import seeds

KINDS: tuple[OptimiserKind, ...] = get_args(OptimiserKind)
HORIZON = Horizon(steps=20, validate_every=5, checkpoint_every=4)


class Line:
    """y = 2 x by least squares, with dropout so that the global random state matters."""

    def __init__(self, lr: float = 0.05, losses: list[float] | None = None, optimiser: OptimiserKind = "adamw") -> None:
        torch.manual_seed(0)
        self.net = nn.Sequential(nn.Linear(1, 8), nn.Dropout(0.2), nn.Linear(8, 1))
        self.optimiser = Optimiser(self.net.parameters(), lr=lr, kind=optimiser)
        self.losses = losses

    def stateful(self) -> Mapping[str, Any]:
        return {"net": self.net, "optimiser": self.optimiser}

    def batch(self, step: int) -> torch.Tensor:
        return seeds.noise((4, 1), "line", step)

    def step(self, step: int, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        self.net.train()
        loss = ((self.net(batch) - 2 * batch) ** 2).mean()
        self.optimiser.backward(loss)
        self.optimiser.step(step)
        return {"loss": loss.detach()}

    @torch.no_grad()
    def validate(self, step: int) -> Mapping[str, float]:
        if self.losses is not None:
            return {"loss": self.losses[step // 5 - 1]}
        self.net.eval()
        x = torch.linspace(-1, 1, 9)[:, None]
        return {"loss": float(((self.net(x) - 2 * x) ** 2).mean())}

    def export(self, folder: Path) -> None:
        save_model(folder, "line", {}, self.net.state_dict())


@pytest.mark.parametrize(("asked", "published"), [("best", "best"), ("last", "last"), ("fid", "last")])
def test_a_stage_goes_as_far_as_it_says_and_a_choice_is_made_elsewhere(asked: str, published: str) -> None:
    config: Any = SimpleNamespace(validate_every=5, checkpoint_every=4, selection=asked)
    choice = CheckpointSelection(10, 2) if asked == "fid" else None
    stage = Stage("diffusion", (), 20, (), choice=choice)
    assert Horizon.of(config, stage) == Horizon(20, 5, 4, published, choice)  # type: ignore[arg-type]
    assert Horizon.of(config, Stage("diffusion", (), None, ())).steps == 0


def weights(folder: Path) -> dict[str, torch.Tensor]:
    return load_model(folder, "line")[1]


def same(first: Mapping[str, torch.Tensor], second: Mapping[str, torch.Tensor]) -> bool:
    return all(torch.equal(first[name], second[name]) for name in first)


@pytest.mark.parametrize("optimiser", KINDS)
def test_training_stopped_after_every_step_ends_in_the_same_bits(
    tmp_path: Path, run: Run, optimiser: OptimiserKind
) -> None:
    whole = weights(fit(Line(optimiser=optimiser), HORIZON, tmp_path / "whole", run, "line"))
    pieces = None
    for _ in range(HORIZON.steps + 1):
        try:
            stopping = dataclasses.replace(run, stop=lambda: True)
            pieces = weights(fit(Line(optimiser=optimiser), HORIZON, tmp_path / "pieces", stopping, "line"))
        except Stopped:
            continue
    assert pieces is not None
    assert same(whole, pieces)


def test_more_steps_continue_and_end_where_one_long_training_ends(tmp_path: Path, run: Run) -> None:
    short = dataclasses.replace(HORIZON, steps=7)  # not a multiple of validate_every: its extra look must not count
    fit(Line(), short, tmp_path / "a", run, "line")
    longer = weights(fit(Line(), HORIZON, tmp_path / "a", run, "line"))
    assert same(longer, weights(fit(Line(), HORIZON, tmp_path / "b", run, "line")))


def test_the_best_validation_loss_is_published_and_the_earlier_of_two_equal_ones(tmp_path: Path, run: Run) -> None:
    fit(Line(losses=[3.0, 1.0, 1.0, 2.0]), HORIZON, tmp_path, run, "line")
    short = dataclasses.replace(HORIZON, steps=10, selection="last")
    assert same(weights(tmp_path / "best"), weights(fit(Line(), short, tmp_path / "ten", run, "line")))


def test_curves_have_each_step_once_after_a_resume(tmp_path: Path, run: Run) -> None:
    fit(Line(), dataclasses.replace(HORIZON, steps=8), tmp_path, run, "line")
    with open(tmp_path / "curves.jsonl", "a") as file:
        file.write('{"step": 9, "split": "train", "loss"')  # cut short by a kill
    fit(Line(), HORIZON, tmp_path, run, "line")
    rows = [json.loads(line) for line in (tmp_path / "curves.jsonl").read_text().splitlines()]
    assert [row["step"] for row in rows if row["split"] == "train"] == list(range(1, 21))


def test_no_steps_publish_the_initial_weights(tmp_path: Path, run: Run) -> None:
    found = weights(fit(Line(), dataclasses.replace(HORIZON, steps=0), tmp_path, run, "line"))
    assert same(found, Line().net.state_dict())


def test_gradients_that_stay_nan_end_the_training_with_advice(tmp_path: Path, run: Run) -> None:
    recipe = Line()
    with torch.no_grad():
        next(recipe.net.parameters()).fill_(float("nan"))
    with pytest.raises(StepError, match="not finite.*lower the learning rate"):
        fit(recipe, dataclasses.replace(HORIZON, steps=50), tmp_path, run, "line")


def test_a_background_error_in_a_batch_reaches_the_caller(tmp_path: Path, run: Run) -> None:
    class Broken(Line):
        def batch(self, step: int) -> torch.Tensor:
            raise KeyError(f"case of step {step}")

    with pytest.raises(KeyError, match="case of step 0"):
        fit(Broken(), HORIZON, tmp_path, run, "line")


def test_batches_are_prepared_with_one_thread_and_steps_keep_theirs(tmp_path: Path, run: Run) -> None:
    seen: dict[str, set[int]] = {"batch": set(), "step": set()}

    class Watched(Line):
        def batch(self, step: int) -> torch.Tensor:
            seen["batch"].add(torch.get_num_threads())
            return super().batch(step)

        def step(self, step: int, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
            seen["step"].add(torch.get_num_threads())
            return super().step(step, batch)

    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        fit(Watched(), HORIZON, tmp_path, run, "line")
        assert seen == {"batch": {1}, "step": {2}}
        assert torch.get_num_threads() == 2
    finally:
        torch.set_num_threads(before)


# ------------------------------------------------------------------------------------------------- a budget of time
class Slow(Line):
    """Each step takes ten seconds of the clock it is given."""

    def __init__(self, clock: list[float]) -> None:
        super().__init__()
        self.clock = clock

    def step(self, step: int, batch: torch.Tensor) -> Mapping[str, torch.Tensor]:
        self.clock[0] += 10
        return super().step(step, batch)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> list[float]:
    seconds = [1000.0]
    monkeypatch.setattr("medlord_bench.nn.training.time", SimpleNamespace(monotonic=lambda: seconds[0]))
    return seconds


def trained(folder: Path) -> dict[str, float]:
    found: dict[str, float] = json.loads((folder / TRAINED).read_text())
    return found


def test_a_training_ends_where_its_seconds_are_spent_over_all_sittings(
    tmp_path: Path, run: Run, clock: list[float]
) -> None:
    limited = dataclasses.replace(run, train_seconds=65)
    in_one = weights(fit(Slow(clock), HORIZON, tmp_path / "one", limited, "line"))
    assert trained(tmp_path / "one") == {"steps": 7, "seconds": 70}
    stops = iter([False, True] * 4)
    for _ in range(3):
        clock[0] += 500  # between sittings nothing is spent
        with pytest.raises(Stopped):
            stopping = dataclasses.replace(limited, stop=lambda: next(stops))
            fit(Slow(clock), HORIZON, tmp_path / "many", stopping, "line")
    in_many = weights(fit(Slow(clock), HORIZON, tmp_path / "many", limited, "line"))
    assert trained(tmp_path / "many") == {"steps": 7, "seconds": 70}
    again = weights(fit(Slow(clock), HORIZON, tmp_path / "many", limited, "line"))  # spent: nothing more is trained
    seven = weights(fit(Line(), dataclasses.replace(HORIZON, steps=7), tmp_path / "seven", run, "line"))
    assert same(in_one, seven) and same(in_many, seven) and same(again, seven)


def test_a_larger_budget_of_time_goes_on_to_the_same_bits(tmp_path: Path, run: Run, clock: list[float]) -> None:
    fit(Slow(clock), HORIZON, tmp_path / "a", dataclasses.replace(run, train_seconds=70), "line")
    longer = weights(fit(Slow(clock), HORIZON, tmp_path / "a", run, "line"))
    assert trained(tmp_path / "a") == {"steps": 20, "seconds": 200}
    assert same(longer, weights(fit(Line(), HORIZON, tmp_path / "b", run, "line")))


def test_the_step_where_time_ends_is_a_candidate_too(tmp_path: Path, run: Run, clock: list[float]) -> None:
    horizon = dataclasses.replace(HORIZON, choice=CheckpointSelection(every=4, samples=2))
    published = fit(Slow(clock), horizon, tmp_path, dataclasses.replace(run, train_seconds=65), "line")
    assert sorted(path.name for path in published.iterdir()) == ["step-00000004", "step-00000007"]
