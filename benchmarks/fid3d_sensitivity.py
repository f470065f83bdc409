"""What slice features and whole-volume features see of faults between slices: `fid` beside `fid3d` on real CT.

Volumes are patches of the CT in a folder (--ct DIR, files ct.nii.gz): 64x64x64 voxels at about 1.5 mm. n patches are the
samples, and 2 n others are train and test. The same samples are measured clean and with one fault at a time. Prints each
distance over its floor, and the p-value of the kernel distances.
"""

from __future__ import annotations

import argparse
import json
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from scipy.ndimage import gaussian_filter

from medlord_bench.contracts import DataProtocol, Grid, Item, Made, MetricInputs, Need, Run, Volume
from medlord_bench.contracts.results import Score
from medlord_bench.metrics.fid.metric import FID, FIDConfig
from medlord_bench.metrics.fid.volume_metric import FID3D, FID3DConfig
from medlord_bench.util.progress import SilentProgress
from medlord_bench.volumes.arrays import save_state

SIDE, MM, JITTER, SLABS = 64, 1.5, 3, 8


def patches(folder: Path, count: int) -> list[np.ndarray]:
    """Random patches that are at least 30 % body, of all volumes in turn, at every k-th voxel nearest to 1.5 mm."""
    from medlord_bench.volumes.io import read_volume

    rng, volumes, found = np.random.default_rng(0), [], []
    for path in sorted(folder.rglob("ct.nii.gz")):
        volume = read_volume(path)
        steps = [max(1, round(MM / mm)) for mm in volume.spacing]
        volumes.append(volume.hu[tuple(slice(None, None, step) for step in steps)])
    volumes = [hu for hu in volumes if min(hu.shape) >= SIDE]
    while len(found) < count:
        hu = volumes[len(found) % len(volumes)]
        start = [int(rng.integers(n - SIDE + 1)) for n in hu.shape]
        patch = hu[tuple(slice(at, at + SIDE) for at in start)]
        if (patch > -300).mean() > 0.3:
            found.append(np.ascontiguousarray(patch))
    order = rng.permutation(count)
    return [found[i] for i in order]


def jittered(hu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Each axial slice shifted by up to 3 voxels along X and Y."""
    moved = np.empty_like(hu)
    for z in range(hu.shape[2]):
        x, y = rng.integers(-JITTER, JITTER + 1, 2)
        padded = np.pad(hu[:, :, z], JITTER, mode="edge")
        moved[:, :, z] = padded[JITTER + x :, JITTER + y :][: hu.shape[0], : hu.shape[1]]
    return moved


def shuffled(hu: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Eight axial slabs in another order."""
    slabs = np.array_split(hu, SLABS, axis=2)
    return np.concatenate([slabs[i] for i in rng.permutation(SLABS)], axis=2)


FAULTS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "clean": lambda hu, rng: hu,
    f"slices jittered by up to {JITTER} voxels": jittered,
    f"{SLABS} slabs shuffled": shuffled,
    "+100 HU": lambda hu, rng: hu + np.int16(100),
    "blur, SD 1 voxel": lambda hu, rng: gaussian_filter(hu.astype(np.float32), 1).astype(np.int16),
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", type=Path, required=True)
    parser.add_argument("-n", type=int, default=16)
    parser.add_argument("--slices", type=int, default=12, help="slices of each plane for fid")
    parser.add_argument("--json", action="store_true")
    given = parser.parse_args()
    volumes = patches(given.ct, 3 * given.n)
    settings = {"features": {"slices": given.slices}}
    metrics: list[Any] = [FID(FIDConfig.model_validate(settings)), FID3D(FID3DConfig())]
    with tempfile.TemporaryDirectory() as place:
        found = [rows_of(metric, volumes, given.n, Path(place)) for metric in metrics]
    rows = [{"fault": name, **found[0][name], **found[1][name]} for name in FAULTS]
    if given.json:
        print(json.dumps(rows))
        return
    print("| " + " | ".join(rows[0]) + " |")
    for row in rows:
        print("| " + " | ".join(value if isinstance(value, str) else f"{value:.3g}" for value in row.values()) + " |")


def rows_of(metric: Any, volumes: list[np.ndarray], n: int, place: Path) -> dict[str, dict[str, float]]:
    """Fault -> the numbers of a metric."""
    run = Run("cpu", 0, SilentProgress(), logging.getLogger("benchmark"), place)
    extractor, grid = metric._extractor(), Grid(shape=(SIDE,) * 3, spacing=(MM,) * 3)
    data = DataProtocol(
        name="patches", grid=grid, fit="crop-pad", split="random", split_sha256="0" * 64, counts={}, masks="none"
    )

    def items(source: str, some: list[np.ndarray]) -> list[Item]:
        made = []
        given = (Volume(hu, grid.affine()) for hu in some)
        for i, state in enumerate(extractor.features(given, run)):
            path = place / f"{metric.name}-{source.replace(':', '-')}-{i}.safetensors"
            save_state(path, state)
            made.append(Item(f"{source}-{i:03d}", source, path))
        return made

    needs = [
        Need(source, Made.FEATURES, extractor=metric.config.extractor)
        for source in ("samples", "real:train", "real:test")
    ]
    real = {needs[1]: items("real:train", volumes[n : 2 * n]), needs[2]: items("real:test", volumes[2 * n :])}
    result: dict[str, dict[str, float]] = {}
    for name, fault in FAULTS.items():
        rng = np.random.default_rng(1)
        samples = items("samples", [fault(hu, rng) for hu in volumes[:n]])
        made = metric.reduce(MetricInputs("samples", "patches", data, {needs[0]: samples, **real}), run)
        scores = {
            one.metric: one for one in made if isinstance(one, Score) and one.reference == "test" and not one.region
        }
        suffix = metric.name.removeprefix("fid")
        distance, kernel = scores[f"fid{suffix}"], scores[f"kid{suffix}"]
        result[name] = {
            f"fid{suffix} / floor": distance.value / distance.floor,
            f"kid{suffix}": kernel.value,
            f"kid{suffix} p": kernel.p,
            f"precision{suffix}": scores[f"precision{suffix}"].value,
            f"recall{suffix}": scores[f"recall{suffix}"].value,
        }
    return result


if __name__ == "__main__":
    main()
