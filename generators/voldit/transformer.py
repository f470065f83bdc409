"""The denoising transformer: tokens of latent patches, attention over all of them, and modulation by the timestep.

Peebles & Xie, "Scalable Diffusion Models with Transformers" (2023), adaLN-Zero blocks, section 3.2; in 3D as in VolDiT.
Tensors have the names of the authors' checkpoints.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.checkpoint import checkpoint

from medlord_bench.contracts import Shape
from medlord_bench.errors import UserError
from medlord_bench.memory.dry_run import is_dry_run
from medlord_bench.nn.attention import Kernel, attention, resolve

from .configs import DiTConfig

FREQUENCIES = 256  # of the timestep's embedding
LONGEST = 10_000.0  # period of the slowest frequency, of timesteps and positions
EPS = 1e-6  # of every layer norm


class Control(Protocol):
    """Output of a control adapter: what each block adds to the input of its attention."""

    def at(self, block: int, time: Tensor) -> Tensor:
        """The control of a block, (N, T, C). time: embedded timesteps (N, C)."""
        ...


def normalised(x: Tensor) -> Tensor:
    """Layer norm over the last axis, without parameters, in float32 under autocast."""
    return functional.layer_norm(x, x.shape[-1:], eps=EPS)


def modulated(x: Tensor, shift: Tensor, scale: Tensor) -> Tensor:
    """x: tokens (N, T, C); shift, scale: (N, C)."""
    return x * (1 + scale.unsqueeze(1)) + shift.unsqueeze(1)


def positions(hidden: int, grid: Shape) -> NDArray[np.float64]:
    """Sine-cosine positions of the tokens of `grid`, (T, hidden), in the order of `flatten`: last axis fastest.

    `hidden` is rounded up to a multiple of 6; each axis has a third of the channels, sines first. Then it is cut.
    """
    third = math.ceil(hidden / 6) * 2
    frequencies = LONGEST ** -(np.arange(third // 2) / (third / 2))
    axes = np.stack(np.meshgrid(*map(np.arange, grid), indexing="ij")).reshape(3, -1)  # (3, T)
    parts = [wave(axis[:, None] * frequencies) for axis in axes for wave in (np.sin, np.cos)]  # each (T, third / 2)
    return np.concatenate(parts, axis=1)[:, :hidden]


def timestep_embedding(times: Tensor, dtype: torch.dtype) -> Tensor:
    """Timesteps (N,) -> cosines and sines at `FREQUENCIES` / 2 frequencies, (N, `FREQUENCIES`)."""
    half = FREQUENCIES // 2
    frequencies = torch.exp(-math.log(LONGEST) * torch.arange(half, dtype=dtype, device=times.device) / half)
    angles = times[:, None].to(dtype) * frequencies
    return torch.cat([angles.cos(), angles.sin()], dim=-1)


class Times(nn.Module):
    """Timesteps (N,) -> embedding (N, C)."""

    def __init__(self, hidden: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(FREQUENCIES, hidden), nn.SiLU(), nn.Linear(hidden, hidden))

    def forward(self, times: Tensor) -> Tensor:
        embedded: Tensor = self.mlp(timestep_embedding(times, next(self.parameters()).dtype))
        return embedded


class Patches(nn.Module):
    """Latents (N, d, x, y, z) -> tokens (N, T, C)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.proj = nn.Conv3d(config.latent_channels, config.hidden, config.patch, config.patch)

    def forward(self, x: Tensor) -> Tensor:
        tokens: Tensor = self.proj(x).flatten(2).transpose(1, 2)  # (N, C, X, Y, Z) -> (N, C, T) -> (N, T, C)
        return tokens


class SelfAttention(nn.Module):
    """Attention between all tokens (N, T, C)."""

    def __init__(self, config: DiTConfig, kernel: Kernel) -> None:
        super().__init__()
        self.heads, self.kernel = config.heads, kernel
        self.qkv = nn.Linear(config.hidden, 3 * config.hidden)
        self.proj = nn.Linear(config.hidden, config.hidden)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        n, tokens, channels = x.shape
        # (N, T, 3 C) -> (N, T, 3, heads, C / heads) -> three of (N, heads, T, C / heads): kernels attend over axis 2
        query, key, value = self.qkv(x).reshape(n, tokens, 3, self.heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        mixed = attention(query, key, value, self.kernel)
        # (N, heads, T, C / heads) -> (N, T, heads, C / heads) -> (N, T, C)
        out: Tensor = self.dropout(self.proj(mixed.transpose(1, 2).reshape(n, tokens, channels)))
        return out


class Feedforward(nn.Module):
    """Two layers on each token (N, T, C)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        inner = int(config.hidden * config.mlp_ratio)
        self.fc1, self.fc2 = nn.Linear(config.hidden, inner), nn.Linear(inner, config.hidden)
        self.dropout = nn.Dropout(config.dropout)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.dropout(self.fc2(self.dropout(functional.gelu(self.fc1(x)))))
        return out


def modulation(hidden: int, parts: int) -> nn.Sequential:
    """SiLU and a linear layer: embedded timesteps (N, C) -> `parts` shifts, scales and gates (N, parts * C)."""
    return nn.Sequential(nn.SiLU(), nn.Linear(hidden, parts * hidden))


class Block(nn.Module):
    """One transformer block."""

    def __init__(self, config: DiTConfig, kernel: Kernel) -> None:
        super().__init__()
        self.attn = SelfAttention(config, kernel)
        self.mlp = Feedforward(config)
        self.adaLN_modulation = modulation(config.hidden, 6)  # the authors' name

    def forward(self, x: Tensor, time: Tensor, control: Tensor | None) -> Tensor:
        """x: tokens (N, T, C); time: (N, C); control: added to the input of attention, (N, T, C)."""
        shift_a, scale_a, gate_a, shift_m, scale_m, gate_m = self.adaLN_modulation(time).chunk(6, dim=1)
        h = modulated(normalised(x), shift_a, scale_a)
        if control is not None:
            h = h + control.to(h.dtype)
        x = x + gate_a.unsqueeze(1) * self.attn(h)
        return x + gate_m.unsqueeze(1) * self.mlp(modulated(normalised(x), shift_m, scale_m))


class Final(nn.Module):
    """Tokens (N, T, C) -> patches of the velocity (N, T, p^3 * d)."""

    def __init__(self, config: DiTConfig) -> None:
        super().__init__()
        self.linear = nn.Linear(config.hidden, config.patch**3 * config.latent_channels)
        self.adaLN_modulation = modulation(config.hidden, 2)

    def forward(self, x: Tensor, time: Tensor) -> Tensor:
        shift, scale = self.adaLN_modulation(time).chunk(2, dim=1)
        patches: Tensor = self.linear(modulated(normalised(x), shift, scale))
        return patches


def linears(module: nn.Module) -> Iterator[nn.Linear]:
    """The linear layers of a module, in its order."""
    return (part for part in module.modules() if isinstance(part, nn.Linear))


class DiT(nn.Module):
    """Maps noisy latents of one shape and timesteps to velocities."""

    pos_embed: Tensor

    def __init__(self, config: DiTConfig, shape: Shape, kernel: Kernel) -> None:
        """shape: (x, y, z) of the latents; raises `UserError` if the patch does not divide it."""
        super().__init__()
        self.config, self.grid = config, token_grid(config.patch, shape)
        self.x_embedder = Patches(config)
        self.t_embedder = Times(config.hidden)
        # Not in the state dict: it depends on the shape alone.
        fixed = torch.from_numpy(positions(config.hidden, self.grid))[None].to(torch.get_default_dtype())  # (1, T, C)
        self.register_buffer("pos_embed", fixed, persistent=False)
        self.blocks = nn.ModuleList([Block(config, kernel) for _ in range(config.depth)])
        self.final_layer = Final(config)
        self._start()

    def _start(self) -> None:
        """The authors' initial weights. Every block begins as the identity, and the output as zero."""
        for layer in linears(self):
            nn.init.xavier_uniform_(layer.weight)
            nn.init.zeros_(layer.bias)
        for layer in linears(self.t_embedder):
            nn.init.normal_(layer.weight, std=0.02)
        for name, part in self.named_modules():
            if name.endswith("adaLN_modulation"):
                for layer in linears(part):
                    nn.init.zeros_(layer.weight)
        nn.init.zeros_(self.final_layer.linear.weight)

    def forward(self, x: Tensor, times: Tensor, control: Control | None = None) -> Tensor:
        """x: latents (N, d, x, y, z); times: int (N,). Returns the velocity, (N, d, x, y, z)."""
        tokens = self.x_embedder(x) + self.pos_embed
        time = self.t_embedder(times)
        for place, block in enumerate(self.blocks):
            tokens = self._through(block, place, tokens, time, control)
        return self._unpatched(self.final_layer(tokens, time))

    def _through(self, block: nn.Module, place: int, tokens: Tensor, time: Tensor, control: Control | None) -> Tensor:
        def run(tokens: Tensor, time: Tensor) -> Tensor:
            out: Tensor = block(tokens, time, None if control is None else control.at(place, time))
            return out

        if not (self.config.checkpointing and torch.is_grad_enabled()):
            return run(tokens, time)
        # The second pass must draw the same dropout. Fake tensors have no random state.
        draws = self.training and self.config.dropout > 0 and not is_dry_run(tokens)
        recomputed: Tensor = checkpoint(run, tokens, time, use_reentrant=False, preserve_rng_state=draws)
        return recomputed

    def _unpatched(self, patches: Tensor) -> Tensor:
        """Patches (N, T, p^3 * d), with channels last in each -> latents (N, d, x, y, z)."""
        p, d, (x, y, z) = self.config.patch, self.config.latent_channels, self.grid
        split = patches.reshape(-1, x, y, z, p, p, p, d).permute(0, 7, 1, 4, 2, 5, 3, 6)  # (N, d, X, p, Y, p, Z, p)
        return split.reshape(-1, d, x * p, y * p, z * p)


def token_grid(patch: int, shape: Shape) -> Shape:
    """The tokens along each axis. Raises `UserError` if the patch does not divide the latents' `shape`."""
    if any(side % patch for side in shape):
        raise UserError(
            f"net.patch: {patch} does not divide the latents' sides {shape}; use another patch or another grid"
        )
    x, y, z = (side // patch for side in shape)
    return x, y, z


def build_transformer(config: DiTConfig, shape: Shape, device: str | torch.device = "cpu") -> DiT:
    """A transformer with initial weights on `device`, for latents of `shape` (x, y, z).

    Raises `MissingError` if the kernel of `config.attention` is not available, and `UserError` if the patch does not
    divide the shape.
    """
    return DiT(config, shape, resolve(config.attention, device)).to(device)


def config_from_state(state: Mapping[str, Tensor], heads: int | None) -> DiTConfig:
    """The architecture of a state dict. heads: not in the tensors; None: the authors' number for this hidden size.

    Raises KeyError if a tensor that determines the architecture is missing, and ValueError if heads are unknown.
    """
    hidden, latent, patch = state["x_embedder.proj.weight"].shape[:3]
    known = {384: 6, 768: 12, 1152: 16}
    if heads is None and hidden not in known:
        raise ValueError(
            f"hidden size {hidden} is none of the authors' {', '.join(map(str, known))}: heads are unknown"
        )
    return DiTConfig(
        latent_channels=latent,
        patch=patch,
        depth=len({name.split(".")[1] for name in state if name.startswith("blocks.")}),
        hidden=hidden,
        heads=known[hidden] if heads is None else heads,
        mlp_ratio=state["blocks.0.mlp.fc1.weight"].shape[0] / hidden,
    )
