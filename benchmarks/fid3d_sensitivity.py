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
from patches import MM, patches
from scipy.ndimage import gaussian_filter

from medlord_bench.contracts import DataProtocol, Grid, Item, Made, MetricInputs, Need, Run, Volume
from medlord_bench.contracts.results import Score
from medlord_bench.generators.controls.faults.sampling import jitter, shuffled_slabs
from medlord_bench.metrics.fid.metric import FID, FIDConfig
from medlord_bench.metrics.fid.volume_metric import FID3D, FID3DConfig
from medlord_bench.util.progress import SilentProgress
from medlord_bench.volumes.arrays import save_state

SIDE, JITTER, SLAB = 64, 3, 8


FAULTS: dict[str, Callable[[np.ndarray, np.random.Generator], np.ndarray]] = {
    "clean": lambda hu, rng: hu,
    f"slices jittered by up to {JITTER} voxels": lambda hu, rng: jitter(hu, JITTER, rng),
    f"slabs of {SLAB} slices shuffled": lambda hu, rng: shuffled_slabs(hu, SLAB, rng),
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
    volumes = patches(given.ct, 3 * given.n, SIDE)
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
