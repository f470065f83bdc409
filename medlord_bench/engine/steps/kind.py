"""What a kind of step declares about itself; everything that asks about kinds reads this and nothing else."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from typing import ClassVar

from medlord_bench.engine.plan import Step
from medlord_bench.engine.steps.job import Job


class Kind(ABC):
    """One kind of step.

    name: the kind, and the folder of its objects in the store.
    sharded: whether several workers may share its items.
    linked: whether a run folder has a link to its items.
    bytes_per_voxel: disk that one item takes, per voxel of the protocol's grid; None where it is next to nothing.
    less_memory: what makes it take less memory, where no forecast has better advice.

    Its module also has a function ``plan`` that adds a step of the kind, and ``Detail``, the frozen model of what its
    `run` reads of the step besides items and inputs, where there is any.
    """

    name: ClassVar[str]
    sharded: ClassVar[bool] = True
    linked: ClassVar[bool] = True
    bytes_per_voxel: ClassVar[float | None] = None
    less_memory: ClassVar[str] = "a smaller grid"

    @abstractmethod
    def run(self, job: Job, items: Sequence[str]) -> None:
        """Publish `items`, the ones of this shard that are missing, each as soon as it is made: a stop at any moment
        loses at most the item in hand."""

    def during(self, step: Step) -> str | None:
        """The training stage or purpose that a generator works on in such a step; None where none does."""
        return None

    def volumes_to_sample(self, step: Step) -> int | None:
        """Volumes that it samples and does not keep; None for none."""
        return None
