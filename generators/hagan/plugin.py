"""HA-GAN as a plugin: a GAN on a slab at full resolution and the whole volume at low resolution (the paper's
baseline)."""

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
from medlord_bench.errors import UserError

from .configs import STAGE, HAGANConfig
from .presets import PRESETS, VARIANTS


class HAGAN:
    """HA-GAN: a hierarchical GAN with encoders, on a cube; any grid is resized to it and back."""

    Config: ClassVar[type[HAGANConfig]] = HAGANConfig
    version: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = PRESETS
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = VARIANTS
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"unconditional", "reconstructs"})

    def __init__(self, config: HAGANConfig) -> None:
        self.config = config

    def check(self, data: DataProtocol) -> None:
        """Any grid can be resized to the cube; train and val need cases."""
        for split in ("train", "val"):
            if not data.counts.get(split):
                raise UserError(
                    f"{data.name}: no {split} case, and HA-GAN trains on train and validates on val: give one"
                )

    def native(self, grid: Grid) -> tuple[Grid, FitMode]:
        """The cube, with fit mode resize."""
        from medlord_bench.volumes.native_grid import native_grid

        return native_grid(grid, self.config.net.shape, "resize"), "resize"

    def available(self, data: DataProtocol) -> int | None:
        """Any number of samples."""
        return None

    def stages(self) -> Sequence[Stage]:
        """One: all four networks are trained together."""
        training = self.config.training
        return (Stage(STAGE, ("net", "training"), training.steps, choice=training.choice),)

    def dependencies(self, purpose: Purpose) -> Dependencies:
        return Dependencies((STAGE,), ("sampling",))

    def train(self, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        from . import training

        return training.train(self.config, stage, data, out, run)

    def adopt(self, stage: Stage, source: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        from . import adoption

        return adoption.adopt(self.config, stage, source, out, run)

    def sample(self, weights: Mapping[str, Path], requests: Sequence[Request], run: Run) -> Iterator[Volume | Failure]:
        from . import sampling

        return sampling.sample(self.config.sampling, weights, requests, run)

    def reconstruct(
        self, weights: Mapping[str, Path], volumes: Iterable[tuple[str, Volume]], run: Run
    ) -> Iterator[Volume | Failure]:
        from . import sampling

        return sampling.reconstruct(self.config.sampling, weights, volumes, run)

    def dry_runs(self, data: DataProtocol) -> Sequence[DryRun]:
        from . import dry_runs

        return dry_runs.dry_runs(self.config, data)

    def memory_options(self, during: str) -> Sequence[MemoryOption]:
        from . import dry_runs

        return dry_runs.memory_options(self.config, during)
