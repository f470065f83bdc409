"""No test mask is among the training masks: a sample of such a mask shows the anatomy that is tested."""

from __future__ import annotations

from typing import TYPE_CHECKING

from medlord_bench.engine.prepared import StoredCohort
from medlord_bench.engine.steps.job import Job
from medlord_bench.errors import StepError

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

AGREEMENT = 0.98  # of labelled voxels; masks of different patients agree much less
COARSE = 48  # voxels along an axis, at most, that are compared


def check(job: Job) -> None:
    """Raise `StepError` naming the first pair of a training and a test case whose masks agree, voxel by voxel."""
    cohort = job.cohort()
    test = [(item, _coarse(cohort, item)) for item in job.plan.splits["test"]]
    for item in job.plan.splits["train"]:
        own = _coarse(cohort, item)
        for other, mask in test:
            if agreement(own, mask) >= AGREEMENT:
                raise StepError(
                    f"{job.step.id}: training case {item} has the mask of test case {other} (agreement "
                    f"{agreement(own, mask):.3f}); expected other patients: move both to one split, or remove one"
                )


def agreement(one: NDArray[np.uint8], other: NDArray[np.uint8]) -> float:
    """Voxels with the same label in both, twice, over the labelled voxels of both; 0 for empty masks or other grids."""
    import numpy as np

    labelled = np.count_nonzero(one) + np.count_nonzero(other)
    if one.shape != other.shape or not labelled:
        return 0.0
    return 2 * int(np.count_nonzero((one == other) & (one > 0))) / labelled


def _coarse(cohort: StoredCohort, item: str) -> NDArray[np.uint8]:
    """Every k-th voxel of a case's mask."""
    import numpy as np

    labels = cohort.label_map(item).labels
    step = max(1, max(labels.shape) // COARSE)
    coarse: NDArray[np.uint8] = np.ascontiguousarray(labels[::step, ::step, ::step])
    return coarse
