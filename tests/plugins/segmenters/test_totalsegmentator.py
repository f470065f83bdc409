"""TotalSegmentator's real API runs offline on a planted model; what is missing is said before any work."""

from __future__ import annotations

import json
import os
import stat
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import pytest

from medlord_bench.contracts import LabelMap, Run, Segmenter, Volume
from medlord_bench.errors import ExitCode, MissingError, UserError

pytest.importorskip("totalsegmentator", reason="pip install 'medlord-bench[totalsegmentator]'")

from medlord_bench.plugins.segmenters.totalsegmentator import tasks as tasks_of
from medlord_bench.plugins.segmenters.totalsegmentator import weights
from medlord_bench.plugins.segmenters.totalsegmentator.child import write_home
from medlord_bench.plugins.segmenters.totalsegmentator.segmenter import (
    TotalSegmentatorConfig,
    TotalSegmentatorSegmenter,
)
from medlord_bench.volumes.io import write_volume

HU = {0: -1000.0, 10: -700.0, 51: 50.0, 52: 400.0}  # background, a lung lobe, heart, aorta: the planted model's answer
NUMBER = "no licence"  # TotalSegmentator refuses it, and would refuse to run with it
CHAMBERS = ("lv_myocardium", "left_atrium", "left_ventricle", "right_atrium", "right_ventricle")


@pytest.fixture(autouse=True)
def own_folders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """No test sees the weights or licence of whoever runs it."""
    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH", raising=False)
    monkeypatch.delenv("MEDLORD_BENCH_WEIGHTS", raising=False)
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path / "home"))
    yield


@pytest.fixture(scope="session")
def planted_weights(planted: ModuleType, tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder: Path = tmp_path_factory.mktemp("totalsegmentator")
    planted.plant_totalsegmentator(folder, HU)
    return folder


def make(**config: Any) -> TotalSegmentatorSegmenter:
    return TotalSegmentatorSegmenter(TotalSegmentatorConfig(**config))


def set_licence(home: Path, number: str) -> None:
    home.mkdir(exist_ok=True)
    (home / "config.json").write_text(json.dumps({"license_number": number, "send_usage_stats": True}))


def blocks(shape: tuple[int, int, int], seed: int) -> np.ndarray:
    """Blocks of 8 voxels, each of one of the planted model's HU."""
    rng = np.random.default_rng(seed)
    coarse = rng.choice([int(hu) for hu in HU.values()], size=[n // 8 for n in shape])
    return np.kron(coarse, np.ones((8, 8, 8))).astype(np.int16)


# ------------------------------------------------------------------------------------------------------- the real API
def test_the_real_api_runs_offline_and_sends_nothing(
    planted: ModuleType, planted_weights: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On the model's own spacing every voxel is what the planted weights say; the process refused no network call,
    since none was tried."""
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(planted_weights))
    affine = np.diag([6.0, 6.0, 6.0, 1.0])
    affine[:2, :2] = 6 * np.array([[np.cos(0.2), -np.sin(0.2)], [np.sin(0.2), np.cos(0.2)]])  # a patient lying askew
    affine[:3, 3] = -70, 11, 5
    volume = Volume(blocks((48, 40, 32), 0), affine)
    segmenter = make(speed="fastest")
    assert isinstance(segmenter, Segmenter)
    made = segmenter.segment([("a", volume)], run)
    labels = next(made)
    assert isinstance(labels, LabelMap), labels
    assert np.array_equal(labels.labels, planted.nearest(volume.hu, HU))
    assert np.array_equal(labels.affine, volume.affine)
    assert np.array_equal(labels.region("lungs"), volume.hu == -700)
    assert np.array_equal(labels.region("aorta"), volume.hu == 400)

    (home,) = run.scratch.glob("totalsegmentator-*/home/config.json")  # the process still lives
    config = json.loads(home.read_text())
    assert config["send_usage_stats"] is False
    assert config["prediction_counter"] == 1  # so this is the file that TotalSegmentator went by
    assert list(made) == []
    assert [path for path in run.scratch.iterdir() if path.is_dir()] == []
    (log,) = run.scratch.glob("totalsegmentator-*.log")
    assert "network call refused" not in log.read_text()
    assert "Downloading" not in log.read_text()
    assert "TOTALSEG_HOME_DIR" in os.environ and "nnUNet_results" not in os.environ  # nothing leaks into this process


@pytest.mark.slow
def test_a_finer_volume_gets_both_tasks_merged_on_its_own_grid(
    planted: ModuleType, tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Blocks of 24 mm, at 3 mm, through the 6 mm models: inside the blocks labels survive both resamplings. A second
    task finds one body, the half at 400 HU; where it does, it counts."""
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "w"))
    planted.plant_totalsegmentator(tmp_path / "w", HU)
    body = tmp_path / "w" / "Dataset300_body_6mm_1559subj" / "nnUNetTrainer__nnUNetPlans__3d_fullres"
    names = ("background", "body_trunc", "body_extremities")
    planted.plant(body, names, {0: -700.0, 1: 400.0}, 6.0, "nnUNetTrainer")
    hu = blocks((64, 56, 48), 1)
    hu[hu > 0], hu[32:] = -700, 400
    hu[:24, :24, :24] = -1000
    volume = Volume(hu, np.diag([3.0, 3.0, 3.0, 1.0]))
    (labels,) = make(tasks=("total", "body"), speed="fastest").segment([("a", volume)], run)
    assert isinstance(labels, LabelMap), labels
    inside = np.zeros(8, bool)
    inside[2:6] = True
    keep = np.ix_(*(np.tile(inside, n // 8) for n in volume.shape))
    expected = planted.nearest(hu, HU)
    expected[32:] = 117 + 1
    assert labels.names[117 + 1] == "body_trunc"
    assert np.array_equal(labels.labels[keep], expected[keep])
    assert len(np.unique(expected)) == 3


# --------------------------------------------------------------------------------------------------- before any work
def test_missing_weights_name_the_folder_and_the_command_that_fetches_them(
    tmp_path: Path, planted_weights: Path, monkeypatch: pytest.MonkeyPatch, run: Run
) -> None:
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "w"))
    for speed, model, download in (
        ("fastest", "Dataset298_TotalSegmentator_total_6mm_1559subj", "total_fast"),
        ("fast", "Dataset297_TotalSegmentator_total_3mm_1559subj", "total_fast"),
        ("default", "Dataset291_TotalSegmentator_part1_organs_1559subj", "total"),
    ):
        for call in (
            lambda s=speed: make(speed=s).fingerprint([]),
            lambda s=speed: list(make(speed=s).segment([], run)),
        ):
            with pytest.raises(MissingError) as error:
                call()
            message = str(error.value)
            assert str(tmp_path / "w" / model) in message and "\n" not in message
            assert f"TOTALSEG_WEIGHTS_PATH={tmp_path / 'w'} totalseg_download_weights -t {download}" in message
    torn = tmp_path / "w" / "Dataset298_TotalSegmentator_total_6mm_1559subj"
    torn.mkdir(parents=True)  # all that TotalSegmentator itself looks at
    with pytest.raises(MissingError, match="is incomplete"):
        make(speed="fastest").fingerprint([])


def test_a_licensed_task_without_a_licence_says_so_before_any_work(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    for number in (None, NUMBER):
        if number is not None:
            set_licence(home, number)
        with pytest.raises(MissingError) as error:
            make(tasks=("total", "heartchambers_highres")).fingerprint([])
        message = str(error.value)
        assert error.value.code == ExitCode.MISSING and "\n" not in message
        for part in (
            "heartchambers_highres",
            "free for non-commercial",
            tasks_of.LICENCE_PAGE,
            str(home / "config.json"),
        ):
            assert part in message
        assert NUMBER not in message
    monkeypatch.setattr(tasks_of, "LICENCE_LENGTH", len(NUMBER))
    with pytest.raises(MissingError, match="-t total_fast && .* -t heartchambers_highres;") as error:
        make(tasks=("heartchambers_highres",)).fingerprint([])  # with a licence, the weights are asked for
    assert NUMBER not in str(error.value)


def test_a_run_with_a_licensed_task_ends_with_exit_3_and_one_line(bench: Any, tmp_path: Path) -> None:
    for patient in "abc":
        (tmp_path / "ct" / patient).mkdir(parents=True)
        write_volume(tmp_path / "ct" / patient / "ct.nii.gz", Volume(blocks((16, 16, 16), ord(patient)), np.eye(4)))
    options = (
        "dataset.masks=totalsegmentator",
        "totalsegmentator.tasks=[heartchambers_highres]",
        "dataset.shape=16,16,16",
    )
    done = bench(
        *("run", "--generator", "noise", "--dataset", "folder", "--data-root", tmp_path / "ct"),
        *(word for option in options for word in ("--set", option)),
        *("--store", tmp_path / "store"),
        env={"TOTALSEG_HOME_DIR": str(tmp_path / "home")},
    )
    assert done.code == ExitCode.MISSING, done.err
    assert len(done.err.strip().splitlines()) == 1
    assert "task heartchambers_highres needs a licence number" in done.err
    assert not list(tmp_path.glob("store/objects/*"))  # before any work


def test_licensed_tasks_are_those_of_totalsegmentator_s_own_list() -> None:
    from totalsegmentator.map_to_binary import commercial_models

    assert "heartchambers_highres" in commercial_models
    assert all(tasks_of.licensed(task) for task in commercial_models)
    assert not tasks_of.licensed("total")


def test_unknown_and_mr_tasks_are_usage_errors_with_the_near_miss() -> None:
    with pytest.raises(UserError, match="did you mean 'heartchambers_highres'") as error:
        make(tasks=("heartchamber_highres",)).fingerprint([])
    assert error.value.code == ExitCode.USAGE
    with pytest.raises(UserError, match="unknown task 'total_mr'"):
        _ = make(tasks=("total_mr",)).names


# ------------------------------------------------------------------------------------------------------ home, weights
def test_the_home_folder_is_private_and_has_statistics_off(tmp_path: Path) -> None:
    set_licence(tmp_path / "mine", NUMBER)
    write_home(tmp_path / "free" / "home", None)
    write_home(tmp_path / "licensed" / "home", tmp_path / "mine")
    free, licensed = (tmp_path / name / "home" / "config.json" for name in ("free", "licensed"))
    for path in (free, licensed):
        assert json.loads(path.read_text())["send_usage_stats"] is False
        assert stat.S_IMODE(path.stat().st_mode) == 0o600
    assert "license_number" not in json.loads(free.read_text())
    assert json.loads(licensed.read_text())["license_number"] == NUMBER


def test_totalsegmentator_s_own_code_finds_the_licence_there_and_sends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from totalsegmentator import config

    set_licence(tmp_path / "mine", NUMBER)
    write_home(tmp_path / "licensed", tmp_path / "mine")
    monkeypatch.setenv("TOTALSEG_HOME_DIR", str(tmp_path / "licensed"))
    assert config.get_license_number() == NUMBER
    assert config.has_valid_license_offline()[0] == "invalid_license"
    sent: list[str] = []
    monkeypatch.setattr(config.requests, "post", lambda url, **_: sent.append(url))
    wanted = dict.fromkeys(("task", "fast", "preview", "multilabel", "statistics", "radiomics"), "x")
    config.send_usage_stats(config.setup_totalseg(), {**wanted, "roi_subset": None})
    assert sent == []
    config.send_usage_stats({**config.setup_totalseg(), "send_usage_stats": True}, {**wanted, "roi_subset": None})
    assert len(sent) == 1  # the switch is what keeps it silent


def test_weights_are_looked_for_where_the_variables_say_then_in_the_bench_s_folder_then_in_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = Path.home() / ".totalsegmentator"
    assert weights.folder() == tmp_path / "home" / "nnunet" / "results"
    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "w"))
    assert weights.folder() == tmp_path / "w"
    monkeypatch.delenv("TOTALSEG_WEIGHTS_PATH")
    monkeypatch.delenv("TOTALSEG_HOME_DIR")
    monkeypatch.setenv("MEDLORD_BENCH_WEIGHTS", str(tmp_path / "bench"))
    monkeypatch.setenv("HOME", str(tmp_path / "person"))
    assert Path.home() / ".totalsegmentator" != home
    assert weights.folder() == tmp_path / "bench" / "totalsegmentator"
    own = tmp_path / "person" / ".totalsegmentator" / "nnunet" / "results"
    own.mkdir(parents=True)
    assert weights.folder() == own
    (tmp_path / "bench" / "totalsegmentator").mkdir(parents=True)
    assert weights.folder() == tmp_path / "bench" / "totalsegmentator"


def test_version_and_weights_are_in_the_fingerprint_and_paths_are_not(
    tmp_path: Path, planted: ModuleType, monkeypatch: pytest.MonkeyPatch
) -> None:
    from importlib.metadata import version

    monkeypatch.setenv("TOTALSEG_WEIGHTS_PATH", str(tmp_path / "w"))
    model = planted.plant_totalsegmentator(tmp_path / "w", HU)
    first = make(speed="fastest").fingerprint(["a"])
    assert first["TotalSegmentator"] == version("TotalSegmentator")
    assert first["nnunetv2"] == version("nnunetv2")
    assert [name.rpartition("/")[2] for name in first if "/" in name] == [
        *("dataset.json", "plans.json", "checkpoint_final.pth")
    ]
    assert str(tmp_path) not in json.dumps(dict(first))
    with open(model / "fold_0" / "checkpoint_final.pth", "ab") as file:
        file.write(b"x")
    assert make(speed="fastest").fingerprint(["a"]) != first


def test_the_models_that_a_task_runs_are_those_its_own_code_asks_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """TotalSegmentator is run up to its last model with nnU-Net taken out, and every model it asks for is noted."""
    import nibabel as nib
    from totalsegmentator import python_api

    asked: set[int] = set()
    everything = nib.Nifti1Image(np.tile(np.arange(1, 118, dtype=np.uint8), (3, 3, 1)), np.eye(4))
    nnunet = ModuleType("totalsegmentator.nnunet")
    nnunet.__dict__["nnUNet_predict_image"] = lambda *_, **__: (everything, None, None)
    monkeypatch.setitem(sys.modules, "totalsegmentator.nnunet", nnunet)
    monkeypatch.setattr(python_api, "download_pretrained_weights", asked.add)
    for name in ("show_license_info", "setup_totalseg", "setup_nnunet", "increase_prediction_counter"):
        monkeypatch.setattr(python_api, name, lambda: None)
    for task, speed in (
        *(("total", speed) for speed in ("default", "fast", "fastest")),
        *(("body", speed) for speed in ("default", "fastest")),
        *((task, "default") for task in ("heartchambers_highres", "lung_vessels", "coronary_arteries", "breasts")),
        *((task, "default") for task in ("vertebrae_pp_refined", "liver_vessels")),
    ):
        asked.clear()
        python_api.totalsegmentator(
            everything, ml=True, task=task, fast=speed == "fast", fastest=speed == "fastest", device="cpu", quiet=True
        )
        assert asked == set(tasks_of.models(task, speed)), (task, speed)


# ------------------------------------------------------------------------------------------------------------- labels
def test_labels_of_one_task_are_totalsegmentator_s_own(monkeypatch: pytest.MonkeyPatch) -> None:
    from totalsegmentator.map_to_binary import class_map

    assert dict(make().names) == class_map["total"]
    assert make(tasks=("heartchambers_highres",)).names == {
        **dict(enumerate(CHAMBERS, start=1)),
        6: "aorta",
        7: "pulmonary_artery",
    }


def test_merged_tasks_unite_what_both_find_and_the_heart_is_its_parts() -> None:
    both = ("total", "heartchambers_highres")
    tables, names = tasks_of.label_tables(both), tasks_of.names(both)
    assert len(set(names.values())) == len(names) == 117 + 6  # the aorta is one region
    assert tables["heartchambers_highres"][6] == tables["total"][52] == 52
    assert {names[tables["heartchambers_highres"][label]] for label in range(1, 6)} == set(CHAMBERS)
    assert max(names) <= 255
    value = {name: value for value, name in names.items()}
    lobes = [value[name] for name in names.values() if name.startswith("lung_")]
    assert len(lobes) == 5
    grid = np.zeros((20, 1, 1), np.uint8)
    grid[:13, 0, 0] = [*lobes, value["heart"], *(value[name] for name in CHAMBERS), value["aorta"], value["trachea"]]
    labels = LabelMap(grid, np.eye(4), names)
    assert labels.region("lungs").sum() == 5
    assert labels.region("heart").sum() == 6
    assert labels.region("aorta").sum() == 1
