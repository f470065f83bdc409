"""The cohort's latents: encoded once and stored with the scale that gives them unit standard deviation."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray

from medlord_bench.contracts import Cohort, Run, Split
from medlord_bench.errors import MissingError, StepError, Stopped
from medlord_bench.util.files import write_json
from medlord_bench.volumes.arrays import load_state, save_state

SPLITS: tuple[Split, ...] = ("train", "val")
FACTS = "latents.json"
LATENT = "latent"  # the array's name in a case's file


class Latents(Protocol):
    """The encoded cohort. scale: the factor on its latents, 1 / their standard deviation."""

    scale: float

    def ids(self, split: Split) -> Sequence[str]: ...

    def latent(self, case_id: str) -> torch.Tensor:
        """float32 (C, x, y, z) on the CPU, already multiplied by `scale`."""
        ...


def encode_cohort(
    encode: Callable[[str], Mapping[str, NDArray[Any]]],
    data: Cohort,
    out: Path,
    run: Run,
    scale: float | None,
    describe: Callable[[Path], Mapping[str, Any]],
) -> Path:
    """Encode all training and validation cases that are not encoded yet, then measure the scale on the training split.

    encode: returns the arrays of a case, including `LATENT`, float32 (C, x, y, z). scale: replaces the measured scale.
    describe: returns further facts for `FACTS` from the folder with all cases. Returns that folder: one
    ``<case>.safetensors`` per case and `FACTS`, which is written last. Raises `Stopped` between two cases, and
    `StepError` if the latents do not vary.
    """
    folder = out / "latents"
    folder.mkdir(parents=True, exist_ok=True)
    todo = [case_id for split in SPLITS for case_id in data.ids(split)]
    with run.progress.task("encode latents", len(todo)) as task:
        for case_id in todo:
            path = _file(folder, case_id)
            if not path.exists():
                save_state(path, encode(case_id))
            task.advance()
            if run.stop():
                raise Stopped("encode latents: stopped, saved")
    chosen = measure_scale(folder, data) if scale is None else scale
    write_json(folder / FACTS, {"scale": chosen, "measured": scale is None, **describe(folder)})
    return folder


def case_arrays(folder: Path, case_id: str) -> Mapping[str, NDArray[Any]]:
    """The arrays of a case from `encode_cohort`, not scaled. Raises `MissingError` with the path of the file."""
    return load_state(_file(folder, case_id))


def _file(folder: Path, case_id: str) -> Path:
    return folder / f"{case_id}.safetensors"


def measure_scale(folder: Path, data: Cohort) -> float:
    """1 / standard deviation of all training latents (Rombach et al. 2022, appendix G), in float64.

    The paper's code uses one batch; with all cases the scale does not depend on their order. Raises `StepError` if the
    standard deviation is 0 or not finite.
    """
    total = squares = 0.0
    count = 0
    for case_id in data.ids("train"):
        latent = case_arrays(folder, case_id)[LATENT].astype(np.float64)
        total, squares, count = total + latent.sum(), squares + (latent**2).sum(), count + latent.size
    deviation = max(squares / count - (total / count) ** 2, 0.0) ** 0.5
    if not np.isfinite(deviation) or deviation == 0:
        raise StepError(f"{folder}: latents deviate by {deviation}; the autoencoder did not learn: train it again")
    return float(1.0 / deviation)


class StoredLatents:
    """`Latents` from the folder of `encode_cohort`. Raises `MissingError` if the folder is not complete."""

    def __init__(self, folder: Path, data: Cohort) -> None:
        self.folder, self.data, self.facts = folder, data, latent_facts(folder)
        self.scale: float = self.facts["scale"]

    def ids(self, split: Split) -> list[str]:
        return list(self.data.ids(split))

    def latent(self, case_id: str) -> torch.Tensor:
        return torch.from_numpy(case_arrays(self.folder, case_id)[LATENT]) * self.scale


def latent_facts(folder: Path) -> dict[str, Any]:
    """`FACTS`: scale, whether it was measured, and the generator's facts. Raises `MissingError` if there is none."""
    path = folder / FACTS
    if not path.exists():
        raise MissingError(f"{path}: not found; the latents are not complete: run the same command again")
    return dict(json.loads(path.read_text()))
