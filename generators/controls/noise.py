"""The control without anatomy: white noise with the training set's mean and standard deviation."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import (
    Capability,
    Cohort,
    DataProtocol,
    Dependencies,
    Failure,
    FrozenConfig,
    Purpose,
    Request,
    Run,
    Stage,
    Volume,
)
from medlord_bench.errors import UserError
from medlord_bench.util import seeds
from medlord_bench.volumes.arrays import load_state, save_state


class NoiseConfig(FrozenConfig):
    """Whether noise is also drawn for masks."""

    masks: bool = Field(False, description="also draw conditional samples, which ignore their masks")


class Noise:
    """White noise with the training set's mean and standard deviation: the worst expected result."""

    Config: ClassVar[type[NoiseConfig]] = NoiseConfig
    version: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {}
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"masks": {"masks": True}}
    control: ClassVar[bool] = True
    capabilities: frozenset[Capability] = frozenset({"unconditional"})

    def __init__(self, config: NoiseConfig) -> None:
        self.config = config
        if config.masks:
            self.capabilities = frozenset({"unconditional", "conditional"})

    def check(self, data: DataProtocol) -> None:
        """Any grid is accepted."""

    def available(self, data: DataProtocol) -> int | None:
        """Any number of samples."""
        return None

    def stages(self) -> Sequence[Stage]:
        return (Stage("statistics"),)

    def dependencies(self, purpose: Purpose) -> Dependencies:
        return Dependencies(("statistics",))

    def train(self, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        """Mean and standard deviation of HU over all training voxels."""
        import numpy as np

        total = squares = 0.0
        count = 0
        for case_id in data.ids("train"):
            hu = np.asarray(data.hu(case_id), dtype=np.float64)
            total, squares, count = total + hu.sum(), squares + (hu**2).sum(), count + hu.size
        mean = total / count
        folder = out / "weights"
        state = {"mean": np.array(mean), "sd": np.array((squares / count - mean**2) ** 0.5)}
        save_state(folder / "statistics.safetensors", state)
        return folder

    def adopt(self, stage: Stage, source: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        raise UserError(f"--weights {source}: noise has no weights to load; remove --weights")

    def sample(self, weights: Mapping[str, Path], requests: Sequence[Request], run: Run) -> Iterator[Volume | Failure]:
        import numpy as np

        state = load_state(weights["statistics"] / "statistics.safetensors")
        for request in requests:
            low, high = request.grid.hu_window
            noise = seeds.numpy_rng(request.seed, "noise").standard_normal(request.grid.shape)
            hu = np.clip(np.rint(state["mean"] + state["sd"] * noise), low, high).astype(np.int16)
            yield Volume(hu, request.grid.affine())

    def reconstruct(
        self, weights: Mapping[str, Path], volumes: Iterable[tuple[str, Volume]], run: Run
    ) -> Iterator[Volume | Failure]:
        raise UserError("noise has no autoencoder")
