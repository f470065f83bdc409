"""The tasks of the installed TotalSegmentator: their labels, their weights, and which need a licence.

They are read from its own tables (`map_to_binary`, `map_tasks_config`, `registry`), which import quickly.
"""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Literal

from medlord_bench.contracts.regions import TOTALSEGMENTATOR
from medlord_bench.contracts.registry import unknown
from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.documents import parse_json

Speed = Literal["default", "fast", "fastest"]
LICENCE_PAGE = "https://backend.totalsegmentator.com/license-academic/"
LICENCE_LENGTH = 18  # the only check of TotalSegmentator without a network: config.has_valid_license_offline
ROUGH_ID = {"robust": 297, "default": 298, "body": 300}  # models that find the crop region: python_api
REFINED_BY = {"vertebrae_pp_refined": 305}  # a second model that python_api runs for this task


def check_installed() -> None:
    """Raise `MissingError` if TotalSegmentator or nnU-Net is not installed."""
    for package in ("totalsegmentator", "nnunetv2"):
        if find_spec(package) is None:
            raise MissingError(
                f"segmenter totalsegmentator: the package {package} is not installed; "
                "pip install 'medlord-bench[totalsegmentator]'"
            )


def check_tasks(tasks: Sequence[str]) -> None:
    """Raise `UserError` for a task that the installed version does not have for CT.

    Tasks that crop by another task (teeth) are excluded: version 2.18 cannot run them on a CPU.
    """
    from totalsegmentator.map_tasks_config import TASK_CONFIGS
    from totalsegmentator.registry import TASKS, task_modality

    alone = [task for task in TASKS if task in TASK_CONFIGS and "crop_model" not in TASK_CONFIGS[task]]
    known = [task for task in alone if task_modality(task) == "CT"]
    for task in tasks:
        if task not in known:
            raise UserError(f"segmenter totalsegmentator: field 'tasks': {unknown('task', task, known)}")


def label_tables(tasks: Sequence[str]) -> dict[str, dict[int, int]]:
    """For each task, its own label values to those of the merged map.

    The first task keeps its values. A region that an earlier task also has keeps that value, so that it is the union of
    both; other regions get the next free values. Raises `UserError` if they do not fit into eight bits.
    """
    values: dict[str, int] = {}
    tables: dict[str, dict[int, int]] = {}
    for task in tasks:
        free = max(values.values(), default=0)
        table = {}
        for label, region in _classes(task).items():
            if region not in values:
                values[region] = label + free
            table[label] = values[region]
        tables[task] = table
    if max(values.values()) > 255:
        raise UserError(f"segmenter totalsegmentator: tasks {', '.join(tasks)} have more than 255 labels: run fewer")
    return tables


def names(tasks: Sequence[str]) -> dict[int, str]:
    """Label value of the merged map to region name."""
    tables = label_tables(tasks)
    return {tables[task][label]: region for task in tasks for label, region in _classes(task).items()}


def _classes(task: str) -> dict[int, str]:
    """TotalSegmentator's label values and names, the heart's parts by this project's names (`regions`)."""
    from totalsegmentator.registry import get_task_classes

    return {int(label): TOTALSEGMENTATOR.get(name, name) for label, name in get_task_classes(task).items()}


# --------------------------------------------------------------------------------------------------------- weights
def models(task: str, speed: Speed) -> dict[int, str]:
    """The models that a task runs, including those that find the crop region: id to folder name.

    Follows `python_api.totalsegmentator` and `python_api.get_task_config`.
    """
    from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS

    ids = sorted(set(_model_ids(task, speed)))
    lost = [id for id in ids if id not in TASK_ID_WEIGHTS_CONFIGS]
    if lost:
        raise UserError(f"segmenter totalsegmentator: task {task} has no public weights (model {lost[0]})")
    return {id: TASK_ID_WEIGHTS_CONFIGS[id]["foldername"] for id in ids}


def release(model: int) -> str:
    """The release of TotalSegmentator's repository that has a model; empty if it is not there but behind a licence."""
    from totalsegmentator.map_tasks_config import TASK_ID_WEIGHTS_CONFIGS

    return str(TASK_ID_WEIGHTS_CONFIGS[model].get("version") or "")


def has_speeds(task: str) -> bool:
    """Whether a task exists in several resolutions, so that `fast` and `fastest` apply."""
    from totalsegmentator.map_tasks_config import TASK_CONFIGS

    return "sub_modes" in TASK_CONFIGS[task]


def _model_ids(task: str, speed: Speed) -> Iterator[int]:
    from totalsegmentator.map_tasks_config import TASK_CONFIGS

    config: Mapping[str, Any] = TASK_CONFIGS[task]
    if has_speeds(task):
        modes = config["sub_modes"]
        coarser = "fast" if speed != "default" and "fast" in modes else "default"
        config = modes.get(speed, modes[coarser])
    found = config["task_id"]
    yield from found if isinstance(found, list) else [found]
    if task in REFINED_BY:
        yield REFINED_BY[task]
    crop = config.get("crop")
    if crop is None:
        return
    if "body_trunc" in crop or "body_extremities" in crop:
        yield ROUGH_ID["body"]
    else:
        yield ROUGH_ID["robust" if config.get("robust_crop") else "default"]


def download_name(model: int) -> str:
    """The name in `totalseg_download_weights -t` of the smallest download that contains a model."""
    from totalsegmentator.bin.totalseg_download_weights import TASK_TO_ID

    holds = [(len(ids), name) for name, ids in TASK_TO_ID.items() if model in ids]
    return min(holds)[1] if holds else "all"


# --------------------------------------------------------------------------------------------------------- licence
@cache
def licensed(task: str) -> bool:
    from totalsegmentator.registry import requires_license

    return bool(requires_license(task))


def own_home() -> Path:
    """TotalSegmentator's folder of the user: TOTALSEG_HOME_DIR, else `~/.totalsegmentator`."""
    given = os.environ.get("TOTALSEG_HOME_DIR")
    return Path(given) if given else Path.home() / ".totalsegmentator"


def licence_number(home: Path) -> str | None:
    """The licence number in a `config.json` of TotalSegmentator, or None. It must never be printed or stored."""
    try:
        found = parse_json((home / "config.json").read_text())
    except (OSError, ValueError):
        return None
    number = found.get("license_number") if isinstance(found, dict) else None
    return number if isinstance(number, str) and number else None


def check_licence(tasks: Sequence[str]) -> None:
    """Raise `MissingError` if a task needs a licence and none is set where TotalSegmentator looks for it."""
    needing = [task for task in tasks if licensed(task)]
    if not needing:
        return
    place, number = own_home() / "config.json", licence_number(own_home())
    if number is not None and len(number) == LICENCE_LENGTH:
        return
    wrong = "has none" if number is None else "has one of a length that TotalSegmentator rejects"
    raise MissingError(
        f"segmenter totalsegmentator: task {needing[0]} needs a licence number, and {place} {wrong}; it is free for "
        f"non-commercial use at {LICENCE_PAGE} and is set with `totalseg_set_license -l NUMBER` "
        "(field license_number of that file); or remove the task: --set totalsegmentator.tasks=[total]"
    )
