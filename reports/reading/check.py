"""The leak check: whether a pack says anything about the source of its cases but the picture itself."""

from __future__ import annotations

from .key import Key
from .study import Study


def check_study(study: Study, key: Key) -> None:
    """Raise `UserError` naming a leak of a study whose packs are not published yet."""
