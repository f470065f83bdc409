"""Training HA-GAN (Sun et al., section III-D; the authors' `train.py` for settings that the paper does not state).

One step updates four times, each network with its own optimiser: the discriminator; the generator, by the adversarial
loss alone; the slab encoder, so that `High` reconstructs the slab; the latent encoder, so that the generator
reconstructs the slab and the whole low-resolution volume.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn.functional import l1_loss, softplus

from medlord_bench.contracts import Cohort, Run, Split, Stage
from medlord_bench.errors import MissingError
from medlord_bench.nn.ema import EMA
from medlord_bench.nn.optimiser import Optimiser, autocast
from medlord_bench.nn.ranks import current
from medlord_bench.nn.training import Horizon, Stateful, fit
from medlord_bench.util import seeds
from medlord_bench.volumes.native_grid import native_grid, on_native_grid

from .configs import STAGE, HAGANConfig, Part
from .images import small, to_cube
from .networks import Discriminator, Generator, LatentEncoder, SlabEncoder, slab
from .weights import save_gan

SPLITS: tuple[Split, ...] = ("train", "val")
VALIDATION_CASES = 8
SLAB_ALIGNMENT_VOXELS = 4  # voxels per feature: a slab that begins in between would be compared with its neighbour


def train(config: HAGANConfig, stage: Stage, data: Cohort, out: Path, run: Run) -> Path:
    """Train the one stage in `out`; see `contracts.Generator.train`."""
    grid = native_grid(data.protocol.grid, config.net.shape, "resize")
    cohort = on_native_grid(data, grid, "resize", out / "native")
    horizon = Horizon.of(config.training, stage)
    return fit(GANRecipe(config, cohort, run), horizon, out, run, stage.name)


@dataclass(frozen=True, eq=False)
class Batch:
    """images: float32 (B, 1, S, S, S). z: (2, B, latent), for the discriminator's step and the generator's.

    first: the first slice of the slab of this step.
    """

    images: Tensor
    z: Tensor
    first: int

    def part(self, start: int, stop: int, device: str) -> Batch:
        """Some of the volumes, on `device`."""
        return Batch(self.images[start:stop].to(device), self.z[:, start:stop].to(device), self.first)


class GANRecipe:
    """The optimisation of the stage: a `training.Recipe`. data: on the networks' cube."""

    def __init__(self, config: HAGANConfig, data: Cohort, run: Run) -> None:
        self.config, self.data, self.run = config, data, run
        self.cases: Mapping[Split, Sequence[str]] = {split: data.ids(split) for split in SPLITS}
        for split, ids in self.cases.items():
            if not ids:
                raise MissingError(f"{data.protocol.name}: no {split} case; give the split at least one")
        self.window = data.protocol.grid.hu_window
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive(run.seed, STAGE, "initial weights"))
            self.generator = Generator(config.net).to(run.device)
            self.discriminator = Discriminator(config.net).to(run.device)
            self.slab_encoder = SlabEncoder(config.net).to(run.device)
            self.latent_encoder = LatentEncoder(config.net).to(run.device)
        self.ema = EMA(self.generator, config.training.ema_decay)
        self.optimisers = {name: self._optimiser(net, name) for name, net in self._networks().items()}

    def _networks(self) -> dict[str, nn.Module]:
        return {
            "discriminator": self.discriminator,
            "generator": self.generator,
            "slab_encoder": self.slab_encoder,
            "latent_encoder": self.latent_encoder,
        }

    def _optimiser(self, net: nn.Module, name: str) -> Optimiser:
        training = self.config.training
        lr = training.lr_d if name == "discriminator" else training.lr
        return Optimiser(
            net.parameters(), lr=lr, betas=training.betas, weight_decay=0.0, precision=training.precision
        )  # without weight decay AdamW is Adam

    def stateful(self) -> Mapping[str, Stateful]:
        optimisers = {f"{name} optimiser": optimiser for name, optimiser in self.optimisers.items()}
        return {**self._networks(), **optimisers, "ema": self.ema}

    # ------------------------------------------------------------------------------------------------------- batches
    def batch(self, step: int) -> Batch:
        """Cases in a new order each epoch; z and slab of a step depend only on its number."""
        size, net = self.config.training.batch, self.config.net
        images = torch.stack([self._image(self._case(step * size + i)) for i in range(size)])
        z = seeds.noise((2, size, net.latent), self.run.seed, STAGE, "z", step)
        places = (net.size - net.thickness) // SLAB_ALIGNMENT_VOXELS + 1
        first = SLAB_ALIGNMENT_VOXELS * int(seeds.numpy_rng(self.run.seed, STAGE, "slab", step).integers(places))
        return Batch(images, z, first)

    def _case(self, n: int) -> str:
        """The n-th case of the training."""
        cases = self.cases["train"]
        epoch, place = divmod(n, len(cases))
        order = torch.randperm(len(cases), generator=seeds.torch_rng(self.run.seed, STAGE, "epoch", epoch))
        return cases[int(order[place])]

    def _image(self, case_id: str) -> Tensor:
        return to_cube(np.asarray(self.data.hu(case_id)), self.window)

    # ------------------------------------------------------------------------------------------------------ training
    def step(self, step: int, batch: Batch) -> Mapping[str, Tensor | float]:
        losses: Mapping[str, tuple[Callable[[Batch], Tensor], int]] = {
            "discriminator": (self._discriminator_loss, 2),
            "generator": (self._generator_loss, 1),
            "slab_encoder": (self._slab_loss, 0),
            "latent_encoder": (self._latent_loss, 0),
        }
        figures = {}
        for name, (loss, passes) in losses.items():
            for other, net in self._networks().items():
                net.requires_grad_(other == name)
            figures[name] = self._update(step, self.optimisers[name], loss, passes, batch)
        self.generator.requires_grad_(True)
        self.ema.update()
        return current().total(figures)

    @property
    def micro_batches(self) -> int:
        return self.config.training.batch // self.config.training.micro_batch

    def _update(
        self, step: int, optimiser: Optimiser, loss: Callable[[Batch], Tensor], passes: int, batch: Batch
    ) -> Tensor:
        """One step of one network. passes: of the discriminator, in the loss of a micro-batch."""
        part, done = self.config.training.micro_batch, 0
        total = torch.zeros((), device=self.run.device)
        for number in current().parts(self.micro_batches, self.run.seed, STAGE, step):
            self.discriminator.skip(passes * (number - done))
            with autocast(self.config.training.precision, self.run.device):
                share = loss(batch.part(number * part, (number + 1) * part, self.run.device)) / self.micro_batches
            optimiser.backward(share)
            total += share.detach()
            done = number + 1
        self.discriminator.skip(passes * (self.micro_batches - done))
        optimiser.step(step)
        return total

    def _part_of(self, batch: Batch) -> Tensor:
        """The real slab."""
        return slab(batch.images, batch.first, self.config.net.thickness)

    def _discriminator_loss(self, batch: Batch) -> Tensor:
        """Binary cross-entropy on logits: real up, generated down."""
        real = self.discriminator(self._part_of(batch), small(batch.images), batch.first)
        made = self.discriminator(*self.generator(batch.z[0], batch.first), batch.first)
        return (softplus(-real) + softplus(made)).mean()

    def _generator_loss(self, batch: Batch) -> Tensor:
        made = self.discriminator(*self.generator(batch.z[1], batch.first), batch.first)
        return softplus(-made).mean()

    def _slab_loss(self, batch: Batch) -> Tensor:
        part = self._part_of(batch)
        return l1_loss(self.generator.high(self.slab_encoder(part)), part)

    def _latent_loss(self, batch: Batch) -> Tensor:
        with torch.no_grad():
            features = self.slab_encoder.whole(batch.images)
        part, whole = self.generator(self.latent_encoder(features), batch.first)
        return (l1_loss(part, self._part_of(batch)) + l1_loss(whole, small(batch.images))) / 2

    @torch.no_grad()
    def validate(self, step: int) -> Mapping[str, float]:
        """Reconstruction error of unseen volumes through z, and of slabs through the features; both L1.

        It shows whether the encoders and the features learn, but not the realism of samples.
        """
        for net in self._networks().values():
            net.eval()
        losses, parts = [], []
        for case in self.cases["val"][:VALIDATION_CASES]:
            image = self._image(case)[None].to(self.run.device)
            middle = SLAB_ALIGNMENT_VOXELS * (
                (self.config.net.size - self.config.net.thickness) // (2 * SLAB_ALIGNMENT_VOXELS)
            )
            batch = Batch(image, torch.zeros(0), middle)
            with autocast(self.config.training.precision, self.run.device):
                losses.append(self._latent_loss(batch))
                parts.append(self._slab_loss(batch))
        for net in self._networks().values():
            net.train()
        return {"loss": float(torch.stack(losses).mean()), "slab": float(torch.stack(parts).mean())}

    def export(self, folder: Path) -> None:
        """The averaged generator, and the encoders."""
        parts: dict[Part, Mapping[str, Tensor]] = {
            "generator": self.ema.shadow,
            "slab_encoder": self.slab_encoder.state_dict(),
            "latent_encoder": self.latent_encoder.state_dict(),
        }
        training = self.config.training.model_dump(mode="json")
        save_gan(folder, self.config.net, self.window, parts, {"training": training})
