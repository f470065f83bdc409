"""A run on a cohort whose test split contains a training case with added noise."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np

from medlord_bench.contracts import SPLITS, Volume
from medlord_bench.plugins.datasets.phantom.dataset import PhantomDataset
from medlord_bench.results import inputs
from medlord_bench.volumes.io import write_volume

SHAPE = (32, 32, 24)


def test_a_copy_across_splits_is_said_before_any_training_and_kept_for_the_page(bench: Any, tmp_path: Path) -> None:
    data = PhantomDataset(PhantomDataset.Config(n_train=4, n_val=1, n_test=2, shape=SHAPE))
    volumes = [data.load(case)[0] for split in SPLITS for case in data.cases(split)]
    root, first = tmp_path / "data", volumes[0]
    for number, volume in enumerate(volumes):
        place = root / ("train" if number < 5 else "test") / f"p{number}.nii.gz"
        place.parent.mkdir(parents=True, exist_ok=True)
        write_volume(place, volume)
    noise = np.random.default_rng(0).normal(0, 20, first.hu.shape)
    write_volume(root / "test" / "again.nii.gz", Volume((first.hu + noise).astype(np.int16), first.affine))
    words = ("--dataset", "folder", "--data-root", root, "--set", "dataset.shape=32,32,24", "--metric", "tissue")
    done = bench("run", "--generator", "noise", *words, "--no-resampled", "--store", tmp_path / "store")
    assert done.code == 0, done.err
    said = next(line for line in done.err.splitlines() if "nearly the same image in two splits" in line)
    assert "train__p0" in said and "test__again" in said and " more pairs" not in said
    found = inputs.read(next((tmp_path / "store" / "runs").iterdir()) / "results")
    assert found is not None
    assert [one.text for one in found.doubts if "nearly the same" in one.text] == [said.partition(": ")[2]]
