"""What was read for a run and what to doubt about it, for `results/inputs.json`."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from medlord_bench.engine.doubts import DOUBT, padding_doubt, values_doubt
from medlord_bench.engine.plan import Plan, Step
from medlord_bench.engine.planning import REAL
from medlord_bench.engine.store import Store
from medlord_bench.engine.worker import output
from medlord_bench.results.inputs import Doubt, Inputs

KINDS = ("samples", "conditional", "reconstructions")


def inputs_of(store: Store, plan: Plan) -> Inputs:
    """The inventory and every doubt of a run, from the sidecars of its items."""
    doubts = []
    for step in plan.steps:
        text = None
        if step.kind == "images":
            shapes = {facts["case"]: facts["source_shape"] for _, facts in _facts(store, step)}
            text = padding_doubt(shapes, plan.protocol)
        elif step.kind in KINDS:
            found = list(_facts(store, step))
            text = values_doubt({item: facts[DOUBT] for item, facts in found if DOUBT in facts}, len(found))
        if text is not None:
            doubts.append(Doubt(about=REAL if step.kind == "images" else step.contestant, text=text))
    return Inputs(inventory=plan.inventory, samples_of=plan.samples_of, doubts=tuple(doubts))


def _facts(store: Store, step: Step) -> list[tuple[str, Mapping[str, Any]]]:
    made = output(store, step)
    return [(item, made.sidecar(item).facts) for item in step.items if made.has(item)]
