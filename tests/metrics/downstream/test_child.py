"""What the process of a training does to files: shared plans beside its own data, and the model that it leaves."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from medlord_bench.metrics.downstream import child
from medlord_bench.nn.checkpoints import load_numbers


@pytest.fixture
def folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Mapping[str, Path]:
    """The folders of one arm, as the bench sets them."""
    found = {}
    for name in ("raw", "preprocessed", "results"):
        found[name] = tmp_path / name / child.DATASET
        monkeypatch.setenv(f"nnUNet_{name}", str(tmp_path / name))
    found["raw"].mkdir(parents=True)
    (found["raw"] / "dataset.json").write_text('{"labels": {"background": 0, "aorta": 1}}')
    return found


def shared(folders: Mapping[str, Path], tmp_path: Path) -> dict[str, Any]:
    """Settings with the plans of the real arm."""
    plans = tmp_path / "shared"
    plans.mkdir(exist_ok=True)
    (plans / "bench.json").write_text('{"plans": 1}')
    (plans / child.FINGERPRINT).write_text('{"spacings": []}')
    return {"shared": str(plans), "split": {"train": ["a", "b"], "val": ["c"]}, "out": str(tmp_path / "out" / "model")}


def test_plans_split_and_labels_lie_beside_the_data_of_an_arm(folders: Mapping[str, Path], tmp_path: Path) -> None:
    settings = shared(folders, tmp_path)
    for _ in range(2):  # once more after a process that was killed
        assert child._shared(settings) == folders["preprocessed"]
    found = {path.name: json.loads(path.read_text()) for path in folders["preprocessed"].iterdir()}
    assert found == {
        "bench.json": {"plans": 1},
        child.FINGERPRINT: {"spacings": []},
        "dataset.json": {"labels": {"background": 0, "aorta": 1}},
        "splits_final.json": [{"train": ["a", "b"], "val": ["c"]}],
    }


@pytest.mark.parametrize("axes", [None, (0, 2)])
def test_a_model_is_tensors_and_numbers_of_nnu_net_s_own_trainer(
    folders: Mapping[str, Path], tmp_path: Path, axes: tuple[int, ...] | None
) -> None:
    settings = shared(folders, tmp_path)
    child._shared(settings)
    trained = folders["results"] / "nnUNetTrainerBench__bench__3d_fullres"
    (trained / "fold_0").mkdir(parents=True)
    for name in ("dataset.json", "plans.json", child.FINGERPRINT):
        (trained / name).write_text(f'"{name}"')
    checkpoint = {
        "network_weights": {"w": torch.arange(6.0)},
        "init_args": {"plans": {"a": 1}, "fold": 0, "device": "cpu"},
        "trainer_name": child.TRAINER,
        "current_epoch": np.int64(7),
        "inference_allowed_mirroring_axes": None if axes is None else tuple(np.int64(axis) for axis in axes),
        "optimizer_state": {"lr": 0.1},
    }
    torch.save(checkpoint, trained / "fold_0" / "checkpoint_final.pth")
    for _ in range(2):
        child._model(settings)
    out = tmp_path / "out" / "model"
    files = {str(path.relative_to(out)) for path in out.rglob("*") if path.is_file()}
    assert files == {
        *("dataset.json", "plans.json", child.FINGERPRINT, "splits_final.json"),
        "fold_0/checkpoint_final.pth",
    }
    assert json.loads((out / "plans.json").read_text()) == "plans.json"
    kept = load_numbers(out / "fold_0" / "checkpoint_final.pth")
    assert torch.equal(kept.pop("network_weights")["w"], torch.arange(6.0))
    assert kept == {
        "init_args": {"plans": {"a": 1}, "fold": 0},
        "trainer_name": "nnUNetTrainer",
        "current_epoch": 7,
        "inference_allowed_mirroring_axes": axes,
    }
