"""The declarations of a kind of step; all code that depends on kinds reads only these."""

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
    alone: whether it uses all that a machine has, so that other steps wait unless each worker has a card of its own.
    linked: whether a run folder has a link to its items.
    bytes_per_voxel: disk space of one item per voxel of the protocol's grid; None if negligible.
    less_memory: change that reduces its memory, if no forecast has better advice.

    Its module also has a function ``plan`` that adds a step of the kind, and ``Detail``, the frozen model of further
    parameters of its `run` besides items and inputs, if there are any.
    """

    name: ClassVar[str]
    sharded: ClassVar[bool] = True
    alone: ClassVar[bool] = False
    linked: ClassVar[bool] = True
    bytes_per_voxel: ClassVar[float | None] = None
    less_memory: ClassVar[str] = "a smaller grid"

    @abstractmethod
    def run(self, job: Job, items: Sequence[str]) -> None:
        """Publish `items`, the missing ones of this shard, each as soon as it is finished: a stop at any time
        loses at most the current item."""

    def during(self, step: Step) -> str | None:
        """The training stage or purpose that a generator works on in such a step; None if none does."""
        return None

    def volumes_to_sample(self, step: Step) -> int | None:
        """Number of volumes that it samples without keeping them; None for none."""
        return None
