"""Seconds and memory of `medlord-bench plan` for data folders of 500 and of 5,000 cases: is the growth linear?

Writes small images (8x8x8, one mask each) into a temporary folder and plans `medlord@tiny` and `holdout` with the default
metrics, in a process of its own for each folder. The first plan of a folder also hashes its files.
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import nibabel as nib
import numpy as np
from targets import check, concluded

MOST_SECONDS, MOST_GIB = 20.0, 1.0
LEAST = 5  # cases of a plan that is nothing but imports
SETTINGS = ("--set", "dataset.shape=32,32,32", "--set", "dataset.fit=resize", "--no-memory-check")
CHILD = "import sys; from medlord_bench.cli import main; sys.argv[0] = 'medlord-bench'; main()"


def folder(root: Path, cases: int) -> Path:
    """A folder of patients, one image and one mask each."""
    draw = np.random.default_rng(cases)
    for number in range(cases):
        place = root / f"patient{number:05d}"
        (place / "segmentations").mkdir(parents=True)
        hu = draw.integers(-1000, 1000, (8, 8, 8)).astype(np.int16)
        nib.save(nib.Nifti1Image(hu, np.eye(4)), place / "ct.nii.gz")
        nib.save(nib.Nifti1Image((hu > 0).astype(np.uint8), np.eye(4)), place / "segmentations" / "lungs.nii.gz")
    return root


def plan(root: Path, store: Path) -> tuple[float, float]:
    """(seconds of the CPU, peak GiB) of a plan."""
    command = [sys.executable, "-c", CHILD, "plan", "--generator", "medlord@tiny", "--generator", "holdout"]
    command += ["--dataset", "folder", "--data-root", str(root), "--store", str(store), *SETTINGS, "--json"]
    environment = os.environ | {"MEDLORD_BENCH_CACHE": str(store / "hashes.json"), "OMP_NUM_THREADS": "1"}
    process = subprocess.Popen(command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert process.stdout is not None
    steps = json.loads(process.stdout.read())["steps"]
    _, status, used = os.wait4(process.pid, 0)
    process.returncode = os.waitstatus_to_exitcode(status)
    assert process.returncode == 0 and steps, "plan failed"
    scale = 2**30 if sys.platform == "darwin" else 2**20
    return used.ru_utime + used.ru_stime, used.ru_maxrss / scale


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--cases", type=int, default=5000)
    parser.add_argument("--json", action="store_true")
    asked = parser.parse_args()
    few, many = asked.cases // 10, asked.cases
    found = {}
    with tempfile.TemporaryDirectory() as place:
        for cases in (LEAST, few, many):
            root, store = folder(Path(place) / f"data{cases}", cases), Path(place) / f"store{cases}"
            store.mkdir()
            start = time.monotonic()
            found[cases] = (*plan(root, store), time.monotonic() - start)
    base = found[LEAST][0]  # imports
    ratio = (found[many][0] - base) / max(found[few][0] - base, 0.01)
    for cases in (few, many):
        seconds, memory, clock = found[cases]
        print(
            f"{cases} cases: {seconds:.1f} s of the CPU, {clock:.1f} s of the clock, {memory:.2f} GiB", file=sys.stderr
        )
    bounds = (
        (f"seconds of the CPU, {many} cases", found[many][0], MOST_SECONDS),
        (f"peak GiB, {many} cases", found[many][1], MOST_GIB),
        (f"{many} against {few} cases, without imports (10: linear)", ratio, 13.0),
    )
    checks = [check(name, value, f"<= {most:g}", value <= most) for name, value, most in bounds]
    sys.exit(concluded(checks, asked.json))


if __name__ == "__main__":
    main()
