"""VQ-Trans as a plugin: a VQ-GAN and a transformer that samples its codes one by one (the paper's baseline, section
2.2)."""

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

from .configs import VQTransConfig
from .presets import PRESETS, VARIANTS

GRID = ("grid", "fit")  # the fields that decide the model's grid and the fit to it


class VQTrans:
    """VQ-Trans: an autoregressive transformer on the codes of a VQ-GAN with a downsampling factor of 16."""

    Config: ClassVar[type[VQTransConfig]] = VQTransConfig
    version: ClassVar[int] = 2
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"unconditional", "reconstructs"})

    def __init__(self, config: VQTransConfig) -> None:
        self.config = config

    def needed_weights(self) -> Sequence[NeededWeights]:
        """What the training of the autoencoder reads: the backbone of the perceptual loss."""
        from medlord_bench.nn.losses import needed_backbone

        autoencoder = self.config.autoencoder
        return [needed_backbone()] if autoencoder.perceptual and autoencoder.steps else []

    def check(self, data: DataProtocol) -> None:
        """The model's grid must be divisible by the autoencoder's downsampling and contain a patch; train and val need
        cases."""
        config = self.config
        for split in ("train", "val"):
            if not data.counts.get(split):
                raise UserError(
                    f"{data.name}: no {split} case, and VQ-Trans trains on train and chooses on val: give one"
                )
        shape, factor = config.native(data.grid.shape), config.autoencoder.net.factor
        if any(side % factor for side in shape):
            near = tuple(factor * max(1, round(side / factor)) for side in shape)
            raise UserError(
                f"grid {shape}: the autoencoder needs sides that are multiples of {factor}; the nearest such grid is "
                f"{near}: --set generator.grid={','.join(map(str, near))} fits volumes to it and back"
            )
        if any(side > full for side, full in zip(config.autoencoder.patch, shape, strict=True)):
            raise UserError(
                f"autoencoder.patch {config.autoencoder.patch}: larger than the grid {shape}; "
                "choose a smaller patch with --set generator.autoencoder.patch=X,Y,Z"
            )

    def native(self, grid: Grid) -> tuple[Grid, FitMode]:
        """`VQTransConfig.grid`, and `fit`."""
        from medlord_bench.volumes.native_grid import native_grid

        how = self.config.fit
        return native_grid(grid, self.config.native(grid.shape), how), how

    def available(self, data: DataProtocol) -> int | None:
        """Any number of samples."""
        return None

    def stages(self) -> Sequence[Stage]:
        """Autoencoder; the cohort's codes, encoded once; transformer."""
        return (
            Stage("autoencoder", ("autoencoder", *GRID), self.config.autoencoder.steps),
            Stage("tokens", ("tokens", *GRID), None, ("autoencoder",)),
            Stage("transformer", ("transformer",), self.config.transformer.steps, ("tokens",)),
        )

    def dependencies(self, purpose: Purpose) -> Dependencies:
        if purpose == "reconstruct":
            return Dependencies(("autoencoder",), ("sampling.precision", *GRID))
        return Dependencies(("autoencoder", "transformer"), ("sampling", *GRID))

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
