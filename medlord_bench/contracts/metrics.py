"""The declarations of a metric: its quantities and its protocol."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Literal

from pydantic import Field

from medlord_bench.contracts.values import DataProtocol, FrozenConfig
from medlord_bench.errors import StepError, UserError
from medlord_bench.util.hashing import digest

Criterion = Literal["", "congruence", "coverage", "constraint", "completeness", "compliance"]
Better = Literal["lower", "higher", ""]
Spread = Literal["iqr", "sd", ""]


class Headline(FrozenConfig):
    """A column of the overview table, the first table of the page.

    rank: order of the columns; the built-in metrics use 10 (fid) to 72 (lpips). reference: the real split that
    the column is against; empty for a quantity without or with a single reference.
    """

    rank: int = 100
    reference: str = ""


class Quantity(FrozenConfig):
    """One kind of number of a metric. All code that shows or compares numbers reads only this about it."""

    name: str = Field(description="as in `Score.metric`, e.g. psnr; no other metric has a quantity of this name")
    meaning: str = Field(description="one sentence for a reader who does not know it")
    title: str = Field("", description="its name in tables and figures, e.g. MS-SSIM; empty: `name`")
    unit: str = ""
    better: Better = Field("", description="which direction is better; empty if neither is")
    table: str = Field("", description="name of the table that contains it; empty: the name of its metric")
    spread: Spread = Field(
        "",
        description="what its table gives in brackets: 'iqr', the interquartile range behind the median of its "
        "cases; 'sd', the standard deviation behind their mean; empty: the interval",
    )
    decimals: int | None = Field(None, ge=0, le=8, description="of its values in a table; None: four digits in all")
    headline: tuple[Headline, ...] = Field(
        (), description="its columns in the overview table; none: only in its own table"
    )
    by_region: str = Field("", description="title of the overview's column that lists regions instead of a value")
    margin: float | None = Field(None, gt=0, description="largest irrelevant difference, for tests of equivalence")
    interval: str = Field("", description="how its interval is made; a score's own text has details")
    caution: str = Field("", description="a sentence below the overview: what to know before reading its column")
    read_with: str = Field(
        "", description="a quantity that it must be read beside; the overview says if the run lacks it"
    )
    open_by_region: bool = Field(False, description="whether its table by region is open; the others fold away")
    folded: str = Field(
        "", description="why its rows fold away, e.g. 'with the estimated bias subtracted'; empty: open"
    )
    distribution: str = Field(
        "", description="axis title of the figures of its case rows, contestants beside real volumes; empty: none"
    )
    curve: str = Field(
        "",
        description="axis of a figure of its values over its regions, each of which begins with a number on that axis, "
        "e.g. a dose; quantities with one axis share a figure; empty: none",
    )
    pairs: str = Field(
        "", description="metric of case rows that are drawn as pairs: the case beside `against`, in their order"
    )
    cases_of: Literal["", "samples", "conditional", "reconstructions"] = Field(
        "", description="kind of volume that its case rows are of: the worst and the median case are shown"
    )
    criterion: Criterion = Field(
        "", description="which of the seven criteria of synthetic medical data it answers (Zamzmi 2025), for the card"
    )
    watches: str = Field("", description="subject of its warnings, e.g. missing organs; empty if it has none")

    @property
    def label(self) -> str:
        """Its name for a reader."""
        return self.title or self.name


class MetricProtocol(FrozenConfig):
    """What decides a metric's numbers besides the data's protocol and its version.

    label: short name that distinguishes its variants, e.g. the segmenter; part of the id. text: the full text, as JSON.
    locked: whether every weights file it depends on has a recorded sha256.
    """

    label: str = ""
    text: dict[str, Any]
    locked: bool = True


def protocol_of(name: str, metric: Any, data: DataProtocol) -> tuple[str, dict[str, Any]]:
    """The id that is printed with every number of a metric, e.g. ``rvr-phantom-3fa2b1c0``, and its full text.

    name: the metric's registered name. The id ends in ``-unlocked`` if a weights file has no lock, since it may differ
    elsewhere.
    """
    own = metric.protocol(data)
    if not isinstance(own, MetricProtocol):
        raise StepError(
            f"metric {name}: protocol() gave a {type(own).__name__}, expected a MetricProtocol: fix the metric"
        )
    text = {**own.text, "metric": name, "version": metric.version, "data": data.model_dump(mode="json")}
    id = "-".join(filter(None, (name, own.label, digest(text)[:8])))
    return id + ("" if own.locked else "-unlocked"), text


def quantities_of(metrics: Mapping[str, Any]) -> dict[str, Quantity]:
    """Name -> quantity over several metrics (name -> class). Raises `UserError` if two declare one name differently."""
    found: dict[str, Quantity] = {}
    owners: dict[str, str] = {}
    for name, metric in metrics.items():
        for one in metric.quantities:
            if found.setdefault(one.name, one) != one:
                raise UserError(
                    f"quantity {one.name!r}: metrics {owners[one.name]} and {name} declare it differently; rename one of "
                    "them, or measure them in separate runs"
                )
            owners.setdefault(one.name, name)
    return found


def undeclared(name: str, given: str, declared: Mapping[str, Quantity]) -> StepError:
    """The error for a score of a quantity that its metric does not declare."""
    return StepError(
        f"metric {name}: gave a score of {given!r}, expected one of its quantities ({', '.join(declared) or 'none'}): "
        "declare it in `quantities`"
    )
