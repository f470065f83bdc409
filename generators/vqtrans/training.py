"""VQ-Trans's training stages, each a recipe for the bench's training loop."""

from __future__ import annotations

import copy
from collections.abc import Mapping, Sequence
from math import prod
from pathlib import Path
from typing import Protocol

import torch
from torch import Tensor
from torch.func import functional_call

from medlord_bench.contracts import Cohort, Run, Split, Stage
from medlord_bench.errors import UserError
from medlord_bench.nn.ema import EMA
from medlord_bench.nn.optimiser import Optimiser, autocast
from medlord_bench.nn.ranks import current
from medlord_bench.nn.training import Horizon, Stateful, fit
from medlord_bench.nn.vqgan.training import AutoencoderRecipe
from medlord_bench.util import seeds
from medlord_bench.volumes.native_grid import native_grid, on_native_grid

from .configs import TransformerConfig, VQTransConfig
from .tokens import SPLITS, StoredTokens, TokensFacts, encode_cohort
from .transformer import Transformer, save_transformer


def train(config: VQTransConfig, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
    """Train one stage in `out`; see `contracts.Generator.train`."""
    if stage.name == "tokens":
        return encode_cohort(config, data, inputs, out, run)
    if stage.name == "autoencoder":
        grid = native_grid(data.protocol.grid, config.native(data.protocol.grid.shape), config.fit)
        cohort = on_native_grid(data, grid, config.fit, out / "native")
        recipe = AutoencoderRecipe(config.autoencoder, cohort, run)
        return fit(recipe, Horizon.of(config.autoencoder, stage), out, run, stage.name)
    sequences = StoredTokens(inputs["tokens"], data)
    return fit(
        TransformerRecipe(config.transformer, sequences, run),
        Horizon.of(config.transformer, stage),
        out,
        run,
        stage.name,
    )


class Sequences(Protocol):
    """The cohort's codes."""

    facts: TokensFacts

    def ids(self, split: Split) -> Sequence[str]: ...

    def sequence(self, case_id: str) -> Tensor: ...


class TransformerRecipe:
    """The optimisation of the last stage: a `training.Recipe`."""

    def __init__(self, config: TransformerConfig, data: Sequences, run: Run) -> None:
        self.config, self.data, self.run = config, data, run
        for split in SPLITS:
            if not data.ids(split):
                raise UserError(f"transformer: the {split} split is empty; it needs at least one case")
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive(run.seed, "transformer", "initial weights"))
            self.net = Transformer(config.net, data.facts.codes, prod(data.facts.shape)).to(run.device)
        self.ema = EMA(self.net, config.ema_decay)
        self.optimiser = Optimiser(
            [parameter for parameter in self.net.parameters() if parameter.requires_grad],
            lr=config.lr,
            precision=config.precision,
            clip=config.clip,
            lr_factor=config.lr_factor,
            kind=config.optimiser,
        )

    def stateful(self) -> Mapping[str, Stateful]:
        return {"net": self.net, "ema": self.ema, "optimiser": self.optimiser}

    def batch(self, step: int) -> Tensor:
        """Sequences int64 (batch, N) on the CPU; cases in a new order each epoch."""
        first = step * self.config.batch
        return torch.stack([self.data.sequence(self._case(first + i)) for i in range(self.config.batch)])

    def _case(self, n: int) -> str:
        """The n-th case of the training."""
        cases = self.data.ids("train")
        epoch, place = divmod(n, len(cases))
        order = torch.randperm(len(cases), generator=seeds.torch_rng(self.run.seed, "transformer", "epoch", epoch))
        return cases[int(order[place])]

    def step(self, step: int, batch: Tensor) -> Mapping[str, Tensor | float]:
        self.net.train()
        total, share = torch.zeros((), device=self.run.device), self.config.micro_batch / len(batch)
        parts, ranks = batch.split(self.config.micro_batch), current()
        for number in ranks.parts(len(parts), self.run.seed, "transformer", step):
            with autocast(self.config.precision, self.run.device):
                loss = share * self.net(parts[number].to(self.run.device), self.config.loss_chunk)
            self.optimiser.backward(loss)
            total += loss.detach()
        if self.optimiser.step(step):
            self.ema.update()
        return ranks.total({"loss": total})

    @property
    def micro_batches(self) -> int:
        return self.config.batch // self.config.micro_batch

    @torch.no_grad()
    def validate(self, step: int) -> Mapping[str, float]:
        """Mean cross-entropy of the averaged weights over the validation cases."""
        self.net.eval()
        losses = []
        for case in self.data.ids("val"):
            sequences = self.data.sequence(case)[None].to(self.run.device)
            with autocast(self.config.precision, self.run.device):
                losses.append(functional_call(self.net, self.ema.shadow, (sequences, self.config.loss_chunk)))
        return {"loss": float(torch.stack(losses).double().mean())}

    def export(self, folder: Path) -> None:
        """The averaged weights."""
        averaged = copy.deepcopy(self.net)
        self.ema.copy_to(averaged)
        facts, training = self.data.facts, self.config.model_dump(mode="json", exclude={"net"})
        on_grid = {"grid": list(facts.grid), "fit": facts.fit}
        save_transformer(folder, averaged, averaged.state_dict(), facts.shape, {**on_grid, "training": training})
