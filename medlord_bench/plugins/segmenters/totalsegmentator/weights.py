"""The location, completeness and hashes of TotalSegmentator's weights. Nothing is ever fetched."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from importlib.metadata import version
from pathlib import Path

from medlord_bench.contracts.weights import NeededWeights
from medlord_bench.errors import MissingError
from medlord_bench.nn.pretrained import ENVIRONMENT, weights_folder
from medlord_bench.plugins.segmenters.subprocess.model_files import sha256
from medlord_bench.plugins.segmenters.totalsegmentator import tasks as tasks_of
from medlord_bench.plugins.segmenters.totalsegmentator.tasks import Speed

RELEASES = "https://github.com/wasserth/TotalSegmentator/releases/download"
CHECKPOINT = "checkpoint_final.pth"


def folder(weights_dir: Path | None = None) -> Path:
    """TOTALSEG_WEIGHTS_PATH, or TOTALSEG_HOME_DIR's; else `totalsegmentator/` in the bench's weights folder; if that
    does not exist, TotalSegmentator's own default folder, if there is one."""
    if given := os.environ.get("TOTALSEG_WEIGHTS_PATH"):
        return Path(given)
    own = tasks_of.own_home() / "nnunet" / "results"
    ours = weights_folder(weights_dir) / "totalsegmentator"
    if "TOTALSEG_HOME_DIR" in os.environ or (own.is_dir() and not ours.is_dir()):
        return own
    return ours


def model_folders(tasks: Sequence[str], speed: Speed, root: Path) -> list[Path]:
    """The folders of all models that the tasks run. Raises `MissingError` if one is missing or incomplete."""
    wanted = {model: root / name for task in tasks for model, name in tasks_of.models(task, speed).items()}
    missing = {
        model: place
        for model, place in wanted.items()
        if not any(place.glob(f"*/fold_*/{CHECKPOINT}")) or not any(place.glob("*/plans.json"))
    }
    if missing:
        raise _missing(tasks, missing, root)
    return [wanted[model] for model in sorted(wanted)]


def needed(tasks: Sequence[str], speed: Speed) -> list[NeededWeights]:
    """Every model of the tasks as `fetch weights` lists it: free ones at TotalSegmentator's releases, others by hand."""
    found = []
    for task in tasks:
        for model, name in tasks_of.models(task, speed).items():
            release = tasks_of.release(model)
            free = (
                "Apache-2.0"
                if release
                else f"needs a licence number, free for non-commercial use: {tasks_of.LICENCE_PAGE}"
            )
            by_hand = (
                ""
                if release
                else (
                    f"set the licence number with `totalseg_set_license -l NUMBER`, then `TOTALSEG_WEIGHTS_PATH=DIR/totalsegmentator "
                    f"totalseg_download_weights -t {tasks_of.download_name(model)}`"
                )
            )
            address = f"{RELEASES}/{release}/{name}.zip" if release else tasks_of.LICENCE_PAGE
            found.append(
                NeededWeights(
                    path=f"totalsegmentator/{name}", address=address, licence=free, by_hand=by_hand, unpacks=True
                )
            )
    return list(dict.fromkeys(found))


def fingerprint(tasks: Sequence[str], speed: Speed, root: Path) -> dict[str, str]:
    """Versions of TotalSegmentator and nnU-Net, and the sha256 of every file that decides a model."""
    result = {package: version(package) for package in ("TotalSegmentator", "nnunetv2")}
    for model in model_folders(tasks, speed, root):
        result |= {path.relative_to(root).as_posix(): sha256(path) for path in _files(model)}
    return result


def _files(model: Path) -> Iterator[Path]:
    for pattern in ("*/dataset.json", "*/plans.json", f"*/fold_*/{CHECKPOINT}"):
        yield from sorted(model.glob(pattern))


def _missing(tasks: Sequence[str], missing: Mapping[int, Path], root: Path) -> MissingError:
    first = missing[min(missing)]
    state = "is incomplete (no plans.json or checkpoint)" if first.is_dir() else "does not exist"
    more = f", and {len(missing) - 1} more" if len(missing) > 1 else ""
    fetch = " && ".join(
        f"TOTALSEG_WEIGHTS_PATH={root} totalseg_download_weights -t {name}"
        for name in dict.fromkeys(map(tasks_of.download_name, sorted(missing)))
    )
    return MissingError(
        f"segmenter totalsegmentator: {first} {state}{more}, which {', '.join(tasks)} runs: copy the models from a "
        "machine that has them (its ~/.totalsegmentator/nnunet/results), or fetch them on a machine with a network: "
        f"{fetch}; name another folder with TOTALSEG_WEIGHTS_PATH, or with --weights-dir or {ENVIRONMENT} (its "
        "totalsegmentator/)"
    )
