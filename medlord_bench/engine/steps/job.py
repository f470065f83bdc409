"""One (step, shard) with everything needed to run it, and the writers of published files."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import numpy as np

from medlord_bench.contracts import Run, specs
from medlord_bench.engine.plan import Plan, Step
from medlord_bench.engine.prepared import StoredCohort
from medlord_bench.engine.store import Store, StoredObject
from medlord_bench.errors import Stopped
from medlord_bench.util.files import Write, publish

T = TypeVar("T")
VOLUME, STATE, SCORES = ".nii.gz", ".safetensors", ".scores.json"


@dataclass(frozen=True)
class Job:
    """One (step, shard) with everything needed to run it. facts: facts that are added to every sidecar of its
    output."""

    plan: Plan
    step: Step
    store: Store
    run: Run
    facts: Callable[[], Mapping[str, Any]] = dict

    @property
    def out(self) -> StoredObject:
        return StoredObject(self.store.object(self.step.kind, self.step.key).path, self.facts)

    def object(self, step: Step) -> StoredObject:
        """The published object of a step."""
        return self.store.object(step.kind, step.key)

    def input(self, role: str) -> StoredObject:
        return self.object(self.plan.step(self.step.inputs[role]))

    def cohort(self) -> StoredCohort:
        return StoredCohort(self.object(self.plan.step("images")), self.plan.protocol, self.plan.splits)

    def external_cohort(self, step: str) -> StoredCohort:
        """The cases of another data set, which a step of images has made."""
        images = self.plan.step(step)
        return StoredCohort(self.object(images), self.plan.protocol, {"test": images.items})

    def plugin(self, kind: str) -> Any:
        return specs.make(kind, self.step.plugin)

    def check_stop(self, done: str) -> None:
        if self.run.stop():
            raise Stopped(f"{self.step.id}: stopped after {done}, saved")


def npy(array: Any) -> Write:
    """A writer of `StoredObject.put`: an array as `.npy`."""
    return lambda path: publish(path, lambda temporary: np.save(temporary, array, allow_pickle=False))


def by(write: Callable[[Path, T], None], value: T) -> Write:
    """`write(path, value)` as a writer of `StoredObject.put`."""
    return lambda path: write(path, value)
