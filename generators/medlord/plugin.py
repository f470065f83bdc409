"""MedLoRD as a plugin: VQ-GAN, latent diffusion, half-width ControlNet (Seyfarth et al., section 2)."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from medlord_bench.contracts import (
    Capability,
    Cohort,
    DataProtocol,
    Dependencies,
    DryRun,
    Failure,
    MemoryOption,
    Purpose,
    Request,
    Run,
    Stage,
    Volume,
)
from medlord_bench.contracts.weights import NeededWeights
from medlord_bench.errors import UserError
from medlord_bench.nn.vqgan.config import AutoencoderConfig

from .configs import ControlNetConfig, DiffusionConfig, MedLoRDConfig
from .presets import PRESETS, VARIANTS


class MedLoRD:
    """MedLoRD: latent diffusion on a VQ-GAN with a large codebook, for 512x512x256 on 24 GB."""

    Config: ClassVar[type[MedLoRDConfig]] = MedLoRDConfig
    version: ClassVar[int] = 2
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"unconditional", "conditional", "reconstructs"})

    def __init__(self, config: MedLoRDConfig) -> None:
        self.config = config

    @property
    def pretrained_on(self) -> Sequence[str]:
        """What published weights were trained on."""
        return self.config.pretrained.trained_on if self.config.pretrained is not None else ()

    def needed_weights(self) -> Sequence[NeededWeights]:
        """The published weights, or what their training reads: the backbone of the perceptual loss."""
        from medlord_bench.nn.losses import needed_backbone
        from medlord_bench.nn.pretrained import WeightsFile

        published, autoencoder = self.config.pretrained, self.config.autoencoder
        if published is not None:
            files = (published.autoencoder, published.diffusion)
            return [WeightsFile(repo=published.repository, file=file).needed() for file in files]
        return [needed_backbone()] if autoencoder.perceptual and autoencoder.steps else []

    def check(self, data: DataProtocol) -> None:
        """The grid must fit the levels of autoencoder and U-Net and contain a patch; train and val need cases."""
        config = self.config
        if config.pretrained is not None:  # the architecture is read from the weights later
            return
        for split in ("train", "val"):
            if not data.counts.get(split):
                raise UserError(f"{data.name}: no {split} case; MedLoRD trains on train and selects on val: add one")
        shape, multiple = data.grid.shape, config.autoencoder.net.factor * config.diffusion.net.divisor
        if any(side % multiple for side in shape):
            near = tuple(multiple * max(1, round(side / multiple)) for side in shape)
            raise UserError(
                f"grid {shape}: the autoencoder and the U-Net need sides that are multiples of {multiple}; "
                f"the nearest such grid is {near}"
            )
        if any(side > full for side, full in zip(config.autoencoder.patch, shape, strict=True)):
            raise UserError(
                f"autoencoder.patch {config.autoencoder.patch}: larger than the grid {shape}; "
                "choose a smaller patch with --set generator.autoencoder.patch=X,Y,Z"
            )

    def available(self, data: DataProtocol) -> int | None:
        """Any number of samples."""
        return None

    def stages(self) -> Sequence[Stage]:
        """Autoencoder; the cohort's latents, encoded once; diffusion; ControlNet."""
        config = self.config
        trained: dict[str, tuple[AutoencoderConfig | DiffusionConfig | ControlNetConfig, tuple[str, ...]]] = {
            "autoencoder": (config.autoencoder, ()),
            "diffusion": (config.diffusion, ("latents",)),
            "controlnet": (config.controlnet, ("autoencoder", "latents", "diffusion")),
        }
        stages = {
            name: Stage(
                name,
                (name, "pretrained"),
                part.steps,
                needs,
                conditional=name == "controlnet",
                choice=config.diffusion.choice if name == "diffusion" and config.pretrained is None else None,
            )
            for name, (part, needs) in trained.items()
        }
        latents = Stage("latents", ("latents",), None, ("autoencoder",))
        return (stages["autoencoder"], latents, stages["diffusion"], stages["controlnet"])

    def dependencies(self, purpose: Purpose) -> Dependencies:
        if purpose == "reconstruct":
            return Dependencies(("autoencoder",), ("sampling.precision",))
        stages = ("autoencoder", "diffusion")
        return Dependencies(stages if purpose == "sample" else (*stages, "controlnet"), ("sampling",))

    def train(self, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        from . import training

        return training.train(self.config, stage, data, inputs, out, run)

    def adopt(self, stage: Stage, source: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        from . import adoption

        return adoption.adopt(self.config, stage, source, data, inputs, out, run)

    def sample(self, weights: Mapping[str, Path], requests: Sequence[Request], run: Run) -> Iterator[Volume | Failure]:
        from . import sampling

        return sampling.sample(self.config.sampling, weights, requests, run)

    def reconstruct(
        self, weights: Mapping[str, Path], volumes: Iterable[tuple[str, Volume]], run: Run
    ) -> Iterator[Volume | Failure]:
        from medlord_bench.nn.vqgan.volumes import reconstruct

        sampling = self.config.sampling
        return reconstruct(weights, volumes, sampling.precision, sampling.tile, run)

    def dry_runs(self, data: DataProtocol) -> Sequence[DryRun]:
        from . import dry_runs

        return dry_runs.dry_runs(self.config, data)

    def memory_options(self, during: str) -> Sequence[MemoryOption]:
        from . import dry_runs

        return dry_runs.memory_options(self.config, during)
