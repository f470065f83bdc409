"""A run that trains arms, by a trainer that trains nothing: what is shared, what is in a key, what fails and is refused."""

from __future__ import annotations

import json
import shutil
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from medlord_bench.api import run as bench_run
from medlord_bench.cli.plan import plan
from medlord_bench.contracts import LabelMap, Run
from medlord_bench.contracts.arms import Arm, LabelledCase, TrainsArms
from medlord_bench.contracts.results import Score
from medlord_bench.contracts.specs import Contestant, PluginSpec, plugin_spec
from medlord_bench.engine import planner
from medlord_bench.engine.plan import Plan, read_plan
from medlord_bench.engine.resolve import RunSpec
from medlord_bench.engine.steps import twins
from medlord_bench.engine.store import Store, arm_training
from medlord_bench.errors import StepError, UserError
from medlord_bench.metrics.downstream.metric import Downstream
from medlord_bench.plugins.datasets.phantom.dataset import PhantomDataset
from medlord_bench.plugins.segmenters.phantom.segmenter import PhantomSegmenter

SETTINGS = {"dataset.shape": [32, 32, 16], "dataset.n_train": 3, "dataset.n_val": 1, "dataset.n_test": 2}
REGIONS = {"downstream.regions": ["aorta", "lungs"]}


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, list[str], list[str]]]:
    """Every arm that was trained: its item, its cases, its validation cases. A threshold predicts."""
    calls: list[tuple[str, list[str], list[str]]] = []

    def plan_training(self: Any, cases: Sequence[LabelledCase], out: Path, run: Run) -> Path:
        (out / "plan").mkdir(parents=True)
        (out / "plan" / "plan.json").write_text(json.dumps([case.id for case in cases]))
        return out / "plan"

    def train_arm(
        self: Any,
        arm: Arm,
        cases: Sequence[LabelledCase],
        validation: Sequence[LabelledCase],
        shared: Path,
        out: Path,
        run: Run,
    ) -> tuple[Path, Mapping[str, Any]]:
        assert (shared / "plan.json").exists()
        for case in cases:
            volume, mask = case.open()
            assert volume.shape == mask.shape and np.array_equal(volume.affine, mask.affine)
        calls.append((arm.item, [case.id for case in cases], [case.id for case in validation]))
        (out / "model").mkdir(parents=True)
        (out / "model" / "weights").write_text(arm.item)
        return out / "model", {"iterations": 7}

    monkeypatch.setattr(Downstream, "plan_training", plan_training)
    monkeypatch.setattr(Downstream, "train_arm", train_arm)
    monkeypatch.setattr(Downstream, "segmenter", lambda self, model: ("phantom", {}))
    monkeypatch.setattr(PhantomSegmenter, "segment", by_threshold)
    return calls


def by_threshold(self: Any, volumes: Any, run: Run) -> Iterator[LabelMap]:
    """Lungs by their HU, and the aorta by contrast, in a millisecond."""
    for _, volume in volumes:
        lungs, aorta = (volume.hu > -950) & (volume.hu < -600), volume.hu > 250
        labels = np.select([lungs, aorta], [4, 11], 0).astype(np.uint8)
        yield LabelMap(labels, volume.affine, {4: "lung_left", 11: "aorta"})


def go(store: Path, *generators: str, **more: Any) -> Any:
    return bench_run(
        generators or ("oracle",),
        "phantom",
        metrics=("downstream",),
        set=SETTINGS | REGIONS | more,
        store=store,
        device="cpu",
    )


def plan_of(store: Path) -> Plan:
    return read_plan(Store(store).runs()[-1])


def scores(results: Any) -> dict[tuple[str, str, str], Score]:
    return {(one.generator, one.metric, one.region): one for one in results.run.scores}


def test_a_run_trains_each_arm_on_its_cases_and_tests_them_on_real_ones(trained: list[Any], tmp_path: Path) -> None:
    found = scores(go(tmp_path / "store"))
    real, synthetic, both = trained
    plan = plan_of(tmp_path / "store")
    train = list(plan.splits["train"])
    assert real == ("real.seed0", train, list(plan.splits["val"]))
    assert synthetic[:2] == ("synthetic.seed0", [f"synthetic-{case}" for case in train])
    assert both[:2] == ("real+synthetic.seed0", [*train, *(f"synthetic-{case}" for case in train)])
    predicted = {item for step in plan.steps if step.kind == "predictions" for item in step.items}
    assert len(predicted) == 2 * 4 and all(any(case in item for case in plan.splits["test"]) for item in predicted)
    score = found["oracle", "dt_dsc_synthetic", "lungs"]
    assert score.value is not None and score.value > 0.5 and score.n == 2
    assert "3 cases, 7 iterations, 1 seed" in score.note_text
    assert found["oracle", "dt_dsc_real", "lungs"].value == score.value, "one segmenter predicts both"


def test_contestants_share_the_real_arms_and_other_arms_are_added(trained: list[Any], tmp_path: Path) -> None:
    store = tmp_path / "store"
    go(store)
    go(store, "oracle", "drop-region:aorta")
    assert [item for item, *_ in trained[3:]] == ["synthetic.seed0", "real+synthetic.seed0"]
    go(store, **{"downstream.arms": ["real", "synthetic", "real-longer"], "downstream.seeds": 2})
    assert [item for item, *_ in trained[5:]] == [
        "real.seed1",
        "real-longer.seed0",
        "real-longer.seed1",
        "synthetic.seed1",
    ]
    assert not list((store / "objects" / "trainings").glob("*/model")), "the folders of finished trainings are removed"


def test_a_contestant_without_conditional_samples_trains_nothing(trained: list[Any], tmp_path: Path) -> None:
    found = scores(go(tmp_path / "store", "holdout"))
    assert trained == [] and found["holdout", "dt_dsc_real", ""].reason == "the generator has no conditional samples"


def test_a_prediction_that_fails_counts_as_zero(
    trained: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medlord_bench.contracts import Failure

    seen = []

    def failing(self: Any, volumes: Any, run: Run) -> Any:
        for item, volume in volumes:
            seen.append(item)
            if item.startswith("synthetic.seed0"):
                yield Failure("its process was killed")
            else:
                yield from by_threshold(self, [(item, volume)], run)

    monkeypatch.setattr(PhantomSegmenter, "segment", failing)
    found = scores(go(tmp_path / "store"))
    score = found["oracle", "dt_dsc_synthetic", "lungs"]
    assert (score.value, score.n, score.failed) == (0.0, 2, 2) and seen
    value = found["oracle", "dt_dsc_real_synthetic", "lungs"].value
    assert value is not None and value > 0.5


def test_samples_that_failed_are_missing_and_counted(
    trained: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from medlord_bench.contracts import Failure
    from medlord_bench.generators.controls.oracle import Oracle

    sample = Oracle.sample

    def some(self: Any, weights: Any, requests: Any, run: Run) -> Any:
        for place, made in enumerate(sample(self, weights, requests, run)):
            yield Failure("NaN") if place == 0 and len(requests) == 3 else made

    monkeypatch.setattr(Oracle, "sample", some)
    found = scores(go(tmp_path / "store"))
    assert [len(cases) for _, cases, _ in trained] == [3, 2, 5]
    assert "1 generated training cases failed and are missing" in found["oracle", "dt_dsc_synthetic", ""].note_text


def test_a_test_mask_among_the_training_masks_is_refused(
    trained: list[Any], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    load = PhantomDataset.load

    def twin(self: PhantomDataset, case: Any) -> Any:
        """The first training case is the first test case in other noise."""
        test = self.cases("test")[0]
        volume, mask = load(self, test if case.id == self.cases("train")[0].id else case)
        return volume, mask

    monkeypatch.setattr(PhantomDataset, "load", twin)
    with pytest.raises(StepError, match=r"training case phantom-0000-\w+ has the mask of test case phantom-0004-\w+ "):
        go(tmp_path / "store")
    assert trained == []


def test_masks_of_different_patients_are_no_twins() -> None:
    dataset = PhantomDataset(PhantomDataset.Config(shape=(32, 32, 24), n_train=4, n_val=0, n_test=4))
    masks = [dataset.load(case)[1].labels for split in ("train", "test") for case in dataset.cases(split)]  # type: ignore[union-attr]
    found = [twins.agreement(one, other) for place, one in enumerate(masks) for other in masks[place + 1 :]]
    assert max(found) < 0.9 < twins.AGREEMENT < twins.agreement(masks[0], masks[0])
    assert twins.agreement(np.zeros((2, 2, 2), np.uint8), np.zeros((2, 2, 2), np.uint8)) == 0


def keys(**changes: Any) -> dict[str, str]:
    settings = plugin_spec("metrics", "downstream", {"regions": ["aorta"], "trainer": "tiny", **changes})
    oracle = Contestant(name="oracle", plugin="oracle", config=plugin_spec("generators", "oracle", {}).config)
    data = plugin_spec("datasets", "phantom", {"shape": (32, 32, 16), "n_train": 2, "n_val": 1, "n_test": 2})
    metric = PluginSpec(plugin="downstream", config=settings.config)
    spec = RunSpec(contestants=(oracle,), dataset=data, metrics=(metric,), samples=2)
    return {step.id: step.key for step in planner.build(spec).steps}


@pytest.mark.parametrize(
    ("change", "trains"),
    [
        ({"epochs": 5}, True),
        ({"iterations": 5}, True),
        ({"regions": ["lungs"]}, True),
        ({"planner_gb": 4.0}, True),
        ({"tolerance_mm": 1.0}, False),
        ({"seeds": 2}, False),
        ({"arms": ["real", "mixed"]}, False),
    ],
)
def test_the_key_of_an_arm_holds_what_decides_it(change: dict[str, Any], trains: bool) -> None:
    before, after = keys(), keys(**change)
    for step in ("training-plan:downstream", "arms:real:downstream", "arms:oracle:downstream"):
        assert (before[step] != after[step]) == trains, step
    assert before["scores:oracle:downstream"] != after["scores:oracle:downstream"]


OUTSIDE = {"shape": [32, 32, 16], "n_train": 0, "n_val": 1, "n_test": 2, "seed": 7}


def test_an_external_set_is_another_data_set_with_labels_of_its_own(trained: list[Any], tmp_path: Path) -> None:
    assert scores(go(tmp_path))["oracle", "dt_external_real", ""].reason.startswith("no external set")
    found = scores(go(tmp_path, **{"downstream.external": "phantom", "downstream.external_settings": OUTSIDE}))
    assert len(trained) == 3, "nothing is trained again"
    plan = plan_of(tmp_path)
    outside = plan.step("images:external").items
    assert len(outside) == 3 and not set(outside) & {item for split in plan.splits.values() for item in split}
    score = found["oracle", "dt_external_synthetic", "lungs"]
    assert score.n == 3 and score.value is not None and score.value > 0.2
    assert score.value != found["oracle", "dt_dsc_synthetic", "lungs"].value
    assert found["oracle", "dt_external_gain_synthetic", ""].n == 3
    assert "labels as the other data set gives them" in score.note_text


@pytest.mark.parametrize(
    ("settings", "told"),
    [
        ({**OUTSIDE, "seed": 0}, "metric downstream: external: case phantom-0000-"),
        ({**OUTSIDE, "size": 1}, "dataset phantom: unknown field 'size'"),
    ],
)
def test_an_external_set_that_cannot_be_used_is_refused(
    settings: dict[str, Any], told: str, trained: list[Any], tmp_path: Path
) -> None:
    with pytest.raises(UserError) as error:
        go(tmp_path, **{"downstream.external": "phantom", "downstream.external_settings": settings})
    assert told in str(error.value) and trained == []


SPEEDS = {"iteration": 36.0, "validation": 0.0, "saving": 0.0, "case": 0.0, "start": 0.0}  # 25 x 12 of them: 3 hours


@pytest.fixture
def probed(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The number of training cases of each probe."""
    probes: list[int] = []

    def probe(self: Any, cases: Any, validation: Any, shared: Path, out: Path, run: Run) -> dict[str, float]:
        assert (shared / "plan.json").exists() and out.is_relative_to(run.scratch.parent)
        probes.append(len(cases))
        return SPEEDS

    monkeypatch.setattr(Downstream, "probe", probe)
    return probes


def test_plan_prints_arms_seeds_and_hours_after_a_probe(trained: list[Any], probed: list[int], tmp_path: Path) -> None:
    sets = [word for name, value in (SETTINGS | REGIONS).items() for word in ("--set", f"{name}={json.dumps(value)}")]
    request = ["--generator", "oracle", "--dataset", "phantom", "--metric", "downstream", *sets]
    request += ["--set", "downstream.seeds=2", "--store", str(tmp_path), "--device", "cpu"]

    def planned(*more: str) -> str:
        done = CliRunner().invoke(plan, [*request, *more], catch_exceptions=False)
        assert done.exit_code == 0, done.output
        return done.stdout

    assert "hours" not in planned() and probed == []
    told = planned("--probe")
    assert "arms:real:downstream  1 arm x 2 seeds: about 6 hours of training (probe on " in told
    assert "arms:oracle:downstream  2 arms x 2 seeds: about 18 hours of training" in told
    assert planned("--probe") == told and probed == [3] and trained == [], "a probe is kept, and is no arm"
    assert "arms:oracle:downstream  1 arm x 2 seeds: about 6 hours" in planned("--set", "downstream.budget_hours=13")
    go(tmp_path, **{"downstream.arms": ["real", "synthetic"], "downstream.seeds": 1})
    assert "arms:oracle:downstream  2 arms x 2 seeds, 1 trained already: about 15 hours" in planned()


def test_a_budget_trains_the_arms_that_fit(trained: list[Any], probed: list[int], tmp_path: Path) -> None:
    arms = {"downstream.arms": ["real", "synthetic", "real+synthetic", "real-longer"]}
    found = scores(go(tmp_path / "a", **arms, **{"downstream.budget_hours": 12.5}))  # 3 + 3 + 6 hours
    assert [item for item, *_ in trained] == ["real.seed0", "synthetic.seed0", "real+synthetic.seed0"]
    assert found["oracle", "dt_dsc_real_longer", ""].reason == "over budget_hours: real-longer"
    # Real arms are trained once, and the others for each contestant: 3 + 2 x 3 hours, and 2 x 6 more do not fit.
    go(tmp_path / "b", "oracle", "drop-region:aorta", **arms, **{"downstream.budget_hours": 20})
    assert [item for item, *_ in trained[3:]] == ["real.seed0", "synthetic.seed0", "synthetic.seed0"]
    with pytest.raises(UserError, match="real and synthetic do not fit into budget_hours 5"):
        go(tmp_path / "a", **arms, **{"downstream.budget_hours": 5})


def test_the_metric_keeps_its_contract() -> None:
    assert isinstance(Downstream(Downstream.Config()), TrainsArms)


def test_a_training_in_progress_is_not_cleaned_away(trained: list[Any], tmp_path: Path) -> None:
    from medlord_bench.engine.cleaning import unused

    store = tmp_path / "store"
    go(store)
    step = plan_of(store).step("arms:oracle:downstream")
    for name in (arm_training(step.key, "synthetic.seed0"), "0" * 64):
        (store / "objects" / "trainings" / name).mkdir(parents=True)
    assert [one.path.name for one in unused(Store(store))] == ["0" * 64]
    shutil.rmtree(store)
