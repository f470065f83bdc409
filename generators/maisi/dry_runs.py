"""Dry runs of MAISI, which predict its memory. Each one holds the networks that are on the GPU at that time."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

import torch

from medlord_bench.contracts import DataProtocol, DryRun, MemoryOption, Run, Shape
from medlord_bench.memory.dry_run import on_host
from medlord_bench.nn.diffusion.dry_runs import MadeLatents, fused_attention, train_latents
from medlord_bench.nn.losses import Perceptual
from medlord_bench.nn.vqgan.dry_runs import UnreadCohort, recomputed, smaller_micro_batches, take_steps

from .autoencoder import Autoencoder, AutoencoderRecipe, for_precision
from .configs import DiffusionConfig, MAISIConfig, TilingConfig
from .control import ControlNetRecipe
from .diffusion import Diffusion, DiffusionRecipe, make_schedule, sample_latents
from .latents import decode, encode
from .unet import bit_planes, build_controlnet, build_unet

MM = (1.0, 1.0, 1.0)


def dry_runs(config: MAISIConfig, data: DataProtocol) -> Sequence[DryRun]:
    """Dry runs of training (if there is any), encoding, sampling and reconstruction."""
    workloads: list[tuple[str, str, Callable[[MAISIConfig, DataProtocol, Run, int], None]]] = []
    if config.foundation is None and config.autoencoder.steps:
        workloads += [("train autoencoder", "autoencoder", _train_autoencoder)]
    workloads += [("encode", "latents", _encode)]
    workloads += [("train diffusion", "diffusion", _train_diffusion)] if config.diffusion.steps else []
    workloads += [("sample", "sample", _sample), ("decode", "sample", _decode)]
    if data.condition_regions:
        workloads += [("train ControlNet", "controlnet", _train_controlnet)] if config.controlnet.steps else []
        workloads += [("sample to masks", "sample-conditional", _sample_conditional)]
    workloads += [("reconstruct", "reconstruct", _reconstruct)]
    return [DryRun(name, during, partial(workload, config, data)) for name, during, workload in workloads]


class _Latents(MadeLatents):
    """`SpacedLatents` of one shape."""

    spacing_of_a_sample = MM

    def spacing(self, case_id: str) -> torch.Tensor:
        return torch.ones(3)


class _AutoencoderRecipe(AutoencoderRecipe):
    def _perceptual(self) -> Perceptual:
        loss = Perceptual(None, self.config.perceptual_slices)  # the weights affect neither memory nor time
        return loss.to(self.device)


def _grid(config: MAISIConfig, data: DataProtocol) -> Shape:
    return config.native(data.grid.shape)


def _latent_shape(config: MAISIConfig, data: DataProtocol) -> tuple[int, int, int, int]:
    x, y, z = (side // config.autoencoder.net.factor for side in _grid(config, data))
    return config.autoencoder.net.latent_channels, x, y, z


def _train_autoencoder(config: MAISIConfig, data: DataProtocol, run: Run, times: int) -> None:
    recipe = _AutoencoderRecipe(config.autoencoder, UnreadCohort(data), config.hu_window, run)
    with on_host():
        batch = torch.rand(config.autoencoder.batch, 1, *config.autoencoder.patch)
    take_steps(recipe.step, batch, times)


def _encode(config: MAISIConfig, data: DataProtocol, run: Run, times: int) -> None:
    _pass(config, data, config.latents, run, encodes=True)


def _train_diffusion(config: MAISIConfig, data: DataProtocol, run: Run, times: int) -> None:
    shape = _latent_shape(config, data)
    recipe = DiffusionRecipe(config.diffusion, _Latents(shape), config.autoencoder.net.latent_channels, run)
    train_latents(recipe, shape, [((3,), torch.float32)], times)


def _train_controlnet(config: MAISIConfig, data: DataProtocol, run: Run, times: int) -> None:
    shape, diffusion = _latent_shape(config, data), _diffusion(config, run, config.diffusion)
    grid, cohort = _grid(config, data), UnreadCohort(data)
    recipe = ControlNetRecipe(config.controlnet, diffusion, _Latents(shape), cohort, grid, run)
    train_latents(recipe, shape, [((3,), torch.float32), (grid, torch.uint8)], times)


def _sample(config: MAISIConfig, data: DataProtocol, run: Run, times: int) -> None:
    _draw(config, data, run, times, conditional=False)


def _sample_conditional(config: MAISIConfig, data: DataProtocol, run: Run, times: int) -> None:
    _draw(config, data, run, times, conditional=True)


def _draw(config: MAISIConfig, data: DataProtocol, run: Run, times: int, conditional: bool) -> None:
    channels, x, y, z = _latent_shape(config, data)
    asked = _as_sampled(config)
    control = None
    if conditional:
        control = build_controlnet(asked, config.controlnet.embedding_channels, channels, run.device)
        control.eval().requires_grad_(False)
    sample_latents(
        _diffusion(config, run, asked),
        list(range(run.batch)),
        (x, y, z),
        [MM] * run.batch,
        min(times, config.diffusion.timesteps),
        run.device,
        config.sampling.precision,
        control,
        [partial(_planes, _grid(config, data), run.device)] * run.batch if conditional else [],
    )


def _planes(shape: Shape, device: str) -> torch.Tensor:
    with on_host():
        labels = torch.zeros(1, *shape, dtype=torch.uint8)
    return bit_planes(labels.to(device))


def _decode(config: MAISIConfig, data: DataProtocol, run: Run, times: int) -> None:
    _pass(config, data, config.sampling, run, encodes=False)


def _reconstruct(config: MAISIConfig, data: DataProtocol, run: Run, times: int) -> None:
    _pass(config, data, config.sampling, run, encodes=True)
    _pass(config, data, config.sampling, run, encodes=False)


def _pass(config: MAISIConfig, data: DataProtocol, tiling: TilingConfig, run: Run, *, encodes: bool) -> None:
    """Encode or decode one volume. Two windows per axis need as much memory as any larger number."""
    net = for_precision(Autoencoder(config.autoencoder.net).to(run.device), run.device, tiling.precision)
    net.eval().requires_grad_(False)
    channels, *sides = _latent_shape(config, data)
    x, y, z = (min(side, 2 * tile) for side, tile in zip(sides, tiling.tile, strict=True))
    factor = config.autoencoder.net.factor
    with on_host():
        image = torch.zeros(1, 1, x * factor, y * factor, z * factor)
        latent = torch.zeros(1, channels, x, y, z)
    if encodes:  # once: nothing of a volume is kept for the next
        encode(net, image, tiling, run.device)
    else:
        decode(net, latent, tiling, run.device)


def _diffusion(config: MAISIConfig, run: Run, asked: DiffusionConfig) -> Diffusion:
    unet = build_unet(asked, config.autoencoder.net.latent_channels, run.device)
    return Diffusion(unet.eval().requires_grad_(False), make_schedule(asked), 1.0, MM)


def _as_sampled(config: MAISIConfig) -> DiffusionConfig:
    """The diffusion stage's configuration with the attention kernel of sampling."""
    if config.sampling.attention is None:
        return config.diffusion
    net = config.diffusion.net.model_copy(update={"attention": config.sampling.attention})
    return config.diffusion.model_copy(update={"net": net})


# ------------------------------------------------------------------------------------------------------ memory options
def memory_options(config: MAISIConfig, during: str) -> Sequence[MemoryOption]:
    """Changes that reduce the memory of a stage or purpose, the cheapest first."""
    if during == "autoencoder":
        batches = smaller_micro_batches("autoencoder", config.autoencoder.batch, config.autoencoder.micro_batch)
        return [*batches, recomputed("autoencoder.net"), *_splits(config)]
    if during == "diffusion":
        batches = smaller_micro_batches("diffusion", config.diffusion.batch, config.diffusion.parts_of)
        return [
            *fused_attention("diffusion.net", config.diffusion.net.attention),
            *batches,
            recomputed("diffusion.net"),
        ]
    if during == "controlnet":
        batches = smaller_micro_batches("controlnet", config.controlnet.batch, config.controlnet.parts_of)
        return [*batches, recomputed("diffusion.net")]
    part = "latents" if during == "latents" else "sampling"
    fused = [] if part == "latents" else fused_attention("sampling", config.sampling.attention or "auto")
    return [*fused, *_splits(config), *_tiles(part, config.latents.tile if part == "latents" else config.sampling.tile)]


def _splits(config: MAISIConfig) -> list[MemoryOption]:
    net, width = config.autoencoder.net, config.autoencoder.patch[1] // config.autoencoder.net.factor
    more = [parts for parts in (2, 4, 8) if parts > net.num_splits]
    more = [parts for parts in more if net.model_copy(update={"num_splits": parts}).takes(width)]
    return [
        MemoryOption({"autoencoder.net.num_splits": parts}, "borders of parts are computed twice") for parts in more
    ]


def _tiles(part: str, tile: Shape) -> list[MemoryOption]:
    smaller = [size for size in ((80, 80, 32), (64, 64, 32), (48, 48, 32)) if prod(size) < prod(tile)]
    cost = "a different result: group norms are computed on smaller windows; more windows overlap"
    return [MemoryOption({f"{part}.tile": size}, cost) for size in smaller]
