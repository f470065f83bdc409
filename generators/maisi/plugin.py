"""MAISI as a plugin: KL autoencoder, latent diffusion, ControlNet on label bits (Guo et al. 2025)."""

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
    FitMode,
    Grid,
    MemoryOption,
    Purpose,
    Request,
    Run,
    Stage,
    Volume,
)
from medlord_bench.contracts.weights import NeededWeights
from medlord_bench.errors import UserError

from .configs import FOUNDATION_LICENCE, MIN_PART_VOXELS, MAISIConfig, TilingConfig, check_grid
from .presets import PRESETS, VARIANTS


class MAISI:
    """MAISI: latent diffusion on a KL autoencoder, trained from scratch or on the published foundation autoencoder."""

    Config: ClassVar[type[MAISIConfig]] = MAISIConfig
    version: ClassVar[int] = 4
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"unconditional", "conditional", "reconstructs"})

    def __init__(self, config: MAISIConfig) -> None:
        self.config = config

    @property
    def pretrained_on(self) -> Sequence[str]:
        """What the foundation autoencoder was trained on, as far as its data list names it."""
        return self.config.foundation.trained_on if self.config.foundation is not None else ()

    def needed_weights(self) -> Sequence[NeededWeights]:
        """The foundation autoencoder, or what its training reads: the backbone of the perceptual loss."""
        from medlord_bench.nn.losses import needed_backbone
        from medlord_bench.nn.pretrained import WeightsFile

        published, autoencoder = self.config.foundation, self.config.autoencoder
        if published is not None:
            file = WeightsFile(repo=published.repository, file=published.file, sha256=published.sha256)
            return [file.needed(FOUNDATION_LICENCE)]
        return [needed_backbone()] if autoencoder.perceptual and autoencoder.steps else []

    def check(self, data: DataProtocol) -> None:
        """MAISI's grid must fit the levels of autoencoder and U-Net and contain a patch; train and val need cases."""
        config = self.config
        for split in ("train", "val"):
            if not data.counts.get(split):
                raise UserError(f"{data.name}: no {split} case; MAISI trains on train and selects on val: add one")
        shape, net = config.native(data.grid.shape), config.autoencoder.net
        check_grid(shape, net.factor * config.diffusion.net.divisor)
        if config.foundation is None and any(a > b for a, b in zip(config.autoencoder.patch, shape, strict=True)):
            raise UserError(
                f"autoencoder.patch {config.autoencoder.patch}: larger than MAISI's grid {shape}; choose a smaller "
                "patch with --set generator.autoencoder.patch=X,Y,Z"
            )
        for part, tile in (("latents", config.latents.tile), ("sampling", config.sampling.tile)):
            wide = min(tile[1], shape[1] // net.factor)
            if not net.takes(wide):
                raise UserError(
                    f"{part}.tile {tile}: its windows are {wide} latent voxels wide, which is not a multiple of "
                    f"autoencoder.net.num_splits = {net.num_splits}, or less than {MIN_PART_VOXELS} per split; "
                    "change one of them"
                )

    def native(self, grid: Grid) -> tuple[Grid, FitMode]:
        """The native grid: `MAISIConfig.grid` with its HU window. Images are resized to it and back."""
        from medlord_bench.volumes.native_grid import native_grid

        windowed = grid.model_copy(update={"hu_window": self.config.hu_window})
        return native_grid(windowed, self.config.native(grid.shape), "resize"), "resize"

    def available(self, data: DataProtocol) -> int | None:
        """Any number of samples."""
        return None

    def stages(self) -> Sequence[Stage]:
        """Autoencoder; the cohort's latents, encoded once; diffusion; ControlNet."""
        config = self.config
        return (
            self._autoencoder(),
            Stage("latents", ("latents", "grid"), None, ("autoencoder",)),
            Stage(
                "diffusion",
                ("diffusion",),
                config.diffusion.steps,
                ("latents",),
                choice=config.diffusion.choice,
            ),
            Stage(
                "controlnet",
                ("controlnet", "grid"),
                config.controlnet.steps,
                ("latents", "diffusion"),
                conditional=True,
            ),
        )

    def _autoencoder(self) -> Stage:
        """The autoencoder's stage. A published one (`foundation`) is not trained and has no steps."""
        fields = ("foundation", "autoencoder", "grid", "hu_window")
        return Stage("autoencoder", fields, self.config.autoencoder.steps if self.config.foundation is None else None)

    def dependencies(self, purpose: Purpose) -> Dependencies:
        if purpose == "reconstruct":
            return Dependencies(
                ("autoencoder",), tuple(f"sampling.{name}" for name in TilingConfig.model_fields) + ("grid",)
            )
        stages = ("autoencoder", "diffusion")
        return Dependencies(stages if purpose == "sample" else (*stages, "controlnet"), ("sampling", "grid"))

    def train(self, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        from . import training

        return training.train(self.config, stage, data, inputs, out, run)

    def adopt(self, stage: Stage, source: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        from . import adoption

        return adoption.adopt(self.config, stage, source, data, inputs, out, run)

    def sample(self, weights: Mapping[str, Path], requests: Sequence[Request], run: Run) -> Iterator[Volume | Failure]:
        from . import sampling

        return sampling.sample(self.config, weights, requests, run)

    def reconstruct(
        self, weights: Mapping[str, Path], volumes: Iterable[tuple[str, Volume]], run: Run
    ) -> Iterator[Volume | Failure]:
        from . import sampling

        return sampling.reconstruct(self.config, weights, volumes, run)

    def dry_runs(self, data: DataProtocol) -> Sequence[DryRun]:
        from . import dry_runs

        return dry_runs.dry_runs(self.config, data)

    def memory_options(self, during: str) -> Sequence[MemoryOption]:
        from . import dry_runs

        return dry_runs.memory_options(self.config, during)
