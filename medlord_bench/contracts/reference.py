"""A reference file: aggregate statistics of the real volumes of a run, so that samples are measured without cases.

One safetensors file: float64 arrays named METRIC/NAME, and a `ReferenceMeta` as JSON in its metadata.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from hashlib import sha256
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol, runtime_checkable

from medlord_bench.contracts.plugins import Run
from medlord_bench.contracts.validation import validate
from medlord_bench.contracts.values import DataProtocol, FrozenConfig, MetricInputs, Split
from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.documents import parse_json
from medlord_bench.util.files import publish
from medlord_bench.util.hashing import file_sha256

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from medlord_bench.contracts.results import CaseRow, Score

REFERENCE_VERSION = 1
FIELD = "medlord_bench_reference"  # of the file's metadata
AGAIN = "ask for the file again, or write it anew: medlord-bench reference export RUN --to FILE"
NEEDS_CASES = "needs cases"  # the reason of every number that aggregate statistics cannot give


@dataclass(frozen=True, eq=False)
class Statistics:
    """Aggregate statistics of real volumes. arrays: none of them has a value of a single case. patients: the fewest real
    patients behind one of them, on which `reference export` decides whether they may leave."""

    arrays: Mapping[str, NDArray[np.float64]]
    patients: int


@runtime_checkable
class HasReference(Protocol):
    """A metric that can be measured against aggregate statistics of real volumes. Any other one is `not_run`: needs cases."""

    def aggregate(self, inputs: MetricInputs) -> Statistics | None:
        """The statistics of the real items among `inputs`; None if there are too few for any."""
        ...

    def reduce_against(
        self, inputs: MetricInputs, arrays: Mapping[str, NDArray[np.float64]], run: Run
    ) -> Iterable[Score | CaseRow]:
        """As `reduce`, with the arrays of `aggregate` in place of the real items.

        A value has the protocol id of `reduce`, and so must be the value that `reduce` gives for the same samples and real
        volumes. One that differs needs a quantity of its own; one that cannot be computed is `not_run`, `NEEDS_CASES`.
        """
        ...


class MetricReference(FrozenConfig):
    """One metric of a reference file.

    name: name[:variant]. config: its complete configuration, without folders. protocol, text: the id of its numbers and
    its full text. patients: as in `Statistics`; None if the file has no statistics of it. arrays: their names.
    """

    name: str
    config: dict[str, Any]
    protocol: str
    text: dict[str, Any]
    patients: int | None = None
    arrays: tuple[str, ...] = ()


class ReferenceMeta(FrozenConfig):
    """What a reference file says of itself. patients: real patients of each split. overlaps: as in `HasOverlaps`. content:
    sha256 of the arrays, so that a damaged file is noticed."""

    schema_version: int = REFERENCE_VERSION
    medlord_bench: str
    data: DataProtocol
    overlaps: tuple[str, ...] = ()
    patients: dict[Split, int]
    metrics: tuple[MetricReference, ...]
    content: str = ""


@dataclass(frozen=True)
class Reference:
    """A reference file. sha256: of its bytes; it is in the key of every number that is measured against it."""

    path: Path
    sha256: str
    meta: ReferenceMeta

    def of(self, metric: str) -> MetricReference | None:
        """What it says of a metric, by name[:variant]."""
        return next((one for one in self.meta.metrics if one.name == metric), None)

    def arrays(self, metric: str) -> dict[str, NDArray[np.float64]]:
        """The statistics of a metric."""
        import numpy as np
        from safetensors import safe_open

        known = self.of(metric)
        with safe_open(self.path, framework="np") as file:
            found = {name: file.get_tensor(f"{metric}/{name}") for name in (known.arrays if known else ())}
        for name, array in found.items():
            if array.dtype != np.float64:
                raise UserError(f"{self.path}: array {metric}/{name} is {array.dtype}, expected float64; {AGAIN}")
        return found


@runtime_checkable
class HasReferenceFile(Protocol):
    """A data set without cases: a reference file replaces its real volumes."""

    @property
    def reference(self) -> Reference: ...


def reference_of(dataset: Any) -> Reference | None:
    """The reference file of a data set; None for one with cases."""
    return dataset.reference if isinstance(dataset, HasReferenceFile) else None


def write_reference(path: Path, meta: ReferenceMeta, arrays: Mapping[str, Mapping[str, NDArray[np.float64]]]) -> None:
    """Write a reference file, atomically. arrays: metric -> its statistics. Equal contents give equal bytes."""
    import numpy as np
    from safetensors.numpy import save_file

    named = {f"{metric}/{name}": array for metric, own in arrays.items() for name, array in own.items()}
    ordered = {name: np.ascontiguousarray(named[name], dtype=np.float64) for name in sorted(named)}
    content = _content(ordered, ordered.__getitem__)
    text = {FIELD: meta.model_copy(update={"content": content}).model_dump_json()}
    publish(path, lambda temporary: save_file(ordered, temporary, metadata=text))


def _content(names: Iterable[str], array: Callable[[str], NDArray[np.float64]]) -> str:
    found = sha256()
    for name in sorted(names):
        found.update(name.encode())
        found.update(array(name).tobytes())
    return found.hexdigest()


def read_reference(path: Path) -> Reference:
    """A reference file; its arrays are read when they are asked for.

    Raises `MissingError` if there is none, and `UserError` for a damaged file, another kind of file, another schema version,
    or arrays that are not those it lists.
    """
    from safetensors import SafetensorError, safe_open

    wanted = "expected a file of `medlord-bench reference export`"
    try:
        with safe_open(path, framework="np") as file:
            text, found = (file.metadata() or {}).get(FIELD), set(file.keys())
            content = "" if text is None else _content(found, file.get_tensor)
    except FileNotFoundError:
        raise MissingError(f"{path}: not found; {wanted}") from None
    except (SafetensorError, OSError) as error:
        raise UserError(f"{path}: not a reference file, or damaged ({error}); {wanted}: {AGAIN}") from None
    if text is None:
        raise UserError(f"{path}: metadata has no field {FIELD!r}, so it is no reference file; {wanted}")
    meta = _meta(path, text)
    listed = {f"{one.name}/{name}" for one in meta.metrics for name in one.arrays}
    if listed != found:
        odd = sorted(listed ^ found)[0]
        raise UserError(f"{path}: array {odd!r} is {'missing' if odd in listed else 'not listed'}; damaged: {AGAIN}")
    if meta.content != content:
        raise UserError(f"{path}: sha256 of the arrays is {content[:8]}, expected {meta.content[:8]}; damaged: {AGAIN}")
    return Reference(path, file_sha256(path), meta)


def _meta(path: Path, text: str) -> ReferenceMeta:
    try:
        given = parse_json(text)
    except ValueError as error:
        raise UserError(f"{path}: metadata {FIELD}: not JSON ({error}); damaged: {AGAIN}") from None
    version = given.get("schema_version") if isinstance(given, dict) else None
    if version != REFERENCE_VERSION:
        raise UserError(
            f"{path}: schema_version {version}, this version of medlord-bench reads {REFERENCE_VERSION}; use the version "
            f"that wrote it ({given.get('medlord_bench') if isinstance(given, dict) else 'unknown'}), or {AGAIN}"
        )
    return validate(ReferenceMeta, given, str(path))
