"""Configuration of the VQ-GAN. The module does not import torch, so that plugins are listed fast."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any

from pydantic import Field, model_validator

from medlord_bench.contracts import BUDGET, FrozenConfig, Precision, Selection, Shape
from medlord_bench.nn.stage_config import BatchConfig, LearningRateConfig


class VQGANConfig(FrozenConfig):
    """The autoencoder's architecture. Each level halves the resolution: two levels downsample by 4, three by 8."""

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
        default=0.0, ge=0, description="codes used less than this share of the mean are restarted from data; 0: never"
    )
    checkpointing: bool = Field(default=False, description="recompute activations in the backward pass to save memory")

    @property
    def factor(self) -> int:
        """Image voxels per latent voxel along each axis."""
        return 1 << len(self.channels)


# The architectures of MedLoRD's repository (configs/stage1).
PRESETS: Mapping[str, VQGANConfig] = {
    "ds4": VQGANConfig(channels=(128, 256), decay=0.95),
    "ds8": VQGANConfig(channels=(128, 256, 512), decay=0.98),
    "small": VQGANConfig(channels=(64, 128), codes=8192, decay=0.99),
}


def adversary_fits(patch: tuple[int, int, int], layers: int) -> bool:
    """Whether the input of every instance norm of the discriminator has more than one voxel for this patch."""
    smallest = list(patch)
    for layer in range(layers + 1):
        stride = 2 if layer < layers else 1  # all convolutions except the last have stride 2
        smallest = [(n + 2 - 4) // stride + 1 for n in smallest]
    x, y, z = smallest
    return min(smallest) >= 2 and x * y * z > 1


class AutoencoderConfig(BatchConfig, LearningRateConfig):
    """Training of the VQ-GAN. Defaults: MedLoRD's paper; if it gives no value, MedLoRD's `vqgan_ds4_new.yaml`."""

    net: VQGANConfig = PRESETS["ds4"]
    patch: Shape = Field(default=(128, 128, 128), description="voxels of a training patch; the paper: 128 cubed")
    batch: int = Field(default=2, gt=0, description="patches of one step")
    micro_batch: int = Field(default=2, gt=0, description="patches at once; changes memory, not the batch")
    steps: Annotated[int, BUDGET] = Field(default=250_000, ge=0, description="the paper's, for both cohorts")
    lr_g: float = Field(default=3e-5, gt=0)
    lr_d: float = Field(default=1e-4, gt=0)
    betas: tuple[float, float] = (0.9, 0.999)
    precision: Precision = "fp16"
    l1: float = Field(default=1.0, ge=0)
    perceptual: float = Field(default=0.002, ge=0, description="0: no backbone is needed")
    perceptual_slices: float = Field(default=0.5, gt=0, le=1, description="share of each axis's slices")
    adversarial: float = Field(default=0.005, ge=0, description="0: no discriminator is trained")
    adversarial_warmup: int = Field(default=600, ge=0, description="steps of linear warm-up; 10 epochs of 120 cases")
    spectral: float = Field(default=1.0, ge=0)
    rotate: float = Field(default=0.0, ge=0, le=1, description="probability of a rotation; the repository: 0.2")
    rotate_degrees: float = Field(default=5.0, ge=0, description="largest rotation about each axis")
    flip: float = Field(default=0.0, ge=0, le=1, description="probability of a flip along Y; the repository: 0.5")
    discriminator_channels: int = Field(default=64, gt=0)
    discriminator_layers: int = Field(default=3, gt=0)
    validation_patches: int = Field(default=16, gt=0)
    validate_every: int = Field(default=1000, gt=0)
    checkpoint_every: int = Field(default=1000, gt=0)
    selection: Selection = "best"

    @model_validator(mode="after")
    def _shapes_fit(self) -> AutoencoderConfig:
        if any(side <= 0 or side % self.net.factor for side in self.patch):
            raise ValueError(f"patch {self.patch}: expected multiples of {self.net.factor}, the downsampling")
        if self.adversarial and not adversary_fits(self.patch, self.discriminator_layers):
            raise ValueError(f"patch {self.patch}: too small for {self.discriminator_layers} discriminator_layers")
        return self


# A training in a minute on two cores, for grids of about 64 voxels a side: a codebook of 2048 x 8, few channels, small
# patches, Muon at a higher learning rate along a cosine, float32, and L1 alone. In so few steps the discriminator and the
# spectral loss make reconstructions worse (docs/generators/medlord.md); the perceptual loss would require a download of
# its backbone.
TINY: Mapping[str, Any] = {
    "net": {"channels": (16, 64), "res_layers": 1, "codes": 2048, "dim": 8, "decay": 0.95, "restart_below": 0.05},
    "patch": (32, 32, 32),
    "batch": 2,
    "micro_batch": 2,
    "steps": 1700,
    "optimiser": "muon",
    "lr_g": 2e-3,
    "lr_warmup": 100,
    "lr_cosine": 1700,
    "perceptual": 0.0,
    "adversarial": 0.0,
    "spectral": 0.0,
    "precision": "fp32",
    "validate_every": 425,
    "checkpoint_every": 200,
}

# A training in seconds, for tests.
SMOKE: Mapping[str, Any] = {
    **TINY,
    # In so few steps one code represents every latent. Restart all other codes, or all samples are equal.
    "net": {**TINY["net"], "channels": (8, 8), "codes": 32, "restart_below": 0.9},
    "patch": (16, 16, 16),
    "adversarial": 0.005,
    "spectral": 1.0,
    "discriminator_channels": 8,
    "discriminator_layers": 1,
    "micro_batch": 1,
    "steps": 6,
    "validation_patches": 2,
    "validate_every": 3,
    "checkpoint_every": 2,
}


class LatentsConfig(FrozenConfig):
    """Encoding of the cohort."""

    quantised: bool = Field(
        False, description="use latents after quantisation; the paper does not say, the authors' code: before"
    )
    scale: float | None = Field(
        None, gt=0, description="1 / deviation of the latents; None: measured on the training split"
    )
    precision: Precision = "fp32"
    tile: Shape | None = Field(None, description="encode in boxes of this many voxels; same result, less memory")
