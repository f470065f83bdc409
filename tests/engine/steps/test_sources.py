"""Metrics of label maps: what a segmenter and a metric are given, the HU gate, and what is asked before any work."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import pytest

from medlord_bench.contracts import (
    DataProtocol,
    Failure,
    FrozenConfig,
    Item,
    LabelMap,
    Made,
    MetricInputs,
    Need,
    Run,
    State,
    Volume,
    registry,
)
from medlord_bench.contracts.metrics import MetricProtocol, Quantity
from medlord_bench.contracts.results import CaseRow, Replicates, Score
from medlord_bench.engine import resolve
from medlord_bench.engine.plan import Plan
from medlord_bench.engine.planner import build
from medlord_bench.engine.run_file import RunFile
from medlord_bench.engine.steps.job import Job
from medlord_bench.engine.steps.kinds import KINDS
from medlord_bench.engine.steps.sources import publish_states
from medlord_bench.engine.store import Store
from medlord_bench.errors import MissingError, StepError, UserError
from medlord_bench.generators.controls.noise import Noise
from medlord_bench.volumes.checks import item_labels, item_reference

SETS = {"dataset.shape": [32, 32, 16], "dataset.n_train": 3, "dataset.n_val": 1, "dataset.n_test": 3}
NEEDS = [Need(source, Made.STATES, segmenter="halves") for source in ("samples", "real:test")]


class HalvesConfig(FrozenConfig):
    split: int = 16


class Halves:
    """A segmenter that calls the left half "left". It fails on the second volume it is given."""

    Config: ClassVar[type[HalvesConfig]] = HalvesConfig
    version: ClassVar[int] = 1
    names: ClassVar[Mapping[int, str]] = {1: "left"}
    asked: ClassVar[list[list[str]]] = []
    told: ClassVar[list[str]] = []
    licensed: ClassVar[bool] = True

    def __init__(self, config: HalvesConfig) -> None:
        self.config = config

    def fingerprint(self, case_ids: Sequence[str]) -> Mapping[str, str]:
        Halves.asked.append(list(case_ids))
        if not Halves.licensed:
            raise MissingError("no licence")
        return {"weights": "0"}

    def segment(self, volumes: Iterable[tuple[str, Volume]], run: Run) -> Iterator[LabelMap | Failure]:
        for count, (name, volume) in enumerate(volumes):
            Halves.told.append(name)
            labels = np.zeros(volume.shape, np.uint8)
            labels[: self.config.split] = 1
            yield Failure("it died") if count == 1 else LabelMap(labels, volume.affine, self.names)


class CountConfig(FrozenConfig):
    segmenter: str | None = None
    segmenter_settings: dict[str, Any] = {}
    regions: tuple[str, ...] | None = None

    def for_data(self, data: DataProtocol) -> CountConfig:
        return self.model_copy(update={"segmenter": self.segmenter or "halves", "regions": data.rvr_regions})


class Count:
    """A metric of label maps that remembers what it was given."""

    Config: ClassVar[type[CountConfig]] = CountConfig
    version: ClassVar[int] = 1
    quantities: ClassVar[tuple[Quantity, ...]] = (Quantity(name="count", meaning="Voxels.", better="lower"),)
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {"other": {"segmenter_settings": {"split": 8}}}
    seen: ClassVar[list[Item]] = []
    reduced: ClassVar[dict[Need, Sequence[Item]]] = {}

    def __init__(self, config: CountConfig) -> None:
        self.config = config

    def needs(self) -> Sequence[Need]:
        return NEEDS

    def plugin_config(self) -> Mapping[str, Any]:
        return self.config.segmenter_settings

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        return MetricProtocol(text={})

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        for item in items:
            Count.seen.append(item)
            yield {"voxels": np.array([item_labels(item).region("left").sum()])}

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score | CaseRow | Replicates]:
        Count.reduced = dict(inputs.items)
        where = {
            "metric": "count",
            "protocol": inputs.protocol_id,
            "generator": inputs.generator,
            "dataset": inputs.dataset,
        }
        yield Replicates(value=1.0, samples={"a": 1.0}, real={"b": 2.0}, **where)


@pytest.fixture(autouse=True)
def plugins(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    known, load, entries = {"halves": Halves, "count": Count}, registry.load, registry.entries
    monkeypatch.setattr(registry, "load", lambda kind, name: known.get(name) or load(kind, name))
    named = [type("Entry", (), {"name": "halves"})()]
    monkeypatch.setattr(registry, "entries", lambda kind: [*entries(kind), *(named if kind == "segmenters" else [])])
    Halves.asked, Halves.told, Halves.licensed, Count.seen = [], [], True, []
    yield


def planned(**fields: Any) -> Plan:
    sets = SETS | fields.pop("set", {})
    given = {"generators": ("noise",), "dataset": "phantom", "metrics": ("count",), "samples": 3} | fields
    return build(resolve.resolve(RunFile(set=sets, **given)))


def carried_out(plan: Plan, tmp_path: Path, run: Run) -> Store:
    store = Store(tmp_path / "store")
    for step in plan.steps:
        job = Job(plan, step, store, run)
        KINDS[step.kind].run(job, step.items)
    return store


def test_a_metric_of_label_maps_is_given_maps_names_masks_and_spacing(tmp_path: Path, run: Run) -> None:
    plan = planned()
    carried_out(plan, tmp_path, run)
    real = [item for item in Count.seen if item.source == "real:test"]
    samples = [item for item in Count.seen if item.source == "samples"]
    assert len(real) == len(samples) == 2  # the segmenter fails on one of three
    spacing = pytest.approx((352 / 32, 352 / 32, 264 / 16))
    for item in (*real, *samples):
        assert item.names == {1: "left"} and item.spacing == spacing
        assert item_labels(item).region("left").sum() == 16 * 32 * 16
    assert all("aorta" in item.reference_names.values() for item in real)
    assert all(item_reference(item).region("lungs").any() for item in real)
    assert all(item.reference is None for item in samples)
    assert all(item.patient is not None for item in real)


def test_a_volume_that_a_segmenter_dies_on_is_failed_and_the_others_finish(tmp_path: Path, run: Run) -> None:
    carried_out(planned(), tmp_path, run)
    for items in Count.reduced.values():
        assert [item.failed for item in items] == [None, "it died", None]
        assert [item.path is None for item in items] == [False, True, False]


def test_a_segmenter_is_told_case_ids_and_where_generated_volumes_come_from(tmp_path: Path, run: Run) -> None:
    carried_out(planned(), tmp_path, run)
    samples = [f"noise/samples/sample-0000{i}" for i in range(3)]
    real = ["phantom-0004", "phantom-0005", "phantom-0006"]
    assert Halves.told == [*samples, *real]
    assert Halves.asked == [samples, real]


def test_values_that_are_no_hu_are_not_segmented(tmp_path: Path, run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def sample(self: Noise, weights: Any, requests: Any, run: Run) -> Iterator[Volume]:
        for request in requests:
            hu = np.random.default_rng(request.index).integers(0, 256, request.grid.shape).astype(np.int16)
            yield Volume(hu, request.grid.affine())

    monkeypatch.setattr(Noise, "sample", sample)
    carried_out(planned(), tmp_path, run)
    failed = [item.failed or "" for item in Count.reduced[NEEDS[0]]]
    assert all("not CT in HU" in reason and "no fat, lung or air" in reason for reason in failed)
    assert not any(name.startswith("noise/") for name in Halves.told)


def test_a_missing_licence_is_said_before_any_work() -> None:
    Halves.licensed = False
    with pytest.raises(MissingError, match="no licence"):
        planned()


def test_what_a_metric_leaves_open_comes_from_the_protocol_and_the_segmenters_settings() -> None:
    (spec,) = resolve.resolve(
        RunFile(generators=("noise",), dataset="phantom", metrics=("count",), set={"halves.split": 4})
    ).metrics
    assert spec.config["segmenter"] == "halves" and spec.config["segmenter_settings"] == {"split": 4}
    assert "aorta" in spec.config["regions"]


def test_two_protocols_of_one_metric_stand_in_one_run() -> None:
    plan = planned(metrics=("count", "count:other"))
    ids = [step.id for step in plan.steps]
    assert "scores:noise:count" in ids and "scores:noise:count:other" in ids
    labels = {step.key for step in plan.steps if step.kind == "labels"}
    assert len(labels) == len([id for id in ids if id.startswith("labels:")])
    with pytest.raises(UserError, match="othr.*did you mean"):
        planned(metrics=("count:othr",))


def test_a_contestant_is_asked_for_no_more_samples_than_it_has(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noise, "available", lambda self, data: 2)
    assert len(planned(samples=5).step("samples:noise").items) == 2


def test_free_variants_tell_contestants_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Noise, "free_variants", True, raising=False)
    plan = planned(generators=("noise:mine", "noise:theirs"))
    assert [contestant.name for contestant in plan.contestants] == ["noise:mine", "noise:theirs"]
    with pytest.raises(UserError, match="noise:yours"):
        planned(generators=("noise:mine",), set={"noise:yours.x": 1})


@pytest.mark.parametrize(
    ("states", "told"),
    [
        ([{"a": np.zeros(1)}], "gave 1 states, expected a state (named arrays) for each of 2 items"),
        ([{"a": np.zeros(1)}] * 3, "gave more than 2 states"),
        ([{"a": np.zeros(1)}, 3.0], "gave a float for b, expected a state"),
    ],
)
def test_states_of_another_number_or_type_are_one_line(tmp_path: Path, run: Run, states: list[Any], told: str) -> None:
    plan = planned()
    step = next(step for step in plan.steps if step.kind == "states")
    with pytest.raises(StepError, match=re.escape(told)):
        publish_states(Job(plan, step, Store(tmp_path / "store"), run), ["a", "b"], iter(states), "count of samples")
