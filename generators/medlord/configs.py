"""Configuration of MedLoRD's stages. Imports no torch, so that plugins can be listed fast.

The autoencoder's learning rates, loss weights and discriminator are those of the authors' `vqgan_ds4_new.yaml`; the
paper states none of them.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Annotated, Any, Literal

from pydantic import Field, model_validator

from medlord_bench.contracts import AttentionBackend, Choice, Frozen, Precision, Selection, Shape
from medlord_bench.nn.vqgan_config import PRESETS as VQGANS
from medlord_bench.nn.vqgan_config import VQGANConfig, adversary_fits

Positive = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Levels = Annotated[tuple[Positive, ...], Field(min_length=1)]


class UNetConfig(Frozen):
    """The denoising 3D U-Net (paper, section 2.2), one entry per resolution level in each tuple.

    num_head_channels: channels per attention head; 0 where a level has no attention. The middle block always attends,
    with the last level's heads, so that the last entry may not be 0.
    attention: see `medlord_bench.nn.attention.resolve`.
    checkpointing: recompute each level's activations in the backward pass; same result, less memory.
    final_act: "none" is the network that the authors train and publish; "silu" puts MONAI's activation back before
    the last convolution.
    """

    latent_channels: Positive = 8
    channels: Levels = (64, 128, 256, 512)
    num_res_blocks: Positive = 2
    attention_levels: tuple[bool, ...] = (False, False, True, True)
    num_head_channels: tuple[Annotated[int, Field(ge=0)], ...] = (0, 0, 32, 32)
    norm_num_groups: Positive = 32
    attention: AttentionBackend = "auto"
    checkpointing: bool = False
    final_act: Literal["none", "silu"] = "none"

    @model_validator(mode="after")
    def _levels_fit(self) -> UNetConfig:
        levels = len(self.channels)
        for name in ("attention_levels", "num_head_channels"):
            if len(getattr(self, name)) != levels:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries, channels has {levels}: give as many")
        for level, channels in enumerate(self.channels):
            if channels % self.norm_num_groups:
                raise ValueError(f"channels[{level}] = {channels} is no multiple of norm_num_groups")
            heads = self.num_head_channels[level]
            if self.attends(level) and (heads == 0 or channels % heads):
                raise ValueError(f"num_head_channels[{level}] = {heads} does not divide channels[{level}] = {channels}")
        return self

    def attends(self, level: int) -> bool:
        """Whether attention is computed with the heads of `level`."""
        return self.attention_levels[level] or level == len(self.channels) - 1

    @property
    def divisor(self) -> int:
        """Latent sides must be multiples of this."""
        return int(2 ** (len(self.channels) - 1))


# As data: the networks of the authors' configuration files (medlord.yaml; medlord_3level_300.yaml) and one for CPUs.
UNETS: Mapping[str, Mapping[str, Any]] = {
    "medlord": {
        "channels": (64, 128, 256, 512),
        "num_res_blocks": 2,
        "attention_levels": (False, False, True, True),
        "num_head_channels": (0, 0, 32, 32),
    },
    "3level": {
        "channels": (128, 256, 512),
        "num_res_blocks": 3,
        "attention_levels": (False, False, True),
        "num_head_channels": (0, 0, 64),
    },
    "tiny": {
        "channels": (32, 64),
        "num_res_blocks": 1,
        "attention_levels": (False, True),
        "num_head_channels": (0, 32),
        "norm_num_groups": 16,
    },
}


class ControlUNetConfig(Frozen):
    """The ControlNet beside a `UNetConfig` (paper, section 2.3): same levels, `ratio` times as many channels.

    embedding_channels, initial_stride: the mask embedding. It halves the mask's sides once per entry after the first,
    and divides them by `initial_stride` before, which together must be the autoencoder's downsampling factor.
    with_conditioning: two self-attentions and a feed-forward per attention block, which is what the authors'
    configuration yields, or one self-attention as in the U-Net.
    """

    ratio: Annotated[float, Field(gt=0, le=1)] = 0.5
    norm_num_groups: Positive = 32
    embedding_channels: Levels = (32, 64)
    initial_stride: Literal[1, 2] = 2
    with_conditioning: bool = True

    @property
    def downsampling(self) -> int:
        """How many times coarser than the mask its embedding is, per side."""
        return self.initial_stride * int(2 ** (len(self.embedding_channels) - 1))


class OptimisationConfig(Frozen):
    """How a diffusion stage is trained.

    batch: the effective batch, computed in parts of `micro_batch` (no change of result but rounding).
    lr_decay: factor on the learning rate after every step.
    ema_decay: of the averaged weights, which are the ones that are validated, exported and sampled.
    loss: "l1" (paper, section 2.2) or "huber" (the authors' code, beta 1), on the velocity.
    """

    batch: Positive = 4
    micro_batch: Positive | None = None
    steps: Annotated[int, Field(ge=0)] = 750_000
    lr: Annotated[float, Field(gt=0)] = 1e-4
    lr_decay: Annotated[float, Field(gt=0, le=1)] = 1.0
    ema_decay: Probability = 0.999
    clip: Annotated[float, Field(gt=0)] = 1.0
    precision: Precision = "fp16"
    loss: Literal["l1", "huber"] = "l1"
    validate_every: Positive = 5_000
    checkpoint_every: Positive = 1_000

    @model_validator(mode="after")
    def _parts_fit(self) -> OptimisationConfig:
        if self.batch % self.parts_of:
            raise ValueError(f"batch = {self.batch} is no multiple of micro_batch = {self.micro_batch}")
        return self

    @property
    def parts_of(self) -> int:
        """Latents per forward pass."""
        return self.micro_batch or self.batch


class DiffusionConfig(OptimisationConfig):
    """The unconditional latent diffusion stage. timesteps: T of the cosine schedule (paper: 300).

    selection: "fid" samples from a candidate every `candidate_every` steps, `candidate_samples` volumes each, and takes
    the one of the lowest FID on the validation split (the paper, A.1, chose so on its test split).
    """

    net: UNetConfig = UNetConfig()
    timesteps: Annotated[int, Field(ge=2)] = 300
    selection: Literal["best", "last", "fid"] = "best"
    candidate_every: Positive = 50_000
    candidate_samples: Annotated[int, Field(ge=2)] = 16

    @property
    def choice(self) -> Choice | None:
        """What the bench chooses among, where it is to choose."""
        return Choice(self.candidate_every, self.candidate_samples) if self.selection == "fid" else None


class ControlNetConfig(OptimisationConfig):
    """The ControlNet stage. condition_dropout: how often a training step sees no condition at all."""

    selection: Selection = "best"
    net: ControlUNetConfig = ControlUNetConfig()
    batch: Positive = 1
    lr: Annotated[float, Field(gt=0)] = 7.5e-5
    condition_dropout: Probability = 0.1


class AutoencoderConfig(Frozen):
    """Training of the VQ-GAN."""

    net: VQGANConfig = VQGANS["ds4"]
    patch: Shape = Field(default=(128, 128, 128), description="voxels of a training patch; the paper: 128 cubed")
    batch: int = Field(default=2, gt=0, description="patches of one step")
    micro_batch: int = Field(default=2, gt=0, description="patches at once; changes memory, not the batch")
    steps: int = Field(default=250_000, ge=0, description="the paper's, for both cohorts")
    lr_g: float = Field(default=3e-5, gt=0)
    lr_d: float = Field(default=1e-4, gt=0)
    lr_decay: float = Field(default=1.0, gt=0, le=1, description="factor on both learning rates after every step")
    betas: tuple[float, float] = (0.9, 0.999)
    precision: Precision = "fp16"
    l1: float = Field(default=1.0, ge=0)
    perceptual: float = Field(default=0.002, ge=0, description="0: no backbone is needed")
    perceptual_slices: float = Field(default=0.5, gt=0, le=1, description="share of each axis's slices")
    adversarial: float = Field(default=0.005, ge=0, description="0: no discriminator is trained")
    adversarial_warmup: int = Field(default=600, ge=0, description="steps of linear warm-up; 10 epochs of 120 cases")
    spectral: float = Field(default=1.0, ge=0)
    rotate: float = Field(default=0.0, ge=0, le=1, description="probability of a turn about Z; the repository: 0.2")
    rotate_degrees: float = Field(default=5.0, ge=0, description="largest turn")
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
        if self.batch % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch}: expected a divisor of batch {self.batch}")
        return self


class LatentsConfig(Frozen):
    """Encoding the cohort."""

    quantised: bool = Field(
        False, description="take latents after quantisation; the paper does not say, the code: before"
    )
    scale: float | None = Field(
        None, gt=0, description="1 / deviation of the latents; None: measured on the training split"
    )
    precision: Precision = "fp32"
    tile: Shape | None = Field(None, description="encode in boxes of this many voxels; same result, less memory")


class SamplingConfig(Frozen):
    """Drawing volumes."""

    steps: int | None = Field(None, ge=1, description="None: all T by DDPM; fewer: DDIM")
    precision: Precision = "fp32"
    attention: AttentionBackend | None = Field(None, description="None: as trained")
    tile: Shape | None = Field(None, description="encode and decode in boxes of this many voxels; same result")


class Pretrained(Frozen):
    """Weights that others published, instead of training. hu_window: what their [-1, 1] stands for."""

    repository: str
    autoencoder: str
    diffusion: str
    hu_window: tuple[int, int]


class MedLoRDConfig(Frozen):
    """The whole model. Departures of each preset from the paper are written in `presets.py`."""

    autoencoder: AutoencoderConfig = AutoencoderConfig()
    latents: LatentsConfig = LatentsConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    controlnet: ControlNetConfig = ControlNetConfig()
    sampling: SamplingConfig = SamplingConfig()
    pretrained: Pretrained | None = None
