"""What is told before any work: numbers only where there are some, the cheapest change that fits, nothing left behind."""

from __future__ import annotations

import resource
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, ClassVar

import numpy as np
import pytest
import torch
from torch import nn
from torch.nn import functional as F

from medlord_bench.contracts import DataProtocol, DryRun, FrozenConfig, Grid, HasDryRuns, MemoryOption, Run, registry
from medlord_bench.contracts.specs import Contestant
from medlord_bench.engine import resolve, run_file
from medlord_bench.engine.memory_forecast import Forecast, forecast
from medlord_bench.errors import UserError
from medlord_bench.memory.budget import GIB, total_gib
from medlord_bench.memory.dry_run import NotPredictable, on_host, run_dry

DATA = DataProtocol(
    name="any", grid=Grid(shape=(8, 8, 8)), fit="crop-pad", split="", split_sha256="", counts={"train": 1}, masks="none"
)


# -------------------------------------------------------------------------------------------- a generator of few lines
class FakeConfig(FrozenConfig):
    batch: int = 4
    halved: bool = False


class Fake:
    """Its training takes 2 GiB for each item of a batch, or 1 where `halved`; its sampling reads what it computed."""

    Config: ClassVar[type[FakeConfig]] = FakeConfig
    presets: ClassVar[dict[str, Any]] = {}
    variants: ClassVar[dict[str, Any]] = {}

    def __init__(self, config: FakeConfig) -> None:
        self.config = config

    def check(self, data: DataProtocol) -> None:
        if data.grid.shape[0] % 2:
            raise UserError(f"grid {data.grid.shape}: odd")

    def dry_runs(self, data: DataProtocol) -> Sequence[DryRun]:
        return [DryRun("train", "net", self._train), DryRun("sample", "sample", self._sample)]

    def memory_options(self, during: str) -> Sequence[MemoryOption]:
        smaller = MemoryOption({"batch": self.config.batch // 2}, "slower")
        return [smaller, MemoryOption({"halved": True}, "coarser")] if during == "net" else []

    def _train(self, run: Run, times: int) -> None:
        for _ in range(times):
            torch.empty(self.config.batch, (1 if self.config.halved else 2) * GIB, dtype=torch.uint8, device=run.device)

    def _sample(self, run: Run, times: int) -> None:
        while torch.rand(1, device=run.device) < 0.5:
            pass


@pytest.fixture(autouse=True)
def _fake(monkeypatch: pytest.MonkeyPatch) -> None:
    real = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: Fake if name == "fake" else real(kind, name))


def contestant(text: str = "fake", **sets: Any) -> Contestant:
    return resolve.contestant(text, "", sets)


def told(budget: float | None, *stages: str, text: str = "fake", **sets: Any) -> list[Forecast]:
    return list(forecast(contestant(text, **sets), DATA, budget, stages=stages))


def advice(budget: float) -> tuple[dict[str, Any], str] | None:
    """For a training of 8 GiB: 4 halved or with half the batch, 2 with both."""
    (one,) = told(budget * 24 / 22.5, "train")
    assert one.need is not None and one.need.allocated == 8 and not one.fits
    return None if one.advice is None else (dict(one.advice.sets), one.advice.cost)


def test_the_first_single_change_that_fits_is_advised() -> None:
    assert advice(total_gib(4, 0)) == ({"fake.batch": 2}, "slower")


def test_changes_are_taken_together_only_where_none_fits_alone() -> None:
    assert advice(total_gib(4, 0) - 0.01) == ({"fake.batch": 2, "fake.halved": True}, "slower; coarser")


def test_no_change_is_made_up_where_none_fits() -> None:
    assert advice(total_gib(2, 0) - 0.01) is None


def test_advice_reads_as_it_is_typed_and_typing_it_gives_the_need_it_promised() -> None:
    (one,) = told(total_gib(4, 0) * 24 / 22.5, "train")
    assert str(one.advice) == "--set fake.batch=2 reduces it to 4.70 GiB (slower)"
    assert one.advice is not None
    (again,) = told(24, "train", **run_file.parse_sets(["fake.batch=2"]))
    assert again.need == one.advice.need


def test_what_fits_to_the_last_byte_fits() -> None:
    budget = total_gib(8, 0) * 24 / 22.5
    assert told(budget + 1e-9, "train")[0].fits
    assert not told(budget - 1e-9, "train")[0].fits


def test_without_a_budget_there_are_numbers_and_no_verdict() -> None:
    (one,) = told(None, "train")
    assert one.need is not None and one.fits and one.advice is None and one.budget is None


def test_a_model_that_looks_at_its_data_is_not_predictable_and_the_others_still_are() -> None:
    train, sample = told(24)
    assert train.need is not None and train.reason == ""
    assert sample.need is None and "depends on the data" in sample.reason
    assert sample.fits and sample.advice is None


def test_a_generator_without_dry_runs_is_not_predictable() -> None:
    assert not isinstance(registry.load("generators", "noise"), HasDryRuns)
    (one,) = told(24, text="noise")
    assert (one.need, one.reason) == (None, "generator noise has no dry run")


def test_an_unknown_stage_names_the_near_miss() -> None:
    with pytest.raises(UserError, match="--stage trian: unknown stage 'trian'; did you mean 'train'"):
        told(24, "trian")


def test_a_grid_that_the_generator_refuses_gets_no_number() -> None:
    odd = DATA.model_copy(update={"grid": Grid(shape=(7, 8, 8))})
    with pytest.raises(UserError, match="odd"):
        list(forecast(contestant(), odd, 24))


# ------------------------------------------------------------------------------------------------------- never a number
def x() -> torch.Tensor:
    return torch.rand(8)


READS: dict[str, Callable[[], Any]] = {
    "if": lambda: bool(x().sum() > 1),
    "item": lambda: x().sum().item(),
    "int": lambda: int(x().sum()),
    "tolist": lambda: x().tolist(),
    "numpy": lambda: x().numpy(),
    "asarray": lambda: np.asarray(x()),
    "format": lambda: f"{x().sum():.3f}",
    "mask": lambda: x()[x() > 0.5],
    "nonzero": lambda: x().nonzero(),
    "unique": lambda: x().unique(),
    "bincount": lambda: torch.bincount(torch.zeros(4, dtype=torch.int64)),
    "slice": lambda: x()[: torch.randint(5, ())],
    "equal": lambda: torch.equal(x(), x()),
}


@pytest.mark.parametrize("name", READS)
def test_whatever_reads_values_ends_the_prediction(name: str) -> None:
    def workload() -> None:
        torch.empty(1000)
        READS[name]()

    with pytest.raises(NotPredictable):
        run_dry(workload)


def test_what_a_user_can_put_right_is_told_as_it_is() -> None:
    def workload() -> None:
        raise UserError("grid: too small")

    with pytest.raises(UserError, match="^grid: too small$"):
        run_dry(workload)


# ------------------------------------------------------------------------------------------------------- the process
def state() -> tuple[Any, ...]:
    with torch.autocast("cpu", torch.bfloat16):
        cast = F.group_norm(torch.ones(1, 2, 2, dtype=torch.bfloat16), 1).dtype
    hooks = [
        len(getattr(nn.modules.module, name))
        for name in dir(nn.modules.module)
        if name.startswith("_global_") and isinstance(getattr(nn.modules.module, name), dict)
    ]
    return (
        nn.Module._apply,
        cast,
        torch.is_grad_enabled(),
        hooks,
        type(torch.empty(1)),
        nn.Linear(2, 2).half().weight.dtype,
    )


def _good() -> None:
    nn.Linear(2, 2).half()


def _dies_in_a_layer() -> None:
    class Dies(nn.Module):
        def forward(self, values: torch.Tensor) -> torch.Tensor:
            raise ZeroDivisionError

    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16), on_host():
        nn.Sequential(Dies())(torch.empty(1))


@pytest.mark.parametrize("workload", [_good, _dies_in_a_layer, READS["item"]], ids=["well", "failing", "unpredictable"])
def test_a_dry_run_leaves_the_process_as_it_was(workload: Callable[[], Any]) -> None:
    before = state()
    try:
        run_dry(workload)
        assert workload is _good
    except NotPredictable:
        assert workload is not _good
    assert state() == before


def test_a_dry_run_takes_no_memory_to_speak_of() -> None:
    def workload() -> None:
        torch.ones(64, 2**30).exp().sum()

    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    assert run_dry(workload).allocated >= 512 * GIB
    assert resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before < 2**20  # KiB


def test_modules_change_their_type_and_count_both_while_they_do() -> None:
    def workload(change: bool) -> None:
        net = nn.Linear(1024, 1024, bias=False)
        if change:
            net.half()
            assert net.weight.dtype == torch.float16 and net.weight.requires_grad
        net(torch.empty(1, 1024, dtype=net.weight.dtype))

    weight = 1024 * 1024 * 4
    assert run_dry(partial(workload, False)).allocated == pytest.approx(weight, rel=0.01)
    assert run_dry(partial(workload, True)).allocated == pytest.approx(weight * 1.5, rel=0.01)


def test_what_is_made_on_the_host_does_not_count_and_on_host_outside_a_dry_run_does_nothing() -> None:
    def workload() -> None:
        with on_host():
            image = torch.empty(GIB)
        image[:10].to("cpu")

    assert run_dry(workload).allocated == 0
    with on_host():
        assert torch.ones(3).sum() == 3
