"""The VQ-GAN's autoencoder: MONAI's VQ-VAE encoder and decoder with the bench's quantiser.

Tudosiu et al., "Morphology-preserving autoregressive 3D generative modelling of the brain" (2022); MedLoRD, section
2.1. Tensors have the names of `monai.networks.nets.VQVAE`; its checkpoints, and MedLoRD's, load unchanged.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from monai.networks.nets.vqvae import Decoder, Encoder
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from medlord_bench.contracts import Shape
from medlord_bench.errors import UserError
from medlord_bench.nn.tiling import apply_tiled
from medlord_bench.nn.vqgan.config import PRESETS, VQGANConfig
from medlord_bench.nn.vqgan.quantiser import Quantised, Statistics, VectorQuantiser

__all__ = ["PRESETS", "VQGAN", "VQGANConfig", "config_from_state"]

DOWN = (2, 4, 1, 1)  # stride, kernel, dilation, padding of every level
UP = (2, 4, 1, 1, 0)  # the same, and output padding


class VQGAN(nn.Module):
    """Images (B, 1, X, Y, Z) in [-1, 1] <-> latents (B, d, x, y, z) <-> code indices (B, x, y, z)."""

    def __init__(self, config: VQGANConfig) -> None:
        super().__init__()
        self.config = config
        channels = config.channels
        res_channels = config.res_channels or channels
        if len(res_channels) != len(channels):
            raise UserError(f"res_channels: {len(res_channels)} levels, expected {len(channels)} as in channels")
        levels = len(channels)
        self.encoder = Encoder(
            3, 1, config.dim, channels, config.res_layers, res_channels, (DOWN,) * levels, 0.0, "RELU"
        )
        self.decoder = Decoder(
            3, config.dim, 1, channels, config.res_layers, res_channels, (UP,) * levels, 0.0, "RELU", None
        )
        quantiser = VectorQuantiser(
            config.codes,
            config.dim,
            commitment_cost=config.commitment_cost,
            decay=config.decay,
            epsilon=config.epsilon,
            restart_below=config.restart_below,
        )
        self.quantizer = nn.ModuleDict({"quantizer": quantiser})  # nested as in MONAI, for equal names of tensors

    @property
    def quantiser(self) -> VectorQuantiser:
        quantiser = self.quantizer["quantizer"]
        assert isinstance(quantiser, VectorQuantiser)
        return quantiser

    @property
    def factor(self) -> int:
        """Image voxels per latent voxel along each axis."""
        return self.config.factor

    def encode(self, x: Tensor, tile: Shape | None = None) -> Tensor:
        """Images (B, 1, X, Y, Z) -> latents before quantisation (B, d, x, y, z). Sides must be multiples of `factor`.

        tile: process boxes of this many image voxels (multiples of `factor`) with their surroundings, without
        gradients; the result is the same. `x` may then be on the CPU and the network on another device.
        Raises `UserError` for invalid sides.
        """
        self._check_sides("image", tuple(x.shape[2:]))
        if tile is not None:
            return apply_tiled(self.encoder, x, self._latent_tile(tile))
        return self._through(self.encoder, x)

    def quantise(self, z: Tensor, gathered: Statistics | None = None) -> Quantised:
        """Nearest codes of latents (B, d, x, y, z). Training updates the codebook: see `VectorQuantiser.forward`."""
        return self.quantiser(z, gathered)  # type: ignore[no-any-return]

    def embed(self, indices: Tensor) -> Tensor:
        """Indices (B, x, y, z) -> codes (B, d, x, y, z)."""
        return self.quantiser.embed(indices)

    def decode(self, z: Tensor, tile: Shape | None = None) -> Tensor:
        """Codes (B, d, x, y, z) -> images (B, 1, X, Y, Z), about [-1, 1]. tile: as in `encode`, in image voxels."""
        if tile is not None:
            self._latent_tile(tile)
            return apply_tiled(self.decoder, z, tile)
        return self._through(self.decoder, z)

    def forward(self, x: Tensor, gathered: Statistics | None = None) -> tuple[Tensor, Quantised]:
        """Reconstruction and codes of images (B, 1, X, Y, Z)."""
        quantised = self.quantise(self.encode(x), gathered)
        return self.decode(quantised.codes), quantised

    def _through(self, network: Encoder | Decoder, x: Tensor) -> Tensor:
        for block in network.blocks:
            if self.config.checkpointing and torch.is_grad_enabled():
                x = checkpoint(block, x, use_reentrant=False)
            else:
                x = block(x)
        return x

    def _check_sides(self, what: str, sides: tuple[int, ...]) -> None:
        if any(side <= 0 or side % self.factor for side in sides):
            raise UserError(f"{what}: sides {sides}, expected multiples of {self.factor}; crop or pad to such a grid")

    def _latent_tile(self, tile: Shape) -> Shape:
        self._check_sides("tile", tile)
        x, y, z = (side // self.factor for side in tile)
        return x, y, z


def config_from_state(state: Mapping[str, Tensor]) -> VQGANConfig:
    """The architecture of a state dict, derived from the names and shapes of its tensors.

    Shapes do not determine commitment cost, decay and epsilon. These have the defaults of `VQGANConfig` and matter only
    if training continues. Strides are assumed to be 2, as a kernel of 4 implies here. Raises `UserError` for a state
    dict of another architecture.
    """
    try:
        return _config_from_shapes({name: tuple(tensor.shape) for name, tensor in state.items()})
    except (KeyError, ValueError, IndexError) as error:
        raise UserError(
            f"checkpoint: not a 3D VQ-VAE in MONAI's layout ({error}); expected encoder.blocks.*, decoder.blocks.* "
            "and quantizer.quantizer.*; give the autoencoder's checkpoint"
        ) from None


def _config_from_shapes(shapes: Mapping[str, tuple[int, ...]]) -> VQGANConfig:
    codes, dim = shapes["quantizer.quantizer.embedding.weight"]
    pattern = re.compile(r"encoder\.blocks\.(\d+)\.(conv|conv1\.conv)\.weight")
    found = {int(match[1]): (match[2], shapes[name]) for name in shapes if (match := pattern.fullmatch(name))}
    blocks = [found[index] for index in range(len(found))][:-1]  # the last block maps to the channels of the codes
    downs = [shape for kind, shape in blocks if kind == "conv"]
    units = [shape for kind, shape in blocks if kind == "conv1.conv"]
    if not downs or len(units) % len(downs):
        raise ValueError(f"{len(units)} residual units on {len(downs)} levels")
    if any(shape[2:] != (DOWN[1],) * 3 for shape in downs):
        raise ValueError(f"kernels {[shape[2:] for shape in downs]}, expected {DOWN[1]} cubed")
    if downs[0][1] != 1:
        raise ValueError(f"{downs[0][1]} image channels, expected 1")
    per_level = len(units) // len(downs)
    channels = tuple(shape[0] for shape in downs)
    res_channels = tuple(units[level * per_level][0] for level in range(len(downs))) if per_level else channels
    return VQGANConfig(
        channels=channels,
        res_channels=None if res_channels == channels else res_channels,
        res_layers=per_level,
        codes=codes,
        dim=dim,
    )
