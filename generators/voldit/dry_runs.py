"""Dry runs of VolDiT, which predict its memory. Each one holds the networks that are on the GPU at that time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

import torch

from medlord_bench.contracts import DataProtocol, DryRun, MemoryOption, Run, Shape
from medlord_bench.memory.dry_run import on_host
from medlord_bench.nn.diffusion.dry_runs import MadeLatents, fused_attention, train_latents
from medlord_bench.nn.diffusion.schedules import CosineSchedule
from medlord_bench.nn.vqgan.dry_runs import (
    UnreadCohort,
    decode_latent,
    encode_volume,
    recomputed,
    reconstruct_volume,
    smaller_micro_batches,
    smaller_tiles,
    train_autoencoder,
)
from medlord_bench.nn.vqgan.volumes import latent_shape

from .adapter import TGCA
from .conditioning import TGCARecipe
from .configs import DiTConfig, VolDiTConfig
from .diffusion import Diffusion, DiffusionRecipe, sample_latents
from .transformer import build_transformer


def dry_runs(config: VolDiTConfig, data: DataProtocol) -> Sequence[DryRun]:
    """Dry runs of training (if there is any), encoding, sampling and reconstruction."""
    trains = config.pretrained is None
    workloads: list[tuple[str, str, Callable[[VolDiTConfig, DataProtocol, Run, int], None]]] = []
    workloads += [("train autoencoder", "autoencoder", _autoencoder)] if trains and config.autoencoder.steps else []
    workloads += [("encode", "latents", _encode)]
    workloads += [("train diffusion", "diffusion", _train_diffusion)] if trains and config.diffusion.steps else []
    workloads += [("sample", "sample", _sample), ("decode", "sample", _decode)]
    if data.condition_regions and trains:
        workloads += [("train TGCA", "tgca", _train_tgca)] if config.tgca.steps else []
        workloads += [("sample to masks", "sample-conditional", _sample_conditional)]
    workloads += [("reconstruct", "reconstruct", _reconstruct)]
    return [DryRun(name, during, partial(workload, config, data)) for name, during, workload in workloads]


def _latents(config: VolDiTConfig, data: DataProtocol) -> Shape:
    return latent_shape(data.grid.shape, config.autoencoder.net.factor)


def _autoencoder(config: VolDiTConfig, data: DataProtocol, run: Run, times: int) -> None:
    train_autoencoder(config.autoencoder, data, run, times)


def _encode(config: VolDiTConfig, data: DataProtocol, run: Run, times: int) -> None:
    encode_volume(config.autoencoder.net, config.latents, data.grid.shape, run, times)


def _train_diffusion(config: VolDiTConfig, data: DataProtocol, run: Run, times: int) -> None:
    shape = (config.autoencoder.net.dim, *_latents(config, data))
    train_latents(DiffusionRecipe(config.diffusion, MadeLatents(shape), run), shape, (), times)


def _train_tgca(config: VolDiTConfig, data: DataProtocol, run: Run, times: int) -> None:
    shape = (config.autoencoder.net.dim, *_latents(config, data))
    recipe = TGCARecipe(config.tgca, _diffusion(config, data, run), MadeLatents(shape), UnreadCohort(data), run)
    masks = (len(data.condition_regions), *data.grid.shape)
    train_latents(recipe, shape, [(masks, torch.bool)], times)


def _sample(config: VolDiTConfig, data: DataProtocol, run: Run, times: int) -> None:
    _draw(config, _diffusion(config, data, run), None, None, run, times)


def _sample_conditional(config: VolDiTConfig, data: DataProtocol, run: Run, times: int) -> None:
    diffusion, regions = _diffusion(config, data, run), len(data.condition_regions)
    tgca = TGCA(config.tgca.net, diffusion.net.config, regions, diffusion.shape).to(run.device)
    with on_host():
        masks = torch.zeros(run.batch, regions, *data.grid.shape, dtype=torch.bool)
    _draw(config, diffusion, tgca.eval().requires_grad_(False), masks, run, times)


def _draw(
    config: VolDiTConfig, diffusion: Diffusion, tgca: TGCA | None, masks: torch.Tensor | None, run: Run, times: int
) -> None:
    steps = min(times, config.diffusion.timesteps)
    precision = config.sampling.precision
    sample_latents(diffusion, range(run.batch), diffusion.shape, steps, run.device, precision, tgca, masks)


def _decode(config: VolDiTConfig, data: DataProtocol, run: Run, times: int) -> None:
    sampling = config.sampling
    decode_latent(config.autoencoder.net, sampling.precision, sampling.tile, data.grid.shape, run, times)


def _reconstruct(config: VolDiTConfig, data: DataProtocol, run: Run, times: int) -> None:
    sampling = config.sampling
    reconstruct_volume(config.autoencoder.net, sampling.precision, sampling.tile, data.grid.shape, run, times)


def _diffusion(config: VolDiTConfig, data: DataProtocol, run: Run) -> Diffusion:
    shape = _latents(config, data)
    net = build_transformer(_net(config), shape, run.device).eval().requires_grad_(False)
    return Diffusion(net, CosineSchedule(config.diffusion.timesteps), shape, 1.0)


def _net(config: VolDiTConfig) -> DiTConfig:
    chosen: dict[str, Any] = {} if config.sampling.attention is None else {"attention": config.sampling.attention}
    return config.diffusion.net.model_copy(update=chosen)


# ------------------------------------------------------------------------------------------------------ memory options
def memory_options(config: VolDiTConfig, during: str) -> Sequence[MemoryOption]:
    """Changes that reduce the memory of a stage or purpose, the cheapest first."""
    if during == "autoencoder":
        return _of_training(during, config.autoencoder.batch, config.autoencoder.micro_batch, "autoencoder.net")
    if during == "latents":
        return smaller_tiles("latents", config.latents.tile)
    if during in ("diffusion", "tgca"):
        part = config.diffusion if during == "diffusion" else config.tgca
        fused = fused_attention("diffusion.net", config.diffusion.net.attention)
        return [*fused, *_of_training(during, part.batch, part.parts_of, "diffusion.net")]
    return [
        *fused_attention("sampling", config.sampling.attention or "auto"),
        *smaller_tiles("sampling", config.sampling.tile),
    ]


def _of_training(part: str, batch: int, micro_batch: int, net: str) -> list[MemoryOption]:
    return [*smaller_micro_batches(part, batch, micro_batch), recomputed(net)]
