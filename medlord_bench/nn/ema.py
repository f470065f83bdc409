"""Exponential moving average of a network's parameters. Diffusion models are sampled with these weights."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import nn
from torch.optim.swa_utils import get_ema_multi_avg_fn

from medlord_bench.errors import UserError


class EMA:
    """shadow = d * shadow + (1 - d) * parameter after every step, with d = min(decay, (1 + n) / (10 + n)) at update n.

    The warm-up removes the initial weights from the average within a few hundred steps; after 10 / (1 - decay) updates
    d equals `decay`. Only trained parameters are averaged; frozen parameters and buffers remain those of the network.
    """

    def __init__(self, module: nn.Module, decay: float) -> None:
        """decay: in [0, 1); 0 keeps the latest parameters. The average follows the parameters that `module` has now."""
        if not 0 <= decay < 1:
            raise ValueError(f"EMA decay is {decay}, expected a number in [0, 1)")
        self.decay = decay
        self.updates = 0
        self.followed = {name: value for name, value in module.named_parameters() if value.requires_grad}
        self.shadow = {name: value.detach().clone() for name, value in self.followed.items()}

    def update(self) -> None:
        """Update the average with the network's parameters after an optimiser step."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        average = get_ema_multi_avg_fn(decay)  # type: ignore[no-untyped-call]
        average(list(self.shadow.values()), list(self.followed.values()), self.updates)

    @torch.no_grad()
    def copy_to(self, module: nn.Module) -> None:
        """Overwrite the parameters of `module` with the average."""
        parameters = dict(module.named_parameters())
        for name, value in self.shadow.items():
            parameters[name].copy_(value)

    def state_dict(self) -> dict[str, Any]:
        """The state that `load_state_dict` needs to continue exactly."""
        return {"decay": self.decay, "updates": self.updates, "shadow": dict(self.shadow)}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from a `state_dict`. Raises `UserError` if it belongs to another network."""
        shadow: Mapping[str, torch.Tensor] = state["shadow"]
        for name in {**self.shadow, **shadow}:
            if name not in shadow or name not in self.shadow or shadow[name].shape != self.shadow[name].shape:
                raise UserError(f"EMA state: tensor {name!r} does not fit this network; train again from the start")
        for name, value in self.shadow.items():
            value.copy_(shadow[name])
        self.updates = int(state["updates"])
