"""The learning rate as a function of the step. Without torch, so plugins are listed fast."""

from __future__ import annotations

import math
from typing import Annotated

from pydantic import Field

from medlord_bench.contracts import FrozenConfig

COSINE_END = 0.02  # the factor at the end of the cosine and after it, so that a longer training still learns


class LearningRateConfig(FrozenConfig):
    """Settings of a stage's learning rate; its largest value is another field.

    lr_decay: factor on the learning rate after every step.
    lr_warmup: steps in which the learning rate rises linearly to its full value; 0: none.
    lr_cosine: steps in which it falls to `COSINE_END` of that along half a cosine (Loshchilov & Hutter 2017, equation
    5, without restarts); None: it does not. The number is not `steps`, so that a training can be continued.
    """

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
