"""nnU-Net's side of an arm: its data set on disk, and the calls that plan and train."""

from __future__ import annotations

import json
import os
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import LabelMap, Run, Volume
from medlord_bench.contracts.arms import Arm, LabelledCase
from medlord_bench.contracts.regions import values_of
from medlord_bench.errors import MissingError, StepError, Stopped, UserError
from medlord_bench.util import seeds
from medlord_bench.util.files import publish, write_json

from .child import DATASET, WORKERS
from .process import FOLDERS, Work, carry_out, epochs_of

PROBE_CASES, PROBE_EPOCHS, PROBE_ITERATIONS = 4, 2, 4  # the first epoch of a probe warms up
LONG_EPOCHS = 20  # a shorter training saves every epoch, a longer one every tenth


@dataclass(frozen=True)
class Trainer:
    """A size of network and training. mirroring: whether images are mirrored, in training and predicting."""

    tiny: bool
    epochs: int
    iterations: int
    mirroring: bool
    val_iterations: int


PLANNER_GB = 8  # the target of nnU-Net's default planner

TRAINERS = {
    "tiny": Trainer(True, 12, 25, False, 1),
    "nnunet": Trainer(False, 1000, 250, True, 50),
}


def installed() -> str:
    """nnU-Net's version. Raises `MissingError` if it is not installed."""
    if find_spec("nnunetv2") is None:
        raise MissingError("metric downstream: nnU-Net is not installed; pip install 'medlord-bench[nnunet]'")
    return version("nnunetv2")


@dataclass(frozen=True)
class Training:
    """nnU-Net as a metric has configured it."""

    regions: tuple[str, ...]
    trainer: Trainer
    planner_gb: float | None

    def plan(self, cases: Sequence[LabelledCase], out: Path, run: Run) -> Path:
        """Fingerprint and plans from these cases; returns the folder with both.

        Raises `UserError` on a GPU if patch and batch would be planned for more memory than the guard allows.
        """
        self._check_target(run)
        self._write(cases, out, run)
        settings = {"work": "plan", "out": str(out / "plan"), "planner_gb": self.planner_gb, **self._shared(run)}
        carry_out(Work("plan the segmenter", out, settings, self._lengths(1.0, 0)), run)
        return out / "plan"

    def _check_target(self, run: Run) -> None:
        target = self.planner_gb or PLANNER_GB
        if run.device != "cpu" and run.memory_limit is not None and target > run.memory_limit:
            limit = run.memory_limit
            raise UserError(
                f"downstream.planner_gb: nnU-Net plans for {target:g} GB, the memory limit is {limit:g} GiB; "
                f"set --set downstream.planner_gb={limit:.3g}, or a larger --memory-limit"
            )

    def train(
        self,
        arm: Arm,
        cases: Sequence[LabelledCase],
        validation: Sequence[LabelledCase],
        shared: Path,
        out: Path,
        run: Run,
        more: Mapping[str, str] | None = None,
    ) -> tuple[Path, dict[str, Any]]:
        """Train an arm; returns the model folder, and what is recorded of the training. more: settings of `child`."""
        held = self._write([*cases, *validation], out, run)
        split = {"train": [one.id for one in cases], "val": [one.id for one in validation or cases[:1]]}
        lengths = self._lengths(arm.length, seeds.derive(run.seed, "arm", arm.seed))
        settings = {
            "work": "train",
            "out": str(out / "model"),
            "shared": str(shared.resolve()),
            "split": split,
            "augmentation_workers": os.environ.get(WORKERS, ""),
            **self._shared(run),
            **(more or {}),
        }
        carry_out(Work(f"train {arm.item}", out, settings, lengths, lengths["epochs"]), run)
        done = epochs_of(out / "progress.jsonl")
        write_json(out / "model" / "epochs.json", done)
        absent = [region for region in self.regions if not any(held[one.id][region] for one in cases)]
        return out / "model", {
            "epochs": lengths["epochs"],
            "iterations": lengths["epochs"] * lengths["iterations"],
            "seconds_of_epochs": round(sum(one["seconds"] for one in done), 1),
            "absent_regions": absent,
            "nnunetv2": installed(),
        }

    def probe(
        self, cases: Sequence[LabelledCase], validation: Sequence[LabelledCase], shared: Path, out: Path, run: Run
    ) -> dict[str, float]:
        """Seconds on this machine: of an iteration, a validation iteration, saving, preprocessing a case, and starting.

        A few iterations on a few cases, in the folder `out`.
        """
        few = min(PROBE_ITERATIONS, self.trainer.iterations)
        short = replace(
            self, trainer=replace(self.trainer, epochs=PROBE_EPOCHS, iterations=few, val_iterations=min(2, few))
        )
        start = time.monotonic()
        short.train(
            Arm(name="probe"), cases[:PROBE_CASES], validation[:1], shared, out, run, {"times": str(out / "times.json")}
        )
        whole, prepared = time.monotonic() - start, json.loads((out / "times.json").read_text())
        epochs = epochs_of(out / "progress.jsonl")
        spent = sum(one["seconds"] for one in epochs) + prepared["preprocessing"]
        return {
            **{name: float(epochs[-1][name]) for name in ("iteration", "validation", "saving")},
            "case": prepared["preprocessing"] / max(prepared["cases"], 1),
            "start": max(whole - spent, 0.0),
        }

    def hours(self, arm: Arm, validation: int, speeds: Mapping[str, float]) -> float:
        """Predicted hours of an arm's training. validation: cases. speeds: of `probe`."""
        lengths = self._lengths(arm.length, 0)
        cases = len(arm.real) + len(arm.synthetic) + validation
        epoch = self.trainer.iterations * speeds["iteration"] + speeds["saving"]
        epoch += self.trainer.val_iterations * speeds["validation"]
        return (speeds["start"] + cases * speeds["case"] + lengths["epochs"] * epoch) / 3600

    def _lengths(self, length: float, seed: int) -> dict[str, Any]:
        epochs = max(1, round(self.trainer.epochs * length))
        return {
            "epochs": epochs,
            "iterations": self.trainer.iterations,
            "val_iterations": self.trainer.val_iterations,
            "seed": seed,
            "tiny": self.trainer.tiny,
            "save_every": 1 if epochs <= 2 * LONG_EPOCHS else 10,
        }

    def _shared(self, run: Run) -> dict[str, Any]:
        import torch

        threads = torch.get_num_threads()
        processes = 1 if self.trainer.tiny else threads
        # nnU-Net takes the first card that it sees: see `process.environment`.
        device = run.device.partition(":")[0]
        return {"tiny": self.trainer.tiny, "threads": threads, "processes": processes, "device": device}

    def _write(self, cases: Sequence[LabelledCase], out: Path, run: Run) -> dict[str, dict[str, int]]:
        """The raw data set; cases that are there already are left alone. Returns case -> region -> voxels."""
        folder = out / FOLDERS["nnUNet_raw"] / DATASET
        held = {}
        for case in cases:
            image, labels = folder / "imagesTr" / f"{case.id}_0000.nii.gz", folder / "labelsTr" / f"{case.id}.nii.gz"
            volume, mask = case.open()
            values = renumbered(case.id, mask, self.regions)
            counts = np.bincount(values.ravel(), minlength=len(self.regions) + 1)
            held[case.id] = {region: int(counts[place]) for place, region in enumerate(self.regions, 1)}
            if not labels.exists():
                _check(case.id, volume, mask)
                _save(image, volume.hu, volume.spacing)
                _save(labels, values, volume.spacing)
            if run.stop():
                raise Stopped(f"stopped after writing {case.id} for nnU-Net")
        names = {region: place for place, region in enumerate(self.regions, 1)}
        write_json(folder / "dataset.json", _dataset(names, len(cases)))
        return held


def _dataset(names: Mapping[str, int], cases: int) -> dict[str, Any]:
    return {
        "channel_names": {"0": "CT"},  # the name selects nnU-Net's normalisation of CT
        "labels": {"background": 0, **names},
        "numTraining": cases,
        "file_ending": ".nii.gz",
        "overwrite_image_reader_writer": "SimpleITKIO",
    }


def renumbered(case: str, mask: LabelMap, regions: Sequence[str]) -> NDArray[np.uint8]:
    """A mask with the values 1, 2, ... in the order of `regions`, as nnU-Net needs them; 0 elsewhere.

    Raises `UserError` for a region that the mask does not define, and for two regions with a common label.
    """
    table, owner = np.zeros(256, np.uint8), dict[int, str]()
    for place, region in enumerate(regions, 1):
        values = values_of(region, mask.names)
        if not values:
            known = ", ".join(sorted(set(mask.names.values())))
            raise UserError(
                f"metric downstream: case {case}: its mask does not define {region!r} (it defines {known}); set "
                "downstream.regions to regions of the masks"
            )
        for value in values:
            if value in owner:
                raise UserError(
                    f"metric downstream: regions {owner[value]!r} and {region!r} both contain label {value} "
                    f"({mask.names[value]}); expected regions that do not overlap: set downstream.regions"
                )
            owner[value] = region
            table[value] = place
    return table[mask.labels]


def _check(case: str, volume: Volume, mask: LabelMap) -> None:
    if volume.shape != mask.shape:
        raise StepError(f"training case {case}: grid {volume.shape}, but its mask has {mask.shape}; expected one grid")


def _save(path: Path, values: NDArray[Any], spacing: tuple[float, float, float]) -> None:
    """As NIfTI at the origin: nnU-Net reads the voxel size alone, and ITK refuses axes that are not orthogonal."""
    import nibabel as nib

    image = nib.Nifti1Image(np.ascontiguousarray(values), np.diag([*spacing, 1.0]))
    publish(path, lambda temporary: nib.save(image, temporary))
