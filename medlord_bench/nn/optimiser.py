"""The optimiser of a training stage, and mixed precision."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Callable, Iterable, Mapping
from typing import Any

import torch

from medlord_bench.contracts import Precision
from medlord_bench.errors import StepError
from medlord_bench.memory.dry_run import is_dry_run
from medlord_bench.nn.muon import Muon, is_matrix
from medlord_bench.nn.ranks import current
from medlord_bench.nn.stage_config import OptimiserKind

PATIENCE_NOT_FINITE = 20  # consecutive steps without a finite gradient that end the training


def autocast(precision: Precision, device: str) -> contextlib.AbstractContextManager[Any]:
    """Mixed precision for a forward pass; does nothing for "fp32"."""
    if precision == "fp32":
        return contextlib.nullcontext()
    dtype = torch.float16 if precision == "fp16" else torch.bfloat16
    return torch.autocast(torch.device(device).type, dtype=dtype)


class Optimiser:
    """AdamW, or Muon and AdamW, with loss scaling (fp16), gradient clipping and a learning rate that is a function of the step.

    kind: "muon" trains weight matrices with Muon and all other parameters with AdamW.
    A step with a non-finite gradient is skipped and counted; `PATIENCE_NOT_FINITE` such steps in a row end training.
    """

    def __init__(
        self,
        parameters: Iterable[torch.nn.Parameter],
        *,
        lr: float,
        betas: tuple[float, float] = (0.9, 0.999),
        weight_decay: float = 0.01,
        precision: Precision = "fp32",
        clip: float | None = None,
        lr_factor: Callable[[int], float] = lambda step: 1.0,
        kind: OptimiserKind = "adamw",
    ) -> None:
        self.parameters = list(parameters)
        self.is_dry = is_dry_run(self.parameters[0])  # then as on CUDA: many tensors at once; tensors have no values
        matrices = [p for p in self.parameters if is_matrix(p)] if kind == "muon" else []
        others = [p for p in self.parameters if not is_matrix(p)] if kind == "muon" else self.parameters
        kernel: dict[str, bool] = {"foreach": True} if self.is_dry else {}
        if not self.is_dry and self.parameters[0].device.type == "cpu":
            kernel = {"fused": True}  # the CPU's default takes a tenth of a small network's step
        self.optimisers: dict[str, torch.optim.Optimizer] = {}
        if others:
            self.optimisers["adam"] = torch.optim.AdamW(others, lr=lr, betas=betas, weight_decay=weight_decay, **kernel)
        if matrices:
            self.optimisers["muon"] = Muon(matrices, lr, weight_decay)
        if self.is_dry:
            self._make_state()
        self.scaler = torch.amp.GradScaler(enabled=precision == "fp16" and not self.is_dry)
        self.lr, self.lr_factor = lr, lr_factor
        self.clip = clip if clip is not None else math.inf
        self.skipped = 0  # consecutive steps

    def _make_state(self) -> None:
        """In a dry run the first step needs the memory of every later one."""
        for parameter in self.parameters:
            parameter.grad = torch.zeros_like(parameter)
        for optimiser in self.optimisers.values():
            optimiser.step()
            optimiser.zero_grad(set_to_none=True)

    def backward(self, loss: torch.Tensor) -> None:
        """Accumulate gradients. Divide the loss by the number of micro-batches first."""
        self.scaler.scale(loss).backward()  # type: ignore[no-untyped-call]

    def step(self, step: int) -> bool:
        """Apply the accumulated gradient and clear it. False if it was not finite and the step was skipped."""
        current().sum_gradients(self.parameters)
        for optimiser in self.optimisers.values():
            for group in optimiser.param_groups:
                group["lr"] = self.lr * self.lr_factor(step)
            self.scaler.unscale_(optimiser)
        norm = torch.nn.utils.clip_grad_norm_(self.parameters, self.clip)
        finite = self.is_dry or bool(torch.isfinite(norm))
        for optimiser in self.optimisers.values():
            if finite:  # all or none: the scaler alone would skip only the optimiser whose gradients are not finite
                self.scaler.step(optimiser)
            optimiser.zero_grad(set_to_none=True)
        self.scaler.update()  # lowers the scale if `unscale_` found a gradient that is not finite
        self.skipped = 0 if finite else self.skipped + 1
        if self.skipped >= PATIENCE_NOT_FINITE:
            raise StepError(
                f"the gradient was not finite for {self.skipped} steps in a row (step {step}); "
                "lower the learning rate or use precision bf16 or fp32; the last checkpoint is intact"
            )
        return finite

    def state_dict(self) -> dict[str, Any]:
        states = {name: optimiser.state_dict() for name, optimiser in self.optimisers.items()}
        return {**states, "scaler": self.scaler.state_dict(), "skipped": self.skipped}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        for name, optimiser in self.optimisers.items():
            optimiser.load_state_dict(state[name])
        if state["scaler"]:
            self.scaler.load_state_dict(state["scaler"])
        self.skipped = state["skipped"]
