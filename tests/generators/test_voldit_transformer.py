"""VolDiT's transformer: equal to the formulas, attention between all tokens, sizes, the start, bad configurations."""

from __future__ import annotations

import importlib.util
import math
from collections.abc import Mapping
from typing import Any

import numpy as np
import pytest
import torch
from pydantic import ValidationError

from medlord_bench.errors import MissingError, UserError
from medlord_bench.generators.voldit.configs import SIZES, DiTConfig
from medlord_bench.generators.voldit.transformer import DiT, build_transformer, config_from_state, positions

SHAPE = (8, 4, 12)


def small(**changes: Any) -> DiTConfig:
    settings = {"latent_channels": 3, "depth": 2, "hidden": 32, "heads": 4, "patch": 2}
    return DiTConfig.model_validate(settings | changes)


def opened(config: DiTConfig, dtype: torch.dtype = torch.float32) -> DiT:
    """A network with random weights in every tensor: at the start many are zero."""
    torch.set_default_dtype(dtype)  # of its positions
    try:
        net = build_transformer(config, SHAPE).eval()
    finally:
        torch.set_default_dtype(torch.float32)
    rng = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in net.parameters():
            parameter.copy_(0.2 * torch.randn(parameter.shape, generator=rng, dtype=torch.float64))
    return net


# ------------------------------------------------------------------ an independent forward pass, from the formulas alone
def layer_norm(x: np.ndarray) -> np.ndarray:
    return (x - x.mean(-1, keepdims=True)) / np.sqrt(x.var(-1, keepdims=True) + 1e-6)


def silu(x: np.ndarray) -> np.ndarray:
    return x / (1 + np.exp(-x))


def gelu(x: np.ndarray) -> np.ndarray:
    return 0.5 * x * (1 + np.vectorize(math.erf)(x / math.sqrt(2)))


def linear(w: Mapping[str, np.ndarray], name: str, x: np.ndarray) -> np.ndarray:
    return x @ w[f"{name}.weight"].T + w[f"{name}.bias"]


def position(place: tuple[int, ...], hidden: int) -> np.ndarray:
    """One token's position: a third of the channels for each axis, sines before cosines."""
    third = next(n for n in range(hidden, hidden + 6) if n % 6 == 0) // 3
    parts = []
    for coordinate in place:
        angles = [coordinate / 10_000 ** (2 * i / third) for i in range(third // 2)]
        parts += [math.sin(a) for a in angles] + [math.cos(a) for a in angles]
    return np.array(parts[:hidden])


def by_hand(w: Mapping[str, np.ndarray], config: DiTConfig, x: np.ndarray, t: int) -> np.ndarray:
    """One latent (d, x, y, z) at timestep t through the network, token by token and head by head."""
    p, c = config.patch, config.hidden
    grid = tuple(side // p for side in x.shape[1:])
    places = list(np.ndindex(*grid))
    cut = [x[:, a * p : a * p + p, b * p : b * p + p, e * p : e * p + p] for a, b, e in places]
    kernel = w["x_embedder.proj.weight"].reshape(c, -1)
    tokens = np.stack([kernel @ patch.ravel() for patch in cut]) + w["x_embedder.proj.bias"]
    tokens = tokens + np.stack([position(place, c) for place in places])
    angles = t * np.exp(-math.log(10_000) * np.arange(128) / 128)
    time = linear(w, "t_embedder.mlp.0", np.concatenate([np.cos(angles), np.sin(angles)]))
    time = linear(w, "t_embedder.mlp.2", silu(time))
    for block in (f"blocks.{i}" for i in range(config.depth)):
        shift, scale, gate, shift2, scale2, gate2 = np.split(linear(w, f"{block}.adaLN_modulation.1", silu(time)), 6)
        qkv = linear(w, f"{block}.attn.qkv", layer_norm(tokens) * (1 + scale) + shift)
        query, key, value = (part.reshape(len(places), config.heads, -1) for part in np.split(qkv, 3, axis=1))
        mixed = np.empty_like(value)
        for head in range(config.heads):
            scores = query[:, head] @ key[:, head].T / math.sqrt(c // config.heads)
            weights = np.exp(scores - scores.max(1, keepdims=True))
            mixed[:, head] = weights / weights.sum(1, keepdims=True) @ value[:, head]
        tokens = tokens + gate * linear(w, f"{block}.attn.proj", mixed.reshape(len(places), c))
        h = linear(w, f"{block}.mlp.fc1", layer_norm(tokens) * (1 + scale2) + shift2)
        tokens = tokens + gate2 * linear(w, f"{block}.mlp.fc2", gelu(h))
    shift, scale = np.split(linear(w, "final_layer.adaLN_modulation.1", silu(time)), 2)
    patches = linear(w, "final_layer.linear", layer_norm(tokens) * (1 + scale) + shift)
    out = np.empty_like(x)
    for (a, b, e), patch in zip(places, patches, strict=True):
        cube = np.moveaxis(patch.reshape(p, p, p, -1), -1, 0)
        out[:, a * p : a * p + p, b * p : b * p + p, e * p : e * p + p] = cube
    return out


@pytest.mark.parametrize("patch", [2, 4])
@pytest.mark.parametrize(("dtype", "within"), [(torch.float32, 1e-5), (torch.float64, 1e-10)])
def test_the_network_is_the_formulas(patch: int, dtype: torch.dtype, within: float) -> None:
    config = small(patch=patch)
    net = opened(config, dtype)
    rng = torch.Generator().manual_seed(1)
    x, times = torch.randn(2, 3, *SHAPE, generator=rng, dtype=torch.float64).to(dtype), torch.tensor([7, 250])
    with torch.no_grad():
        found = net(x, times).double().numpy()
    w = {name: value.double().numpy() for name, value in net.state_dict().items()}
    latents = zip(x.double().numpy(), times, strict=True)
    expected = np.stack([by_hand(w, config, latent, int(t)) for latent, t in latents])
    assert np.abs(expected).std() > 0.1
    assert np.abs(found - expected).max() / np.abs(expected).max() < within


@pytest.mark.parametrize("kernel", ["auto", "math"])
def test_one_changed_token_reaches_all_others(kernel: str) -> None:
    """With heads and tokens exchanged, attention stays within each token, and nothing else would show it."""
    net = opened(small(attention=kernel, depth=1))
    rng = torch.Generator().manual_seed(2)
    tokens, time = torch.randn(1, 10, 32, generator=rng), torch.randn(1, 32, generator=rng)
    changed = tokens.clone()
    changed[0, 7, :5] += 1  # of some channels: layer norm removes what all have in common
    with torch.no_grad():
        before, after = (net.blocks[0](x, time, None) for x in (tokens, changed))
    moved = (before - after).abs().amax(dim=-1)[0]  # (1, T, C) -> (T,)
    assert (moved > 1e-4).all(), moved


def test_a_changed_corner_of_the_latent_reaches_the_opposite_one() -> None:
    net = opened(small())
    x = torch.zeros(1, 3, *SHAPE)
    changed = x.clone()
    changed[..., 0, 0, 0] = 1
    with torch.no_grad():
        moved = (net(x, torch.tensor([5])) - net(changed, torch.tensor([5]))).abs()
    assert float(moved[..., -1, -1, -1].max()) > 1e-4


def test_every_sample_of_a_batch_has_its_own_timestep() -> None:
    net, x = opened(small()), torch.randn(2, 3, *SHAPE, generator=torch.Generator().manual_seed(3))
    with torch.no_grad():
        both = net(x, torch.tensor([3, 200]))
        alone = torch.cat([net(x[:1], torch.tensor([3])), net(x[1:], torch.tensor([200]))])
    torch.testing.assert_close(both, alone, rtol=1e-5, atol=1e-5)


# --------------------------------------------------------------------------------------------------------------- sizes
LATENTS = (64, 64, 32)  # of 512x512x256


@pytest.mark.parametrize(
    ("size", "patch", "millions", "positions_too"),
    [
        *(("xs", 2, 16.6, False), ("s", 2, 32.5, False), ("b", 2, 129.6, False), ("b", 4, 130.3, False)),
        *(("l", 2, 597, True), ("l", 4, 579, False)),
    ],
)
def test_the_sizes_have_the_authors_numbers_of_parameters(
    size: str, patch: int, millions: float, positions_too: bool
) -> None:
    with torch.device("meta"):
        net = DiT(DiTConfig(**SIZES[size], patch=patch), LATENTS, "sdpa")
    count = sum(parameter.numel() for parameter in net.parameters()) + positions_too * net.pos_embed.numel()
    assert count / 1e6 == pytest.approx(millions, abs=0.5 if millions > 500 else 0.05)


def test_the_largest_has_16384_tokens_whose_positions_are_18_9_million_numbers() -> None:
    with torch.device("meta"):
        net = DiT(DiTConfig(), LATENTS, "sdpa")
    assert net.pos_embed.shape == (1, 16_384, 1152)


@pytest.mark.parametrize("hidden", [32, 36, 384, 1152])
def test_positions_are_those_of_the_formula_and_all_different(hidden: int) -> None:
    found = positions(hidden, (3, 2, 4))
    np.testing.assert_allclose(found, [position(place, hidden) for place in np.ndindex(3, 2, 4)], atol=1e-12)
    assert len(np.unique(found.round(9), axis=0)) == 24


# ----------------------------------------------------------------------------------------------- the start and training
def test_the_network_starts_at_zero_and_learns() -> None:
    torch.manual_seed(0)
    net = build_transformer(small(), SHAPE)
    x, target = torch.randn(2, 3, *SHAPE), torch.randn(2, 3, *SHAPE)
    times = torch.tensor([1, 9])
    assert not net(x, times).any()
    optimiser = torch.optim.AdamW(net.parameters(), lr=1e-2)
    losses = []
    for _ in range(30):
        loss = torch.nn.functional.smooth_l1_loss(net(x, times), target)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        losses.append(loss.item())
    assert losses[-1] < 0.8 * losses[0]


@pytest.mark.parametrize("dropout", [0.0, 0.3])
def test_recomputed_activations_give_the_same_gradients_with_the_same_dropout(dropout: float) -> None:
    x, times = torch.randn(1, 3, *SHAPE, generator=torch.Generator().manual_seed(4)), torch.tensor([5])
    gradients = []
    for checkpointing in (False, True):
        net = opened(small(dropout=dropout, checkpointing=checkpointing)).train()
        torch.manual_seed(5)
        net(x, times).square().mean().backward()
        gradients.append([parameter.grad for parameter in net.parameters()])
    assert all(torch.equal(a, b) for a, b in zip(*gradients, strict=True))


def test_dropout_acts_in_training_only() -> None:
    net, x, times = opened(small(dropout=0.3)), torch.ones(1, 3, *SHAPE), torch.tensor([5])
    with torch.no_grad():
        assert torch.equal(net(x, times), net(x, times))
        net.train()
        assert not torch.equal(net(x, times), net(x, times))


# ----------------------------------------------------------------------------------------------------------- bad input
def test_latent_sides_that_the_patch_does_not_divide_are_named() -> None:
    with pytest.raises(UserError, match=r"net.patch: 4 does not divide the latents' sides \(8, 6, 12\)"):
        build_transformer(small(patch=4), (8, 6, 12))


def test_heads_that_do_not_divide_the_hidden_size_are_named() -> None:
    with pytest.raises(ValidationError, match="heads = 5 does not divide hidden = 32"):
        small(heads=5)


@pytest.mark.skipif(importlib.util.find_spec("xformers") is not None, reason="xformers is installed")
def test_xformers_that_is_absent_is_named_with_its_extra() -> None:
    with pytest.raises(MissingError, match=r"medlord-bench\[xformers\]"):
        build_transformer(small(attention="xformers"), SHAPE)


def test_the_architecture_is_read_from_the_tensors() -> None:
    config = small(mlp_ratio=2.0, patch=4)
    assert config_from_state(opened(config).state_dict(), heads=4) == config
    with pytest.raises(ValueError, match="hidden size 32 is none of the authors'"):
        config_from_state(opened(config).state_dict(), heads=None)
