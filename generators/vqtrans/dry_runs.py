"""Dry runs of VQ-Trans's work, which predict its memory: each phase with the networks that are on the card then."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from math import prod

import torch
from torch import Tensor

from medlord_bench.contracts import DataProtocol, DryRun, MemoryOption, Run, Shape, Split
from medlord_bench.memory.dry_run import on_host
from medlord_bench.nn.vqgan.dry_runs import (
    CASE,
    recomputed,
    smaller_micro_batches,
    smaller_tiles,
    take_steps,
    train_autoencoder,
)
from medlord_bench.nn.vqgan.network import VQGAN
from medlord_bench.volumes.native_grid import native_grid

from .configs import VQTransConfig
from .drawing import draw, in_precision
from .tokens import TokensFacts, decode, encode, token_shape
from .training import TransformerRecipe
from .transformer import Transformer


def dry_runs(config: VQTransConfig, data: DataProtocol) -> Sequence[DryRun]:
    """Training (if there is any), encoding, sampling, reconstructing."""
    workloads: list[tuple[str, str, Callable[[VQTransConfig, DataProtocol, Run, int], None]]] = []
    workloads += [("train autoencoder", "autoencoder", _train_autoencoder)] if config.autoencoder.steps else []
    workloads += [("encode", "tokens", _encode)]
    workloads += [("train transformer", "transformer", _train_transformer)] if config.transformer.steps else []
    workloads += [("sample", "sample", _sample), ("decode", "sample", _decode)]
    workloads += [("reconstruct", "reconstruct", _reconstruct)]
    return [DryRun(name, during, partial(workload, config, data)) for name, during, workload in workloads]


class _Sequences:
    """`training.Sequences` of one length."""

    def __init__(self, config: VQTransConfig, data: DataProtocol) -> None:
        grid = config.native(data.grid.shape)
        self.facts = TokensFacts(config.autoencoder.net.codes, _shape(config, data), grid, config.fit)

    def ids(self, split: Split) -> Sequence[str]:
        return [CASE]

    def sequence(self, case_id: str) -> Tensor:
        with on_host():
            return torch.zeros(prod(self.facts.shape), dtype=torch.int64)


def _shape(config: VQTransConfig, data: DataProtocol) -> Shape:
    return token_shape(config.native(data.grid.shape), config.autoencoder.net.factor)


def _network(config: VQTransConfig, run: Run) -> VQGAN:
    return VQGAN(config.autoencoder.net).to(run.device).eval().requires_grad_(False)


def _train_autoencoder(config: VQTransConfig, data: DataProtocol, run: Run, times: int) -> None:
    grid = native_grid(data.grid, config.native(data.grid.shape), config.fit)
    train_autoencoder(config.autoencoder, data.model_copy(update={"grid": grid}), run, times)


def _encode(config: VQTransConfig, data: DataProtocol, run: Run, times: int) -> None:
    net, image = _network(config, run), _host_image(config, data)
    for _ in range(times):
        encode(net, image, config.tokens.precision, config.tokens.tile, run.device)


def _train_transformer(config: VQTransConfig, data: DataProtocol, run: Run, times: int) -> None:
    recipe = TransformerRecipe(config.transformer, _Sequences(config, data), run)
    with on_host():
        batch = torch.zeros(config.transformer.batch, prod(_shape(config, data)), dtype=torch.int64)
    take_steps(recipe.step, batch, times)


def _sample(config: VQTransConfig, data: DataProtocol, run: Run, times: int) -> None:
    """The last tokens, after a stop: the cache is at its longest, and filled from all preceding tokens."""
    length = prod(_shape(config, data))
    net = Transformer(config.transformer.net, config.autoencoder.net.codes, length).to(run.device)
    in_precision(net.eval().requires_grad_(False), config.sampling)
    with on_host():
        begun = torch.zeros(run.batch, max(0, length - times), dtype=torch.int64)
    draw(net, range(run.batch), length, config.sampling, begun)


def _decode(config: VQTransConfig, data: DataProtocol, run: Run, times: int) -> None:
    net, sampling = _network(config, run), config.sampling
    with on_host():
        indices = torch.zeros(1, *_shape(config, data), dtype=torch.int64)
    for _ in range(times):
        decode(net, indices, sampling.precision, sampling.tile, run.device)


def _reconstruct(config: VQTransConfig, data: DataProtocol, run: Run, times: int) -> None:
    net, sampling, image = _network(config, run), config.sampling, _host_image(config, data)
    for _ in range(times):
        indices = encode(net, image, sampling.precision, sampling.tile, run.device)
        decode(net, indices, sampling.precision, sampling.tile, run.device)


def _host_image(config: VQTransConfig, data: DataProtocol) -> Tensor:
    with on_host():
        return torch.zeros(1, 1, *config.native(data.grid.shape))


# ------------------------------------------------------------------------------------------------------ memory options
def memory_options(config: VQTransConfig, during: str) -> Sequence[MemoryOption]:
    """Changes that reduce the memory of a stage or purpose, the cheapest first."""
    if during == "autoencoder":
        part = config.autoencoder
        return [*smaller_micro_batches(during, part.batch, part.micro_batch), recomputed("autoencoder.net")]
    if during == "tokens":
        return smaller_tiles("tokens", config.tokens.tile)
    if during == "transformer":
        training = config.transformer
        fused = (
            [MemoryOption({"transformer.net.attention": "auto"}, "none")] if training.net.attention == "math" else []
        )
        smaller = smaller_micro_batches(during, training.batch, training.micro_batch)
        return [*fused, *smaller, recomputed("transformer.net")]
    tiles, single = smaller_tiles("sampling", config.sampling.tile), {"sampling.tokens_precision": "fp32"}
    if during == "reconstruct" or config.sampling.tokens_precision == "fp32":
        return tiles
    return [*tiles, MemoryOption(single, "sometimes the codes of a sample depend on its batch")]
