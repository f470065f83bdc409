"""The contract of a metric. Tests compare its numbers with known answers; these checks cover form and failures."""

from __future__ import annotations

from collections.abc import Iterator

from medlord_bench.checks.contract import Check
from medlord_bench.checks.contract.common import configures, imports_nothing_heavy, phantom, version_of
from medlord_bench.contracts import Item, Metric, MetricInputs, Need, Run, registry
from medlord_bench.contracts.metrics import protocol_of, quantities_of
from medlord_bench.contracts.reference import HasReference
from medlord_bench.contracts.results import Score
from medlord_bench.engine.resolve import metric_spec


def check(name: str, run: Run) -> Iterator[Check]:
    """Needs are well-formed; without items, or with failures only, it reports `not_run` and the reason."""
    yield imports_nothing_heavy("metrics", name)
    yield version_of(registry.load("metrics", name))
    yield from configures("metrics", name)
    cohort, _ = phantom(run, run.scratch / "store")
    plugin = registry.load("metrics", name)
    metric = plugin(plugin.Config.model_validate(metric_spec(name, cohort.protocol, {}).config))
    yield Check("fulfils contracts.Metric", isinstance(metric, Metric))
    for variant in plugin.variants:
        yield Check(f"variant {variant} is valid", bool(metric_spec(f"{name}:{variant}", cohort.protocol, {}).config))
    declared = quantities_of({name: metric})
    yield Check(
        "declares its quantities, each with a meaning", bool(declared) and all(one.meaning for one in declared.values())
    )
    needs = list(metric.needs())
    yield Check("has needs", bool(needs) and all(isinstance(need, Need) for need in needs), str(needs))
    id, text = protocol_of(name, metric, cohort.protocol)
    yield Check("its protocol has an id and a text", bool(id) and bool(text), id)
    failed = {need: [Item(f"{need.source}-{i}", need.source, None, failed="NaN") for i in range(4)] for need in needs}
    for title, items in (("nothing to measure", {}), ("nothing but failures", failed)):
        inputs = MetricInputs("check", "phantom", cohort.protocol, items, id)
        scores = [score for score in metric.reduce(inputs, run) if isinstance(score, Score)]
        strange = sorted({score.metric for score in scores} - declared.keys())
        yield Check(f"{title}: gives scores of its quantities only", not strange, ", ".join(strange))
        honest = all(score.status == "not_run" and score.value is None and score.reason for score in scores)
        yield Check(
            f"{title}: not_run with a reason", bool(scores) and honest, scores[0].reason if scores else "no score"
        )
        if isinstance(metric, HasReference):
            yield Check(f"{title}: no statistics for a reference file", metric.aggregate(inputs) is None)
