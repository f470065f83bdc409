"""Settings that training stages of several generators share. Without torch, so plugins are listed fast."""

from __future__ import annotations

import math
from typing import Annotated, Literal, Self

from pydantic import Field, model_validator

from medlord_bench.contracts import CheckpointSelection, FrozenConfig

Positive = Annotated[int, Field(gt=0)]

COSINE_END = 0.02  # the factor at the end of the cosine and after it, so that a longer training still learns


OptimiserKind = Literal["adamw", "muon"]


class LearningRateConfig(FrozenConfig):
    """Settings of a stage's optimiser and its learning rate; the largest value of the rate is another field.

    optimiser: "muon" trains weight matrices and kernels with Muon, other parameters with AdamW; see `nn.muon`.
    lr_decay: factor on the learning rate after every step.
    lr_warmup: steps in which the learning rate rises linearly to its full value; 0: none.
    lr_cosine: steps in which it falls to `COSINE_END` of that along half a cosine (Loshchilov & Hutter 2017, equation
    5, without restarts); None: it does not. The number is not `steps`, so that a training can be continued.
    """

    optimiser: OptimiserKind = "adamw"
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    lr_warmup: Annotated[int, Field(ge=0)] = 0
    lr_cosine: Annotated[int | None, Field(gt=0)] = None

    def lr_factor(self, step: int) -> float:
        """The factor on the learning rate at a step, which counts from 0."""
        rise = min(1.0, (step + 1) / self.lr_warmup) if self.lr_warmup else 1.0
        fall = 1.0
        if self.lr_cosine is not None:
            done = min(1.0, step / self.lr_cosine)
            fall = COSINE_END + (1 - COSINE_END) * (1 + math.cos(math.pi * done)) / 2
        return float(rise * fall * self.lr_decay**step)


class BatchConfig(FrozenConfig):
    """batch: items of an optimiser step, computed in parts of `micro_batch` (None: at once); equal up to rounding."""

    batch: Positive = 4
    micro_batch: Positive | None = None

    @model_validator(mode="after")
    def _parts_fit(self) -> Self:
        if self.batch % self.parts_of:
            raise ValueError(f"batch = {self.batch} is not a multiple of micro_batch = {self.micro_batch}")
        return self

    @property
    def parts_of(self) -> int:
        """Items per forward pass."""
        return self.micro_batch or self.batch


class CandidatesConfig(FrozenConfig):
    """selection: "best" validation loss, "last", or "fid" on the validation split, among candidates.

    "fid" draws `candidate_samples` volumes from a candidate every `candidate_every` steps.
    """

    selection: Literal["best", "last", "fid"] = "best"
    candidate_every: Positive = 50_000
    candidate_samples: Annotated[int, Field(ge=2)] = 16

    @property
    def choice(self) -> CheckpointSelection | None:
        """The candidates for checkpoint selection by the bench; None if training selects."""
        return CheckpointSelection(self.candidate_every, self.candidate_samples) if self.selection == "fid" else None
