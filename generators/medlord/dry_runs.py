"""Dry runs of MedLoRD, which predict its memory. Each one holds the networks that are on the GPU at that time."""

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

from .conditioning import ControlNetRecipe
from .configs import MedLoRDConfig, UNetConfig
from .controlnet import ControlNet, build_controlnet
from .diffusion import Diffusion, DiffusionRecipe, sample_latents
from .unet import build_unet


def dry_runs(config: MedLoRDConfig, data: DataProtocol) -> Sequence[DryRun]:
    """Dry runs of training (if there is any), encoding, sampling and reconstruction."""
    workloads: list[tuple[str, str, Callable[[MedLoRDConfig, DataProtocol, Run, int], None]]] = []
    if config.pretrained is None:
        workloads += [("train autoencoder", "autoencoder", _train_autoencoder)] if config.autoencoder.steps else []
    workloads += [("encode", "latents", _encode)]
    if config.pretrained is None:
        workloads += [("train diffusion", "diffusion", _train_diffusion)] if config.diffusion.steps else []
    workloads += [("sample", "sample", _sample), ("decode", "sample", _decode)]
    if data.condition_regions and config.pretrained is None:
        workloads += [("train ControlNet", "controlnet", _train_controlnet)] if config.controlnet.steps else []
        workloads += [("sample to masks", "sample-conditional", _sample_conditional)]
    workloads += [("reconstruct", "reconstruct", _reconstruct)]
    return [DryRun(name, during, partial(workload, config, data)) for name, during, workload in workloads]


def _latent_shape(config: MedLoRDConfig, data: DataProtocol) -> tuple[int, int, int, int]:
    x, y, z = (side // config.autoencoder.net.factor for side in data.grid.shape)
    return config.autoencoder.net.dim, x, y, z


def _train_autoencoder(config: MedLoRDConfig, data: DataProtocol, run: Run, times: int) -> None:
    train_autoencoder(config.autoencoder, data, run, times)


def _encode(config: MedLoRDConfig, data: DataProtocol, run: Run, times: int) -> None:
    encode_volume(config.autoencoder.net, config.latents, data.grid.shape, run, times)


def _train_diffusion(config: MedLoRDConfig, data: DataProtocol, run: Run, times: int) -> None:
    shape = _latent_shape(config, data)
    train_latents(DiffusionRecipe(config.diffusion, MadeLatents(shape), run), shape, (), times)


def _train_controlnet(config: MedLoRDConfig, data: DataProtocol, run: Run, times: int) -> None:
    shape = _latent_shape(config, data)
    recipe = ControlNetRecipe(
        config.controlnet,
        _diffusion(config, shape[1:], run),
        MadeLatents(shape),
        UnreadCohort(data),
        config.autoencoder.net.factor,
        run,
    )
    masks = (len(data.condition_regions), *data.grid.shape)
    train_latents(recipe, shape, [(masks, torch.bool)], times)


def _sample(config: MedLoRDConfig, data: DataProtocol, run: Run, times: int) -> None:
    shape = _latent_shape(config, data)
    _draw(config, _diffusion(config, shape[1:], run), None, None, run, times)


def _sample_conditional(config: MedLoRDConfig, data: DataProtocol, run: Run, times: int) -> None:
    shape, regions = _latent_shape(config, data), len(data.condition_regions)
    factor = config.autoencoder.net.factor
    control = build_controlnet(config.controlnet.net, _unet_config(config), regions, factor, run.device)
    with on_host():
        masks = torch.zeros(run.batch, regions, *data.grid.shape, dtype=torch.bool)
    control.eval().requires_grad_(False)
    _draw(config, _diffusion(config, shape[1:], run), control, masks, run, times)


def _draw(
    config: MedLoRDConfig,
    diffusion: Diffusion,
    control: ControlNet | None,
    masks: torch.Tensor | None,
    run: Run,
    times: int,
) -> None:
    assert diffusion.latent_shape is not None
    sample_latents(
        diffusion.unet,
        diffusion.schedule,
        list(range(run.batch)),
        diffusion.latent_shape,
        min(times, config.diffusion.timesteps),
        run.device,
        config.sampling.precision,
        control,
        masks,
    )


def _decode(config: MedLoRDConfig, data: DataProtocol, run: Run, times: int) -> None:
    sampling = config.sampling
    decode_latent(config.autoencoder.net, sampling.precision, sampling.tile, data.grid.shape, run, times)


def _reconstruct(config: MedLoRDConfig, data: DataProtocol, run: Run, times: int) -> None:
    sampling = config.sampling
    reconstruct_volume(config.autoencoder.net, sampling.precision, sampling.tile, data.grid.shape, run, times)


def _diffusion(config: MedLoRDConfig, shape: Shape, run: Run) -> Diffusion:
    unet = build_unet(_unet_config(config), run.device)
    return Diffusion(unet.eval().requires_grad_(False), CosineSchedule(config.diffusion.timesteps), shape, 1.0)


def _unet_config(config: MedLoRDConfig) -> UNetConfig:
    chosen: dict[str, Any] = {} if config.sampling.attention is None else {"attention": config.sampling.attention}
    return config.diffusion.net.model_copy(update=chosen)


# ------------------------------------------------------------------------------------------------------ memory options
def memory_options(config: MedLoRDConfig, during: str) -> Sequence[MemoryOption]:
    """Changes that reduce the memory of a stage or purpose, the cheapest first."""
    if during == "autoencoder":
        return _of_training("autoencoder", config.autoencoder.batch, config.autoencoder.micro_batch)
    if during == "latents":
        return smaller_tiles("latents", config.latents.tile)
    if during == "diffusion":
        return [*fused_attention("diffusion.net", config.diffusion.net.attention), *_of_diffusion(config)]
    if during == "controlnet":
        parts = config.controlnet.parts_of
        return [*smaller_micro_batches("controlnet", config.controlnet.batch, parts), recomputed("diffusion.net")]
    return [
        *fused_attention("sampling", config.sampling.attention or "auto"),
        *smaller_tiles("sampling", config.sampling.tile),
    ]


def _of_diffusion(config: MedLoRDConfig) -> list[MemoryOption]:
    return _of_training("diffusion", config.diffusion.batch, config.diffusion.parts_of)


def _of_training(part: str, batch: int, micro_batch: int) -> list[MemoryOption]:
    return [*smaller_micro_batches(part, batch, micro_batch), recomputed(f"{part}.net")]
