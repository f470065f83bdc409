"""Metrics against a reference file: what can be measured without cases, and by which protocol."""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

from medlord_bench.contracts import MetricInputs, Run
from medlord_bench.contracts.metrics import protocol_of
from medlord_bench.contracts.reference import NEEDS_CASES, HasReference, Reference
from medlord_bench.contracts.results import CaseRow, Replicates, Score
from medlord_bench.contracts.specs import PluginSpec
from medlord_bench.engine.plan import Step
from medlord_bench.errors import UserError
from medlord_bench.results.diff import differences
from medlord_bench.util.hashing import canonical

Results = Iterable[Score | CaseRow | Replicates]


def not_measurable(reference: Reference, spec: PluginSpec, metric: Any) -> str:
    """Why a metric cannot be measured against the file; empty if it can be."""
    known = reference.of(spec.name)
    if not _reads_cases(metric):
        return ""
    if not isinstance(metric, HasReference):
        return NEEDS_CASES
    if known is None or known.patients is None:
        return f"{NEEDS_CASES}: the reference file has no statistics of it"
    return ""


def _reads_cases(metric: Any) -> bool:
    return any(need.source.has_cases for need in metric.needs())


def check_file(reference: Reference, step: Step) -> None:
    """Raise `UserError` if the file is not the one that the step was planned with."""
    planned = step.identity.get("reference")
    if planned != reference.sha256:
        raise UserError(
            f"{reference.path}: sha256 {reference.sha256[:8]}, expected {str(planned)[:8]}: the file changed during the run; "
            "run the same command again"
        )


def protocol(reference: Reference, spec: PluginSpec, metric: Any) -> tuple[str, dict[str, Any]]:
    """The id and text of a metric's protocol, which are those of the file if it has the metric."""
    known = reference.of(spec.name)
    if known is not None:
        return known.protocol, known.text
    return protocol_of(spec.plugin, metric, reference.meta.data)


def check_protocol(reference: Reference, spec: PluginSpec, metric: Any) -> None:
    """Raise `UserError` naming the first field in which the metric differs from the one that made the statistics."""
    known = reference.of(spec.name)
    if known is None or known.patients is None:
        return
    _, text = protocol_of(spec.plugin, metric, reference.meta.data)
    difference = next(
        differences(known.text, json.loads(canonical(text))), None
    )  # a list in the file may be a tuple here
    if difference is not None:
        field, theirs, ours = difference
        raise UserError(
            f"{reference.path}: metric {spec.name}: protocol field {field} is {theirs} in the file and {ours} here; "
            f"expected the protocol of the file: use its settings, weights and medlord-bench {reference.meta.medlord_bench}, "
            f"or leave {spec.name} out with --metric"
        )


def reduced(reference: Reference, spec: PluginSpec, metric: Any, inputs: MetricInputs, run: Run) -> Results:
    """The results of a metric against the file; for one that needs cases, one `not_run` of each quantity."""
    why = not_measurable(reference, spec, metric)
    if why:
        about = {"protocol": inputs.protocol_id, "generator": inputs.generator, "dataset": inputs.dataset}
        return [Score(metric=one.name, status="not_run", reason=why, **about) for one in metric.quantities]
    found: Results
    if _reads_cases(metric):
        found = metric.reduce_against(inputs, reference.arrays(spec.name), run)
    else:
        found = metric.reduce(inputs, run)
    return found
