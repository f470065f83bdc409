"""The contract of a data set. One that needs a folder receives it by MEDLORD_BENCH_DATA_ROOT."""

from __future__ import annotations

import os
from collections.abc import Iterator

import numpy as np

from medlord_bench.checks.contract import Check
from medlord_bench.checks.contract.common import (
    configures,
    imports_nothing_heavy,
    make,
    names,
    split_overlap,
    version_of,
)
from medlord_bench.contracts import SPLITS, Dataset, Run, registry
from medlord_bench.contracts.inventory import HasInventory
from medlord_bench.errors import MissingError
from medlord_bench.volumes.checks import check_same_grid, not_ct


def check(name: str, run: Run) -> Iterator[Check]:
    """Splits disjoint by patient, stable identities, and a first case of each split that loads as CT."""
    yield imports_nothing_heavy("datasets", name)
    plugin = registry.load("datasets", name)
    yield version_of(plugin)
    yield from configures("datasets", name)
    root = os.environ.get("MEDLORD_BENCH_DATA_ROOT")
    given = {"data_root": root} if root and "data_root" in plugin.Config.model_fields else {}
    dataset = make("datasets", name, given)
    if hasattr(dataset, "overlaps"):
        yield names("overlaps", dataset.overlaps)
    try:
        yield from _inventory(dataset)
        yield Check("fulfils contracts.Dataset", isinstance(dataset, Dataset))
        cases = {split: list(dataset.cases(split)) for split in SPLITS}
    except MissingError as error:
        yield Check("names what it needs if the data are missing", len(str(error).splitlines()) == 1, str(error))
        return
    overlap = split_overlap(cases)
    yield Check("no patient is in two splits", not overlap, overlap)
    every = [case for split in SPLITS for case in cases[split]]
    yield Check("case ids are unique", len({case.id for case in every}) == len(every))
    again = make("datasets", name, given)
    yield Check("the same configuration gives the same cases", all(list(again.cases(s)) == cases[s] for s in SPLITS))
    yield Check("the protocol's id is stable", again.protocol.id() == dataset.protocol.id(), dataset.protocol.id())
    for split in SPLITS:
        if not cases[split]:
            continue
        volume, labels = dataset.load(cases[split][0])
        good = volume.hu.dtype == np.int16 and not_ct(volume, dataset.protocol.grid.hu_window) is None
        yield Check(f"{split}: the first case is int16 CT in HU", good, f"{volume.shape}, {volume.spacing} mm")
        same = np.array_equal(volume.hu, dataset.load(cases[split][0])[0].hu)
        yield Check(f"{split}: it loads the same twice", same)
        if labels is not None:
            check_same_grid(volume, labels, cases[split][0].id, f"{cases[split][0].id} mask")
            known = set(np.unique(labels.labels).tolist()) <= {0, *labels.names}
            yield Check(f"{split}: every label has a name", known)


def _inventory(dataset: object) -> Iterator[Check]:
    """Of a data set on disk: what it takes and leaves out, and a failed check for each warning."""
    if isinstance(dataset, HasInventory):
        found = dataset.inventory()
        yield Check("says what it takes of its folder and what it leaves out", True, " | ".join(found.lines()))
        for warning in found.warnings:
            yield Check("its files are as expected", False, warning)
