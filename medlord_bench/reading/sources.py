"""The volumes that a source has, and reading one of them."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from medlord_bench.contracts import Volume
from medlord_bench.engine.plan import read_plan
from medlord_bench.engine.run_folder import locate
from medlord_bench.engine.store import Store
from medlord_bench.errors import UserError
from medlord_bench.results.step_records import read_object
from medlord_bench.volumes.arrays import read_hu
from medlord_bench.volumes.checks import not_ct
from medlord_bench.volumes.formats import suffix_of
from medlord_bench.volumes.io import read_volume

from .protocol import REAL, SourceSpec


@dataclass(frozen=True)
class Source:
    """volumes: item -> file. failed: samples that have none. window: the HU window of a run, that its volumes are clipped
    to."""

    name: str
    real: bool
    volumes: Mapping[str, Path]
    failed: int = 0
    window: tuple[int, int] | None = None

    def read(self, item: str) -> Volume:
        """A volume with its voxel size. Raises `UserError` naming one that is constant or not in HU."""
        path = self.volumes[item]
        volume = _prepared(path) if path.suffix == ".npy" else read_volume(path)
        if int(volume.hu.min()) == int(volume.hu.max()):
            raise UserError(f"{path}: constant ({int(volume.hu.min())} HU); expected a CT: leave it out of the source")
        problem = not_ct(volume, self.window)
        if problem:
            raise UserError(
                f"{path}: not a CT in HU: {problem}; expected HU (air -1000, water 0): convert it, or leave it out of the "
                f"source {self.name}"
            )
        return volume


def open_source(spec: SourceSpec, store: Store, n: int) -> Source:
    """All volumes of a source. Raises `UserError` if it has fewer than `n`."""
    found = _of_folder(spec) if spec.folder is not None else _of_run(spec, store)
    if len(found.volumes) < n:
        failed = f" ({found.failed} samples failed)" if found.failed else ""
        where = spec.folder or spec.run
        raise UserError(
            f"source {spec.name}: {len(found.volumes)} volumes in {where}{failed}, expected at least {n}: draw more "
            "samples, or lower n"
        )
    return found


def _of_folder(spec: SourceSpec) -> Source:
    assert spec.folder is not None
    if not spec.folder.is_dir():
        raise UserError(f"source {spec.name}: folder {spec.folder}: not found; expected a folder of images")
    files = sorted(path for path in spec.folder.iterdir() if suffix_of(path) and not path.name.startswith("."))
    volumes = {path.name.removesuffix("".join(path.suffixes)) or path.name: path for path in files}
    if len(volumes) < len(files):
        raise UserError(f"source {spec.name}: folder {spec.folder}: two files differ in their suffix only; rename one")
    return Source(spec.name, spec.real, volumes)


def _of_run(spec: SourceSpec, store: Store) -> Source:
    folder = locate(store, str(spec.run))
    plan = read_plan(folder)
    real = spec.real
    step = (
        plan.step("images")
        if real
        else next((one for one in plan.steps if one.kind == "samples" and one.contestant == spec.contestant), None)
    )
    if step is None:
        known = sorted({one.contestant for one in plan.steps if one.kind == "samples"})
        raise UserError(
            f"source {spec.name}: contestant {spec.contestant!r} has no samples in {folder.name}; expected one of: "
            f"{', '.join(known)}, or {REAL}"
        )
    place = (
        folder / "images" / "images"
        if real
        else folder / "samples" / spec.contestant.replace(":", "_").replace("/", "_")
    )
    items = plan.splits["test"] if real else step.items
    paths = {item: place / f"{item}{'.npy' if real else '.nii.gz'}" for item in items}
    volumes = {item: path for item, path in paths.items() if path.exists()}
    return Source(spec.name, real, volumes, len(paths) - len(volumes), plan.protocol.grid.hu_window)


def _prepared(path: Path) -> Volume:
    """A prepared real image: values in `.npy`, affine in its sidecar."""
    facts = (read_object(path.with_suffix(".json")) or {}).get("facts", {})
    if "affine" not in facts:
        raise UserError(f"{path}: its sidecar has no affine; run the same command again to prepare it anew")
    return Volume(np.asarray(read_hu(path)), np.array(facts["affine"], dtype=np.float64))
