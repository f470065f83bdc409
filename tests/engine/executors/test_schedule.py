"""The order in which free workers take the shards of steps."""

from __future__ import annotations

from medlord_bench.contracts.specs import PluginSpec
from medlord_bench.engine.executors.schedule import Schedule, Shard
from medlord_bench.engine.plan import Step

PLUGIN = PluginSpec(plugin="any", config={})
IMAGES = "images"


def step(id: str, kind: str, **inputs: str) -> Step:
    return Step(id=id, kind=kind, key=id, plugin=PLUGIN, contestant="", items=("item",), inputs=inputs)


# Two contestants, each with a training and samples; the real images are measured too.
STEPS = (
    step(IMAGES, "images"),
    step("train a", "weights"),
    step("samples of a", "samples", weights="train a"),
    step("train b", "weights"),
    step("samples of b", "samples", weights="train b"),
    step("features", "features", images=IMAGES),
    step("scores", "scores", a="samples of a", b="samples of b", real="features"),
)


class Workers:
    """Takes all shards that can be at work at once. shards: of steps with others than one."""

    def __init__(self, side_by_side: bool = False, **shards: int) -> None:
        self.ended: list[str] = []
        self.at_work: list[Shard] = []
        self.schedule = Schedule(
            STEPS, lambda step: shards.get(step.id, 1), lambda step: self.ended.append(step.id), side_by_side
        )

    def take(self, most: int = 9) -> list[str]:
        """Take as many shards as `most` workers can; returns the steps of all that are at work."""
        while len(self.at_work) < most and (shard := self.schedule.next()) is not None:
            self.at_work.append(shard)
        return [shard.step.id for shard in self.at_work]

    def finish(self, id: str) -> None:
        (shard, *_) = [shard for shard in self.at_work if shard.step.id == id]
        self.at_work.remove(shard)
        self.schedule.finish(shard)


def test_on_one_machine_a_training_is_the_only_step_at_work() -> None:
    workers = Workers()
    order = []
    while not workers.schedule.is_done:
        order.append(sorted(workers.take()))
        workers.finish(workers.at_work[-1].step.id)
    assert order == [
        ["images"],
        ["train a"],
        ["features", "samples of a"],
        ["samples of a"],
        ["train b"],
        ["samples of b"],
        ["scores"],
    ]


def test_workers_with_cards_of_their_own_train_side_by_side() -> None:
    workers = Workers(side_by_side=True)
    workers.take()
    workers.finish(IMAGES)
    assert workers.take(2) == ["train a", "train b"]
    workers.finish("train b")
    assert workers.take(2) == ["train a", "samples of b"]
    workers.finish("train a")
    assert workers.take() == ["samples of b", "samples of a", "features"]


def test_a_step_ends_with_its_last_shard_and_free_workers_take_shards_in_the_order_of_the_plan() -> None:
    workers = Workers(side_by_side=True, images=2, **{"samples of a": 3})
    assert workers.take() == [IMAGES, IMAGES]
    assert {(shard.number, shard.of) for shard in workers.at_work} == {(0, 2), (1, 2)}
    workers.finish(IMAGES)
    assert workers.ended == [] and workers.take() == [IMAGES]
    workers.finish(IMAGES)
    assert workers.ended == [IMAGES] and workers.take(1) == ["train a"]
    workers.finish("train a")
    assert workers.take(2) == ["samples of a"] * 2
    workers.finish("samples of a")
    assert workers.take(2) == ["samples of a"] * 2  # before the training of b


def test_a_step_with_nothing_left_to_do_holds_nobody_up_and_does_not_end_again() -> None:
    workers = Workers(**{IMAGES: 0, "train a": 0})
    assert workers.take() == ["samples of a", "features"]
    assert workers.ended == []
    assert Workers(**{step.id: 0 for step in STEPS}).take() == []


def test_when_all_is_done_there_is_nothing_to_take() -> None:
    workers = Workers(**{step.id: 0 for step in STEPS})
    assert workers.schedule.next() is None and workers.schedule.is_done
