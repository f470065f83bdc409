"""Figures of the page: PNG inside it, so that it is one file."""

from __future__ import annotations

import base64
from dataclasses import dataclass


@dataclass(frozen=True)
class Picture:
    """A figure on the page. `dark`: its version for a dark page, if it differs. Sources are data URIs."""

    source: str
    alt: str
    dark: str | None = None


def data_uri(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()
