"""Where the public data sets are, what they are called there, and under which licence: `datasets.yaml`."""

from __future__ import annotations

from functools import cache
from pathlib import Path
from typing import Literal

from pydantic import Field

from medlord_bench.contracts import FrozenConfig
from medlord_bench.contracts.registry import unknown
from medlord_bench.contracts.validation import validate
from medlord_bench.errors import UserError
from medlord_bench.fetching.tables import Series, series_of
from medlord_bench.util.documents import read_yaml

TABLE = Path(__file__).with_name("datasets.yaml")


class Licence(FrozenConfig):
    """What a user accepts. note: what else there is to know."""

    name: str
    url: str
    note: str = ""


class Archive(FrozenConfig):
    """A zip archive of a data set, in a Zenodo record or at an address.

    pattern: regular expression of the members that are wanted, with the groups `path` and, for files of one case, `case`.
    folder: where `path` goes. cases: whether its members say which cases there are; else they belong to such cases.
    about: its size as text, for readers without a network.
    """

    record: int | None = None
    url: str = ""
    file: str
    pattern: str
    folder: str = ""
    cases: bool = True
    about: str = ""


class IdcSeries(FrozenConfig):
    """CT series at the Imaging Data Commons: a shipped table, and which of its rows. licence: of the collection there."""

    table: str
    column: str = Field("", description="rows with 1 in this column; empty: all")
    licence: Licence

    def series(self) -> list[Series]:
        return series_of(self.table, self.column)


class DatasetSource(FrozenConfig):
    """A data set that `fetch dataset` knows.

    by_hand: what a person has to fetch, and how. patients: what is known of the patients. read_with: how the bench reads
    the folder.
    """

    title: str
    page: str
    licence: Licence
    archives: tuple[Archive, ...] = ()
    idc: IdcSeries | None = None
    by_hand: str = ""
    patients: str
    read_with: str

    def sources(self) -> tuple[Literal["zenodo", "idc"], ...]:
        """Where it can be fetched from, the default first."""
        places: list[Literal["zenodo", "idc"]] = ["zenodo"] if self.archives else []
        return (*places, "idc") if self.idc else tuple(places)


class _Table(FrozenConfig):
    datasets: dict[str, DatasetSource]


@cache
def known() -> dict[str, DatasetSource]:
    """Name -> data set."""
    return validate(_Table, read_yaml(TABLE, "the data sets"), TABLE.name).datasets


def source_of(name: str) -> DatasetSource:
    """Raises `UserError` that names the nearest one."""
    if name not in known():
        raise UserError(f"fetch dataset {name}: " + unknown("data set", name, known()))
    return known()[name]
