"""Shared settings of stages: the learning rate against PyTorch's schedulers, parts of a batch, candidates."""

from __future__ import annotations

import pytest
import torch
from pydantic import ValidationError
from torch.optim.lr_scheduler import CosineAnnealingLR, ExponentialLR, LinearLR, LRScheduler

from medlord_bench.contracts import CheckpointSelection
from medlord_bench.nn.stage_config import COSINE_END, BatchConfig, CandidatesConfig, LearningRateConfig


def rates(make: type[LRScheduler], steps: int, **settings: float) -> list[float]:
    optimiser = torch.optim.SGD([torch.nn.Parameter(torch.zeros(1))], lr=1.0)
    scheduler = make(optimiser, **settings)  # type: ignore[arg-type]
    found = []
    for _ in range(steps):
        found.append(scheduler.get_last_lr()[0])
        optimiser.step()
        scheduler.step()
    return found


def factors(config: LearningRateConfig, steps: int) -> list[float]:
    return [config.lr_factor(step) for step in range(steps)]


def test_the_default_is_constant() -> None:
    assert factors(LearningRateConfig(), 50) == [1.0] * 50


def test_decay_is_exponential() -> None:
    assert factors(LearningRateConfig(lr_decay=0.9), 30) == pytest.approx(rates(ExponentialLR, 30, gamma=0.9))


def test_warmup_is_linear() -> None:
    expected = rates(LinearLR, 30, start_factor=1 / 10, total_iters=9)
    assert factors(LearningRateConfig(lr_warmup=10), 30) == pytest.approx(expected)


def test_cosine_falls_to_its_end_and_stays_there() -> None:
    expected = rates(CosineAnnealingLR, 41, T_max=40, eta_min=COSINE_END)
    found = factors(LearningRateConfig(lr_cosine=40), 60)
    assert found[:41] == pytest.approx(expected)
    assert found[41:] == pytest.approx([COSINE_END] * 19)


def test_the_factors_are_multiplied() -> None:
    all_three = LearningRateConfig(lr_decay=0.99, lr_warmup=10, lr_cosine=40)
    alone = [LearningRateConfig(lr_decay=0.99), LearningRateConfig(lr_warmup=10), LearningRateConfig(lr_cosine=40)]
    for step in (0, 5, 20, 39, 100):
        product = alone[0].lr_factor(step) * alone[1].lr_factor(step) * alone[2].lr_factor(step)
        assert all_three.lr_factor(step) == pytest.approx(product)


@pytest.mark.parametrize("wrong", [{"lr_warmup": -1}, {"lr_cosine": 0}, {"lr_decay": 0}, {"lr_decay": 1.1}])
def test_wrong_settings_are_refused(wrong: dict[str, float]) -> None:
    with pytest.raises(ValidationError, match=next(iter(wrong))):
        LearningRateConfig.model_validate(wrong)


@pytest.mark.parametrize(("micro_batch", "parts"), [(None, 6), (6, 6), (2, 2)])
def test_a_batch_is_computed_in_parts(micro_batch: int | None, parts: int) -> None:
    assert BatchConfig(batch=6, micro_batch=micro_batch).parts_of == parts


def test_a_batch_of_unequal_parts_is_refused() -> None:
    with pytest.raises(ValidationError, match="batch = 6 is not a multiple of micro_batch = 4"):
        BatchConfig(batch=6, micro_batch=4)


def test_candidates_are_those_of_selection_by_fid() -> None:
    config = CandidatesConfig(selection="fid", candidate_every=10, candidate_samples=3)
    assert config.choice == CheckpointSelection(10, 3)
    assert CandidatesConfig().choice is None and CandidatesConfig(selection="last").choice is None
