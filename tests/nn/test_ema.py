"""The averaged weights: closed forms, and going on exactly."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from medlord_bench.errors import UserError
from medlord_bench.nn.ema import EMA


def _net(seed: int = 0, width: int = 3) -> nn.Linear:
    torch.manual_seed(seed)
    return nn.Linear(width, 2)


def _walk(net: nn.Module, ema: EMA, steps: range) -> list[torch.Tensor]:
    """Set the weights to something new at each step; returns them."""
    seen = []
    for step in steps:
        with torch.no_grad():
            for value in net.parameters():
                value.copy_(torch.randn(value.shape, generator=torch.Generator().manual_seed(step)))
        seen.append(net.weight.detach().clone())
        ema.update()
    return seen


def test_the_average_follows_its_recursion_with_the_warm_up() -> None:
    net = _net()
    expected = net.weight.detach().double().clone()
    ema = EMA(net, decay=0.5)
    for n, weight in enumerate(_walk(net, ema, range(12)), start=1):
        decay = min(0.5, (1 + n) / (10 + n))
        expected = decay * expected + (1 - decay) * weight.double()
    torch.testing.assert_close(ema.shadow["weight"].double(), expected, atol=1e-6, rtol=1e-6)
    assert (1 + 12) / (10 + 12) > 0.5  # both branches of the warm-up were taken


def test_constant_weights_are_their_own_average_and_a_short_training_forgets_its_start() -> None:
    net = _net()
    ema = EMA(net, decay=0.9999)
    with torch.no_grad():
        net.weight.fill_(1.0)
    for _ in range(100):
        ema.update()
    assert float((ema.shadow["weight"] - 1).abs().max()) < 1e-3  # 0.9999^100 alone would leave 99 % of the start


def test_going_on_from_a_saved_state_is_bit_equal() -> None:
    net = _net()
    straight, first = EMA(net, decay=0.9), EMA(net, decay=0.9)
    _walk(net, straight, range(10))
    _walk(net, first, range(4))
    second = EMA(net, decay=0.9)
    second.load_state_dict(first.state_dict())
    _walk(net, second, range(4, 10))
    assert all(torch.equal(straight.shadow[name], second.shadow[name]) for name in straight.shadow)
    assert second.updates == 10


def test_a_saved_state_does_not_change_when_training_goes_on_elsewhere() -> None:
    net = _net()
    first, second = EMA(net, decay=0.9), EMA(net, decay=0.9)
    second.load_state_dict(first.state_dict())
    before = first.shadow["weight"].clone()
    _walk(net, second, range(3))
    assert torch.equal(first.shadow["weight"], before)


def test_the_average_is_copied_into_a_network_and_frozen_parameters_are_left_out() -> None:
    net = _net()
    net.bias.requires_grad_(False)
    ema = EMA(net, decay=0.0)
    assert list(ema.shadow) == ["weight"]
    other = _net(seed=5)
    bias = other.bias.detach().clone()
    ema.copy_to(other)
    assert torch.equal(other.weight, net.weight)
    assert torch.equal(other.bias, bias)


def test_the_state_of_another_network_is_refused_by_name() -> None:
    with pytest.raises(UserError, match="'weight' does not fit"):
        EMA(_net(), 0.9).load_state_dict(EMA(_net(width=4), 0.9).state_dict())
    with pytest.raises(ValueError, match="expected a number in"):
        EMA(_net(), 1.0)
