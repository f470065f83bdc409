"""What radiomic features see: `frd` in both forms on patches of real CT, one fault at a time.

Volumes are patches of the CT in a folder (--ct DIR, files ct.nii.gz): 64x64x64 voxels at about 1.5 mm. n patches are the
samples, and 2 n others are train and test. The same samples are measured clean and with each fault. Prints `frd` against
test beside its floor, and p.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
from patches import MM, patches
from scipy.ndimage import gaussian_filter

from medlord_bench.contracts import DataProtocol, Grid, Item, Made, MetricInputs, Need, Run, Volume
from medlord_bench.contracts.results import Score
from medlord_bench.generators.controls.faults import intensity, sampling
from medlord_bench.metrics.fid.radiomic_metric import FRD, FRDConfig
from medlord_bench.util.progress import SilentProgress
from medlord_bench.volumes.arrays import save_state

SIDE = 64
Fault = Callable[[np.ndarray, np.random.Generator], np.ndarray]
FAULTS: dict[str, Fault] = {
    "none": lambda hu, rng: hu,
    "+20 HU": lambda hu, rng: hu + np.int16(20),
    "+100 HU": lambda hu, rng: hu + np.int16(100),
    "gain 1.05": lambda hu, rng: intensity.gain(hu, 1.05, rng),
    "bias field 50 HU": lambda hu, rng: intensity.bias(hu, 50, rng),
    "noise doubled": lambda hu, rng: intensity.noise(hu, 2, rng),
    "blur, SD .5 voxels": lambda hu, rng: gaussian_filter(hu.astype(np.float32), 0.5).astype(np.int16),
    "blur, SD 1 voxel": lambda hu, rng: gaussian_filter(hu.astype(np.float32), 1).astype(np.int16),
    "slices jittered by up to 3 voxels": lambda hu, rng: sampling.jitter(hu, 3, rng),
    "checkerboard 30 HU": lambda hu, rng: sampling.checkerboard(hu, 30, rng),
    "one volume repeated": lambda hu, rng: hu,
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", type=Path, required=True)
    parser.add_argument("-n", type=int, default=16)
    given = parser.parse_args()
    volumes = patches(given.ct, 3 * given.n, SIDE)
    with tempfile.TemporaryDirectory() as place:
        forms = [Form(form, volumes, given.n, Path(place)) for form in ("normalised", "hu")]
        print("| fault | " + " | ".join(f"{one.name} | floor | p" for one in forms) + " |", flush=True)
        for name in FAULTS:
            found = [one.score(name) for one in forms]
            cells = (f"{one.value:.2f} | {one.floor:.2f} | {one.p:.3f}" for one in found)
            print(f"| {name} | {' | '.join(cells)} |", flush=True)


class Form:
    """`frd` in one form, with the features of its real volumes."""

    def __init__(self, name: str, volumes: list[np.ndarray], n: int, place: Path) -> None:
        self.name, self.volumes, self.n, self.place = name, volumes, n, place
        self.metric = FRD(FRDConfig.model_validate({"intensities": name}))
        self.run = Run("cpu", 0, SilentProgress(), logging.getLogger("benchmark"), place)
        self.grid = Grid(shape=(SIDE,) * 3, spacing=(MM,) * 3)
        sources = ("samples", "real:train", "real:test")
        self.needs = [Need(source, Made.FEATURES, extractor="radiomics") for source in sources]
        self.real = {
            self.needs[1]: self._items("train", volumes[n : 2 * n]),
            self.needs[2]: self._items("test", volumes[2 * n :]),
        }

    def score(self, fault: str) -> Score:
        """`frd` of the samples with a fault against test."""
        rng = np.random.default_rng(1)
        chosen = self.volumes[:1] * self.n if fault == "one volume repeated" else self.volumes[: self.n]
        samples = self._items("samples", [FAULTS[fault](hu, rng) for hu in chosen])
        data = DataProtocol(
            name="patches",
            grid=self.grid,
            fit="crop-pad",
            split="random",
            split_sha256="0" * 64,
            counts={},
            masks="none",
        )
        made = self.metric.reduce(
            MetricInputs("samples", "patches", data, {self.needs[0]: samples, **self.real}), self.run
        )
        return next(one for one in made if isinstance(one, Score) and one.reference == "test")

    def _items(self, source: str, some: list[np.ndarray]) -> list[Item]:
        made = []
        given = (Volume(hu, self.grid.affine()) for hu in some)
        for i, state in enumerate(self.metric._extractor().features(given, self.run)):
            path = self.place / f"{self.name}-{source}-{i}.safetensors"
            save_state(path, state)
            made.append(Item(f"{source}-{i:03d}", source, path))
        return made


if __name__ == "__main__":
    main()
