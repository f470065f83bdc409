"""Configuration of MAISI's stages. The module does not import torch, so that plugins are listed fast.

Defaults are those of the NV-Generate-CT configuration files (github.com/NVIDIA-Medtech/NV-Generate-CTMR). According to
the paper, its training was adapted from them.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from medlord_bench.contracts import (
    BUDGET,
    AttentionBackend,
    FrozenConfig,
    HUWindow,
    NotInKey,
    Precision,
    Selection,
    Shape,
)
from medlord_bench.errors import UserError
from medlord_bench.nn.diffusion.config import Times
from medlord_bench.nn.stage_config import BatchConfig, CandidatesConfig, OptimiserKind
from medlord_bench.nn.vqgan.config import adversary_fits

Positive = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Levels = Annotated[tuple[Positive, ...], Field(min_length=1)]
Schedule = Literal["rflow", "ddpm"]
Region = Literal["head", "chest", "abdomen", "lower"]

REGIONS: tuple[Region, ...] = ("head", "chest", "abdomen", "lower")  # in the order of the one-hot input
# Latent voxels of a part: MONAI's split convolutions read this many from the next part without a check.
MIN_PART_VOXELS = 3
MAX_SIDE_VOXELS = 496  # voxels per side: from 500 on, MONAI's layers join their parts in host memory


def check_grid(shape: Shape, multiple: int) -> None:
    """Raise `UserError` with the nearest valid grid if a side is not a multiple of `multiple`."""
    if any(side <= 0 or side % multiple for side in shape):
        near = tuple(multiple * max(1, round(side / multiple)) for side in shape)
        raise UserError(
            f"grid {shape}: MAISI needs sides that are multiples of {multiple} with these networks; the nearest grid "
            f"is {near}: set it with --set generator.grid={','.join(map(str, near))} "
            "(images are resampled to it and back)"
        )


class NetConfig(FrozenConfig):
    """The KL autoencoder. Tuples have one entry per resolution level; each level after the first halves the sides.

    num_splits: number of parts along Y in which each convolution is computed; the same result, less memory.
    checkpointing: recompute each block's activations in the backward pass; the same result, less memory.
    """

    channels: Levels = (64, 128, 256)
    num_res_blocks: Positive = 2
    latent_channels: Positive = 4
    norm_num_groups: Positive = 32
    num_splits: Positive = 1
    checkpointing: bool = False

    @model_validator(mode="after")
    def _groups_fit(self) -> NetConfig:
        for level, channels in enumerate(self.channels):
            if channels % self.norm_num_groups:
                raise ValueError(f"channels[{level}] = {channels} is not a multiple of norm_num_groups")
        return self

    @property
    def factor(self) -> int:
        """The factor by which the encoder reduces each side of the image."""
        return int(2 ** (len(self.channels) - 1))

    def takes(self, width: int) -> bool:
        """Whether a window of `width` latent voxels splits into `num_splits` equal parts of sufficient width."""
        return self.num_splits == 1 or (width % self.num_splits == 0 and width // self.num_splits >= MIN_PART_VOXELS)


class AutoencoderConfig(BatchConfig):
    """Training of the autoencoder: L1, LPIPS, KL and a least-squares discriminator on random patches."""

    net: NetConfig = NetConfig()
    patch: Shape = Field(default=(128, 128, 128), description="voxels of a training patch")
    batch: int = Field(default=1, gt=0, description="patches of one step")
    micro_batch: int = Field(default=1, gt=0, description="patches at once; changes memory, not the batch")
    steps: Annotated[int, BUDGET] = Field(default=250_000, ge=0)
    lr: float = Field(default=1e-4, gt=0, description="of the autoencoder and of the discriminator")
    warmup: int = Field(default=2400, ge=0, description="steps: the first half at 1 % of lr, the second at 10 %")
    precision: Precision = "fp16"
    perceptual: float = Field(default=0.3, ge=0, description="0: no backbone is needed")
    perceptual_slices: float = Field(default=0.2, gt=0, le=1, description="share of each axis's slices")
    kl: float = Field(default=1e-7, ge=0, description="on the sum over a patch's latents")
    adversarial: float = Field(default=0.1, ge=0, description="0: no discriminator is trained")
    discriminator_channels: int = Field(default=32, gt=0)
    discriminator_layers: int = Field(default=3, gt=0)
    validation_patches: int = Field(default=16, gt=0)
    validate_every: int = Field(default=1000, gt=0)
    checkpoint_every: int = Field(default=1000, gt=0)
    selection: Selection = "best"

    @model_validator(mode="after")
    def _shapes_fit(self) -> AutoencoderConfig:
        if any(side <= 0 or side % self.net.factor for side in self.patch):
            raise ValueError(f"patch {self.patch}: expected multiples of {self.net.factor}, the downsampling")
        if max(self.patch) > MAX_SIDE_VOXELS:
            raise ValueError(f"patch {self.patch}: expected at most {MAX_SIDE_VOXELS} voxels per side")
        if not self.net.takes(self.patch[1] // self.net.factor):
            raise ValueError(
                f"patch {self.patch}: its width is not a multiple of {self.net.factor} x net.num_splits = "
                f"{self.net.num_splits}, or less than {MIN_PART_VOXELS} times that; choose fewer splits"
            )
        if self.adversarial and not adversary_fits(self.patch, self.discriminator_layers):
            raise ValueError(f"patch {self.patch}: too small for {self.discriminator_layers} discriminator_layers")
        return self


class TilingConfig(FrozenConfig):
    """Tiled application of the autoencoder: windows of `tile` latent voxels, blended by a Gaussian.

    overlap: fraction of a window's side shared with the next window. A volume no larger than `tile` is processed in one
    pass. Both fields change the result, since group norms are computed per window.
    """

    tile: Shape = (80, 80, 32)
    overlap: Probability = 0.4
    precision: Precision = "fp16"


class LatentsConfig(TilingConfig):
    """Encoding of the cohort. The latents are the means of the encoder's distribution."""

    scale: float | None = Field(None, gt=0, description="1 / deviation of the latents; None: measured on train")


class UNetConfig(FrozenConfig):
    """The denoising U-Net and its ControlNet, which has the same levels. Tuples have one entry per level.

    num_head_channels: channels per attention head; 0 for a level without attention. The middle block always has
    attention with the heads of the last level. attention: see `medlord_bench.nn.attention.resolve`.
    checkpointing: recompute each level's activations in the backward pass; the same result, less memory.
    """

    channels: Levels = (64, 128, 256, 512)
    num_res_blocks: Positive = 2
    attention_levels: tuple[bool, ...] = (False, False, True, True)
    num_head_channels: tuple[Annotated[int, Field(ge=0)], ...] = (0, 0, 32, 32)
    norm_num_groups: Positive = 32
    attention: AttentionBackend = "auto"
    checkpointing: bool = False

    @model_validator(mode="after")
    def _levels_fit(self) -> UNetConfig:
        levels = len(self.channels)
        for name in ("attention_levels", "num_head_channels"):
            if len(getattr(self, name)) != levels:
                raise ValueError(f"{name} has {len(getattr(self, name))} entries, channels has {levels}: give as many")
        for level, channels in enumerate(self.channels):
            heads = self.num_head_channels[level]
            if channels % self.norm_num_groups:
                raise ValueError(f"channels[{level}] = {channels} is not a multiple of norm_num_groups")
            attends = self.attention_levels[level] or level == levels - 1
            if attends and (heads == 0 or channels % heads):
                raise ValueError(f"num_head_channels[{level}] = {heads} does not divide channels[{level}] = {channels}")
        return self

    @property
    def divisor(self) -> int:
        """The number of which each latent side must be a multiple."""
        return int(2 ** (len(self.channels) - 1))


class OptimisationConfig(BatchConfig):
    """Training of a diffusion stage with the L1 loss.

    lr_decay_steps: the learning rate decreases as (1 - step / lr_decay_steps)^2; None: it is constant.
    ema_decay: decay of the averaged weights, which are validated, exported and sampled; 0: the latest weights, as in
    NV-Generate.
    times: how the noise levels of a batch are drawn, see `nn.diffusion.config.Times`; NV-Generate: "independent".
    """

    loss: ClassVar[Literal["l1"]] = "l1"
    optimiser: ClassVar[OptimiserKind] = "adamw"

    batch: Positive = 2
    steps: Annotated[int, Field(ge=0), BUDGET] = 60_000
    lr: Annotated[float, Field(gt=0)] = 1e-4
    lr_decay_steps: Positive | None = 60_000
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    ema_decay: Probability = 0.0
    clip: Annotated[float, Field(gt=0)] | None = None
    precision: Precision = "fp16"
    times: Times = "independent"
    validate_every: Positive = 1_000
    checkpoint_every: Positive = 1_000

    def lr_factor(self, step: int) -> float:
        """The factor on the learning rate at a step."""
        if self.lr_decay_steps is None:
            return 1.0
        return float(max(0.0, 1 - step / self.lr_decay_steps) ** 2)


class DiffusionConfig(OptimisationConfig, CandidatesConfig):
    """The unconditional latent diffusion stage.

    schedule: "rflow" is a rectified flow, conditioned on spacing and modality; "ddpm" has T noise levels and is
    conditioned on spacing and on the body regions at the volume's top and bottom. The two have different U-Nets.
    reference_voxels: for more latent voxels than this "rflow" shifts its times towards noise, for fewer away from it.
    """

    net: UNetConfig = UNetConfig()
    schedule: Schedule = "rflow"
    timesteps: Annotated[int, Field(ge=2)] = 1000
    reference_voxels: Positive = 32**3
    top_region: Region = "chest"
    bottom_region: Region = "chest"
    candidate_every: Positive = 10_000


class ControlNetConfig(OptimisationConfig):
    """The ControlNet stage.

    embedding_channels: each entry after the first halves the sides of the label bits. The total factor must be the
    autoencoder's downsampling factor.
    """

    embedding_channels: Levels = (8, 32, 64)
    batch: Positive = 1
    steps: Annotated[int, Field(ge=0), BUDGET] = 12_000
    lr: Annotated[float, Field(gt=0)] = 1e-5
    lr_decay_steps: Positive | None = 12_000
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    selection: Selection = "best"

    @property
    def downsampling(self) -> int:
        """The factor by which the embedding reduces each side of the label map."""
        return int(2 ** (len(self.embedding_channels) - 1))


class SamplingConfig(TilingConfig):
    """Sampling and reconstruction. steps: None: 30 ("rflow") or all T ("ddpm"); fewer than T: DDIM ("ddpm")."""

    steps: int | None = Field(None, ge=1)
    attention: AttentionBackend | None = Field(None, description="None: as trained")


FOUNDATION_LICENCE = (
    "NVIDIA's weights have conflicting terms: the README of NV-Generate-CTMR names the NVIDIA Open Model License for "
    "NV-Generate-CT, while LICENSE.weights (NVIDIA License) of the same repository allows only non-commercial use for "
    "research or evaluation, like the earlier release. medlord-bench does not include the weights; by using them you "
    "accept their terms, and following the stricter ones is safe"
)


class Foundation(FrozenConfig):
    """A published autoencoder instead of a trained one. sha256: expected hash of the file; None: not pinned."""

    repository: str = "nvidia/NV-Generate-CT"
    file: str = "models/autoencoder_v1.pt"
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")
    trained_on: Annotated[tuple[str, ...], NotInKey("it names data sets for the reader of a table")] = Field(
        ("lidc-idri", "crlm-ct"), description="data sets that the weights were trained on"
    )


class MAISIConfig(FrozenConfig):
    """The whole model. `presets.py` lists the departures of each preset from the paper.

    grid: MAISI's native grid; None: the protocol's. Images and masks are resampled to it, samples back from it.
    hu_window: the HU range that is mapped to the autoencoder's 0..1.
    """

    grid: Shape | None = None
    hu_window: HUWindow = (-1000, 1000)
    foundation: Foundation | None = None
    autoencoder: AutoencoderConfig = AutoencoderConfig()
    latents: LatentsConfig = LatentsConfig()
    diffusion: DiffusionConfig = DiffusionConfig()
    controlnet: ControlNetConfig = ControlNetConfig()
    sampling: SamplingConfig = SamplingConfig()

    @model_validator(mode="after")
    def _parts_fit(self) -> MAISIConfig:
        factor = self.autoencoder.net.factor
        if self.controlnet.downsampling != factor:
            raise ValueError(
                f"controlnet.embedding_channels reduces labels to 1/{self.controlnet.downsampling}, the latents are at "
                f"1/{factor}: give {factor.bit_length()} entries"
            )
        for part in ("latents", "sampling"):
            tile = getattr(self, part).tile
            if min(tile) < 1 or max(tile) * factor > MAX_SIDE_VOXELS:
                raise ValueError(
                    f"{part}.tile {tile}: expected 1 to {MAX_SIDE_VOXELS // factor} latent voxels per side"
                )
        if self.hu_window[0] >= self.hu_window[1]:
            raise ValueError(f"hu_window {self.hu_window}: expected the lowest HU first")
        return self

    def native(self, shape: Shape) -> Shape:
        """MAISI's native grid for a protocol whose grid is `shape`."""
        return self.grid or shape
