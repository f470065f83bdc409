"""Planted copies of training volumes that the memorisation audit finds, by kind, and its false alarms.

    MEDLORD_BENCH_TEST_DATA=FOLDER python benchmarks/planted_copies.py [--json] [--quick] [--copies N] [--only KIND ...] [--sets SET]

Two sets: phantoms, and disjoint patches of real CT at 1.5 mm if the variable names a folder of CT. A copy of every
training volume is planted in each kind. "before" is the global stage alone, "after" is the audit. Patches of one CT are of
one patient: where a patch is left out for the threshold, or is unseen, those of its CT are left out of the training set. The
exit code is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import json
import os
import sys
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from medlord_bench.contracts import Grid, Item, Source
from medlord_bench.metrics.memorisation.audit import Match, Scale, Threshold, nearest, nearest_part
from medlord_bench.metrics.memorisation.compare import Stages
from medlord_bench.metrics.memorisation.config import MemorisationConfig
from medlord_bench.volumes.arrays import save_state
from medlord_bench.volumes.thumbnails import thumbnail

HU = NDArray[np.float32]
WINDOW = (-1000, 1000)
PATCH, SPACING_MM = 64, 1.5
MIN_BODY = 0.4  # of a real patch
LEAST = 0.8  # share of each kind that must be found
ALARM_P = 0.01  # least p-value of so many false alarms, if the rate is nominal
WEAK = ("elastic SD 4, over 8",)  # without a target: it folds the anatomy in 4 % of the voxels
REAL = ("thorax_cta/ct.nii.gz", "abdomen/ct.nii.gz", "chest_lung1/ct.nii.gz")


# ------------------------------------------------------------------------------------------------------ planted copies
def moved(hu: HU, matrix: NDArray[np.float64], shift: Sequence[float] = (0, 0, 0)) -> HU:
    """The volume read at matrix @ p + shift from its centre, linear, edges repeated."""
    centre = (np.array(hu.shape) - 1) / 2
    return ndimage.affine_transform(hu, matrix, centre - matrix @ centre + shift, order=1, mode="nearest")


def turned(hu: HU, degrees: float, rng: np.random.Generator) -> HU:
    from scipy.spatial.transform import Rotation

    axis = rng.normal(size=3)
    return moved(hu, Rotation.from_rotvec(np.deg2rad(degrees) * axis / np.linalg.norm(axis)).as_matrix())


def elastic(hu: HU, sd: float, smooth: float, rng: np.random.Generator) -> HU:
    """Every voxel displaced by Gaussian noise of mean 0 and `sd` voxels on each axis, smooth over `smooth` voxels."""
    fields = [ndimage.gaussian_filter(rng.normal(size=hu.shape), smooth, mode="wrap") for _ in range(3)]
    places = [
        axis + sd * (field - field.mean()) / field.std()
        for axis, field in zip(np.indices(hu.shape), fields, strict=True)
    ]
    return ndimage.map_coordinates(hu, places, order=1, mode="nearest")


def swapped(hu: HU) -> HU:
    """X and Z swapped, in a volume that is not a cube X and Y."""
    return hu.transpose(2, 1, 0) if hu.shape[0] == hu.shape[2] else hu.transpose(1, 0, 2)


def inside(hu: HU, other: HU, share: float) -> HU:
    """The central `share` of each axis in another volume."""
    parts = tuple(slice(round(n * (1 - share) / 2), n - round(n * (1 - share) / 2)) for n in hu.shape)
    made = other.copy()
    made[parts] = hu[parts]
    return made


def half(hu: HU, other: HU, rng: np.random.Generator) -> HU:
    """One half along one axis in another volume."""
    axis, upper = int(rng.integers(3)), bool(rng.integers(2))
    n = hu.shape[axis] // 2
    parts = [slice(None)] * 3
    parts[axis] = slice(n, None) if upper else slice(None, n)
    made = other.copy()
    made[tuple(parts)] = hu[tuple(parts)]
    return made


Plant = Callable[[HU, HU, np.random.Generator], HU]
KINDS: Mapping[str, Plant] = {
    "exact": lambda hu, other, rng: hu,
    "noise 30 HU": lambda hu, other, rng: hu + rng.normal(0, 30, hu.shape),
    "blur 1 voxel": lambda hu, other, rng: ndimage.gaussian_filter(hu, 1),
    "flip": lambda hu, other, rng: hu[::-1],
    "turn 10 degrees": lambda hu, other, rng: turned(hu, 10, rng),
    "turn 90 degrees": lambda hu, other, rng: np.rot90(hu, axes=(0, 1)),
    "axes swapped": lambda hu, other, rng: swapped(hu),
    "HU inverted": lambda hu, other, rng: -hu,
    "central 80 %": lambda hu, other, rng: inside(hu, other, 0.8),
    "central half": lambda hu, other, rng: inside(hu, other, 0.5),
    "half the volume": half,
    "zoom 1.1": lambda hu, other, rng: moved(hu, np.eye(3) / 1.1),
    "zoom 1.3": lambda hu, other, rng: moved(hu, np.eye(3) / 1.3),
    "elastic SD 4, over 8": lambda hu, other, rng: elastic(hu, 4, 8, rng),
    "elastic SD 4, over 16": lambda hu, other, rng: elastic(hu, 4, 16, rng),
    "shift 8": lambda hu, other, rng: moved(hu, np.eye(3), (8, 0, 0)),
    "shift 16": lambda hu, other, rng: moved(hu, np.eye(3), (0, 16, 0)),
    "blend 70/30": lambda hu, other, rng: 0.7 * hu + 0.3 * other,
    "blend 50/50": lambda hu, other, rng: 0.5 * hu + 0.5 * other,
}


def planted(kind: str, training: Sequence[HU], others: Sequence[HU]) -> Iterator[HU]:
    """A copy of every training volume; `others` are unseen volumes that parts are planted into."""
    for i, hu in enumerate(training):
        made = KINDS[kind](hu, others[i % len(others)], np.random.default_rng([i, *kind.encode()]))
        yield np.clip(made, *WINDOW).astype(np.float32)


# ------------------------------------------------------------------------------------------------------------- volumes
@dataclass(frozen=True, eq=False)
class Cut:
    """A volume, and the patient that it is of."""

    hu: HU
    patient: str


def phantoms(n: tuple[int, int, int], shape: tuple[int, int, int] = (64, 64, 48)) -> list[list[Cut]]:
    """Training, donor and test phantoms: other cases, no two alike."""
    from medlord_bench.plugins.datasets.phantom.dataset import PhantomConfig, PhantomDataset

    data = PhantomDataset(PhantomConfig(shape=shape, n_train=n[0], n_val=n[1], n_test=n[2]))
    return [
        [Cut(data.load(case)[0].hu.clip(*WINDOW).astype(np.float32), case.id) for case in data.cases(split)]
        for split in ("train", "val", "test")
    ]


def patches(folder: Path) -> list[Cut]:
    """Disjoint cubes of the body of every CT in `folder`, at `SPACING_MM`, at least `MIN_BODY` of them body.

    What is not the patient is air: a table would be the same in all cubes of a scan.
    """
    import nibabel

    found = []
    for name in REAL:
        image = nibabel.as_closest_canonical(nibabel.load(folder / name))
        zoom = np.array(image.header.get_zooms()[:3]) / SPACING_MM
        hu = body(ndimage.zoom(np.asarray(image.dataobj, np.float32).clip(*WINDOW), zoom, order=3).clip(*WINDOW))
        for corner in product(*(range((n % PATCH) // 2, n - PATCH + 1, PATCH) for n in hu.shape)):
            cube = hu[tuple(slice(c, c + PATCH) for c in corner)]
            if (cube > -400).mean() >= MIN_BODY:
                found.append(Cut(cube, name))
    return found


def body(hu: HU) -> HU:
    """The volume with -1000 HU outside the largest object and its holes."""
    objects, _ = ndimage.label(ndimage.binary_opening(hu > -400, iterations=2))
    largest = ndimage.binary_dilation(objects == np.bincount(objects.ravel())[1:].argmax() + 1, iterations=3)
    filled = np.stack([ndimage.binary_fill_holes(plane) for plane in np.moveaxis(largest, 2, 0)], axis=2)
    return np.where(filled, hu, np.float32(WINDOW[0]))


def split(volumes: Sequence[Cut], seed: int) -> list[list[Cut]]:
    """In random order: 60 % for training, 15 % donors, the others unseen."""
    mixed = [volumes[i] for i in np.random.default_rng(seed).permutation(len(volumes))]
    first, second = round(0.6 * len(mixed)), round(0.75 * len(mixed))
    return [mixed[:first], mixed[first:second], mixed[second:]]


# --------------------------------------------------------------------------------------------------------------- audit
class Audit:
    """The metric's two stages on training volumes in memory."""

    def __init__(self, training: Sequence[Cut], scratch: Path) -> None:
        self.config, self.scratch = MemorisationConfig(), scratch
        self.sources = np.array([one.patient for one in training])
        items = self.items("train", [one.hu for one in training])
        self.stages = Stages(items, Grid(shape=training[0].hu.shape), self.config)
        found = [self.unlike(item, one.patient) for item, one in zip(items, training, strict=True)]
        self.scale = Scale.of(found, self.config.largest)
        self.left_out = [self.scale.brought(one) for one in found]

    def unlike(self, item: Item, patient: str) -> Match:
        """What both stages find of a volume among the training volumes of other patients; each counts as a patient."""
        stages, own = self.stages, "own"
        names = np.where(self.sources == patient, own, stages.patients)
        kept = stages.whole.patients, stages.local.patients
        stages.whole.patients = stages.local.patients = names
        whole = nearest(stages.whole.find(stages.pictures.whole(item), own), names, stages.neighbours, own)
        part = nearest_part(stages.local.find(stages.pictures.local(item), own), names, stages.neighbours, own)
        stages.whole.patients, stages.local.patients = kept
        return Match(whole, part)

    def items(self, name: str, volumes: Iterable[HU]) -> list[Item]:
        made = []
        for i, hu in enumerate(volumes):
            path = self.scratch / f"{name}-{i:03d}.safetensors"
            whole, local = (
                thumbnail(np.rint(hu).astype(np.int16), self.config.hu_window, cells)
                for cells in (self.config.cells, self.config.local_cells)
            )
            save_state(path, {"picture": whole, "local": local.astype(np.float16)})
            made.append(Item(path.stem, Source.SAMPLES, path))
        return made

    def copies(self, volumes: Iterable[HU]) -> tuple[float, float]:
        """The share of volumes that are called copies: by the whole stage with a threshold of its own, and by the
        audit."""
        return self._shares([self.stages.match(item) for item in self.items("sample", volumes)])

    def alarms(self, volumes: Sequence[Cut]) -> tuple[float, float]:
        """The same of unseen volumes, against other patients."""
        items = self.items("unseen", [one.hu for one in volumes])
        return self._shares([self.unlike(item, one.patient) for item, one in zip(items, volumes, strict=True)])

    def _shares(self, found: Sequence[Match]) -> tuple[float, float]:
        matches = [self.scale.brought(one) for one in found]
        return self._share(matches, lambda one: one.whole.relative), self._share(matches, lambda one: one.relative)

    def _share(self, matches: Sequence[Match], relative: Callable[[Match], float]) -> float:
        threshold = self.threshold(relative)
        return float(np.mean([relative(one) < threshold.value for one in matches]))

    def threshold(self, relative: Callable[[Match], float]) -> Threshold:
        return Threshold.of([relative(one) for one in self.left_out], self.config.rate, self.config.largest)


def table(name: str, sets: Sequence[Sequence[Cut]], kinds: Sequence[str], most: int) -> list[dict[str, Any]]:
    """The rows of one set: each kind before and after, then the false alarms among unseen volumes."""
    training, donors, unseen = sets
    rows = []
    with tempfile.TemporaryDirectory() as scratch:
        start = time.perf_counter()
        audit = Audit(training, Path(scratch))
        for kind in kinds:
            before, after = audit.copies(
                planted(kind, *([one.hu for one in some] for some in (training[:most], donors)))
            )
            ok = after >= LEAST or kind in WEAK
            rows.append(row(name, kind, before, after, f">= {LEAST:g}" if kind not in WEAK else "none", ok))
        volumes = [*donors, *unseen]
        before, after = audit.alarms(volumes)
        threshold = audit.threshold(lambda one: one.relative)
        p, nominal = threshold.p_value(round(after * len(volumes)), len(volumes)), threshold.nominal
        rows.append(row(name, "unseen", before, after, f"nominal {nominal:.3f}, n {len(volumes)}", p > ALARM_P))
        print(f"{name}: {len(training)} training volumes, {time.perf_counter() - start:.0f} s", file=sys.stderr)
    return rows


def row(name: str, kind: str, before: float, after: float, target: str, ok: bool) -> dict[str, Any]:
    made = {"name": f"{name}: {kind}", "before": before, "value": after, "target": target, "ok": bool(ok)}
    print(f"{made['name']:32} {before:8.0%} {after:8.0%}  {target:22} {'ok' if ok else 'MISSED'}", file=sys.stderr)
    return made


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument("--quick", action="store_true", help="two copies of each kind")
    parser.add_argument("--copies", type=int, default=24, help="copies of each kind at most")
    parser.add_argument("--only", nargs="+", choices=list(KINDS), default=list(KINDS), metavar="KIND")
    parser.add_argument("--seed", type=int, default=0, help="of the division of real patches")
    parser.add_argument("--sets", nargs="+", choices=("phantom", "real"), default=["phantom", "real"])
    arguments = parser.parse_args()
    folder, most = os.environ.get("MEDLORD_BENCH_TEST_DATA"), 2 if arguments.quick else arguments.copies
    rows = []
    if "real" in arguments.sets and folder:
        rows += table("real", split(patches(Path(folder)), arguments.seed), arguments.only, most)
    elif "real" in arguments.sets:
        print("no real CT: MEDLORD_BENCH_TEST_DATA is not set", file=sys.stderr)
    if "phantom" in arguments.sets:
        rows += table("phantom", phantoms((40, 10, 16)), arguments.only, most)
    if arguments.json:
        print(json.dumps({"checks": rows}))
    return 0 if all(one["ok"] for one in rows) else 1


if __name__ == "__main__":
    sys.exit(main())
