"""What `diversity` sees: rates of warnings over random draws of clean, collapsed and partly repeated samples.

Volumes are phantoms, or patches of 48 cubed at about 1.5 mm of the CT in a folder (--ct DIR: .nii.gz files). Each draw
takes n samples and n real volumes from one pool. Repeated samples have noise of 20 HU, which their pairs are measured
with. Prints, for each n, the fraction of draws with a warning of each quantity, at p below 0.01.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from patches import patches

from medlord_bench.metrics.diversity.config import DiversityConfig
from medlord_bench.metrics.diversity.scores import Sets
from medlord_bench.metrics.diversity.similarity import distances, ms_ssim_of_pairs
from medlord_bench.volumes.thumbnails import thumbnail

POOL, NOISE_HU, SIDE = 96, 20, 48
WINDOW = (-1000, 1000)


def phantoms() -> list[np.ndarray]:
    from medlord_bench.plugins.datasets.phantom.dataset import PhantomConfig, PhantomDataset

    data = PhantomDataset(PhantomConfig(shape=(48, 48, 32), n_train=POOL, n_val=0, n_test=0))
    return [data.load(case)[0].hu for case in data.cases("train")]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--ct", type=Path, help="folder with CT; without it, phantoms")
    parser.add_argument("--draws", type=int, default=200)
    parser.add_argument("--json", action="store_true")
    arguments = parser.parse_args()
    volumes = patches(arguments.ct, POOL, SIDE) if arguments.ct else phantoms()
    rng = np.random.default_rng(1)
    repeated = [(hu + rng.normal(0, NOISE_HU, hu.shape)).astype(np.int16) for hu in volumes]
    pictures = np.stack([np.rint(thumbnail(hu, WINDOW, 64)) for hu in (*volumes, *repeated)])
    config = DiversityConfig(permutations=499)
    similarity = ms_ssim_of_pairs(pictures, WINDOW, config.kernel_size, config.kernel_sigma)
    apart = distances(pictures)

    def rates(n: int, choose: Callable[[np.ndarray], np.ndarray]) -> dict[str, float]:
        warned: dict[str, list[bool]] = {}
        for draw in range(arguments.draws):
            order = np.random.default_rng([n, draw]).permutation(POOL)
            both = np.ix_(*[np.concatenate([choose(order[:n]), order[n : 2 * n]])] * 2)
            sets = Sets([str(i) for i in range(n)], similarity[both], 4, apart[both], config)
            common = {"protocol": "x", "generator": "x", "dataset": "x", "n": n, "reference": "train"}
            for score in sets.scores(common):
                warned.setdefault(score.metric, []).append(bool(score.warning))
        return {name: float(np.mean(some)) for name, some in warned.items()} | {
            "any": float(np.mean(np.any(list(warned.values()), axis=0)))
        }

    kinds: dict[str, Callable[[np.ndarray], np.ndarray]] = {
        "clean": lambda drawn: drawn,
        "half repeated": lambda drawn: np.concatenate([drawn[: len(drawn) // 2], drawn[: len(drawn) // 2] + POOL]),
        "a quarter repeated": lambda drawn: np.concatenate(
            [drawn[: len(drawn) - len(drawn) // 4], drawn[: len(drawn) // 4] + POOL]
        ),
    }
    rows = [
        {"samples": kind, "n": n, **rates(n, choose)} for kind, choose in kinds.items() for n in (8, 12, 16, 24, 48)
    ]
    if arguments.json:
        print(json.dumps(rows))
        return
    print("| samples | n | " + " | ".join(list(rows[0])[2:]) + " |")
    for row in rows:
        print(f"| {row['samples']} | {row['n']} | " + " | ".join(f"{row[name]:.3f}" for name in list(row)[2:]) + " |")


if __name__ == "__main__":
    main()
