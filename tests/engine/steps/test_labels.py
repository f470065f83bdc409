"""Real volumes and samples are segmented at one voxel size."""

from __future__ import annotations

import csv
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

from medlord_bench.plugins.phantom.anatomy import render
from medlord_bench.plugins.phantom.patient import draw


def thorax(folder: Path, index: int, spacing: tuple[float, float, float]) -> None:
    """A phantom on its whole field of view, with another voxel size in its header, as scanners have it."""
    hu, _ = render(draw(5, index), (48, 48, 32), (7.3, 7.3, 8.2))
    nibabel.save(nibabel.Nifti1Image(hu.astype(np.int16), np.diag([*spacing, 1.0])), folder / f"p{index}.nii.gz")


@pytest.fixture(scope="module")
def resized(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, tuple[str, ...]]:
    """A store with prepared images under a protocol without a voxel size, and the words of its run."""
    place = tmp_path_factory.mktemp("labels")
    (place / "real").mkdir()
    for index in range(6):
        thorax(place / "real", index, (5.0 + 0.8 * index, 5.0 + 0.8 * index, 4.0 + 1.5 * index))
    sets = ("dataset.shape=48,48,32", "dataset.fit=resize", "dataset.split.fractions=0.5,0,0.5", "rvr.segmenter=lungs")
    words = (
        "--dataset",
        "folder",
        "--data-root",
        str(place / "real"),
        "--metric",
        "rvr",
        "--no-conditional",
        "--no-report",
    )
    words += tuple(word for one in sets for word in ("--set", one))
    done = bench("run", "--generator", "noise", "--samples", "1", *words, "--store", place / "store")
    assert done.code == 0, done.err
    return place, words


def test_training_volumes_as_samples_have_the_ratios_of_the_training_volumes(bench: Any, resized: Any) -> None:
    place, words = resized
    (place / "copies").mkdir()
    images = next((place / "store" / "objects" / "images").iterdir()) / "items"
    (folder,) = (place / "store" / "runs").iterdir()
    rows = [row for row in csv.DictReader((folder / "results" / "cases.csv").open()) if row["split"] == "train"]
    for number, case in enumerate(sorted({row["case"] for row in rows})):
        hu = np.load(images / f"{case}.npy")
        nibabel.save(nibabel.Nifti1Image(hu, np.eye(4)), place / "copies" / f"copy-{number}.nii.gz")
    words = (
        *words,
        "--generator",
        "files:copies",
        "--set",
        f"files:copies.folder={place / 'copies'}",
        "--samples",
        "3",
    )
    done = bench("run", *words, "--store", place / "store", "--json")
    assert done.code == 0, done.err
    folder = next(one for one in (place / "store" / "runs").iterdir() if "copies" in one.name)
    found = [row for row in csv.DictReader((folder / "results" / "cases.csv").open()) if row["metric"] == "rvr"]
    real = sorted((row["region"], row["value"]) for row in found if row["split"] == "train")
    samples = sorted((row["region"], row["value"]) for row in found if row["generator"])
    assert len(samples) == 6 and samples == real
    assert any(float(value) > 0.01 for _, value in samples), "lungs are found"
    text = (folder / "results" / "scores.json").read_text()
    assert "segmented at the median voxel size of the training images" in text
