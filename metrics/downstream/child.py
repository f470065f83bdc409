"""The process in which nnU-Net plans, preprocesses and trains: ``python -m ...child SETTINGS.json``.

Its folders are those in its own environment; what the user set for nnU-Net is not read. It ends when its standard input
ends, with every worker it started: then the bench has ended.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import sys
import threading
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medlord_bench.nn.checkpoints import load_numbers

DATASET, DATASET_ID, PLANS, CONFIGURATION, TRAINER = "Dataset001_Arm", 1, "bench", "3d_fullres", "nnUNetTrainerBench"
WORKERS = "nnUNet_n_proc_DA"  # processes that load and augment; 0: this one
FINGERPRINT = "dataset_fingerprint.json"
TINY_FEATURES, TINY_MOST_FEATURES = 8, 64  # of the network's stages; nnU-Net's own are 32 and 320


def _folder(variable: str) -> Path:
    """A folder that the bench has set for this process."""
    return Path(os.environ[variable])


def plan(settings: Mapping[str, Any]) -> None:
    """Fingerprint of the raw data set and plans of the network, below `nnUNet_preprocessed`."""
    from nnunetv2.experiment_planning.experiment_planners.default_experiment_planner import ExperimentPlanner
    from nnunetv2.experiment_planning.plan_and_preprocess_api import extract_fingerprints, plan_experiment_dataset

    class TinyPlanner(ExperimentPlanner):  # type: ignore[misc]
        def __init__(self, *given: Any, **named: Any) -> None:
            super().__init__(*given, **named)
            self.UNet_base_num_features, self.UNet_max_features_3d = TINY_FEATURES, TINY_MOST_FEATURES
            self.UNet_blocks_per_stage_encoder = self.UNet_blocks_per_stage_decoder = (1,) * 10

    extract_fingerprints(
        [DATASET_ID], num_processes=settings["processes"], check_dataset_integrity=True, verbose=False,
        show_progress_bar=False,
    )  # fmt: skip
    planner = TinyPlanner if settings["tiny"] else ExperimentPlanner
    plan_experiment_dataset(DATASET_ID, planner, settings["planner_gb"], overwrite_plans_name=PLANS)
    target, done = Path(settings["out"]), _folder("nnUNet_preprocessed") / DATASET
    target.mkdir(parents=True, exist_ok=True)
    for name in (f"{PLANS}.json", FINGERPRINT):
        shutil.copyfile(done / name, target / name)


def train(settings: Mapping[str, Any]) -> None:
    """Preprocess with the shared plans, train, and write the model folder. Each part goes on where it was ended."""
    os.environ[WORKERS] = "1"  # planning and preprocessing do not take 0
    preprocessed, start = _shared(settings), time.monotonic()
    done = _preprocess(settings, preprocessed)
    if "times" in settings:
        times = {"preprocessing": time.monotonic() - start, "cases": done}
        Path(settings["times"]).write_text(json.dumps(times))
    if settings["tiny"]:
        os.environ[WORKERS] = "0"  # loaded in this process: the same order in every training
    else:
        os.environ.pop(WORKERS)
        if settings["augmentation_workers"]:
            os.environ[WORKERS] = settings["augmentation_workers"]
    import torch
    from nnunetv2.run.run_training import run_training

    run_training(
        DATASET, CONFIGURATION, "0", TRAINER, PLANS, continue_training=True, device=torch.device(settings["device"])
    )
    _model(settings)


def _shared(settings: Mapping[str, Any]) -> Path:
    """Put the shared plans beside this arm's data: its patch, spacing and intensities are those of the real arm."""
    folder, shared = _folder("nnUNet_preprocessed") / DATASET, Path(settings["shared"])
    folder.mkdir(parents=True, exist_ok=True)
    for name in (f"{PLANS}.json", FINGERPRINT):
        shutil.copyfile(shared / name, folder / name)
    shutil.copyfile(_folder("nnUNet_raw") / DATASET / "dataset.json", folder / "dataset.json")
    (folder / "splits_final.json").write_text(json.dumps([settings["split"]], indent=1))
    return folder


def _preprocess(settings: Mapping[str, Any], folder: Path) -> int:
    """Every case, in processes of their own if there are several; a case that is done is left alone. Returns how many
    were done now."""
    from concurrent.futures import ProcessPoolExecutor
    from multiprocessing import get_context

    cases = sorted({case for split in settings["split"].values() for case in split})
    todo = [case for case in cases if not _mark(folder, case).exists()]
    if settings["processes"] == 1:
        for case in todo:
            _preprocess_case(folder, case)
    else:
        with ProcessPoolExecutor(settings["processes"], mp_context=get_context("spawn")) as pool:
            list(pool.map(_preprocess_case, [folder] * len(todo), todo))
    return len(todo)


def _mark(folder: Path, case: str) -> Path:
    return folder / "done" / case


def _preprocess_case(folder: Path, case: str) -> None:
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    plans = PlansManager(str(folder / f"{PLANS}.json"))
    configuration = plans.get_configuration(CONFIGURATION)
    target, raw = folder / configuration.data_identifier, _folder("nnUNet_raw") / DATASET
    target.mkdir(exist_ok=True)
    for remains in target.glob(f"{case}.*"):  # of a killed process
        remains.unlink()
    for remains in target.glob(f"{case}_seg.*"):
        remains.unlink()
    image, labels = raw / "imagesTr" / f"{case}_0000.nii.gz", raw / "labelsTr" / f"{case}.nii.gz"
    preprocessor = configuration.preprocessor_class(verbose=False)
    preprocessor.run_case_save(
        str(target / case), [str(image)], str(labels), plans, configuration, str(folder / "dataset.json")
    )
    _mark(folder, case).parent.mkdir(exist_ok=True)
    _mark(folder, case).touch()


def _model(settings: Mapping[str, Any]) -> None:
    """The trained model as a folder that a segmenter loads without trust: tensors and numbers, nnU-Net's own trainer."""
    import torch

    source = _folder("nnUNet_results") / DATASET / f"{TRAINER}__{PLANS}__{CONFIGURATION}"
    target = Path(settings["out"])
    (target / "fold_0").mkdir(parents=True, exist_ok=True)
    for name in ("dataset.json", "plans.json", FINGERPRINT):
        shutil.copyfile(source / name, target / name)
    shutil.copyfile(_folder("nnUNet_preprocessed") / DATASET / "splits_final.json", target / "splits_final.json")
    trained = load_numbers(source / "fold_0" / "checkpoint_final.pth")
    axes = trained["inference_allowed_mirroring_axes"]
    kept = {
        "network_weights": trained["network_weights"],
        "init_args": {name: value for name, value in trained["init_args"].items() if name != "device"},
        "trainer_name": "nnUNetTrainer",
        "current_epoch": int(trained["current_epoch"]),
        "inference_allowed_mirroring_axes": None if axes is None else tuple(int(axis) for axis in axes),
    }
    torch.save(kept, target / "fold_0" / "checkpoint_final.pth")


def _end_with_input() -> None:
    """Read standard input to its end, then end this process and its workers."""
    with os.fdopen(os.dup(0), "rb", buffering=0) as lines, open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)  # workers must not inherit it
        lines.read()
    os.killpg(os.getpgid(0), signal.SIGKILL)


def main() -> None:
    threading.Thread(target=_end_with_input, daemon=True).start()
    settings = json.loads(Path(sys.argv[1]).read_text())
    import torch

    torch.set_num_threads(settings["threads"])
    {"plan": plan, "train": train}[settings["work"]](settings)


if __name__ == "__main__":
    main()
