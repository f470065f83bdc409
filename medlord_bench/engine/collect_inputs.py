"""What was read for a run and what to doubt about it, for `results/inputs.json`."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from typing import Any

from medlord_bench.engine.doubts import DOUBT, OUTLINE, copies_doubt, padding_doubt, values_doubt
from medlord_bench.engine.plan import Plan, Step
from medlord_bench.engine.planning import REAL
from medlord_bench.engine.store import Store
from medlord_bench.engine.worker import output
from medlord_bench.results.inputs import Doubt, Inputs

log = logging.getLogger("medlord_bench")
KINDS = ("samples", "conditional", "reconstructions")


def inputs_of(store: Store, plan: Plan) -> Inputs:
    """The inventory and every doubt of a run, from the sidecars of its items."""
    doubts = []
    for step in plan.steps:
        about = REAL if step.kind == "images" else step.contestant
        doubts += [Doubt(about=about, text=text) for text in _doubts(store, plan, step) if text is not None]
    return Inputs(inventory=plan.inventory, samples_of=plan.samples_of, doubts=tuple(doubts))


def log_copies(store: Store, plan: Plan, step: Step) -> None:
    """Say in the log, once the images are there, that two splits have nearly the same one."""
    split_of = {item: split for split, items in plan.splits.items() for item in items}
    text = copies_doubt(
        {item: facts.get(OUTLINE, ()) for item, facts in _facts(store, step) if item in split_of}, split_of
    )
    if text is not None:
        log.warning("%s", text)


def _doubts(store: Store, plan: Plan, step: Step) -> Iterator[str | None]:
    if step.kind == "images":
        found = dict(_facts(store, step))
        yield padding_doubt({facts["case"]: facts["source_shape"] for facts in found.values()}, plan.protocol)
        split_of = {item: split for split, items in plan.splits.items() for item in items}
        # Images that an earlier release made have no outline.
        yield copies_doubt({item: found[item].get(OUTLINE, ()) for item in found if item in split_of}, split_of)
    elif step.kind in KINDS:
        made = _facts(store, step)
        yield values_doubt({item: facts[DOUBT] for item, facts in made if DOUBT in facts}, len(made))


def _facts(store: Store, step: Step) -> list[tuple[str, Mapping[str, Any]]]:
    made = output(store, step)
    return [(item, made.sidecar(item).facts) for item in step.items if made.has(item)]
