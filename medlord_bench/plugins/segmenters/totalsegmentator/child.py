"""The process in which TotalSegmentator runs (`child.serve`).

It has its own home folder with usage statistics switched off, so that nothing is sent and concurrent runs do not write
one `config.json`; and a weights folder with links to the needed models only, since TotalSegmentator
deletes weights that it considers outdated.
"""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medlord_bench.plugins.segmenters.subprocess.child import Segment, serve
from medlord_bench.plugins.segmenters.totalsegmentator.tasks import licence_number


def write_home(home: Path, licence_from: Path | None) -> None:
    """A home folder for TotalSegmentator: no statistics, and the licence number of the user's home if one is needed.

    Readable by its owner alone; removed with the process's folder.
    """
    home.mkdir(parents=True, mode=0o700)
    config: dict[str, Any] = {
        "totalseg_id": "medlord-bench",
        "send_usage_stats": False,
        "prediction_counter": 0,
        "statistics_disclaimer_shown": True,
    }
    if licence_from is not None:
        config["license_number"] = licence_number(licence_from)
    place = os.open(home / "config.json", os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(place, "w") as file:
        json.dump(config, file)


def prepare(settings: Mapping[str, Any], folder: Path) -> Segment:
    """Import TotalSegmentator; returns the function that segments one volume. settings: see
    `totalsegmentator.segment`."""
    home, results = folder / "home", folder / "weights"
    write_home(home, None if settings["licence_from"] is None else Path(settings["licence_from"]))
    results.mkdir()
    for model in map(Path, settings["models"]):
        (results / model.name).symlink_to(model)
    os.environ["TOTALSEG_HOME_DIR"], os.environ["TOTALSEG_WEIGHTS_PATH"] = str(home), str(results)
    _keep_to_given_threads()

    import nibabel as nib
    import numpy as np
    import totalsegmentator.nnunet  # noqa: F401  (half a minute, which must not count for the first case's time)
    from totalsegmentator.python_api import totalsegmentator as run_task

    device = settings["device"].replace("cuda", "gpu")

    def segment(source: Path, target: Path) -> None:
        image = nib.load(source)
        merged = np.zeros(image.shape, np.uint8)
        for wanted in settings["tasks"]:
            # Statistics are never requested: they count any structure near the border as 0 (RVR counts voxels itself).
            # The output path is used in one case: an empty crop, which fails without a path.
            found = run_task(
                source,
                folder / "task.nii.gz",
                ml=True,
                task=wanted["task"],
                fast=wanted["speed"] == "fast",
                fastest=wanted["speed"] == "fastest",
                device=device,
                quiet=True,
                skip_saving=True,
                nr_thr_saving=1,
            )
            part = np.asarray(found.dataobj)
            if part.shape != merged.shape:
                raise ValueError(f"task {wanted['task']} gave a label map of {part.shape} for {merged.shape}")
            table = np.zeros(256, np.uint8)
            for label, value in wanted["labels"]:
                table[label] = value
            part = table[part.astype(np.uint8)]
            np.copyto(merged, part, where=part > 0)
        nib.save(nib.Nifti1Image(merged, image.affine), target)

    return segment


def _keep_to_given_threads() -> None:
    """TotalSegmentator uses as many threads as the machine has cores, regardless of `--threads`."""
    import multiprocessing

    import torch

    threads = torch.get_num_threads()
    multiprocessing.cpu_count = lambda: threads


if __name__ == "__main__":
    serve(prepare)
