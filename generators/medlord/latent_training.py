"""What training the U-Net and training its ControlNet have in common: batches of latents, loss, EMA, validation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol

import torch
from torch import nn
from torch.func import functional_call
from torch.nn import functional

from medlord_bench.contracts import Run, Split
from medlord_bench.errors import UserError
from medlord_bench.nn.ema import EMA
from medlord_bench.nn.training import Optimiser, Stateful, autocast
from medlord_bench.util.seeds import torch_rng

from .configs import OptimisationConfig
from .schedule import CosineSchedule

VALIDATION_TIMES = 4  # evenly spread timesteps at which each validation case is denoised


class Latents(Protocol):
    """The encoded cohort. `scale`: the factor that its latents have been multiplied by, 1 / their deviation."""

    scale: float

    def ids(self, split: Split) -> Sequence[str]: ...

    def latent(self, case_id: str) -> torch.Tensor:
        """float32 (d, x, y, z) on the CPU, already multiplied by `scale`."""
        ...


@dataclass(frozen=True, eq=False)
class LatentBatch:
    """latents, noise: float32 (N, d, x, y, z); timesteps: int64 (N,); masks: uint8 (N, K, X, Y, Z) or None."""

    latents: torch.Tensor
    noise: torch.Tensor
    timesteps: torch.Tensor
    masks: torch.Tensor | None

    def part(self, start: int, stop: int, device: str) -> LatentBatch:
        """Items start to stop on `device`, masks as float32."""
        masks = None if self.masks is None else self.masks[start:stop].to(device).float()
        latents, noise, timesteps = (x[start:stop].to(device) for x in (self.latents, self.noise, self.timesteps))
        return LatentBatch(latents, noise, timesteps, masks)


class LatentRecipe:
    """Trains whatever parameters of `model` require gradients to predict velocities. See `training.Recipe`.

    model: called with noisy latents, timesteps and masks (or None). trained: the part of it that is optimised.
    """

    def __init__(
        self,
        config: OptimisationConfig,
        schedule: CosineSchedule,
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
            precision=config.precision,
            clip=config.clip,
            lr_factor=lambda step: config.lr_decay**step,
        )

    def masks(self, case_id: str, drop: torch.Tensor | None) -> torch.Tensor | None:
        """The condition of a case, uint8 (K, X, Y, Z). drop: a number in [0, 1) to decide on dropout by, in training."""
        return None

    def stateful(self) -> Mapping[str, Stateful]:
        return {"net": self.trained, "ema": self.ema, "optimiser": self.optimiser}

    # ------------------------------------------------------------------------------------------------------- batches
    def batch(self, step: int) -> LatentBatch:
        """Cases in a new order each epoch; noise and timestep of the n-th item of the training depend on n alone."""
        first = step * self.config.batch
        return _stack([self._training_item(first + i) for i in range(self.config.batch)])

    def _training_item(self, n: int) -> LatentBatch:
        cases, seed = self.cases["train"], self.run.seed
        epoch, place = divmod(n, len(cases))
        order = torch.randperm(len(cases), generator=torch_rng(seed, self.stage, "epoch", epoch))
        rng = torch_rng(seed, self.stage, "item", n)
        timestep = torch.randint(self.schedule.timesteps, (), generator=rng)
        drop = torch.rand((), generator=rng)
        case = cases[int(order[place])]
        latent = self.latents.latent(case)
        return LatentBatch(latent, torch.randn(latent.shape, generator=rng), timestep, self.masks(case, drop))

    def _validation_item(self, case: str, place: int) -> LatentBatch:
        timestep = torch.tensor(round((place + 0.5) / VALIDATION_TIMES * (self.schedule.timesteps - 1)))
        latent = self.latents.latent(case)
        noise = torch.randn(latent.shape, generator=torch_rng(self.run.seed, self.stage, "validation", case, place))
        return LatentBatch(latent, noise, timestep, self.masks(case, None))

    # ------------------------------------------------------------------------------------------------------ training
    def step(self, step: int, batch: LatentBatch) -> Mapping[str, torch.Tensor | float]:
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

    def _loss(self, batch: LatentBatch, weights: Mapping[str, torch.Tensor] | None) -> torch.Tensor:
        """The loss on the velocity, in float32. weights: used instead of the model's own where given."""
        noisy = self.schedule.noised(batch.latents, batch.noise, batch.timesteps)
        target = self.schedule.velocity(batch.latents, batch.noise, batch.timesteps)
        inputs = (noisy, batch.timesteps, batch.masks)
        with autocast(self.config.precision, self.run.device):
            predicted = self.model(*inputs) if weights is None else functional_call(self.model, dict(weights), inputs)
        measure = functional.l1_loss if self.config.loss == "l1" else functional.smooth_l1_loss
        return measure(predicted.float(), target)


def _stack(items: Sequence[LatentBatch]) -> LatentBatch:
    masks = [item.masks for item in items if item.masks is not None]
    return LatentBatch(
        torch.stack([item.latents for item in items]),
        torch.stack([item.noise for item in items]),
        torch.stack([item.timesteps for item in items]),
        torch.stack(masks) if masks else None,
    )
