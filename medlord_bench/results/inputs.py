"""`results/inputs.json`: what was read for a run and what to doubt about it: the data folder, the real images, the samples."""

from __future__ import annotations

from pathlib import Path

from pydantic import Field

from medlord_bench.contracts import FrozenConfig
from medlord_bench.contracts.inventory import Inventory
from medlord_bench.contracts.validation import read_json
from medlord_bench.util.files import write_json

FILE = "inputs.json"


class Doubt(FrozenConfig):
    """about: the contestant, or "real" for the data set."""

    about: str
    text: str


class Inputs(FrozenConfig):
    """inventory: of a data set on disk. samples_of: contestant -> inventory of its folder of samples. doubts: about real
    images and samples, from their files and values."""

    inventory: Inventory | None = None
    samples_of: dict[str, Inventory] = {}
    doubts: tuple[Doubt, ...] = Field((), description="in the order of the steps")


def write(results: Path, inputs: Inputs) -> None:
    write_json(results / FILE, inputs.model_dump(mode="json"))


def read(results: Path) -> Inputs | None:
    """None for a run of an earlier release. Raises `UserError` naming a file that is damaged."""
    path = results / FILE
    return read_json(Inputs, path) if path.exists() else None
