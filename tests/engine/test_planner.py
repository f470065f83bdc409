"""What is in a step's key and what is not: too little reuses wrong results, too much computes again for nothing."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.contracts import (
    DataProtocol,
    FrozenConfig,
    Item,
    Made,
    MetricInputs,
    Need,
    Run,
    State,
    registry,
    specs,
)
from medlord_bench.contracts.results import Score
from medlord_bench.engine import resolve
from medlord_bench.engine.plan import Plan, read_plan
from medlord_bench.engine.planner import build, seen_in_pretraining
from medlord_bench.engine.run_file import RunFile
from medlord_bench.engine.store import Store
from medlord_bench.engine.worker import Settings, missing
from medlord_bench.errors import UserError

BASE = {"dataset.shape": (32, 32, 16), "dataset.n_train": 4, "dataset.n_val": 1, "dataset.n_test": 3}
MEASURES = {"scores"}
SAMPLING = {"samples", "conditional"}


def plan(generators: Sequence[str] = ("medlord@smoke",), **fields: Any) -> Plan:
    sets = {**BASE, **fields.pop("set", {})}
    fields = {"metrics": ("fid", "reconstruction")} | fields
    return build(resolve.resolve(RunFile(generators=tuple(generators), dataset="phantom", set=sets, **fields)))


def keys(made: Plan) -> dict[str, str]:
    return {step.id: step.key for step in made.steps}


def lineages(made: Plan) -> dict[str, str]:
    return {step.id: step.detail["lineage"] for step in made.steps if step.kind == "weights"}


def changed(first: Plan, second: Plan) -> set[str]:
    """Steps whose key differs, without the contestant's name."""
    ours, theirs = keys(first), keys(second)
    assert ours.keys() == theirs.keys()
    return {id.replace("medlord@smoke", "M") for id in ours if ours[id] != theirs[id]}


TRAINED = {f"train:M:{stage}" for stage in ("autoencoder", "latents", "diffusion", "controlnet")}
MADE = {"samples:M", "conditional:M", "reconstructions:M"}


def generated(ids: set[str]) -> set[str]:
    """Those of training and generating."""
    return ids & (TRAINED | MADE | {"images"})


class Pretrained:
    pretrained_on = ("LIDC-IDRI", "crlm-ct")


class Luna:
    overlaps = ("lidc-idri",)


def test_published_weights_that_saw_the_data_set_are_named() -> None:
    text = "seen in pretraining: its published weights were trained on "
    shared = seen_in_pretraining(Pretrained(), Luna(), "luna16")
    assert shared is not None and (shared.trained_on, shared.relation) == (("lidc-idri",), "shares cases")
    assert str(shared) == f"{text}lidc-idri, which shares cases with luna16"
    assert str(seen_in_pretraining(Pretrained(), object(), "crlm-ct")) == f"{text}crlm-ct"
    for generator, dataset in ((Pretrained(), object()), (object(), Luna())):
        assert seen_in_pretraining(generator, dataset, "luna16") is None


@pytest.mark.parametrize(
    ("generator", "dataset", "seen"),
    [
        ("maisi:foundation@24gb", "luna16", True),
        ("maisi@24gb", "luna16", False),
        ("maisi:foundation@24gb", "pccta", False),
        ("medlord@released-luna", "luna16", True),
    ],
)
def test_which_built_in_generators_have_seen_which_data_set(generator: str, dataset: str, seen: bool) -> None:
    given = RunFile(generators=(generator,), dataset="phantom", set={})
    contestant = resolve.resolve(given).contestants[0]  # a control of its grid may follow
    found = seen_in_pretraining(specs.make("generators", contestant), registry.load("datasets", dataset), dataset)
    assert bool(found) == seen


def test_a_plan_survives_json(tmp_path: Path) -> None:
    made = plan(["medlord@smoke", "noise"])
    (tmp_path / "plan.json").write_text(made.model_dump_json(indent=1))
    assert read_plan(tmp_path) == made


def test_the_same_run_has_the_same_keys_in_the_same_order() -> None:
    assert plan(["medlord@smoke", "noise"]) == plan(["medlord@smoke", "noise"])


def test_every_step_comes_after_what_it_reads() -> None:
    made = plan(["medlord@smoke", "noise"])
    order = [step.id for step in made.steps]
    for step in made.steps:
        assert all(order.index(source) < order.index(step.id) for source in step.inputs.values()), step.id


def test_no_two_steps_share_an_object() -> None:
    made = plan(["medlord@smoke", "medlord:untrained@smoke", "noise"])
    places = [(step.kind, step.key) for step in made.steps]
    assert len(set(places)) == len(places)


def test_more_training_steps_change_the_weights_and_all_that_follows_but_continue_the_same_training() -> None:
    first, longer = plan(), plan(set={"generator.diffusion.steps": 12})
    assert generated(changed(first, longer)) == {
        "train:M:diffusion",
        "train:M:controlnet",
        "samples:M",
        "conditional:M",
    }
    assert lineages(first)["train:medlord@smoke:diffusion"] == lineages(longer)["train:medlord@smoke:diffusion"]


def test_a_stage_trained_on_other_inputs_is_another_training() -> None:
    first, longer = plan(), plan(set={"generator.autoencoder.steps": 12})
    apart = {id for id, lineage in lineages(first).items() if lineages(longer)[id] != lineage}
    assert apart == {f"train:medlord@smoke:{stage}" for stage in ("latents", "diffusion", "controlnet")}


@pytest.mark.parametrize("field", ["autoencoder.lr_g", "autoencoder.batch", "autoencoder.micro_batch"])
def test_what_changes_the_weights_starts_another_training(field: str) -> None:
    value = {"autoencoder.lr_g": 0.5, "autoencoder.batch": 4, "autoencoder.micro_batch": 2}[field]
    first, other = plan(), plan(set={f"generator.{field}": value})
    assert generated(changed(first, other)) == TRAINED | MADE
    assert all(lineages(first)[id] != lineages(other)[id] for id in lineages(first))


def test_sampling_settings_leave_the_weights_alone() -> None:
    assert generated(changed(plan(), plan(set={"generator.sampling.steps": 2}))) == {"samples:M", "conditional:M"}


def test_tiling_is_no_part_of_a_key_since_it_changes_nothing() -> None:
    assert changed(plan(), plan(set={"generator.sampling.tile": (16, 16, 16)})) == set()


def test_settings_of_the_machine_are_no_part_of_a_plan() -> None:
    names = set(Settings.model_fields)
    assert names == {
        *("store", "device", "batch", "threads", "workers", "executor", "offline", "weights_dir", "max_time"),
        *("memory_limit", "gpus", "slurm", "keep"),
    }
    text = plan().model_dump_json()
    assert not any(f'"{name}"' in text for name in names - {"batch", "store"})
    assert '"store"' not in text


def test_more_samples_leave_every_key_but_the_scores() -> None:
    few, many = plan(samples=2), plan(samples=5)
    assert changed(few, many) == {"scores:M:fid"}
    assert many.step("samples:medlord@smoke").items[:2] == few.step("samples:medlord@smoke").items


def test_a_larger_test_split_adds_items_and_keeps_the_training() -> None:
    few, many = plan(samples=3), plan(samples=3, set={"dataset.n_test": 4})
    assert changed(few, many) == {"scores:M:fid", "scores:M:reconstruction"}
    assert many.step("images").items[:8] == few.step("images").items


def test_other_training_cases_are_another_training() -> None:
    first, other = plan(samples=3), plan(samples=3, set={"dataset.seed": 1})
    assert generated(changed(first, other)) == TRAINED | MADE
    assert set(first.step("images").items).isdisjoint(other.step("images").items)


def test_another_seed_trains_and_samples_anew_and_shares_the_images() -> None:
    first, other = plan(), plan(seed=1)
    assert generated(changed(first, other)) == TRAINED | MADE
    assert {step.seed for step in first.steps if step.kind != "images"}.isdisjoint(
        {step.seed for step in other.steps if step.kind in SAMPLING | {"weights"}}
    )


def test_the_protocols_window_and_grid_change_the_images_and_all_that_follows() -> None:
    first = plan()
    for setting in ({"dataset.hu_window": (-1000, 2000)}, {"dataset.shape": (32, 32, 32)}):
        assert changed(first, plan(set=setting)) == {id.replace("medlord@smoke", "M") for id in keys(first)}


def test_a_metrics_own_settings_change_its_scores_alone() -> None:
    assert changed(plan(), plan(set={"fid.minimum": 2})) == {"scores:M:fid"}


def test_the_window_of_fid_changes_features_and_scores_but_no_volume() -> None:
    first, other = plan(metrics=("fid",)), plan(metrics=("fid",), set={"fid.hu_window": (-500, 500)})
    shared = keys(first).keys() & keys(other).keys()
    assert {id for id in keys(first) if id not in shared or keys(first)[id] != keys(other)[id]} == {
        id for id in keys(first) if id.startswith(("features:", "scores:"))
    }


def test_the_order_and_number_of_contestants_leave_each_ones_keys() -> None:
    alone, both = keys(plan()), keys(plan(["noise", "medlord@smoke"]))
    assert {id: both[id] for id in alone} == alone


def test_real_features_are_shared_by_every_contestant() -> None:
    made = plan(["medlord@smoke", "noise"])
    assert sum(step.id.startswith("features:images:") for step in made.steps) == 1


def test_an_algorithm_that_changes_its_output_raises_its_version_and_is_measured_anew(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    first = plan()
    for kind, name, expected in (
        ("generators", "medlord", TRAINED | MADE),
        ("datasets", "phantom", {"images"} | TRAINED | MADE),
    ):
        plugin = registry.load(kind, name)
        with monkeypatch.context() as patch:
            patch.setattr(plugin, "version", plugin.version + 1)
            assert expected <= changed_items(first, plan())


def changed_items(first: Plan, second: Plan) -> set[str]:
    """Steps that hold nothing which the other plan's step could reuse: another key, or other items."""
    return {
        step.id.replace("medlord@smoke", "M")
        for step in first.steps
        if second.step(step.id).key != step.key or set(second.step(step.id).items).isdisjoint(step.items)
    }


def test_given_weights_are_known_by_their_content_not_their_place(tmp_path: Path) -> None:
    for place in ("a", "b"):
        (tmp_path / place).mkdir()
        (tmp_path / place / "mean.npy").write_bytes(b"same")
    first, second = (plan(weights=tmp_path / place) for place in ("a", "b"))
    assert changed(first, second) == set()
    (tmp_path / "b" / "mean.npy").write_bytes(b"else")
    assert changed(first, plan(weights=tmp_path / "b")) >= TRAINED
    assert changed(first, plan()) >= TRAINED


def test_given_weights_are_adopted_anew_for_another_training_split(tmp_path: Path) -> None:
    (tmp_path / "vqgan.pth").write_bytes(b"weights")  # the latent scale is measured on the training split
    first, other = plan(weights=tmp_path), plan(weights=tmp_path, set={"dataset.n_train": 5})
    assert {"train:M:latents", "samples:M"} <= changed(first, other)


@pytest.mark.parametrize("content", [None, "empty"])
def test_weights_that_are_not_there_are_told_before_anything_runs(tmp_path: Path, content: str | None) -> None:
    place = tmp_path / "w"
    if content == "empty":
        place.mkdir()
    with pytest.raises(UserError, match=f"--weights {place}: (not found|the folder is empty)"):
        plan(weights=place)


@pytest.mark.parametrize("name", ["noise", "holdout", "command:x"])
def test_weights_for_a_generator_that_takes_none_are_refused_before_anything_runs(tmp_path: Path, name: str) -> None:
    (tmp_path / "w.pt").write_bytes(b"weights")
    with pytest.raises(UserError, match=f"w.pt: generator {name} takes no weights; .*remove --weights"):
        plan(
            generators=(name,),
            weights=tmp_path / "w.pt",
            set={"command.command": "true {seed} {out}"} if ":" in name else {},
        )


@pytest.mark.parametrize("split", ["train", "test"])
def test_a_split_without_a_case_is_named(split: str) -> None:
    with pytest.raises(UserError, match=f"split '{split}' has no case; .*dataset.n_{split}"):
        plan(samples=2, set={f"dataset.n_{split}": 0})


def test_a_grid_larger_than_the_machine_is_refused_before_anything_is_allocated() -> None:
    with pytest.raises(UserError, match=r"its grid of 4096 x 4096 x 4096 voxels takes 256 GiB .*dataset.shape"):
        plan(set={"dataset.shape": [4096, 4096, 4096]})


def test_without_conditional_sampling_its_training_is_left_out() -> None:
    ids = keys(plan(conditional=False))
    assert "train:medlord@smoke:controlnet" not in ids and "conditional:medlord@smoke" not in ids


def test_a_contestant_with_nothing_to_do_is_refused() -> None:
    with pytest.raises(UserError, match="generator noise: nothing to do.*give --samples"):
        plan(["noise"], samples=0)


def test_published_items_are_done_and_the_rest_is_missing(tmp_path: Path) -> None:
    made, store = plan(samples=3), Store(tmp_path)
    step = made.step("samples:medlord@smoke")
    store.object(step.kind, step.key).put_failure("sample-00001", "constant", {})
    assert missing(store, step) == ["sample-00000", "sample-00002"]


# --------------------------------------------------------------------------------------- a metric that reads two splits
class TwoSplits:
    """Reads its own states of two splits of the real images."""

    class Config(FrozenConfig):
        pass

    version = 1
    quantities = ()

    def __init__(self, config: Config) -> None:
        self.config = config

    def needs(self) -> Sequence[Need]:
        return [Need("real:train", Made.STATES), Need("real:test", Made.STATES)]

    def plugin_config(self) -> dict[str, Any]:
        return {}

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        raise NotImplementedError

    def protocol(self, data: DataProtocol) -> tuple[str, dict[str, object]]:
        return "two", {}

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score]:
        raise NotImplementedError


def test_states_of_two_splits_of_the_real_images_are_kept_apart(monkeypatch: pytest.MonkeyPatch) -> None:
    load = registry.load
    monkeypatch.setattr(registry, "load", lambda kind, name: TwoSplits if name == "two" else load(kind, name))
    made = plan(["noise"], metrics=("two",))
    steps = {step.detail["source"]: step for step in made.steps if step.kind == "states"}
    assert steps["real:train"].items == made.splits["train"]
    assert steps["real:test"].items == made.splits["test"]
    assert steps["real:train"].key != steps["real:test"].key


# ---------------------------------------------------------------------------------------------- a fair comparison
def steps_of(made: Plan, contestant: str) -> dict[str, int]:
    trained = [step for step in made.steps if step.kind == "weights" and step.contestant == contestant]
    return {step.detail["stage"]: step.detail["steps"] for step in trained if step.detail["steps"] is not None}


def test_a_budget_of_steps_is_each_contestants_in_all_and_divided_as_its_preset_divides_it() -> None:
    both = plan(("medlord@smoke", "hagan@smoke"), train_steps=120, resampled=False)
    assert steps_of(both, "hagan@smoke") == {"gan": 120}
    # smoke: 6 steps of the autoencoder and 6 of the diffusion; the ControlNet's 4 are scaled alike, on top
    assert steps_of(both, "medlord@smoke") == {"autoencoder": 60, "diffusion": 60, "controlnet": 40}


def test_a_larger_budget_continues_the_same_trainings() -> None:
    short, long = (plan(("hagan@smoke",), train_steps=steps) for steps in (10, 20))
    assert lineages(short) == lineages(long) and keys(short) != keys(long)


def test_real_volumes_go_through_each_grid_that_a_contestant_works_on() -> None:
    made = plan(("medlord@smoke", "hagan@smoke", "hagan:untrained@smoke"))
    rows = [one for one in made.contestants if one.plugin == "holdout"]
    assert [one.name for one in rows] == ["holdout:through-32x32x32"]  # both have the same grid, medlord has none
    assert tuple(rows[0].config["through"]) == (32, 32, 32) and rows[0].config["fit"] == "resize"
    assert not [one for one in plan(("hagan@smoke",), resampled=False).contestants if one.plugin == "holdout"]
    on_the_cube = plan(("hagan@smoke",), set={"dataset.shape": (32, 32, 32)})
    assert len(on_the_cube.contestants) == 1, "where grids agree nothing is resampled"


def test_a_budget_of_time_is_divided_like_one_of_steps_and_is_part_of_the_key() -> None:
    made = plan(("medlord@smoke", "hagan@smoke"), train_hours=2.0, resampled=False)
    seconds = {step.id: step.detail["seconds"] for step in made.steps if step.kind == "weights"}
    assert seconds["train:hagan@smoke:gan"] == 7200
    assert seconds["train:medlord@smoke:autoencoder"] == seconds["train:medlord@smoke:diffusion"] == 3600
    assert seconds["train:medlord@smoke:controlnet"] == 2400 and seconds["train:medlord@smoke:latents"] is None
    free, longer = plan(("hagan@smoke",)), plan(("hagan@smoke",), train_hours=3.0)
    ids = ["train:hagan@smoke:gan"]
    assert len({one.step(id).key for one in (made, free, longer) for id in ids}) == 3
    assert lineages(free) == lineages(longer), "more time continues the same training"


def test_the_plan_tells_the_grid_and_window_that_a_contestant_works_on() -> None:
    made = plan(("medlord@smoke", "hagan@smoke", "maisi@smoke"), resampled=False)
    assert set(made.native) == {"hagan@smoke", "maisi@smoke"}
    cube = made.native["hagan@smoke"]
    assert (cube.grid.shape, cube.fit) == ((32, 32, 32), "resize")
    grid = made.protocol.grid
    assert grid.spacing is not None
    there = [mm * side / 32 for mm, side in zip(grid.spacing, grid.shape, strict=True)]
    assert cube.grid.spacing == pytest.approx(there)
    assert made.native["maisi@smoke"].grid.hu_window == (-1000, 1000)


def test_real_volumes_go_through_a_narrower_window_too() -> None:
    made = plan(("maisi@smoke",), set={"maisi.hu_window": (-900, 500)})
    (row,) = (one for one in made.contestants if one.plugin == "holdout")
    assert row.name.endswith("-900..500HU") and list(row.config["window"]) == [-900, 500]
