"""The voxel size at which volumes are read by what depends on it: one for real and generated volumes.

It is that of the protocol's grid. A grid without one has the median voxel size of the training images: for real volumes
too, since a result may depend on the voxel size, and samples have none of their own.
"""

from __future__ import annotations

from typing import Any

from medlord_bench.contracts import Volume
from medlord_bench.engine.planning import Planning
from medlord_bench.engine.steps.job import Job
from medlord_bench.util.hashing import digest

Size = tuple[float, float, float]


def identity(planning: Planning) -> dict[str, Any]:
    """What a step's key needs of it: the training cases, if they decide it."""
    if planning.protocol.grid.spacing is not None:
        return {}
    return {"voxel_size_of": digest(sorted(planning.splits["train"]))}


def of_all(job: Job) -> Size | None:
    """In mm, the size of all volumes on a grid that has none. None: volumes have the grid's."""
    if job.plan.protocol.grid.spacing is not None:
        return None
    import numpy as np

    cohort = job.cohort()
    train = cohort.ids("train") or [item for split in cohort.splits.values() for item in split]
    x, y, z = np.median([cohort.spacing(item) for item in train], axis=0).tolist()
    return x, y, z


def at(volume: Volume, size: Size | None) -> Volume:
    """The volume with this voxel size; None: as it is."""
    if size is None:
        return volume
    import numpy as np

    return Volume(volume.hu, np.diag([*size, 1.0]))
