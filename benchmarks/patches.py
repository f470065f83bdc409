"""Patches of the CT in a folder, shared by the benchmarks."""

from __future__ import annotations

from pathlib import Path

import numpy as np

MM = 1.5  # about the voxel size of a patch
LEAST_BODY = 0.3  # of a patch is above -300 HU


def patches(folder: Path, count: int, side: int) -> list[np.ndarray]:
    """Random patches, int16 (side, side, side), of all volumes in turn, at every k-th voxel nearest to 1.5 mm; files
    ct.nii.gz below the folder. The patches are in random order."""
    from medlord_bench.volumes.io import read_volume

    rng, volumes, found = np.random.default_rng(0), [], []
    for path in sorted(folder.rglob("ct.nii.gz")):
        volume = read_volume(path)
        steps = [max(1, round(MM / mm)) for mm in volume.spacing]
        volumes.append(volume.hu[tuple(slice(None, None, step) for step in steps)])
    volumes = [hu for hu in volumes if min(hu.shape) >= side]
    while len(found) < count:
        hu = volumes[len(found) % len(volumes)]
        start = [int(rng.integers(n - side + 1)) for n in hu.shape]
        patch = hu[tuple(slice(at, at + side) for at in start)]
        if (patch > -300).mean() > LEAST_BODY:
            found.append(np.ascontiguousarray(patch))
    return [found[i] for i in rng.permutation(count)]
