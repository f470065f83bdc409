"""What training the U-Net and training its ControlNet have in common: batches of latents, loss, EMA, validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from medlord_bench.contracts import Run, Split
from medlord_bench.errors import UserError
from medlord_bench.nn.ema import EMA
from medlord_bench.nn.training import Optimiser, Stateful, autocast
from medlord_bench.util.seeds import torch_rng

from .configs import OptimisationConfig
from .schedule import NoiseSchedule
from .spacing import Spacing

VALIDATION_TIMES = 4  # evenly spread times at which each validation case is denoised


class Latents(Protocol):
    """The encoded cohort. scale: what its latents have been multiplied by. spacing_of_a_sample: the training cases'
    median voxel size in mm, for samples of a protocol that has none."""

    scale: float
    spacing_of_a_sample: Spacing

    def ids(self, split: Split) -> Sequence[str]: ...

    def latent(self, case_id: str) -> tuple[Tensor, Tensor]:
        """float32 (C, x, y, z), already multiplied by `scale`, and its voxel size (3,) in mm, on the CPU."""
        ...


@dataclass(frozen=True, eq=False)
class LatentBatch:
    """latents, noise: float32 (N, C, x, y, z); uniform: (N,) in [0, 1), from which times are made; spacing: (N, 3) in
    mm; labels: uint8 (N, X, Y, Z) or None."""

    latents: Tensor
    noise: Tensor
    uniform: Tensor
    spacing: Tensor
    labels: Tensor | None

    def part(self, start: int, stop: int, device: str) -> LatentBatch:
        """Items start to stop on `device`."""
        labels = None if self.labels is None else self.labels[start:stop].to(device)
        fields = (self.latents, self.noise, self.uniform, self.spacing)
        latents, noise, uniform, spacing = (x[start:stop].to(device) for x in fields)
        return LatentBatch(latents, noise, uniform, spacing, labels)


class LatentRecipe:
    """Trains `trained`, a part of `model`, to predict what the schedule asks for. See `training.Recipe`.

    model: called with noisy latents, times, voxel sizes and labels (or None).
    """

    def __init__(
        self,
        config: OptimisationConfig,
        schedule: NoiseSchedule,
        model: nn.Module,
        trained: nn.Module,
        latents: Latents,
        run: Run,
        stage: str,
    ) -> None:
        self.config, self.schedule, self.model, self.trained = config, schedule, model, trained
        self.latents, self.run, self.stage = latents, run, stage
        self.cases = {split: list(latents.ids(split)) for split in ("train", "val")}
        for split, ids in self.cases.items():
            if not ids:
                raise UserError(f"{stage}: the {split} split is empty; it needs at least one case")
        self.ema = EMA(model, config.ema_decay)
        self.optimiser = Optimiser(
            trained.parameters(),
            lr=config.lr,
            weight_decay=config.weight_decay,
            precision=config.precision,
            clip=config.clip,
            lr_factor=config.lr_factor,
        )

    def labels(self, case_id: str) -> Tensor | None:
        """The condition of a case, uint8 (X, Y, Z) on MAISI's grid; None for an unconditional stage."""
        return None

    def stateful(self) -> Mapping[str, Stateful]:
        return {"net": self.trained, "ema": self.ema, "optimiser": self.optimiser}

    # ------------------------------------------------------------------------------------------------------- batches
    def batch(self, step: int) -> LatentBatch:
        """Cases in a new order each epoch; noise and time of the n-th item of the training depend on n alone."""
        first = step * self.config.batch
        return _stack([self._training_item(first + i) for i in range(self.config.batch)])

    def _training_item(self, n: int) -> LatentBatch:
        cases, seed = self.cases["train"], self.run.seed
        epoch, place = divmod(n, len(cases))
        order = torch.randperm(len(cases), generator=torch_rng(seed, self.stage, "epoch", epoch))
        rng = torch_rng(seed, self.stage, "item", n)
        return self._item(cases[int(order[place])], torch.rand((), generator=rng), rng)

    def _validation_item(self, case: str, place: int) -> LatentBatch:
        rng = torch_rng(self.run.seed, self.stage, "validation", case, place)
        return self._item(case, torch.tensor((place + 0.5) / VALIDATION_TIMES), rng)

    def _item(self, case: str, uniform: Tensor, rng: torch.Generator) -> LatentBatch:
        latent, spacing = self.latents.latent(case)
        return LatentBatch(latent, torch.randn(latent.shape, generator=rng), uniform, spacing, self.labels(case))

    # ------------------------------------------------------------------------------------------------------ training
    def step(self, step: int, batch: LatentBatch) -> Mapping[str, Tensor | float]:
        self.trained.train()
        size, part = self.config.batch, self.config.parts_of
        total = torch.zeros((), device=self.run.device)
        for start in range(0, size, part):
            loss = self._loss(batch.part(start, start + part, self.run.device), None) * (part / size)
            self.optimiser.backward(loss)
            total += loss.detach()
        if self.optimiser.step(step):
            self.ema.update(self.model)
        return {"loss": total}

    @torch.no_grad()
    def validate(self, step: int) -> Mapping[str, float]:
        """Mean loss of the averaged weights over the validation cases, with noise that is the same at every call."""
        self.trained.eval()
        losses = []
        for case in self.cases["val"]:
            for place in range(VALIDATION_TIMES):
                batch = _stack([self._validation_item(case, place)]).part(0, 1, self.run.device)
                losses.append(self._loss(batch, self.ema.shadow))
        return {"loss": float(torch.stack(losses).double().mean())}

    def _loss(self, batch: LatentBatch, weights: Mapping[str, Tensor] | None) -> Tensor:
        """L1 in float32. weights: used instead of the model's own where given."""
        times = self.schedule.times(batch.uniform, prod(batch.latents.shape[2:]))
        noisy = self.schedule.noised(batch.latents, batch.noise, times)
        inputs = (noisy, times, batch.spacing, batch.labels)
        with autocast(self.config.precision, self.run.device):
            predicted = self.model(*inputs) if weights is None else functional_call(self.model, dict(weights), inputs)
        return functional.l1_loss(predicted.float(), self.schedule.target(batch.latents, batch.noise))


def _stack(items: Sequence[LatentBatch]) -> LatentBatch:
    labels = [item.labels for item in items if item.labels is not None]
    return LatentBatch(
        torch.stack([item.latents for item in items]),
        torch.stack([item.noise for item in items]),
        torch.stack([item.uniform for item in items]),
        torch.stack([item.spacing for item in items]),
        torch.stack(labels) if labels else None,
    )
