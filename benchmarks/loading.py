"""Seconds to load a CT of 512x512x134 voxels as a volume, against nibabel and SimpleITK in the same run.

    python benchmarks/loading.py [--json] [--quick] [--ct FILE]

Ours is `read_volume`: the checksum is tested, axes point towards R, A, S, and the values are int16 in C order. The plain peer
is what one writes with the library to get the same array; the bare peer only reads the values, in the file's order. All take
turns in one process; the least CPU time of each counts, so that other programs matter little. The file is `--ct`, or a made-up
body with noise, as int16 in the axes of most scanners (L, P, S). `--quick` takes a small volume; do not cite its numbers. The exit
code is 1 if a target is missed.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import SimpleITK as sitk
from numpy.typing import NDArray
from targets import check, concluded

from medlord_bench.volumes.io import read_volume

SHAPE = (512, 512, 134)
REPEATS = 3
TARGET = 2  # times as fast as the plain peer


def body(shape: tuple[int, int, int]) -> NDArray[np.int16]:
    """An ellipse of soft tissue in air, with the noise of a CT: compresses about as well as one."""
    x, y = (np.linspace(-1, 1, size, dtype=np.float32) for size in shape[:2])
    inside = (x[:, None] / 0.8) ** 2 + (y[None, :] / 0.6) ** 2 < 1
    noise = np.random.default_rng(0).normal(0, 12, shape).astype(np.float32)
    return np.rint(np.where(inside, 40, -1000)[:, :, None] + noise * np.where(inside, 1, 0.1)[:, :, None]).astype(
        np.int16
    )


def files(folder: Path, source: Path | None, shape: tuple[int, int, int]) -> list[Path]:
    """The image in each format, compressed."""
    if source is None:
        source = folder / "image.nii.gz"
        nib.save(nib.Nifti1Image(body(shape), np.diag([-0.7, -0.7, 2.0, 1.0])), source)
    others = [folder / "image.mha", folder / "image.nrrd"]
    sitk.ProcessObject.SetGlobalWarningDisplay(False)  # of fields that only NIfTI has
    image = sitk.ReadImage(str(source))
    for path in others:
        sitk.WriteImage(image, str(path), useCompression=True)
    return [source, *others]


def plain(path: Path) -> NDArray[np.int16]:
    """The volume as int16 in C order, axes towards R, A, S, by the library alone."""
    if path.name.endswith(".nii.gz"):
        image = nib.as_closest_canonical(nib.load(path))
        return np.ascontiguousarray(np.asanyarray(image.dataobj).astype(np.int16))
    image = sitk.DICOMOrient(sitk.ReadImage(str(path)), "LPS")  # ITK's names of axes that point towards L, P, S
    return np.ascontiguousarray(sitk.GetArrayFromImage(image).T[::-1, ::-1].astype(np.int16))


def bare(path: Path) -> Any:
    """The values in the file's order."""
    if path.name.endswith(".nii.gz"):
        return np.asanyarray(nib.load(path).dataobj)
    return sitk.GetArrayViewFromImage(sitk.ReadImage(str(path)))


def least(calls: Sequence[Callable[[], Any]], repeats: int) -> list[float]:
    """The least CPU seconds of each call; they take turns."""
    seconds = [[] for _ in calls]
    for _ in range(repeats):
        for call, found in zip(calls, seconds, strict=True):
            before = time.process_time()
            call()
            found.append(time.process_time() - before)
    return [min(found) for found in seconds]


def measure(path: Path, quick: bool) -> list[dict[str, Any]]:
    if not np.array_equal(read_volume(path).hu, plain(path)):
        raise SystemExit(f"{path.name}: the peer reads other values")
    calls = [lambda: read_volume(path), lambda: plain(path), lambda: bare(path)]
    ours, peer, values = least(calls, 1 if quick else REPEATS)
    print(f"{path.name:14} ours {ours:.3f} s  plain {peer:.3f} s  values only {values:.3f} s", file=sys.stderr)
    ratio = peer / ours
    kind = "".join(path.suffixes[-2:]).lstrip(".")
    return [check(f"{kind}_times_faster", ratio, f">= {TARGET}", quick or ratio >= TARGET)]


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print the checks as JSON")
    parser.add_argument("--quick", action="store_true", help="a small volume, once: a test, not a measurement")
    parser.add_argument("--ct", type=Path, help="a .nii.gz of one's own instead of the made-up body")
    arguments = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        shape = (64, 64, 32) if arguments.quick else SHAPE
        paths = files(Path(folder), arguments.ct, shape)
        checks = [row for path in paths for row in measure(path, arguments.quick)]
    return concluded(checks, arguments.json)


if __name__ == "__main__":
    sys.exit(main())
