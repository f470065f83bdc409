"""Label maps from disk: found by case, named, and refused on another grid."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medlord_bench.contracts import LabelMap, Run, Segmenter, Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.plugins.segmenters.files.segmenter import FilesConfig, FilesSegmenter
from medlord_bench.volumes.io import write_labels

NAMES = {1: "aorta", 2: "heart"}


def a_case(seed: int, folder: Path) -> tuple[str, Volume, np.ndarray]:
    rng = np.random.default_rng(seed)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    labels = rng.integers(0, 3, (6, 5, 4)).astype(np.uint8)
    write_labels(folder / f"case{seed}.nii.gz", LabelMap(labels, affine, NAMES))
    return f"case{seed}", Volume(rng.integers(-1000, 1000, (6, 5, 4)).astype(np.int16), affine), labels


def test_each_case_gets_its_own_map_in_order(tmp_path: Path, run: Run) -> None:
    cases = [a_case(seed, tmp_path) for seed in (2, 0, 1)]
    segmenter = FilesSegmenter(FilesConfig(folder=tmp_path, label_names=NAMES))
    assert isinstance(segmenter, Segmenter)
    got = list(segmenter.segment([(name, volume) for name, volume, _ in cases], run))
    for found, (_, _, labels) in zip(got, cases, strict=True):
        assert isinstance(found, LabelMap)
        assert np.array_equal(found.labels, labels)
        assert found.names == NAMES


def test_a_missing_map_another_grid_and_no_folder_are_errors(tmp_path: Path, run: Run) -> None:
    name, volume, _ = a_case(0, tmp_path)
    segmenter = FilesSegmenter(FilesConfig(folder=tmp_path, label_names=NAMES))
    with pytest.raises(MissingError, match=r"case9\.nii\.gz: not found"):
        list(segmenter.segment([("case9", volume)], run))
    other = Volume(volume.hu, np.diag([1.0, 2.0, 3.0, 1.0]))
    with pytest.raises(UserError, match=r"case0\.nii\.gz.*case case0"):
        list(segmenter.segment([(name, other)], run))
    with pytest.raises(UserError, match="folder is not given"):
        list(FilesSegmenter(FilesConfig()).segment([(name, volume)], run))
    with pytest.raises(UserError, match="label_names is not given"):
        list(FilesSegmenter(FilesConfig(folder=tmp_path)).segment([(name, volume)], run))


def test_masks_of_a_run_can_come_from_label_files(tmp_path: Path, run: Run) -> None:
    """`dataset.masks=files` puts the segmenter's labels on the grid, and their content into the key."""
    from medlord_bench.engine.planner import build
    from medlord_bench.engine.resolve import resolve
    from medlord_bench.engine.run_file import RunFile
    from medlord_bench.engine.steps.job import Job
    from medlord_bench.engine.steps.kinds import KINDS
    from medlord_bench.engine.store import Store
    from medlord_bench.volumes.io import write_volume

    rng = np.random.default_rng(0)
    affine, folder = np.diag([2.0, 2.0, 2.0, 1.0]), tmp_path / "labels"
    folder.mkdir()
    labels = {}
    for patient in "abc":
        hu = rng.integers(-1000, 300, (16, 16, 16)).astype(np.int16)
        (tmp_path / "ct" / patient).mkdir(parents=True)
        write_volume(tmp_path / "ct" / patient / "ct.nii.gz", Volume(hu, affine))
        labels[patient] = rng.integers(0, 3, hu.shape).astype(np.uint8)
        write_labels(folder / f"{patient}.nii.gz", LabelMap(labels[patient], affine, NAMES))
    sets = {
        "dataset.data_root": str(tmp_path / "ct"),
        "dataset.shape": [16, 16, 16],
        "dataset.masks": "files",
        "files.folder": str(folder),
        "files.label_names": {1: "aorta", 2: "heart"},
    }
    file = RunFile(generators=("noise",), dataset="folder", metrics=(), set=sets)
    planned = build(resolve(file))
    job = Job(planned, planned.step("images"), Store(tmp_path / "store"), run)
    KINDS["images"].run(job, job.step.items)
    for item in job.step.items:
        found = job.cohort().labels(item)
        assert found is not None
        assert np.array_equal(found, labels[item[0]])
    write_labels(folder / "a.nii.gz", LabelMap(labels["b"], affine, NAMES))
    assert build(resolve(file)).step("images").key != planned.step("images").key
