"""Muon against torch's own, against singular values, and on a problem that it must solve."""

from __future__ import annotations

import copy

import pytest
import torch
from torch import Tensor, nn

from medlord_bench.nn.muon import RMS, Muon, is_matrix, orthogonalising
from medlord_bench.util.seeds import noise

SHAPES = [(6, 4, 3, 3, 3), (6, 40), (40, 6), (8, 8)]


def made(shapes: list[tuple[int, ...]] = SHAPES) -> list[nn.Parameter]:
    return [nn.Parameter(noise(shape, "weights", i)) for i, shape in enumerate(shapes)]


def set_gradients(parameters: list[nn.Parameter], step: int) -> None:
    for i, parameter in enumerate(parameters):
        parameter.grad = noise(tuple(parameter.shape), "gradient", step, i)


@pytest.mark.parametrize("shape", [(5, 30), (30, 5), (8, 8)])
def test_the_factor_moves_all_singular_values_to_about_one(shape: tuple[int, int]) -> None:
    matrices = [noise(shape, "matrix", i) * 10.0**i for i in range(3)]
    for matrix, factor in zip(matrices, orthogonalising(matrices), strict=True):
        product = factor @ matrix if shape[0] <= shape[1] else matrix @ factor
        values = torch.linalg.svdvals(product)
        assert float(values.min()) > 0.5 and float(values.max()) < 1.3  # Jordan et al.: 0.5 to 1.5


def test_the_factor_is_the_iteration_on_the_matrix_itself() -> None:
    matrix = noise((6, 20), "matrix")
    x = matrix.double() / matrix.double().norm()
    for _ in range(5):
        gram = x @ x.T
        x = 3.4445 * x + (-4.7750 * gram + 2.0315 * gram @ gram) @ x
    torch.testing.assert_close((orthogonalising([matrix])[0] @ matrix).double(), x, rtol=1e-3, atol=1e-4)


def test_a_matrix_of_zeros_stays_finite() -> None:
    assert torch.isfinite(orthogonalising([torch.zeros(3, 5)])).all()


@pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="torch has Muon since 2.10")
def test_steps_are_those_of_torch() -> None:
    """torch's takes matrices alone and computes in bfloat16. Kernels are given to it as matrices."""
    ours = made()
    theirs = [nn.Parameter(parameter.detach().flatten(1).clone()) for parameter in ours]
    start = [parameter.detach().clone() for parameter in theirs]
    a = Muon(ours, lr=0.01, weight_decay=0.1)
    b = torch.optim.Muon(theirs, lr=0.01, weight_decay=0.1, momentum=0.95, adjust_lr_fn="match_rms_adamw")
    for step in range(4):
        set_gradients(ours, step)
        for x, y in zip(ours, theirs, strict=True):
            assert x.grad is not None
            y.grad = x.grad.flatten(1).clone()
        a.step()
        b.step()
    for x, y, before in zip(ours, theirs, start, strict=True):
        moved, expected = x.detach().flatten(1) - before, y.detach() - before
        assert float((moved - expected).norm() / expected.norm()) < 0.05  # bfloat16


def test_an_update_is_as_large_as_adams() -> None:
    """Liu et al. 2025, equation 4: a root mean square of 0.2 times the learning rate for full rank."""
    for parameter in made():
        before = parameter.detach().clone()
        set_gradients([parameter], 0)
        Muon([parameter], lr=0.01, weight_decay=0.0).step()
        size = float((parameter.detach() - before).square().mean().sqrt())
        assert 0.5 * RMS * 0.01 < size < 1.3 * RMS * 0.01


def test_weights_decay_as_with_adamw_and_parameters_without_gradient_stay() -> None:
    moved, kept = made([(4, 6), (4, 6)])
    before, untouched = moved.detach().clone(), kept.detach().clone()
    moved.grad = torch.zeros_like(moved)
    Muon([moved, kept], lr=0.1, weight_decay=0.5).step()
    torch.testing.assert_close(moved.detach(), before * 0.95)
    assert torch.equal(kept.detach(), untouched)


def test_a_state_restores_the_course() -> None:
    ours, resumed = made(), made()
    a, b = Muon(ours, lr=0.01), Muon(resumed, lr=0.01)
    for step in range(4):
        if step == 2:
            b.load_state_dict(copy.deepcopy(a.state_dict()))
            for x, y in zip(resumed, ours, strict=True):
                x.data.copy_(y.data)
        set_gradients(ours, step)
        a.step()
        if step >= 2:
            set_gradients(resumed, step)
            b.step()
    assert all(torch.equal(x, y) for x, y in zip(ours, resumed, strict=True))


def test_biases_and_scales_are_no_matrices() -> None:
    assert is_matrix(torch.zeros(2, 3)) and is_matrix(torch.zeros(2, 3, 1, 1, 1))
    assert not is_matrix(torch.zeros(3)) and not is_matrix(torch.zeros(1, 7, 9)) and not is_matrix(torch.zeros(()))
    with pytest.raises(ValueError, match=r"shape \(3,\)"):
        Muon([nn.Parameter(torch.zeros(3))], lr=0.1)


def test_a_rotation_is_found() -> None:
    torch.manual_seed(0)
    goal, _ = torch.linalg.qr(noise((6, 6), "goal"))
    weight = nn.Parameter(torch.zeros(6, 6))
    optimiser = Muon([weight], lr=0.1, weight_decay=0.0)
    inputs = noise((50, 6), "inputs")

    def distance() -> Tensor:
        return ((inputs @ weight.T - inputs @ goal.T) ** 2).mean()

    first = float(distance().detach())
    for step in range(100):
        optimiser.param_groups[0]["lr"] = 0.1 * (1 - step / 100)
        optimiser.zero_grad()
        distance().backward()  # type: ignore[no-untyped-call]
        optimiser.step()
    assert float(distance().detach()) < 5e-3 * first
