"""Training on latents: batches, loss, averaged weights and validation, for any denoiser and any noise schedule."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import prod
from typing import Literal, Protocol

import torch
from torch import Tensor, nn
from torch.func import functional_call
from torch.nn import functional

from medlord_bench.contracts import Precision, Run
from medlord_bench.errors import UserError
from medlord_bench.memory.dry_run import is_dry_run
from medlord_bench.nn.diffusion.config import Times
from medlord_bench.nn.diffusion.latents import SPLITS, Latents
from medlord_bench.nn.diffusion.schedules import NoiseSchedule
from medlord_bench.nn.ema import EMA
from medlord_bench.nn.optimiser import Optimiser, autocast
from medlord_bench.nn.ranks import current
from medlord_bench.nn.stage_config import OptimiserKind
from medlord_bench.nn.training import Stateful
from medlord_bench.util.seeds import torch_rng

VALIDATION_TIMES = 4  # number of evenly spaced times at which each validation case is denoised

Loss = Literal["l1", "huber"]
LOSSES = {"l1": functional.l1_loss, "huber": functional.smooth_l1_loss}  # "huber" with beta 1


class Optimisation(Protocol):
    """The fields of a stage's configuration that a `LatentRecipe` reads.

    batch: items of one optimiser step. parts_of: items of one forward pass, a divisor of `batch`. ema_decay: decay of
    the averaged weights, which are validated and exported. times: see `nn.diffusion.config.Times`. Other fields: see
    `nn.optimiser.Optimiser`.
    """

    @property
    def batch(self) -> int: ...
    @property
    def parts_of(self) -> int: ...
    @property
    def lr(self) -> float: ...
    @property
    def weight_decay(self) -> float: ...
    @property
    def clip(self) -> float | None: ...
    @property
    def optimiser(self) -> OptimiserKind: ...
    @property
    def ema_decay(self) -> float: ...
    @property
    def precision(self) -> Precision: ...
    @property
    def loss(self) -> Loss: ...
    @property
    def times(self) -> Times: ...
    def lr_factor(self, step: int) -> float:
        """The factor on the learning rate at a step."""
        ...


@dataclass(frozen=True, eq=False)
class LatentBatch:
    """latents, noise: float32 (N, C, x, y, z); times: (N,), from the schedule; conditions: each (N, ...)."""

    latents: Tensor
    noise: Tensor
    times: Tensor
    conditions: tuple[Tensor, ...]

    def part(self, start: int, stop: int, device: str) -> LatentBatch:
        """Items start to stop on `device`. Bool masks are moved as bytes and converted to float32 there."""
        latents, noise, times = (x[start:stop].to(device) for x in (self.latents, self.noise, self.times))
        conditions = (x[start:stop].to(device) for x in self.conditions)
        return LatentBatch(latents, noise, times, tuple(x.float() if x.dtype == torch.bool else x for x in conditions))


class LatentRecipe:
    """Trains `trained`, a part of `model`, to predict the target of the schedule. See `nn.training.Recipe`.

    model: called as ``model(noisy latents, times, *conditions)``. Raises `UserError` if a split is empty.
    """

    def __init__(
        self,
        config: Optimisation,
        schedule: NoiseSchedule,
        model: nn.Module,
        trained: nn.Module,
        latents: Latents,
        run: Run,
        stage: str,
    ) -> None:
        self.config, self.schedule, self.model, self.trained = config, schedule, model, trained
        self.latents, self.run, self.stage = latents, run, stage
        self.cases = {split: list(latents.ids(split)) for split in SPLITS}
        for split, ids in self.cases.items():
            if not ids:
                raise UserError(f"{stage}: the {split} split is empty; add at least one case")
        self.ema = EMA(model, config.ema_decay)
        self.optimiser = Optimiser(
            trained.parameters(),
            lr=config.lr,
            weight_decay=config.weight_decay,
            precision=config.precision,
            clip=config.clip,
            lr_factor=config.lr_factor,
            kind=config.optimiser,
        )

    def conditions(self, case_id: str, rng: torch.Generator | None) -> tuple[Tensor, ...]:
        """The conditions of one case for the model, on the CPU.

        rng: generator of the training item for random decisions, e.g. dropout of the condition; None in validation.
        """
        return ()

    def stateful(self) -> Mapping[str, Stateful]:
        return {"net": self.trained, "ema": self.ema, "optimiser": self.optimiser}

    # ------------------------------------------------------------------------------------------------------- batches
    def batch(self, step: int) -> LatentBatch:
        """Cases in a new order each epoch. Noise of the n-th item depends only on n; so do independent times."""
        size = self.config.batch
        fractions = self._fractions(step) if self.config.times == "stratified" else [None] * size
        return _stack([self._training_item(step * size + i, fraction) for i, fraction in enumerate(fractions)])

    def _fractions(self, step: int) -> list[float]:
        """Evenly spaced fractions of the way to pure noise, one for each item of the batch, at a random offset."""
        size = self.config.batch
        offset = float(torch.rand((), generator=torch_rng(self.run.seed, self.stage, "times", step)))
        return [(offset + i / size) % 1 for i in range(size)]

    def _training_item(self, n: int, fraction: float | None) -> LatentBatch:
        """The n-th item of the training, at `fraction` of the way to pure noise; None: at a random time."""
        cases, seed = self.cases["train"], self.run.seed
        epoch, place = divmod(n, len(cases))
        order = torch.randperm(len(cases), generator=torch_rng(seed, self.stage, "epoch", epoch))
        case = cases[int(order[place])]
        latent, rng = self.latents.latent(case), torch_rng(seed, self.stage, "item", n)
        # Order of the draws from `rng`: time, condition, noise.
        voxels = _voxels(latent)
        drawn = self.schedule.draw_time(rng, voxels)  # always, so that condition and noise are the same either way
        time = drawn if fraction is None else self.schedule.time_at(fraction, voxels)
        conditions = self.conditions(case, rng)
        return LatentBatch(latent, torch.randn(latent.shape, generator=rng), time, conditions)

    def _validation_item(self, case: str, place: int) -> LatentBatch:
        latent = self.latents.latent(case)
        time = self.schedule.time_at((place + 0.5) / VALIDATION_TIMES, _voxels(latent))
        noise = torch.randn(latent.shape, generator=torch_rng(self.run.seed, self.stage, "validation", case, place))
        return LatentBatch(latent, noise, time, self.conditions(case, None))

    # ------------------------------------------------------------------------------------------------------ training
    def step(self, step: int, batch: LatentBatch) -> Mapping[str, Tensor | float]:
        self.trained.train()
        size, part, ranks = self.config.batch, self.config.parts_of, current()
        count = self.micro_batches
        if is_dry_run(batch.latents):
            count = min(count, 2)  # the second part has gradients in memory besides activations, as all later ones
        total = torch.zeros((), device=self.run.device)
        for number in ranks.parts(count, self.run.seed, self.stage, step):
            start = number * part
            loss = self._loss(batch.part(start, start + part, self.run.device), None) * (part / size)
            self.optimiser.backward(loss)
            total += loss.detach()
        if self.optimiser.step(step):
            self.ema.update()
        return ranks.total({"loss": total})

    @property
    def micro_batches(self) -> int:
        return len(range(0, self.config.batch, self.config.parts_of))

    @torch.no_grad()
    def validate(self, step: int) -> Mapping[str, float]:
        """Mean loss of the averaged weights over the validation cases, with the same noise at every call."""
        self.trained.eval()
        losses = []
        for case in self.cases["val"]:
            for place in range(VALIDATION_TIMES):
                batch = _stack([self._validation_item(case, place)]).part(0, 1, self.run.device)
                losses.append(self._loss(batch, self.ema.shadow))
        return {"loss": float(torch.stack(losses).double().mean())}

    def _loss(self, batch: LatentBatch, weights: Mapping[str, Tensor] | None) -> Tensor:
        """The loss of the prediction, in float32. weights: replace the model's weights if given."""
        noisy = self.schedule.add_noise(batch.latents, batch.noise, batch.times)
        inputs = (noisy, batch.times, *batch.conditions)
        with autocast(self.config.precision, self.run.device):
            predicted = self.model(*inputs) if weights is None else functional_call(self.model, dict(weights), inputs)
        target = self.schedule.target(batch.latents, batch.noise, batch.times)
        return LOSSES[self.config.loss](predicted.float(), target)


def _voxels(latent: Tensor) -> int:
    return prod(latent.shape[1:])


def _stack(items: Sequence[LatentBatch]) -> LatentBatch:
    """N single items to one batch: (C, x, y, z) -> (N, C, x, y, z), times () -> (N,), conditions (...) -> (N, ...)."""
    return LatentBatch(
        torch.stack([item.latents for item in items]),
        torch.stack([item.noise for item in items]),
        torch.stack([item.times for item in items]),
        tuple(torch.stack(parts) for parts in zip(*(item.conditions for item in items), strict=True)),
    )
