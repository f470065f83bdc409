"""Dry runs of HA-GAN's work, which predict its memory."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial

import torch

from medlord_bench.contracts import DataProtocol, DryRun, MemoryOption, Run
from medlord_bench.memory.dry_run import on_host
from medlord_bench.nn.vqgan.dry_runs import UnreadCohort, smaller_micro_batches, take_steps

from .configs import STAGE, HAGANConfig
from .networks import Generator, LatentEncoder, SlabEncoder
from .sampling import encoded, volume
from .training import Batch, GANRecipe


def dry_runs(config: HAGANConfig, data: DataProtocol) -> Sequence[DryRun]:
    """Training (if there is any), sampling, reconstructing."""
    workloads: list[tuple[str, str, Callable[[HAGANConfig, DataProtocol, Run, int], None]]] = []
    workloads += [("train GAN", STAGE, _train)] if config.training.steps else []
    workloads += [("sample", "sample", _sample), ("reconstruct", "reconstruct", _reconstruct)]
    return [DryRun(name, during, partial(workload, config, data)) for name, during, workload in workloads]


def _train(config: HAGANConfig, data: DataProtocol, run: Run, times: int) -> None:
    recipe = GANRecipe(config, UnreadCohort(data), run)
    size = config.training.batch
    with on_host():
        batch = Batch(torch.zeros(size, 1, *config.net.shape), torch.zeros(2, size, config.net.latent), 0)
    take_steps(recipe.step, batch, times)


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


def memory_options(config: HAGANConfig, during: str) -> Sequence[MemoryOption]:
    """Changes that reduce the memory of a stage or purpose, the cheapest first."""
    training = config.training
    if during == STAGE:
        mixed = [MemoryOption({"training.precision": "bf16"}, "rounding")] if training.precision == "fp32" else []
        return [*smaller_micro_batches("training", training.batch, training.micro_batch), *mixed]
    return [MemoryOption({"sampling.precision": "fp16"}, "rounding")] if config.sampling.precision == "fp32" else []
