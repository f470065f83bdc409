"""The smallest generator that trains, samples and reconstructs: the mean volume, and noise about it.

A template for a generator of one's own (docs/plugins.md). NumPy only.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

from pydantic import Field

from medlord_bench.contracts import (
    BUDGET,
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
from medlord_bench.errors import MissingError, Stopped, UserError
from medlord_bench.util import seeds

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray


class ToyConfig(FrozenConfig):
    """Every setting of the toy. A field here is an option on the command line: `--set noise_hu=20`."""

    steps: Annotated[int, BUDGET] = Field(
        8, ge=1, description="cases that the mean is taken over, drawn with replacement"
    )
    noise_hu: float = Field(30.0, ge=0, description="standard deviation of the noise of a sample, HU")
    code_hu: int = Field(50, ge=1, description="what the autoencoder rounds the difference from the mean to, HU")


class Toy:
    """The mean of some training volumes, and noise about it."""

    Config: ClassVar[type[ToyConfig]] = ToyConfig
    version: ClassVar[int] = 1
    presets: ClassVar[Mapping[str, Mapping[str, Any]]] = {"tiny": {"steps": 4}}
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"quiet": {"noise_hu": 5.0}}
    capabilities: ClassVar[frozenset[Capability]] = frozenset({"unconditional", "reconstructs"})

    def __init__(self, config: ToyConfig) -> None:
        self.config = config

    def check(self, data: DataProtocol) -> None:
        """A mean volume needs something to take the mean of; any grid will do."""
        if not data.counts.get("train"):
            raise UserError(f"{data.name}: no train case; expected at least one")

    def available(self, data: DataProtocol) -> int | None:
        """Any number of samples."""
        return None

    def stages(self) -> Sequence[Stage]:
        return (Stage("mean", steps=self.config.steps),)

    def dependencies(self, purpose: Purpose) -> Dependencies:
        if purpose == "reconstruct":
            return Dependencies(("mean",), ("code_hu",))
        return Dependencies(("mean",), ("noise_hu",))

    def train(self, stage: Stage, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        """Add one training case per step to a sum; which one is a function of (seed, step), so a resumed training
        gives the same bytes."""
        import numpy as np

        ids = data.ids("train")
        steps = stage.steps or 0
        done, total = _restore(out / "state.npz", data.protocol.grid.shape)
        with run.progress.task("toy: mean", total=steps, done=done) as task:
            for step in range(done, steps):
                case_id = ids[int(seeds.numpy_rng(run.seed, "toy", step).integers(len(ids)))]
                total += data.hu(case_id)
                _save(out / "state.npz", step + 1, total)
                task.advance()
                if run.stop() and step + 1 < steps:
                    raise Stopped(f"toy: stopped after step {step + 1} of {steps}; run the same command to go on")
        folder = out / "weights"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "mean.npy", (total / steps).astype(np.float32))
        return folder

    def adopt(self, stage: Stage, source: Path, data: Cohort, inputs: Mapping[str, Path], out: Path, run: Run) -> Path:
        """A `mean.npy`, or the folder that holds one."""
        import numpy as np

        mean = _mean(source if source.is_dir() else source.parent)
        if mean.shape != data.protocol.grid.shape:
            raise UserError(
                f"--weights {source}: mean is {mean.shape}, expected {data.protocol.grid.shape}; train anew"
            )
        folder = out / "weights"
        folder.mkdir(parents=True, exist_ok=True)
        np.save(folder / "mean.npy", mean)
        return folder

    def sample(self, weights: Mapping[str, Path], requests: Sequence[Request], run: Run) -> Iterator[Volume | Failure]:
        mean = _mean(weights["mean"])
        for request in requests:
            if request.grid.shape != mean.shape:
                yield Failure(f"the toy was trained on {mean.shape} and cannot sample {request.grid.shape}")
                continue
            noise = seeds.numpy_rng(request.seed, "toy").standard_normal(mean.shape)
            yield Volume(_hu(mean + self.config.noise_hu * noise, request.grid.hu_window), request.grid.affine())

    def reconstruct(
        self, weights: Mapping[str, Path], volumes: Iterable[tuple[str, Volume]], run: Run
    ) -> Iterator[Volume | Failure]:
        """The difference from the mean, rounded to `code_hu`, within the volume's own range: an autoencoder whose error
        is known to be at most half of it."""
        import numpy as np

        mean, code = _mean(weights["mean"]), self.config.code_hu
        for _, volume in volumes:
            if volume.shape != mean.shape:
                yield Failure(f"the toy was trained on {mean.shape} and cannot take {volume.shape}")
                continue
            window = (int(volume.hu.min()), int(volume.hu.max()))
            yield Volume(_hu(mean + code * np.rint((volume.hu - mean) / code), window), volume.affine)


def _restore(path: Path, shape: tuple[int, int, int]) -> tuple[int, NDArray[np.float64]]:
    import numpy as np

    if not path.exists():
        return 0, np.zeros(shape, dtype=np.float64)
    with np.load(path, allow_pickle=False) as state:
        return int(state["done"]), state["total"]


def _save(path: Path, done: int, total: NDArray[np.float64]) -> None:
    """In one step, so that a kill leaves the old state or the new one."""
    import numpy as np

    path.parent.mkdir(parents=True, exist_ok=True)
    temporary = path.with_name(f".{os.getpid()}.npz")
    np.savez(temporary, done=done, total=total)
    os.replace(temporary, path)


def _mean(folder: Path) -> NDArray[np.float32]:
    import numpy as np

    path = folder / "mean.npy"
    try:
        mean: NDArray[np.float32] = np.load(path, allow_pickle=False)
    except FileNotFoundError:
        raise MissingError(f"{path}: not found; expected the toy's mean volume: train it or give --weights") from None
    return mean


def _hu(values: NDArray[np.floating[Any]], window: tuple[int, int]) -> NDArray[np.int16]:
    import numpy as np

    return np.clip(np.rint(values), *window).astype(np.int16)
