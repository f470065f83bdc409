"""The control that is as good as can be: real volumes of patients that no training has seen."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, ClassVar

from medlord_bench.contracts import Failure, Request

from .base import Control

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from .kept import Kept


class Holdout(Control):
    """Real volumes of the validation split, one after another: the best that a generator can do."""

    name: ClassVar[str] = "holdout"

    def draw(self, kept: Kept, request: Request) -> NDArray[Any] | Failure:
        return kept.hu(request.index)
