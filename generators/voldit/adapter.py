"""The timestep-gated control adapter (TGCA): masks become tokens that are added to the input of each attention.

The gate depends on the timestep and each block has a factor of its own. The authors normalise gate x factor x tokens,
token by token, which cancels gate and factor; `control_norm: before_gate` normalises the tokens first.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from monai.networks.blocks import Convolution
from torch import Tensor, nn
from torch.nn import functional

from medlord_bench.contracts import Shape
from medlord_bench.nn.recompute import run_checkpointed

from .configs import ControlNorm, DiTConfig, TGCANetConfig
from .transformer import normalised, token_grid


def _conv(inputs: int, outputs: int, stride: int = 1) -> Convolution:
    return Convolution(3, inputs, outputs, strides=stride, kernel_size=3, padding=1, conv_only=True)


class MaskEmbedding(nn.Module):
    """Strided convolutions: masks (N, K, X, Y, Z) -> (N, C, x, y, z). The last convolution is zero at first."""

    def __init__(self, masks: int, out_channels: int, channels: tuple[int, ...], checkpointing: bool) -> None:
        super().__init__()
        self.checkpointing = checkpointing
        self.conv_in = _conv(masks, channels[0])
        self.blocks = nn.ModuleList()
        for fine, coarse in zip(channels, channels[1:], strict=False):
            self.blocks.extend([_conv(fine, fine), _conv(fine, coarse, 2)])
        self.conv_out = _conv(channels[-1], out_channels)
        for parameter in self.conv_out.parameters():
            nn.init.zeros_(parameter)

    def forward(self, masks: Tensor) -> Tensor:
        h = masks
        for conv in (self.conv_in, *self.blocks):
            h = self._activated(conv, h)
        out: Tensor = self.conv_out(h)
        return out

    def _activated(self, conv: nn.Module, h: Tensor) -> Tensor:
        def run(h: Tensor) -> Tensor:
            return functional.silu(conv(h))

        if self.checkpointing and torch.is_grad_enabled():
            recomputed: Tensor = run_checkpointed(run, h)
            return recomputed
        return run(h)


@dataclass(frozen=True, eq=False)
class GatedTokens:
    """What the adapter adds to a block; a `transformer.Control`. tokens: (N, T, C)."""

    tokens: Tensor
    gate: nn.Linear
    scales: nn.ParameterList
    norm: ControlNorm

    def at(self, block: int, time: Tensor) -> Tensor:
        gated = torch.sigmoid(self.gate(time)).unsqueeze(1) * self.tokens  # (N, 1, 1) x (N, T, C)
        scaled = self.scales[block] * gated
        return normalised(scaled) if self.norm == "upstream" else scaled


class TGCA(nn.Module):
    """The adapter of a transformer with `dit`. Tensors have the names of the authors' checkpoints."""

    def __init__(self, config: TGCANetConfig, dit: DiTConfig, masks: int, shape: Shape) -> None:
        """shape: (x, y, z) of the latents."""
        super().__init__()
        self.config, self.grid = config, token_grid(dit.patch, shape)
        self.condition_embedder = MaskEmbedding(masks, dit.hidden, config.channels, dit.checkpointing)
        self.time_gate = nn.Linear(dit.hidden, 1)
        self.adapter_scales = nn.ParameterList([nn.Parameter(torch.full((1,), config.scale)) for _ in range(dit.depth)])
        for parameter in self.time_gate.parameters():
            nn.init.zeros_(parameter)

    @property
    def masks(self) -> int:
        """The number of mask channels that it reads."""
        return int(self.condition_embedder.conv_in.conv.in_channels)

    def embed(self, masks: Tensor) -> Tensor:
        """Masks, float (N, K, X, Y, Z) -> tokens (N, T, C). Sampling computes it once for all steps."""
        embedded = self.condition_embedder(masks)
        if tuple(embedded.shape[2:]) != self.grid:
            embedded = functional.interpolate(embedded, size=self.grid, mode="trilinear", align_corners=False)
        tokens: Tensor = embedded.flatten(2).transpose(1, 2)  # (N, C, X, Y, Z) -> (N, C, T) -> (N, T, C)
        return normalised(tokens) if self.config.control_norm == "before_gate" else tokens

    def forward(self, x: Tensor, times: Tensor, tokens: Tensor) -> GatedTokens:
        """tokens: from `embed`. The gate needs the transformer's embedded timesteps and is computed there."""
        return GatedTokens(tokens, self.time_gate, self.adapter_scales, self.config.control_norm)
