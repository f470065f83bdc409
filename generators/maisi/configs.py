"""Configuration of MAISI's stages. Imports no torch, so that plugins can be listed fast.

Defaults are those of the NV-Generate-CT configuration files (github.com/NVIDIA-Medtech/NV-Generate-CTMR), from which
the paper says it adapted its training.
"""

from __future__ import annotations

from typing import Annotated, ClassVar, Literal

from pydantic import Field, model_validator

from medlord_bench.contracts import (
    BUDGET,
    AttentionBackend,
    CheckpointSelection,
    FrozenConfig,
    Precision,
    Selection,
    Shape,
)
from medlord_bench.errors import UserError
from medlord_bench.nn.vqgan.config import adversary_fits

Positive = Annotated[int, Field(gt=0)]
Probability = Annotated[float, Field(ge=0, lt=1)]
Levels = Annotated[tuple[Positive, ...], Field(min_length=1)]
Schedule = Literal["rflow", "ddpm"]
Region = Literal["head", "chest", "abdomen", "lower"]

REGIONS: tuple[Region, ...] = ("head", "chest", "abdomen", "lower")  # in the order of the one-hot input
MIN_PART_VOXELS = (
    3  # latent voxels of a part: MONAI's convolutions in parts borrow as many from the next, and do not check
)
MAX_SIDE_VOXELS = 496  # voxels a side: from 500 on, MONAI's layers put their parts together in the computer's memory


def check_grid(shape: Shape, multiple: int) -> None:
    """Raise `UserError`, with the nearest grid that would do, where a side is not a multiple of `multiple`."""
    if any(side <= 0 or side % multiple for side in shape):
        near = tuple(multiple * max(1, round(side / multiple)) for side in shape)
        raise UserError(
            f"grid {shape}: MAISI needs sides that are multiples of {multiple} with these networks; the nearest grid is "
            f"{near}: set it with --set generator.grid={','.join(map(str, near))}, and images are resampled there and back"
        )


class NetConfig(FrozenConfig):
    """The KL autoencoder, one entry per resolution level; each level after the first halves the sides.

    num_splits: parts along Y that each convolution is computed in; the same result, less memory.
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
        """How many times coarser than the image the latents are, per side."""
        return int(2 ** (len(self.channels) - 1))

    def takes(self, width: int) -> bool:
        """Whether `num_splits` parts come out even, and none too thin, of a window `width` latent voxels wide."""
        return self.num_splits == 1 or (width % self.num_splits == 0 and width // self.num_splits >= MIN_PART_VOXELS)


class AutoencoderConfig(FrozenConfig):
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
            raise ValueError(f"patch {self.patch}: expected at most {MAX_SIDE_VOXELS} voxels a side")
        if not self.net.takes(self.patch[1] // self.net.factor):
            raise ValueError(
                f"patch {self.patch}: its width is not a multiple of {self.net.factor} x net.num_splits = "
                f"{self.net.num_splits}, or less than {MIN_PART_VOXELS} times that; choose fewer splits"
            )
        if self.adversarial and not adversary_fits(self.patch, self.discriminator_layers):
            raise ValueError(f"patch {self.patch}: too small for {self.discriminator_layers} discriminator_layers")
        if self.batch % self.micro_batch:
            raise ValueError(f"micro_batch {self.micro_batch}: expected a divisor of batch {self.batch}")
        return self


class TilingConfig(FrozenConfig):
    """How the autoencoder passes over a volume: windows of `tile` latent voxels, `overlap` of them shared, blended by a
    Gaussian; one pass where the volume is no larger. Both change the result, since group norms see a window only."""

    tile: Shape = (80, 80, 32)
    overlap: Probability = 0.4
    precision: Precision = "fp16"


class LatentsConfig(TilingConfig):
    """Encoding the cohort. The latents are the means of the encoder's distribution."""

    scale: float | None = Field(None, gt=0, description="1 / deviation of the latents; None: measured on train")


class UNetConfig(FrozenConfig):
    """The denoising U-Net and, with the same levels, its ControlNet; one entry per level in each tuple.

    num_head_channels: channels per attention head; 0 where a level has none. The middle block always attends, with the
    last level's heads. attention: see `medlord_bench.nn.attention.resolve`.
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
        """Latent sides must be multiples of this."""
        return int(2 ** (len(self.channels) - 1))


class OptimisationConfig(FrozenConfig):
    """How a diffusion stage is trained, on the L1 loss.

    batch: the effective batch, computed in parts of `micro_batch` (no change of result but rounding).
    lr_decay_steps: the learning rate falls as (1 - step / lr_decay_steps)^2; None: it stays.
    ema_decay: of the averaged weights, which are validated, exported and sampled; 0: the latest weights, as NV-Generate.
    """

    loss: ClassVar[Literal["l1"]] = "l1"

    batch: Positive = 2
    micro_batch: Positive | None = None
    steps: Annotated[int, Field(ge=0), BUDGET] = 60_000
    lr: Annotated[float, Field(gt=0)] = 1e-4
    lr_decay_steps: Positive | None = 60_000
    weight_decay: Annotated[float, Field(ge=0)] = 0.0
    ema_decay: Probability = 0.0
    clip: Annotated[float, Field(gt=0)] | None = None
    precision: Precision = "fp16"
    validate_every: Positive = 1_000
    checkpoint_every: Positive = 1_000

    @model_validator(mode="after")
    def _parts_fit(self) -> OptimisationConfig:
        if self.batch % self.parts_of:
            raise ValueError(f"batch = {self.batch} is not a multiple of micro_batch = {self.micro_batch}")
        return self

    @property
    def parts_of(self) -> int:
        """Latents per forward pass."""
        return self.micro_batch or self.batch

    def lr_factor(self, step: int) -> float:
        """What the learning rate is multiplied by at a step."""
        if self.lr_decay_steps is None:
            return 1.0
        return float(max(0.0, 1 - step / self.lr_decay_steps) ** 2)


class DiffusionConfig(OptimisationConfig):
    """The unconditional latent diffusion stage.

    schedule: "rflow" is a rectified flow, conditioned on spacing and modality; "ddpm" has T noise levels and is
    conditioned on spacing and on the body regions at the volume's top and bottom. They are two U-Nets.
    reference_voxels: latent voxels above which "rflow" moves its times towards noise, and below which away from it.
    selection: "fid" samples from a candidate every `candidate_every` steps and takes the one of the lowest FID on the
    validation split.
    """

    net: UNetConfig = UNetConfig()
    schedule: Schedule = "rflow"
    timesteps: Annotated[int, Field(ge=2)] = 1000
    reference_voxels: Positive = 32**3
    top_region: Region = "chest"
    bottom_region: Region = "chest"
    selection: Literal["best", "last", "fid"] = "best"
    candidate_every: Positive = 10_000
    candidate_samples: Annotated[int, Field(ge=2)] = 16

    @property
    def choice(self) -> CheckpointSelection | None:
        """What the bench chooses among, where it is to choose."""
        return CheckpointSelection(self.candidate_every, self.candidate_samples) if self.selection == "fid" else None


class ControlNetConfig(OptimisationConfig):
    """The ControlNet stage. embedding_channels: each entry after the first halves the sides of the label bits, which
    together must be the autoencoder's downsampling."""

    embedding_channels: Levels = (8, 32, 64)
    batch: Positive = 1
    steps: Annotated[int, Field(ge=0), BUDGET] = 12_000
    lr: Annotated[float, Field(gt=0)] = 1e-5
    lr_decay_steps: Positive | None = 12_000
    weight_decay: Annotated[float, Field(ge=0)] = 0.01
    selection: Selection = "best"

    @property
    def downsampling(self) -> int:
        """How many times coarser than the label map its embedding is, per side."""
        return int(2 ** (len(self.embedding_channels) - 1))


class SamplingConfig(TilingConfig):
    """Drawing and reconstructing volumes. steps: None for 30 ("rflow") or all T ("ddpm"; fewer are DDIM)."""

    steps: int | None = Field(None, ge=1)
    attention: AttentionBackend | None = Field(None, description="None: as trained")


class Foundation(FrozenConfig):
    """A published autoencoder instead of a trained one. sha256: of the file, where it is to be pinned."""

    repository: str = "nvidia/NV-Generate-CT"
    file: str = "models/autoencoder_v1.pt"
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")


class MAISIConfig(FrozenConfig):
    """The whole model. Departures of each preset from the paper are written in `presets.py`.

    grid: the grid that MAISI works on; None for the protocol's own. Images and masks are resampled onto it, samples back.
    hu_window: what the autoencoder's 0..1 stands for.
    """

    grid: Shape | None = None
    hu_window: tuple[int, int] = (-1000, 1000)
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
                f"controlnet.embedding_channels brings labels to 1/{self.controlnet.downsampling}, the latents are at "
                f"1/{factor}: give {factor.bit_length()} entries"
            )
        for part in ("latents", "sampling"):
            tile = getattr(self, part).tile
            if min(tile) < 1 or max(tile) * factor > MAX_SIDE_VOXELS:
                raise ValueError(f"{part}.tile {tile}: expected 1 to {MAX_SIDE_VOXELS // factor} latent voxels a side")
        if self.hu_window[0] >= self.hu_window[1]:
            raise ValueError(f"hu_window {self.hu_window}: expected the lowest HU first")
        return self

    def native(self, shape: Shape) -> Shape:
        """The grid that MAISI works on for a protocol whose grid is `shape`."""
        return self.grid or shape
