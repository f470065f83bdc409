"""The decoder-only transformer on codes, its cache of keys and values, and its weights on disk.

Parameters carry the names of `monai.networks.nets.DecoderOnlyTransformer`, so its checkpoints load unchanged, except
for the causal masks that it stores (a full matrix for each block); here no mask is stored. A sequence begins with a
begin token K; the codes are 0..K-1.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from medlord_bench.contracts import Shape
from medlord_bench.errors import UserError
from medlord_bench.nn.attention import attention, resolve
from medlord_bench.nn.checkpoints import load_model, load_strict, save_model

from .configs import TransformerNetConfig

KIND = "vqtrans.transformer"


@dataclass(frozen=True, eq=False)
class LayerCache:
    """Keys and values (B, heads, N, d) of one block, filled before `start`."""

    keys: Tensor
    values: Tensor
    start: int

    def extended(self, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """Write keys and values of the next tokens (B, heads, n, d) in place and return all so far."""
        stop = self.start + key.shape[2]
        self.keys[:, :, self.start : stop] = key
        self.values[:, :, self.start : stop] = value
        return self.keys[:, :, :stop], self.values[:, :, :stop]


@dataclass(frozen=True, eq=False)
class Cache:
    """Keys and values (depth, B, heads, N, d) of all blocks, allocated once for whole sequences."""

    keys: Tensor
    values: Tensor

    def layer(self, index: int, start: int) -> LayerCache:
        return LayerCache(self.keys[index], self.values[index], start)

    def of(self, sample: int) -> Cache:
        """The view of one sample; writes affect the whole cache."""
        return Cache(self.keys[:, sample : sample + 1], self.values[:, sample : sample + 1])


class CausalAttention(nn.Module):
    """Self-attention of each token to itself and the preceding tokens."""

    def __init__(self, config: TransformerNetConfig) -> None:
        super().__init__()
        self.heads, self.backend = config.heads, config.attention
        self.to_q, self.to_k, self.to_v = (nn.Linear(config.dim, config.dim, bias=False) for _ in range(3))
        self.out_proj = nn.Linear(config.dim, config.dim)

    def forward(self, x: Tensor, past: LayerCache | None) -> Tensor:
        """(B, n, C) to (B, n, C). past: cached keys and values of earlier tokens.

        With it attention is explicit: for few tokens the scores are small, and no fused kernel supports float64.
        """
        query, key, value = (self._heads(project(x)) for project in (self.to_q, self.to_k, self.to_v))
        if past is None:
            mixed = attention(query, key, value, resolve(self.backend, x.device), is_causal=True)
        else:
            mixed = attention(query, *past.extended(key, value), "math", is_causal=query.shape[2] > 1)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out

    def _heads(self, x: Tensor) -> Tensor:
        return x.unflatten(2, (self.heads, -1)).transpose(1, 2)  # (B, n, C) -> (B, heads, n, d)


class MLP(nn.Module):
    """MLP with a hidden layer of four times the width."""

    def __init__(self, dim: int) -> None:
        super().__init__()
        self.linear1, self.linear2 = nn.Linear(dim, 4 * dim), nn.Linear(4 * dim, dim)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.linear2(functional.gelu(self.linear1(x)))
        return out


class Block(nn.Module):
    """Attention and MLP, each on normalised inputs and added to them."""

    def __init__(self, config: TransformerNetConfig) -> None:
        super().__init__()
        self.mlp, self.norm1 = MLP(config.dim), nn.LayerNorm(config.dim)
        self.attn, self.norm2 = CausalAttention(config), nn.LayerNorm(config.dim)
        # MONAI has this norm also without cross-attention, where it is unused: kept for the names, never trained.
        self.norm_cross_attn = nn.LayerNorm(config.dim).requires_grad_(False)

    def forward(self, x: Tensor, past: LayerCache | None) -> Tensor:
        x = x + self.attn(self.norm1(x), past)
        out: Tensor = x + self.mlp(self.norm2(x))
        return out


class Transformer(nn.Module):
    """Tokens int64 (B, n), each 0..K, to logits of the token that follows each, (B, n, K + 1).

    codes: K. positions: the longest sequence, the first token included.
    """

    def __init__(self, config: TransformerNetConfig, codes: int, positions: int) -> None:
        super().__init__()
        self.config, self.codes, self.positions = config, codes, positions
        self.token_embeddings = nn.Embedding(codes + 1, config.dim)
        self.position_embeddings = nn.ModuleDict({"embedding": nn.Embedding(positions, config.dim)})
        self.blocks = nn.ModuleList(Block(config) for _ in range(config.depth))
        self.to_logits = nn.Linear(config.dim, codes + 1)

    def forward(self, sequences: Tensor, chunk: int) -> Tensor:
        """Mean cross-entropy in nats of every token of `sequences` (B, N), codes in 0..K-1, given the preceding
        ones."""
        first = torch.full_like(sequences[:, :1], self.codes)
        hidden = self.hidden(torch.cat([first, sequences[:, :-1]], dim=1))
        return chunked_cross_entropy(hidden, self.to_logits, sequences, chunk)

    def logits(self, tokens: Tensor, cache: Cache | None = None, start: int = 0) -> Tensor:
        """Logits of the token that follows each, (B, n, K + 1); see `hidden`."""
        out: Tensor = self.to_logits(self.hidden(tokens, cache, start))
        return out

    def hidden(self, tokens: Tensor, cache: Cache | None = None, start: int = 0) -> Tensor:
        """The input of the logits, (B, n, C), for tokens (B, n) at positions start, start + 1, ...

        cache: has keys and values of the tokens before `start`, and receives those of these tokens.
        """
        places = torch.arange(start, start + tokens.shape[1], device=tokens.device)
        x = self.token_embeddings(tokens) + self.position_embeddings["embedding"](places)
        for index, block in enumerate(self.blocks):
            past = None if cache is None else cache.layer(index, start)
            if self.config.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, past, use_reentrant=False, preserve_rng_state=False)
            else:
                x = block(x, past)
        return x

    def cache(self, samples: int, tokens: int) -> Cache:
        """An empty cache for sequences of `tokens`, on the weights' device and of their type."""
        heads, like = self.config.heads, self.to_logits.weight
        shape = (self.config.depth, samples, heads, tokens, self.config.dim // heads)
        return Cache(like.new_zeros(shape), like.new_zeros(shape))


def chunked_cross_entropy(hidden: Tensor, to_logits: nn.Module, targets: Tensor, chunk: int) -> Tensor:
    """Mean cross-entropy of `to_logits(hidden)` (B, N, K + 1) and `targets` (B, N), the logits of `chunk` tokens at a
    time.

    They are recomputed in the backward pass instead of being stored.
    """

    def summed(part: Tensor, wanted: Tensor) -> Tensor:
        return functional.cross_entropy(to_logits(part).float(), wanted, reduction="sum")

    total = torch.zeros((), device=hidden.device)
    for part, wanted in zip(hidden.flatten(0, 1).split(chunk), targets.flatten().split(chunk), strict=True):
        if torch.is_grad_enabled():
            total = total + checkpoint(summed, part, wanted, use_reentrant=False, preserve_rng_state=False)
        else:
            total = total + summed(part, wanted)
    return total / targets.numel()


# -------------------------------------------------------------------------------------------------------------- on disk
@dataclass(frozen=True, eq=False)
class Trained:
    """A transformer with the meaning of its sequences: codes in raster order of a grid of `shape` = (x, y, z)."""

    net: Transformer
    shape: Shape


def save_transformer(
    folder: Path, net: Transformer, weights: Mapping[str, Tensor], shape: Shape, facts: Mapping[str, Any]
) -> None:
    """Write `weights` of `net` with everything that sampling needs. facts: their origin, for the record."""
    described = {
        "net": net.config.model_dump(mode="json"),
        "codes": net.codes,
        "positions": net.positions,
        "shape": list(shape),
        **facts,
    }
    save_model(folder, KIND, described, weights)


def load_transformer(folder: Path) -> Trained:
    """Load the files of `save_transformer`, frozen, on the CPU. Raises `MissingError` or `UserError` naming the
    file."""
    described, tensors = load_model(folder, KIND)
    try:
        config = TransformerNetConfig.model_validate(described["net"])
        codes, positions, (x, y, z) = int(described["codes"]), int(described["positions"]), described["shape"]
    except (KeyError, ValueError, TypeError) as error:  # pydantic's are ValueErrors
        reason = str(error).splitlines()[0]
        raise UserError(
            f"{folder / 'model.json'}: expected the fields net, codes, positions and shape ({reason}); restore the file "
            "or train again"
        ) from None
    net = Transformer(config, codes, positions)
    load_strict(net, tensors, str(folder / "model.safetensors"))
    return Trained(net.eval().requires_grad_(False), (x, y, z))
