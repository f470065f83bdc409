"""Real volumes and samples reach an extractor that depends on the voxel size at one voxel size."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch

from medlord_bench.plugins.extractors.medicalnet.extractor import weights_file
from medlord_bench.plugins.extractors.medicalnet.network import layout
from medlord_bench.plugins.extractors.resnet3d import ResNet3D
from medlord_bench.plugins.phantom.anatomy import render
from medlord_bench.plugins.phantom.patient import draw

SHAPE = (24, 24, 20)


def thorax(folder: Path, index: int, spacing: float) -> None:
    """A phantom on its whole field of view, with another voxel size in its header, as scanners have it."""
    hu, _ = render(draw(5, index), SHAPE, (14.6, 14.6, 13.1))
    nibabel.save(nibabel.Nifti1Image(hu.astype(np.int16), np.diag([spacing] * 3 + [1.0])), folder / f"p{index}.nii.gz")


def planted(folder: Path) -> None:
    """MedicalNet's ResNet-10 with random weights, as published."""
    torch.manual_seed(0)
    file = weights_file(10)
    (folder / file.repo).mkdir(parents=True)
    state = {f"module.{name}": value for name, value in ResNet3D(layout(10)).state_dict().items()}
    torch.save({"state_dict": state}, folder / file.repo / file.file)


def test_training_volumes_as_samples_are_at_distance_zero_on_a_grid_without_a_voxel_size(
    bench: Any, tmp_path: Path
) -> None:
    for name in ("real", "copies"):
        (tmp_path / name).mkdir()
    planted(tmp_path / "weights")
    for index in range(6):
        thorax(tmp_path / "real", index, 10.0 + 2 * index)
    sets = {
        "dataset.shape": "24,24,20",
        "dataset.fit": "resize",
        "dataset.split.fractions": "0.5,0,0.5",
        "fid3d:medicalnet.minimum": "3",
        "fid3d:medicalnet.features": '{"depth": 10, "spacing": [9, 9, 9]}',
        "files:copies.folder": str(tmp_path / "copies"),
    }
    words = ["--dataset", "folder", "--data-root", str(tmp_path / "real"), "--no-conditional", "--no-report"]
    words += ["--store", str(tmp_path / "store"), "--weights-dir", str(tmp_path / "weights"), "--offline"]
    done = bench(
        "run", "--generator", "noise", "--samples", "1", "--metric", "axes", *words,
        *(word for key, value in sets.items() if key.startswith("dataset") for word in ("--set", f"{key}={value}")),
    )  # fmt: skip
    assert done.code == 0, done.err
    images = next((tmp_path / "store" / "objects" / "images").iterdir()) / "items"
    plan = json.loads(next((tmp_path / "store" / "runs").iterdir()).joinpath("plan.json").read_text())
    for number, item in enumerate(plan["splits"]["train"]):
        hu = np.load(images / f"{item}.npy")
        nibabel.save(nibabel.Nifti1Image(hu, np.eye(4)), tmp_path / "copies" / f"copy-{number}.nii.gz")
    done = bench(
        "run", "--generator", "files:copies", "--samples", "3", "--metric", "fid3d:medicalnet", *words,
        *(word for key, value in sets.items() for word in ("--set", f"{key}={value}")),
    )  # fmt: skip
    assert done.code == 0, done.err
    folder = next(one for one in (tmp_path / "store" / "runs").iterdir() if "copies" in one.name)
    scores = json.loads((folder / "results" / "scores.json").read_text())["scores"]
    found = {one["reference"]: one for one in scores if one["metric"] == "fid3d"}
    assert found["train"]["value"] < 1e-6 * found["test"]["value"]
    assert any("median of the training volumes" in note["text"] for note in found["train"]["notes"])
