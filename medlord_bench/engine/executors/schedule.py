"""Which shard of which step a free worker takes next."""

from __future__ import annotations

from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from medlord_bench.engine.plan import Step
from medlord_bench.engine.steps.kinds import KINDS


@dataclass(frozen=True)
class Shard:
    """Shard `number` of the `of` shards of a step."""

    step: Step
    number: int
    of: int


class Schedule:
    """Steps in the order of the plan, each after the steps that it needs.

    A step that uses the whole machine (`Kind.alone`) is the only one at work. While others are, the steps after it in the
    plan go first. side_by_side: such steps are treated as all others. begin, end: as of `contracts.CarriesOut`.
    """

    def __init__(
        self,
        steps: Sequence[Step],
        begin: Callable[[Step], int],
        end: Callable[[Step], None],
        side_by_side: bool = False,
    ) -> None:
        self._begin, self._end, self._side_by_side = begin, end, side_by_side
        self._open = {step.id: step for step in steps}  # in order; a step that has ended is not here
        self._left: dict[str, set[int]] = {}  # a step at work -> its shards that have not ended
        self._waiting: deque[Shard] = deque()  # shards of steps at work that no worker has taken

    @property
    def is_done(self) -> bool:
        return not self._open

    def next(self) -> Shard | None:
        """The shard that a free worker takes now; None if there is none before another has ended."""
        while not self._waiting and (step := self._ready()) is not None:
            shards = self._begin(step)
            if shards:
                self._left[step.id] = {*range(shards)}
                self._waiting.extend(Shard(step, number, shards) for number in range(shards))
            else:
                del self._open[step.id]
        return self._waiting.popleft() if self._waiting else None

    def finish(self, shard: Shard) -> None:
        """A worker has done a shard."""
        left = self._left[shard.step.id]
        left.remove(shard.number)
        if not left:
            del self._left[shard.step.id], self._open[shard.step.id]
            self._end(shard.step)

    def _ready(self) -> Step | None:
        if any(self._alone(self._open[id]) for id in self._left):
            return None
        for step in self._open.values():
            waits = any(need in self._open for need in step.needs) or (self._alone(step) and self._left)
            if step.id not in self._left and not waits:
                return step
        return None

    def _alone(self, step: Step) -> bool:
        return KINDS[step.kind].alone and not self._side_by_side
