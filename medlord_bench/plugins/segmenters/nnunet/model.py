"""A trained nnU-Net v2 model folder, read without executing it: its labels, its checkpoints, and their safety."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import cache
from pathlib import Path
from typing import Any

from medlord_bench.contracts.regions import TOTALSEGMENTATOR
from medlord_bench.errors import MissingError, UserError
from medlord_bench.nn.checkpoints import more_than_numbers
from medlord_bench.util.documents import parse_json

RESERVED = ("background", "ignore")  # label names that are not regions


def label_names(folder: Path) -> dict[int, str]:
    """Label value to region, from `dataset.json`.

    Raises `UserError` if labels overlap (nnU-Net's region-based training): a voxel's value is then not one region.
    """
    path, found = folder / "dataset.json", _dataset(folder)
    labels = found.get("labels")
    if not isinstance(labels, dict) or not labels:
        raise UserError(f"{path}: no field 'labels'; expected nnU-Net v2's dataset.json: give its trained model folder")
    if any(not isinstance(value, int | str) for value in labels.values()):
        raise UserError(
            f"{path}: field 'labels': its regions overlap (region-based training), so a label value is not one region; "
            "name each value with --set nnunet.label_names={1: NAME, ...}"
        )
    values = {name: int(value) for name, value in labels.items() if name not in RESERVED}
    return {value: TOTALSEGMENTATOR.get(name, name) for name, value in values.items()}


def check_dataset(folder: Path, names: Mapping[int, str]) -> None:
    """Raise `UserError` if the model does not take one CT channel, or a label has no name or more than eight bits."""
    found = _dataset(folder)
    channels = found.get("channel_names", {})
    if len(channels) != 1:
        listed = ", ".join(str(name) for name in channels.values()) or "none"
        raise UserError(f"{folder / 'dataset.json'}: field 'channel_names': {listed}; expected one channel, CT")
    labels = found.get("labels", {})
    values = found.get("regions_class_order") or [value for name, value in labels.items() if name not in RESERVED]
    nameless = sorted({int(value) for value in values} - set(names))
    if nameless:
        raise UserError(f"{folder / 'dataset.json'}: label {nameless[0]} has no name; add it to nnunet.label_names")
    if not names or not 0 < min(names) <= max(names) <= 255:
        raise UserError(f"{folder / 'dataset.json'}: label values must lie in 1..255; got {sorted(names)[-3:]}")


def checkpoints(folder: Path, folds: Sequence[int | str] | None, name: str) -> list[Path]:
    """The checkpoint of each fold, of all existing folds if `folds` is None. Raises `MissingError`."""
    for needed in ("dataset.json", "plans.json"):
        if not (folder / needed).is_file():
            raise MissingError(
                f"{folder / needed}: not found; expected a trained nnU-Net v2 model folder "
                "(nnUNet_results/DATASET/TRAINER__PLANS__CONFIGURATION): give it with --set nnunet.folder=DIR"
            )
    if folds is not None:
        found = [folder / f"fold_{fold}" / name for fold in folds]
    else:  # as in nnU-Net itself, a model trained on all data is not averaged with others
        found = sorted(path for path in folder.glob(f"fold_*/{name}") if path.parent.name != "fold_all")
        found = found or list(folder.glob(f"fold_all/{name}"))
    missing = [path for path in found if not path.is_file()] or ([] if found else [folder / "fold_0" / name])
    if missing:
        raise MissingError(f"{missing[0]}: not found; copy the trained fold there, or name others with nnunet.folds")
    return found


def check_checkpoint(path: Path) -> None:
    """Raise `UserError` if a checkpoint contains more than tensors, plain values and NumPy scalars.

    nnU-Net loads checkpoints as pickles, which can run any code; one that torch's restricted loader accepts cannot.
    Files of `nnUNetTrainer.save_checkpoint` (2.8) are accepted: beside tensors they have NumPy scalars in the training
    log.
    """
    facts = path.stat()
    problem = _unsafe(path.resolve(), facts.st_size, facts.st_mtime_ns)
    if problem is not None:
        raise UserError(
            f"{path}: {problem}; loading it can run code on this machine: copy it from its source, or, if "
            "you trust its author, --set nnunet.trust=true"
        )


@cache
def _unsafe(path: Path, size: int, changed: int) -> str | None:
    return more_than_numbers(path)


def _dataset(folder: Path) -> dict[str, Any]:
    path = folder / "dataset.json"
    try:
        found = parse_json(path.read_text())
    except FileNotFoundError:
        raise MissingError(
            f"{path}: not found; expected a trained nnU-Net v2 model folder: give it with --set nnunet.folder=DIR"
        ) from None
    except ValueError as error:
        raise UserError(f"{path}: not JSON ({error}); copy it again from the trained model") from None
    if not isinstance(found, dict):
        raise UserError(f"{path}: expected nnU-Net v2's fields, such as 'labels'; copy it from the trained model")
    return found
