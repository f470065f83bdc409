"""HA-GAN's work, acted out to see what memory it takes."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from medlord_bench.contracts import DataProtocol, Rehearsal, Run, Saving
from medlord_bench.memory.rehearsal import on_host
from medlord_bench.nn.vqgan.rehearsals import UnreadCohort, smaller_micro_batches

from .configs import STAGE, HAGANConfig
from .networks import Generator, LatentEncoder, SlabEncoder
from .sampling import encoded, volume
from .training import Batch, GANRecipe


def rehearsals(config: HAGANConfig, data: DataProtocol) -> Sequence[Rehearsal]:
    """Training (where there is any), sampling, reconstructing."""
    acts: list[tuple[str, str, Callable[[HAGANConfig, DataProtocol, Run, int], None]]] = []
    acts += [("train GAN", STAGE, _train)] if config.training.steps else []
    acts += [("sample", "sample", _sample), ("reconstruct", "reconstruct", _reconstruct)]
    return [Rehearsal(name, during, partial(act, config, data)) for name, during, act in acts]


def _train(config: HAGANConfig, data: DataProtocol, run: Run, times: int) -> None:
    recipe = GANRecipe(config, UnreadCohort(data), run)
    size = config.training.batch
    with on_host():
        batch = Batch(torch.zeros(size, 1, *config.net.shape), torch.zeros(2, size, config.net.latent), 0)
    for step in range(times):
        recipe.step(step, batch)


def _sample(config: HAGANConfig, data: DataProtocol, run: Run, times: int) -> None:
    generator = Generator(config.net).to(run.device).eval().requires_grad_(False)
    for _ in range(times):
        volume(generator, torch.zeros(1, config.net.latent, device=run.device), config.sampling.precision)


def _reconstruct(config: HAGANConfig, data: DataProtocol, run: Run, times: int) -> None:
    generator, encoders = Generator(config.net), (SlabEncoder(config.net), LatentEncoder(config.net))
    for network in (generator, *encoders):
        network.to(run.device).eval().requires_grad_(False)
    image = torch.zeros(1, 1, *config.net.shape, device=run.device)
    for _ in range(times):
        z = encoded(encoders, image, config.sampling.precision)
        volume(generator, z, config.sampling.precision)


def savings(config: HAGANConfig, during: str) -> Sequence[Saving]:
    """What would make a stage or purpose fit, the cheapest first."""
    training = config.training
    if during == STAGE:
        mixed = [Saving({"training.precision": "bf16"}, "rounding")] if training.precision == "fp32" else []
        return [*smaller_micro_batches("training", training.batch, training.micro_batch), *mixed]
    return [Saving({"sampling.precision": "fp16"}, "rounding")] if config.sampling.precision == "fp32" else []
