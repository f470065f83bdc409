"""The optimiser of a stage: its steps, what it skips, and its memory."""

from __future__ import annotations

from typing import get_args

import pytest
import torch
from torch import nn

from medlord_bench.memory.dry_run import run_dry
from medlord_bench.nn.optimiser import Optimiser
from medlord_bench.nn.stage_config import OptimiserKind
from medlord_bench.util import seeds

KINDS: tuple[OptimiserKind, ...] = get_args(OptimiserKind)


def test_one_bad_gradient_is_skipped_and_leaves_the_weights_alone() -> None:
    weight = nn.Parameter(torch.ones(1))
    optimiser = Optimiser([weight], lr=0.1)
    optimiser.backward((weight * float("inf")).sum() * 0)
    assert not optimiser.step(0)
    assert weight.item() == 1.0
    optimiser.backward(weight.sum())
    assert optimiser.step(1)
    assert weight.item() < 1.0


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("bad", ["weight", "bias"])
def test_loss_scaling_skips_all_parameters_if_one_gradient_is_not_finite(kind: OptimiserKind, bad: str) -> None:
    net = nn.Linear(4, 3)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    optimiser = Optimiser(net.parameters(), lr=0.01, clip=1.0, kind=kind)
    optimiser.scaler = torch.amp.GradScaler("cpu", init_scale=8.0)
    optimiser.backward(net(seeds.noise((5, 4), "inputs")).square().mean())
    gradient = net.get_parameter(bad).grad
    assert gradient is not None
    gradient.view(-1)[0] = float("inf")
    assert not optimiser.step(0)
    assert all(torch.equal(value, before[name]) for name, value in net.named_parameters())
    assert optimiser.scaler.get_scale() == 4.0
    optimiser.backward(net(seeds.noise((5, 4), "inputs")).square().mean())
    assert optimiser.step(1)
    assert not any(torch.equal(value, before[name]) for name, value in net.named_parameters())


def test_muon_trains_the_matrices_and_adamw_the_rest() -> None:
    """AdamW's first step has the size of the learning rate everywhere; Muon's is the same in all singular values."""
    net = nn.Linear(4, 3)
    before = {name: value.detach().clone() for name, value in net.named_parameters()}
    optimiser = Optimiser(net.parameters(), lr=0.01, weight_decay=0.0, kind="muon")
    optimiser.backward((net(seeds.noise((5, 4), "inputs")) ** 2).mean())
    assert optimiser.step(0)
    moved = {name: value.detach() - before[name] for name, value in net.named_parameters()}
    assert moved["bias"].abs().tolist() == pytest.approx([0.01] * 3, rel=1e-3)
    values = torch.linalg.svdvals(moved["weight"])
    assert float(values.min()) > 0.4 * float(values.max()) and float(moved["weight"].abs().std()) > 2e-4
    only_matrices = nn.Linear(4, 3, bias=False)
    assert list(Optimiser(only_matrices.parameters(), lr=0.01, kind="muon").state_dict()) == [
        "muon",
        "scaler",
        "skipped",
    ]


def test_accumulated_micro_batches_step_as_the_whole_batch_does() -> None:
    data = torch.arange(4.0)
    whole, parts = nn.Parameter(torch.ones(1)), nn.Parameter(torch.ones(1))
    one, two = Optimiser([whole], lr=0.1), Optimiser([parts], lr=0.1)
    one.backward(((whole * data - 1) ** 2).mean())
    for half in data.split(2):
        two.backward(((parts * half - 1) ** 2).mean() / 2)
    one.step(0)
    two.step(0)
    assert whole.item() == pytest.approx(parts.item(), abs=1e-7)


@pytest.mark.parametrize("kind", KINDS)
def test_the_first_step_of_a_dry_run_needs_the_memory_of_later_ones(kind: OptimiserKind) -> None:
    def peak(steps: int) -> int:
        def work() -> None:
            net = nn.Sequential(*[nn.Linear(256, 256) for _ in range(4)])
            optimiser = Optimiser(net.parameters(), lr=0.1, kind=kind)
            images = torch.rand(4096, 256)  # activations outweigh the optimiser's temporary tensors
            for step in range(steps):
                optimiser.backward(net(images).mean())
                optimiser.step(step)

        return run_dry(work).allocated

    assert peak(1) == peak(3)


def test_the_learning_rate_is_the_given_one_times_the_factor_of_the_step() -> None:
    """The first step of AdamW moves a weight of zero by the learning rate, whatever the gradient (Kingma & Ba 2015)."""
    for factor, expected in (({}, -0.01), ({"lr_factor": lambda step: 1 / step}, -0.0025)):
        weight = torch.nn.Parameter(torch.zeros(1))
        optimiser = Optimiser([weight], lr=0.01, **factor)
        optimiser.backward((3 * weight).sum())
        assert optimiser.step(4)
        assert weight.item() == pytest.approx(expected, rel=1e-4)
