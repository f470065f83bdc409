"""The trainer of the arms: its length and its small form are settings, and the rest is nnU-Net's own."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
import torch

pytest.importorskip("nnunetv2", reason="pip install 'medlord-bench[nnunet]'")

PLANS = {
    "continue_training": False,
    "dataset_name": "Dataset001_Arm",
    "plans_name": "bench",
    "configurations": {
        "3d_fullres": {
            "batch_size": 2,
            "patch_size": [16, 16, 16],
            "data_identifier": "x",
            "architecture": {"network_class_name": "none", "arch_kwargs": {}, "_kw_requires_import": []},
        }
    },
}
DATASET = {
    "labels": {"background": 0, "aorta": 1},
    "channel_names": {"0": "CT"},
    "numTraining": 2,
    "file_ending": ".nii.gz",
}


@pytest.mark.parametrize("tiny", [True, False])
def test_a_tiny_training_has_no_deep_supervision_and_every_one_its_own_length(
    tiny: bool, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medlord_bench.metrics.downstream.trainers import nnUNetTrainerBench as module

    settings: dict[str, Any] = {
        "epochs": 3,
        "iterations": 4,
        "val_iterations": 1,
        "seed": 0,
        "save_every": 2,
        "tiny": tiny,
    }
    monkeypatch.setenv(module.SETTINGS, json.dumps({**settings, "progress": str(tmp_path / "progress.jsonl")}))
    for name in ("nnUNet_results", "nnUNet_preprocessed"):
        monkeypatch.setenv(name, str(tmp_path / name))
    trainer = module.nnUNetTrainerBench({**PLANS}, "3d_fullres", 0, DATASET, torch.device("cpu"))
    assert trainer.enable_deep_supervision is not tiny
    assert trainer.initial_lr == (5e-3 if tiny else 1e-2)
    assert (trainer.num_epochs, trainer.num_iterations_per_epoch, trainer.save_every) == (3, 4, 2)
    assert trainer.num_val_iterations_per_epoch == 1
