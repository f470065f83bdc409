"""Sample sequences of codes one token at a time, several samples at once; interrupted sampling can be resumed.

Each sample's noise depends only on its own seed and the position in the sequence, and is drawn on the CPU.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from medlord_bench.errors import Stopped
from medlord_bench.memory.dry_run import is_dry_run
from medlord_bench.util import seeds
from medlord_bench.volumes.arrays import load_state, save_state

from .configs import SamplingConfig
from .transformer import Cache, Transformer

TOKENS_PER_BLOCK = 256  # tokens between two saves; noise is drawn, and the cache refilled, in blocks of this size


class TokenFile:
    """The tokens of one sample so far."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def load(self) -> Tensor:
        """int64 (n,); n = 0 if nothing was saved."""
        if not self.path.exists():
            return torch.zeros(0, dtype=torch.int64)
        return torch.from_numpy(load_state(self.path)["tokens"]).long()

    def save(self, tokens: Tensor) -> None:
        save_state(self.path, {"tokens": tokens.numpy().astype(np.int32)})

    def remove(self) -> None:
        self.path.unlink(missing_ok=True)


def in_precision(net: Transformer, config: SamplingConfig) -> None:
    """Convert the weights to those used for sampling."""
    net.to(torch.float64 if config.tokens_precision == "fp64" else torch.float32)


def draw_saved(
    net: Transformer,
    seeds_of: Sequence[int],
    length: int,
    config: SamplingConfig,
    files: Sequence[TokenFile],
    stop: Callable[[], bool],
) -> Tensor:
    """Sequences int64 (B, length) on the CPU, one per seed, resumed from `files` and saved there.

    Raises `Stopped` between tokens when `stop()` is true.
    """
    saved = [file.load() for file in files]
    begun = min(len(tokens) for tokens in saved)  # all samples are resumed from the shortest

    def save(tokens: Tensor) -> None:
        for file, sequence in zip(files, tokens, strict=True):
            file.save(sequence)

    return draw(net, seeds_of, length, config, torch.stack([s[:begun] for s in saved]), stop, save)


@torch.inference_mode()
def draw(
    net: Transformer,
    seeds_of: Sequence[int],
    length: int,
    config: SamplingConfig,
    begun: Tensor,
    stop: Callable[[], bool] = lambda: False,
    save: Callable[[Tensor], None] = lambda tokens: None,
) -> Tensor:
    """Sequences int64 (B, length) on the CPU that continue `begun` (B, n), sampled on the device and in the precision
    of `net`.

    save: called with the tokens so far (B, m) every `TOKENS_PER_BLOCK`, at a stop, and at the end.
    """
    samples, done = begun.shape
    if done == length:
        return begun
    device = net.to_logits.weight.device
    tokens = torch.full((samples, length + 1), net.codes, device=device)  # the first is not a code
    tokens[:, 1 : done + 1] = begun.to(device)
    cache, noise = net.cache(samples, length), torch.empty(0)
    _bring_back(net, cache, tokens[:, :done])
    for place in range(done, length):
        if stop():
            save(tokens[:, 1 : place + 1].cpu())
            raise Stopped(f"sampling: stopped at token {place} of {length}, saved")
        if place == done or place % TOKENS_PER_BLOCK == 0:
            noise = torch.stack([gumbel(seed, place // TOKENS_PER_BLOCK, net.codes) for seed in seeds_of]).to(device)
        logits = net.logits(tokens[:, place : place + 1], cache, start=place)[:, 0, : net.codes]
        tokens[:, place + 1] = choose(logits.double(), noise[:, place % TOKENS_PER_BLOCK], config)
        if (place + 1) % TOKENS_PER_BLOCK == 0 or place + 1 == length:
            save(tokens[:, 1 : place + 2].cpu())
    return tokens[:, 1:].cpu()


def _bring_back(net: Transformer, cache: Cache, tokens: Tensor) -> None:
    """Fill the cache from existing tokens, one sample and one block at a time to save memory.

    The last block takes the most memory, since it attends to all tokens: a dry run executes only that one.
    """
    starts = range(0, tokens.shape[1], TOKENS_PER_BLOCK)
    for sample in range(len(tokens)):
        for start in starts[-1:] if is_dry_run(tokens) else starts:
            net.hidden(tokens[sample : sample + 1, start : start + TOKENS_PER_BLOCK], cache.of(sample), start)


def gumbel(seed: int, block: int, codes: int) -> Tensor:
    """Standard Gumbel noise (TOKENS_PER_BLOCK, codes) of the tokens of a block: the argmax of logit + noise is a sample
    of softmax."""
    uniform = torch.rand(TOKENS_PER_BLOCK, codes, dtype=torch.float64, generator=seeds.torch_rng(seed, "token", block))
    return -(-uniform.log()).log()


def choose(logits: Tensor, noise: Tensor, config: SamplingConfig) -> Tensor:
    """One code for each row of `logits` (B, K): int64 (B,).

    K codes, without the begin token, which is excluded from `top_k` and has no probability.
    """
    scaled = logits / config.temperature
    if config.top_k is not None:
        least = scaled.topk(min(config.top_k, scaled.shape[1])).values[:, -1:]
        scaled = scaled.masked_fill(scaled < least, float("-inf"))
    if config.top_p is not None:
        ranked = scaled.sort(descending=True).values
        before = ranked.softmax(dim=1).cumsum(dim=1).roll(1, dims=1)  # the probability of those ranked higher
        before[:, 0] = 0
        least = ranked.masked_fill(before >= config.top_p, float("inf")).amin(dim=1, keepdim=True)
        scaled = scaled.masked_fill(scaled < least, float("-inf"))
    return (scaled + noise).argmax(dim=1)
