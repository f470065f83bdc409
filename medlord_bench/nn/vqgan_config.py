"""The VQ-GAN's architecture as data. Imports no torch, so that plugins can be listed fast."""

from __future__ import annotations

from collections.abc import Mapping

from pydantic import Field

from medlord_bench.contracts import Frozen


class VQGANConfig(Frozen):
    """The autoencoder's architecture. Each level halves the resolution: two levels downsample 4 times, three 8."""

    channels: tuple[int, ...] = Field(description="feature channels of each level, finest first")
    res_channels: tuple[int, ...] | None = Field(
        default=None, description="inside residual units; None: the same as channels"
    )
    res_layers: int = Field(default=2, ge=0, description="residual units of each level")
    codes: int = Field(default=16384, gt=0, description="size of the codebook")
    dim: int = Field(default=8, gt=0, description="channels of a code")
    commitment_cost: float = 0.25
    decay: float = Field(default=0.95, gt=0, lt=1, description="of the codebook's moving averages")
    epsilon: float = 1e-5
    restart_below: float = Field(
        default=0.0, ge=0, description="codes used less than this share of the average are moved onto data; 0: never"
    )
    checkpointing: bool = Field(default=False, description="recompute activations in the backward pass to save memory")

    @property
    def factor(self) -> int:
        """Image voxels per latent voxel along each axis."""
        return 1 << len(self.channels)


# The shapes of MedLoRD's repository (configs/stage1).
PRESETS: Mapping[str, VQGANConfig] = {
    "ds4": VQGANConfig(channels=(128, 256), decay=0.95),
    "ds8": VQGANConfig(channels=(128, 256, 512), decay=0.98),
    "small": VQGANConfig(channels=(64, 128), codes=8192, decay=0.99),
}


def adversary_fits(patch: tuple[int, int, int], layers: int) -> bool:
    """Whether every instance norm of the discriminator sees more than one voxel on an image of this shape."""
    smallest = list(patch)
    for layer in range(layers + 1):
        stride = 2 if layer < layers else 1  # the first convolution and all further ones but the last
        smallest = [(n + 2 - 4) // stride + 1 for n in smallest]
    x, y, z = smallest
    return min(smallest) >= 2 and x * y * z > 1
