"""`scores`: a metric reduced over all of its inputs."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, ClassVar

from medlord_bench.contracts import FrozenConfig, Item, Made, MetricInputs, Need, Source, specs
from medlord_bench.contracts.metrics import Quantity, protocol_of, quantities_of, undeclared
from medlord_bench.contracts.reference import reference_of
from medlord_bench.contracts.results import CaseRow, Replicates, Score
from medlord_bench.contracts.specs import PluginSpec
from medlord_bench.engine.plan import Step
from medlord_bench.engine.planning import Entrant, Planning
from medlord_bench.engine.steps import against, experiment, features, labels, states, training_samples
from medlord_bench.engine.steps.job import SCORES, STATE, VOLUME, Job, by
from medlord_bench.engine.steps.kind import Kind
from medlord_bench.engine.steps.sources import Derived, Volumes, items_of
from medlord_bench.errors import StepError, UserError
from medlord_bench.util import seeds
from medlord_bench.util.files import write_json


class Needed(FrozenConfig):
    """One need of a metric. items: its items; None if the contestant has no such volumes."""

    source: Source
    made: Made
    extractor: str
    segmenter: str
    items: tuple[str, ...] | None

    @classmethod
    def of(cls, need: Need, items: tuple[str, ...] | None) -> Needed:
        return cls(**dataclasses.asdict(need), items=items)

    @property
    def need(self) -> Need:
        return Need(self.source, self.made, self.extractor, self.segmenter)


class Detail(FrozenConfig):
    needs: tuple[Needed, ...]


def plan(planning: Planning, entrant: Entrant, spec: PluginSpec) -> Step:
    """A metric of a contestant, and the steps that make its inputs."""
    metric = specs.make("metrics", spec)
    inputs: dict[str, str] = {}
    needs: list[Needed] = []
    wanted = _needs(spec.name, metric)
    measurable = (
        _source(planning, entrant, spec, metric, wanted[0].source) is not None
    )  # if not, the others are not needed
    if planning.reference is not None:
        against.check_protocol(planning.reference, spec, metric)
        measurable &= not against.not_measurable(planning.reference, spec, metric)
    for need in wanted:
        found = _source(planning, entrant, spec, metric, need.source) if measurable else None
        if found is None:
            needs.append(Needed.of(need, None))
            continue
        of, items = found
        inputs[_role(need)] = _made(planning, spec, metric, need, of, items).id
        inputs[_role(Need(need.source, Made.VOLUMES))] = of.id
        needs.append(Needed.of(need, items))
    identity = {
        "version": metric.version,
        "config": specs.without_places(spec.config),
        "needs": [one.model_dump(mode="json") for one in needs],
        "protocol": planning.protocol.model_dump(mode="json"),
        "contestant": entrant.name,
    }
    if planning.reference is not None:
        identity["reference"] = planning.reference.sha256
    seed = seeds.derive(planning.spec.seed, "metric", spec.plugin)
    id = f"scores:{entrant.name}:{spec.name}"
    return planning.add(
        id, "scores", entrant.name, spec, identity, ["scores"], inputs, Detail(needs=tuple(needs)), seed
    )


def _needs(name: str, metric: Any) -> list[Need]:
    """What a metric says it needs. Raises `UserError` if that is not a list of `Need`."""
    try:
        wanted = list(metric.needs())
    except (ValueError, TypeError, AttributeError) as error:
        raise UserError(f"metric {name}: needs(): {error}; fix the metric") from error
    for need in wanted:
        if not isinstance(need, Need):
            raise UserError(
                f"metric {name}: needs() gave {need!r}, expected instances of contracts.Need; fix the metric"
            )
    if not wanted:
        raise UserError(f"metric {name}: needs() is empty, expected at least one contracts.Need; fix the metric")
    return wanted


def _source(
    planning: Planning, entrant: Entrant, spec: PluginSpec, metric: Any, source: Source
) -> tuple[Step, tuple[str, ...]] | None:
    """The step that makes a source's volumes and its items, or None if the contestant has no such step."""
    if source.is_predicted:
        predicted = experiment.plan(planning, entrant, spec, metric, source)
        return None if predicted is None else (predicted, predicted.items)
    if source.is_real and planning.reference is not None:
        return None
    if source.is_real:
        return planning.steps["images"], planning.splits[source.data_split]
    if source is Source.TRAINING_SAMPLES:
        made = training_samples.one_each(planning, entrant)
        return None if made is None else (made, planning.splits["train"])
    step = planning.steps.get(f"{source.kind}:{entrant.name}")
    return None if step is None else (step, step.items)


def _made(planning: Planning, spec: PluginSpec, metric: Any, need: Need, of: Step, items: Sequence[str]) -> Step:
    """The step that turns a source's volumes into what the metric reads."""
    if need.made == Made.VOLUMES:
        return of
    if need.made == Made.FEATURES:
        extractor = specs.plugin_spec("extractors", need.extractor, metric.plugin_config())
        return features.plan(planning, extractor, of, items)
    maps = None
    if need.segmenter:
        segmenter = specs.plugin_spec("segmenters", need.segmenter, metric.plugin_config())
        maps = labels.plan(planning, segmenter, of, items)
        if need.made == Made.LABELS:
            return maps
    return states.plan(planning, spec, metric, need.source, of, items, maps)


def _role(need: Need) -> str:
    """The role of an input of the step: which step makes what this need reads."""
    return "|".join(filter(None, (need.source, need.made, need.extractor, need.segmenter)))


def _checked(name: str, result: Any, declared: Mapping[str, Quantity]) -> Score | CaseRow | Replicates:
    """A result of a metric, with the unit and direction that its quantity declares. Raises `StepError` for others."""
    if isinstance(result, CaseRow):
        return result
    if not isinstance(result, Score | Replicates):
        kinds = "Score, CaseRow or Replicates"
        raise StepError(f"metric {name}: reduce gave a {type(result).__name__}, expected {kinds}: fix the metric")
    if result.metric not in declared:
        raise undeclared(name, result.metric, declared)
    quantity, over = declared[result.metric], {}
    for field in ("better", "unit") if isinstance(result, Score) else ("better",):
        given, wanted = getattr(result, field), getattr(quantity, field)
        if field in result.model_fields_set and given and given != wanted:
            raise StepError(
                f"metric {name}: a result of {quantity.name} has {field} {given!r}, its quantity declares {wanted!r}: "
                "leave it out of the result, or change the quantity"
            )
        over[field] = wanted
    if isinstance(result, Score) and result.value is not None and math.isnan(result.value):
        over |= {"value": None, "status": "not_run", "reason": result.reason or "the value is not a number (NaN)"}
    checked: Score | Replicates = result.model_copy(update=over)
    return checked


class Scores(Kind):
    name: ClassVar[str] = "scores"
    sharded: ClassVar[bool] = False
    linked: ClassVar[bool] = False

    def run(self, job: Job, items: Sequence[str]) -> None:
        """Publish the metric's scores, case rows and replicates."""
        metric, spec = job.plugin("metrics"), job.step.plugin
        reference = reference_of(specs.dataset(job.plan.dataset))
        if reference is None:
            id, text = protocol_of(spec.plugin, metric, job.plan.protocol)
        else:
            against.check_file(reference, job.step)
            id, text = against.protocol(reference, spec, metric)
        inputs = inputs_of(job, id)
        found = (
            metric.reduce(inputs, job.run)
            if reference is None
            else against.reduced(reference, spec, metric, inputs, job.run)
        )
        declared = quantities_of({spec.plugin: metric})
        results = [_checked(spec.plugin, result, declared) for result in found]
        value: dict[str, Any] = {"protocols": {id: text}}
        for name, kind in (("scores", Score), ("rows", CaseRow), ("replicates", Replicates)):
            value[name] = [result.model_dump(mode="json") for result in results if isinstance(result, kind)]
        job.out.put("scores", {SCORES: by(write_json, value)}, {})


def inputs_of(job: Job, protocol_id: str) -> MetricInputs:
    """Everything that a metric reads, of the step of its scores."""
    needs = Detail.model_validate(job.step.detail).needs
    found = {one.need: list(_needed(job, one.need, one.items)) for one in needs if one.items is not None}
    trained = experiment.trained(job)
    return MetricInputs(job.step.contestant, job.plan.protocol.name, job.plan.protocol, found, protocol_id, trained)


def _needed(job: Job, need: Need, items: Sequence[str]) -> Iterator[Item]:
    """The items of one need of a metric."""
    made = job.plan.step(job.step.inputs[_role(need)])
    read = Volumes(job, job.plan.step(job.step.inputs[_role(Need(need.source, Made.VOLUMES))]))
    derived = None if made.id == read.step.id else Derived(job.object(made), VOLUME if made.kind == "labels" else STATE)
    return items_of(need.source, read, derived, items)
