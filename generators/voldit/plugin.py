"""VolDiT as a plugin: VQ-GAN, diffusion transformer on its latents, control adapter (Seyfarth et al. 2026)."""

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

from .configs import VolDiTConfig
from .presets import PRESETS, VARIANTS


class VolDiT:
    """VolDiT: a diffusion transformer on the latents of a VQ-GAN; masks control it through a gated adapter (TGCA)."""

    Config: ClassVar[type[VolDiTConfig]] = VolDiTConfig
    version: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS

    capabilities: frozenset[Capability] = frozenset({"unconditional", "conditional", "reconstructs"})

    def __init__(self, config: VolDiTConfig) -> None:
        self.config = config
        if config.pretrained is not None:  # no weights of an adapter are published
            self.capabilities = frozenset({"unconditional", "reconstructs"})

    @property
    def pretrained_on(self) -> Sequence[str]:
        """What published weights were trained on."""
        return self.config.pretrained.trained_on if self.config.pretrained is not None else ()

    def needed_weights(self) -> Sequence[NeededWeights]:
        """The published weights, or what their training reads: the backbone of the perceptual loss."""
        from medlord_bench.nn.losses import needed_backbone

        published, autoencoder = self.config.pretrained, self.config.autoencoder
        if published is None:
            return [needed_backbone()] if autoencoder.perceptual and autoencoder.steps else []
        repo = published.repository
        return [
            NeededWeights(
                path=f"{repo}/{pattern}",
                address=f"https://huggingface.co/{repo}",
                licence=published.licence,
                by_hand=f"the names of its files are not fixed: hf download {repo} --include '{pattern}' --local-dir {repo}",
            )
            for pattern in (published.autoencoder, published.diffusion)
        ]

    def check(self, data: DataProtocol) -> None:
        """Autoencoder and patches must divide the grid, which contains a training patch; train and val need cases."""
        config = self.config
        for split in ("train", "val"):
            if not data.counts.get(split) and config.pretrained is None:
                raise UserError(f"{data.name}: no {split} case; VolDiT trains on train and selects on val: add one")
        if config.pretrained is not None:  # the architecture is read from the weights later
            return
        shape, factor, patch = data.grid.shape, config.autoencoder.net.factor, config.diffusion.net.patch
        if any(side % (factor * patch) for side in shape):
            near = tuple(factor * patch * max(1, round(side / factor / patch)) for side in shape)
            raise UserError(
                f"grid {shape}: the autoencoder's factor {factor} and diffusion.net.patch {patch} need sides that are "
                f"multiples of {factor * patch}; the nearest such grid is {near}"
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
        """Autoencoder; the cohort's latents, encoded once; transformer; adapter."""
        config = self.config
        choice = config.diffusion.choice if config.pretrained is None else None
        # The transformer's stage reads the autoencoder only to adopt weights, whose positions must be the grid's.
        needs = ("autoencoder", "latents")
        return (
            Stage("autoencoder", ("autoencoder", "pretrained"), config.autoencoder.steps),
            Stage("latents", ("latents",), None, ("autoencoder",)),
            Stage("diffusion", ("diffusion", "pretrained"), config.diffusion.steps, needs, choice=choice),
            Stage("tgca", ("tgca", "pretrained"), config.tgca.steps, ("latents", "diffusion"), conditional=True),
        )

    def dependencies(self, purpose: Purpose) -> Dependencies:
        if purpose == "reconstruct":
            return Dependencies(("autoencoder",), ("sampling.precision",))
        stages = ("autoencoder", "diffusion")
        return Dependencies(stages if purpose == "sample" else (*stages, "tgca"), ("sampling",))

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
