"""nnU-Net's own predictor on a planted model; a model folder that cannot be used, or trusted, is refused in one line."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from medlord_bench.contracts import LabelMap, Run, Segmenter, Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.plugins.segmenters.nnunet.segmenter import NnUNetConfig, NnUNetSegmenter
from medlord_bench.plugins.segmenters.subprocess.child import Segment

pytest.importorskip("nnunetv2", reason="pip install 'medlord-bench[nnunet]'")

NAMES = ("background", "lung_left", "heart_ventricle_left", "aorta")
HU = {0: -1000.0, 1: -700.0, 2: 50.0, 3: 400.0}
MODEL = "nnUNetTrainer__nnUNetPlans__3d_fullres"


@pytest.fixture
def model(planted: ModuleType, tmp_path: Path) -> Path:
    folder: Path = planted.plant(tmp_path / MODEL, NAMES, HU, 2.0, "nnUNetTrainer")
    return folder


def make(folder: Path | None, **config: Any) -> NnUNetSegmenter:
    return NnUNetSegmenter(NnUNetConfig(folder=folder, **config))


def edit(path: Path, **fields: Any) -> None:
    path.write_text(json.dumps(json.loads(path.read_text()) | fields))


def test_the_real_predictor_labels_every_voxel_as_the_planted_model_must(
    planted: ModuleType, model: Path, run: Run
) -> None:
    """Two volumes through one process; the axes differ in length and spacing, so that none can be mistaken."""
    rng = np.random.default_rng(0)
    segmenter = make(model, mirroring=False)
    assert isinstance(segmenter, Segmenter)
    cases = []
    for shape, spacing in (((40, 48, 56), (2.0, 2.0, 2.0)), ((16, 24, 40), (4.0, 3.0, 2.0))):
        coarse = rng.choice([int(hu) for hu in HU.values()], size=[n // 8 for n in shape])
        hu = np.kron(coarse, np.ones((8, 8, 8))).astype(np.int16)
        cases.append((str(shape), Volume(hu, np.diag([*spacing, 1.0]))))
    exact, resampled = segmenter.segment(cases, run)
    assert isinstance(exact, LabelMap) and isinstance(resampled, LabelMap), (exact, resampled)
    assert np.array_equal(exact.labels, planted.nearest(cases[0][1].hu, HU))
    assert exact.names == {1: "lung_left", 2: "left_ventricle", 3: "aorta"}  # by this project's names
    inside = np.zeros(8, bool)
    inside[2:6] = True
    keep = np.ix_(*(np.tile(inside, n // 8) for n in resampled.shape))
    assert np.array_equal(resampled.labels[keep], planted.nearest(cases[1][1].hu, HU)[keep])
    assert "nnUNet_results" not in os.environ


class MarkingPredictor:
    """In place of nnU-Net's: marks what lies at the start of each axis as it sees them."""

    stage_before: str | None = None

    def __init__(self, **_: Any) -> None:
        self.configuration_manager = SimpleNamespace(previous_stage_name=self.stage_before)

    def initialize_from_trained_model_folder(self, *_: Any, **__: Any) -> None:
        pass

    def predict_single_npy_array(self, data: np.ndarray, properties: dict[str, Any]) -> np.ndarray:
        assert data.shape == (1, 5, 4, 3) and data.dtype == np.float32
        assert properties == {"spacing": [3.0, 2.0, 1.0]}
        labels = np.zeros(data.shape[1:], np.uint8)
        labels[0], labels[:, 0, 0] = 1, 2  # the first slice, and the first row and column of all
        return labels


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Callable[[str], Segment]:
    """`nnunet_child.prepare` with that predictor: nnU-Net itself takes long to import."""
    from medlord_bench.plugins.segmenters.nnunet.child import prepare

    module = ModuleType("predict_from_raw_data")
    module.__dict__["nnUNetPredictor"] = MarkingPredictor
    monkeypatch.setitem(sys.modules, "nnunetv2.inference.predict_from_raw_data", module)
    settings = {"device": "cpu", "folder": "MODEL", "folds": ["0"], "checkpoint": "", "mirroring": False}
    return lambda orientation: prepare({**settings, "orientation": orientation}, tmp_path)


@pytest.mark.parametrize("orientation", ["RAS", "LPS", "LAI"])
def test_the_network_sees_the_axes_it_was_trained_on(
    orientation: str, tmp_path: Path, prepared: Callable[[str], Segment]
) -> None:
    import nibabel as nib

    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    source, target = tmp_path / "volume.nii", tmp_path / "labels.nii"
    nib.save(nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), affine), source)
    prepared(orientation)(source, target)
    image = nib.load(target)
    to = nib.orientations.ornt_transform(
        nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(orientation))
    )
    seen = np.asarray(image.as_reoriented(to).dataobj)  # nibabel's view along the axes that the network was told of
    assert (seen[:, :, 0] > 0).all() and (seen[0, 0] == 2).all() and (seen[1:, 1:, 1:] == 0).all()
    assert np.array_equal(image.affine, affine)


def test_the_second_stage_of_a_cascade_is_refused(
    prepared: Callable[[str], Segment], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(MarkingPredictor, "stage_before", "3d_lowres")
    with pytest.raises(UserError, match="MODEL: the second stage of a cascade"):
        prepared("RAS")


def test_a_checkpoint_that_nnu_net_s_trainer_wrote_is_taken(model: Path, planted: ModuleType) -> None:
    """Its training log holds NumPy scalars, which torch's restricted loader refuses unless it is told of them."""
    import torch

    path = model / "fold_0" / "checkpoint_final.pth"
    with pytest.raises(Exception, match="numpy"):
        torch.load(path, weights_only=True)
    assert list(make(model).fingerprint([])) == [
        *("nnunetv2", "dataset.json", "plans.json", "fold_0/checkpoint_final.pth")
    ]


def test_a_checkpoint_that_can_run_code_is_refused_unless_trusted(model: Path, tmp_path: Path, run: Run) -> None:
    import torch

    path, trap = model / "fold_0" / "checkpoint_final.pth", tmp_path / "ran"
    good = make(model).fingerprint([])
    torch.save({**torch.load(path, weights_only=False), "extra": Trap(trap)}, path)
    for call in (lambda: make(model).fingerprint([]), lambda: list(make(model).segment([], run))):
        with pytest.raises(UserError) as error:
            call()
        assert "checkpoint_final.pth: contains more than numbers (posix.mkdir)" in str(error.value)
        assert "nnunet.trust=true" in str(error.value) and "\n" not in str(error.value)
    assert not trap.exists()
    assert make(model, trust=True).fingerprint([]) != good
    path.write_bytes(b"not a checkpoint")
    with pytest.raises(UserError, match="not a checkpoint that torch can check"):
        make(model).fingerprint([])


class Trap:
    """What a malicious pickle does: calls a function while it is loaded."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.path),)


def test_what_is_missing_is_named(model: Path, tmp_path: Path) -> None:
    with pytest.raises(UserError, match="nnunet.folder="):
        make(None).fingerprint([])
    with pytest.raises(MissingError, match=r"nowhere/dataset\.json: not found; expected a trained nnU-Net"):
        make(tmp_path / "nowhere").fingerprint([])
    with pytest.raises(MissingError, match=r"fold_3/checkpoint_final\.pth: not found"):
        make(model, folds=(0, 3)).fingerprint([])
    with pytest.raises(MissingError, match=r"fold_0/checkpoint_best\.pth: not found"):
        make(model, checkpoint="checkpoint_best.pth").fingerprint([])
    (model / "plans.json").unlink()
    with pytest.raises(MissingError, match=r"plans\.json: not found"):
        make(model).fingerprint([])


def test_folds_are_all_there_are_but_a_model_of_all_data_stands_alone(model: Path) -> None:
    import shutil

    def folds(**config: Any) -> list[str]:
        return [name.partition("/")[0] for name in make(model, **config).fingerprint([]) if name.startswith("fold_")]

    shutil.copytree(model / "fold_0", model / "fold_1")
    shutil.copytree(model / "fold_0", model / "fold_all")
    assert folds() == ["fold_0", "fold_1"]
    assert folds(folds=(1,)) == ["fold_1"]
    assert folds(folds=("all",)) == ["fold_all"]
    shutil.rmtree(model / "fold_0")
    shutil.rmtree(model / "fold_1")
    assert folds() == ["fold_all"]


def test_models_that_cannot_answer_are_refused(model: Path) -> None:
    dataset = model / "dataset.json"
    edit(dataset, channel_names={"0": "CT", "1": "PET"})
    with pytest.raises(UserError, match=r"channel_names.*CT, PET; expected one channel"):
        make(model).fingerprint([])
    edit(dataset, channel_names={"0": "CT"}, labels={"background": 0, "heart": [1, 2], "aorta": 2})
    with pytest.raises(UserError, match="regions overlap"):
        make(model).fingerprint([])
    edit(dataset, regions_class_order=[1, 2])
    with pytest.raises(UserError, match="label 2 has no name"):
        make(model, label_names={1: "heart"}).fingerprint([])
    assert make(model, label_names={1: "heart", 2: "aorta"}).fingerprint([])
    dataset.write_text("{")
    with pytest.raises(UserError, match=r"dataset\.json: not JSON"):
        make(model).fingerprint([])


def test_the_ignore_label_is_no_region(model: Path) -> None:
    edit(model / "dataset.json", labels={"background": 0, "aorta": 1, "ignore": 2})
    assert make(model).names == {1: "aorta"}
    assert make(model).fingerprint([])
