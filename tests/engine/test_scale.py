"""The cost of planning and of the store grows with the number of cases, and not with its square: operations are counted."""

from __future__ import annotations

import os
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

import nibabel as nib
import numpy as np
import pytest

from medlord_bench.cli.run import work
from medlord_bench.cli.status import progress
from medlord_bench.contracts.specs import PluginSpec
from medlord_bench.engine import resolve
from medlord_bench.engine.planner import build
from medlord_bench.engine.planning import Planning
from medlord_bench.engine.run_file import RunFile
from medlord_bench.engine.run_folder import locate
from medlord_bench.engine.store import Store
from medlord_bench.engine.worker import Settings
from medlord_bench.plugins.datasets.on_disk import layouts
from medlord_bench.volumes.formats import stem_of
from medlord_bench.volumes.listing import Image, Listing

PACKAGE = str(Path(resolve.__file__).parents[1])
FILES = {"stat", "lstat", "open", "scandir", "replace", "rename", "unlink", "mkdir", "access"}


@contextmanager
def bytecodes(below: str) -> Iterator[Counter[str]]:
    """Counts the bytecodes that functions of files below a folder execute, loops in comprehensions included."""
    count: Counter[str] = Counter()

    def inside(frame: FrameType, event: str, arg: Any) -> Any:
        if event == "opcode":
            count["all"] += 1
        return inside

    def entered(frame: FrameType, event: str, arg: Any) -> Any:
        if not frame.f_code.co_filename.startswith(below):
            return None
        frame.f_trace_opcodes, frame.f_trace_lines = True, False
        return inside

    before = sys.gettrace()
    sys.settrace(entered)
    try:
        yield count
    finally:
        sys.settrace(before)


@contextmanager
def file_operations() -> Iterator[Counter[str]]:
    """Counts the calls of the operating system that look for, open, list, make, rename or remove a file."""
    count: Counter[str] = Counter()

    def called(frame: FrameType, event: str, arg: Any) -> None:
        if event == "c_call" and arg.__name__ in FILES and arg.__module__ in ("posix", "_io", "io"):
            count[arg.__name__] += 1

    sys.setprofile(called)
    try:
        yield count
    finally:
        sys.setprofile(None)


def growth(count: Callable[[int], int], small: int) -> float:
    """How much more the step from 2n to 4n costs than that from n to 2n: 2 if linear, 4 if quadratic."""
    costs = [count(n) for n in (small, 2 * small, 4 * small)]
    return (costs[2] - costs[1]) / max(costs[1] - costs[0], 1)


def test_the_count_tells_a_loop_in_a_loop_from_a_loop() -> None:
    def count(work: Callable[[list[int]], object]) -> Callable[[int], int]:
        def of(n: int) -> int:
            with bytecodes(__file__) as counted:
                work(list(range(n)))
            return counted["all"]

        return of

    assert growth(count(lambda names: [name for name in names]), 20) < 2.1  # noqa: C416
    assert growth(count(lambda names: [sum(other == name for other in names) for name in names]), 20) > 3.5


# --------------------------------------------------------------------------------------------------------- planning
def folder(root: Path, n: int) -> Path:
    """n patients of one image and one mask each."""
    draw = np.random.default_rng(n)
    for number in range(n):
        place = root / f"patient{number:05d}"
        (place / "segmentations").mkdir(parents=True)
        hu = draw.integers(-1000, 1000, (4, 4, 4)).astype(np.int16)
        nib.save(nib.Nifti1Image(hu, np.eye(4)), place / "ct.nii.gz")
        nib.save(nib.Nifti1Image((hu > 0).astype(np.uint8), np.eye(4)), place / "segmentations" / "lungs.nii.gz")
    return root


def planned(root: Path) -> Any:
    sets = {"dataset.data_root": str(root), "dataset.shape": [32, 32, 32], "dataset.fit": "resize"}
    file = RunFile(generators=("medlord@tiny", "holdout"), dataset="folder", set=sets)
    return build(resolve.resolve(file))


def test_a_plan_of_twice_the_cases_costs_twice_as_much(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDLORD_BENCH_CACHE", str(tmp_path / "hashes.json"))
    planned(folder(tmp_path / "first", 8))  # what is imported once

    def count(n: int) -> int:
        root = folder(tmp_path / str(n), n)
        with bytecodes(PACKAGE) as counted:
            made = planned(root)
        assert sum(len(items) for items in made.splits.values()) == n
        return counted["all"]

    assert growth(count, 40) < 2.3


class Compared(str):
    """Text that counts its comparisons."""

    __slots__ = ()
    count = 0

    def __eq__(self, other: object) -> bool:
        Compared.count += 1
        return str.__eq__(self, other)

    def __hash__(self) -> int:
        return str.__hash__(self)


def test_items_are_added_to_a_step_without_comparing_all_with_all() -> None:
    sets = {"dataset.shape": [16, 16, 16], "dataset.n_train": 1, "dataset.n_val": 0, "dataset.n_test": 1}
    planning = Planning(resolve.resolve(RunFile(generators=("noise",), dataset="phantom", set=sets)))
    spec = PluginSpec(plugin="imagenet", config={})

    def count(n: int) -> int:
        Compared.count = 0
        planning.steps.clear()
        for start in (0, n):
            items = [Compared(f"case-{number}") for number in range(start, start + 2 * n)]
            step = planning.add("features", "features", "real", spec, {}, items)
        assert step.items == tuple(f"case-{number}" for number in range(3 * n))
        return Compared.count

    assert growth(count, 50) < 2.3


LAYOUTS = {
    "files with masks beside them": ("{p}.nii.gz", "{p}_mask.nii.gz"),
    "two folders": ("images/{p}.nii.gz", "masks/{p}.nii.gz"),
    "two folders of patients": ("images/{p}/ct_a.nii.gz", "masks/{p}/ct_a.nii.gz"),
    "folders of patients": ("{p}/ct.nii.gz", "{p}/segmentations/lung.nii.gz"),
    "KiTS": ("{p}/imaging.nii.gz", "{p}/segmentation.nii.gz"),
    "LiTS": ("volume-{n}.nii", "segmentation-{n}.nii"),
    "BIDS": ("sub-{n}/ct/sub-{n}_ct.nii.gz", "derivatives/sub-{n}/sub-{n}_dseg.nii.gz"),
    "nnU-Net": ("imagesTr/{p}_0000.nii.gz", "labelsTr/{p}.nii.gz"),
    "masks by patient": ("{p}/scan.nii.gz", "masks/{p}.nii.gz"),
    "folders of masks": ("{p}/scan.nii.gz", "{p}/masks/lung.nii.gz"),
    "files and a folder of masks": ("{p}.nii.gz", "masks/{p}.nii.gz"),
    "splits": ("train/images/{p}.nii.gz", "train/masks/{p}.nii.gz", "test/images/q{p}.nii.gz", "test/masks/q{p}.nii.gz"),
    "MM-WHS": ("ct_train/ct_train_{n}_image.nii.gz", "ct_train/ct_train_{n}_label.nii.gz"),
    "masks above their images": ("{p}/x/scan.nii.gz", "{p}/seg.nii.gz"),
}  # fmt: skip


@pytest.mark.parametrize("names", LAYOUTS.values(), ids=LAYOUTS)
def test_a_layout_of_twice_the_files_is_recognised_at_twice_the_cost(names: tuple[str, ...]) -> None:
    root = Path("/data")

    def count(n: int) -> int:
        files = sorted(name.format(p=f"p{number:05d}", n=f"{number:04d}") for number in range(n) for name in names)
        parts = [name.split("/") for name in files]
        images = [
            Image(root / file, (*part[:-1], stem_of(root / file))) for file, part in zip(files, parts, strict=True)
        ]
        with bytecodes("") as counted:  # comparisons of paths and data classes included
            found = layouts.recognise(Listing(root, images), masks=True).found
        assert len(found) == n * len([name for name in names if "mask" not in name]) if len(names) == 4 else n
        assert all(one.mask is not None for one in found)
        return counted["all"]

    assert growth(count, 20) < 2.3


# -------------------------------------------------------------------------------------------------------------- a run
@pytest.fixture(scope="module")
def patch() -> Iterator[pytest.MonkeyPatch]:
    with pytest.MonkeyPatch.context() as made:
        yield made


@pytest.fixture(scope="module")
def counted(tmp_path_factory: pytest.TempPathFactory, patch: pytest.MonkeyPatch) -> dict[int, dict[str, Counter[str]]]:
    """Number of training and of test cases -> the file operations of a run, of the same run again, and of its status."""
    place = tmp_path_factory.mktemp("runs")
    found: dict[int, dict[str, Counter[str]]] = {}
    patch.setattr(os, "fsync", lambda file: None)  # it is not counted, and a busy disk takes long
    for n in (2, 10, 20, 40):  # the first imports what the others need
        sets = {"dataset.shape": [16, 16, 16], "dataset.n_train": n, "dataset.n_val": 1, "dataset.n_test": n}
        file = RunFile(generators=("holdout",), dataset="phantom", metrics=("axes",), set=sets)
        settings = Settings(store=place / str(n), device="cpu")
        counts = found[n] = {}
        for name in ("run", "again"):
            with file_operations() as counts[name]:
                run = work(file, settings, memory_check=False)
        with file_operations() as counts["status"]:
            assert all(done == of for _, done, of in progress(run))
        assert run == locate(Store(settings.store), None)
    return found


def test_a_run_of_twice_the_cases_takes_twice_the_file_operations(counted: dict[int, Any]) -> None:
    cost = {n: counted[n]["run"].total() for n in counted}
    assert (cost[40] - cost[20]) / (cost[20] - cost[10]) < 2.2


def test_a_finished_run_looks_into_each_folder_once_and_not_for_each_item(counted: dict[int, Any]) -> None:
    cost = {n: counted[n]["status"].total() for n in counted}
    assert cost[40] == cost[10]
    again = {n: counted[n]["again"].total() for n in counted}
    assert (again[40] - again[20]) / (again[20] - again[10]) < 2.2
