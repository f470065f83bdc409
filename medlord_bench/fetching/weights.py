"""``fetch weights``: every file of pretrained weights that a run reads, before a machine without a network runs it."""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medlord_bench.contracts import DataProtocol, Grid, registry, specs
from medlord_bench.contracts.regions import CARDIAC
from medlord_bench.contracts.specs import PluginSpec, plugin_spec
from medlord_bench.contracts.validation import merged, nested
from medlord_bench.contracts.weights import HasWeights, NeededWeights
from medlord_bench.engine.resolve import contestant, metric_spec
from medlord_bench.engine.run_file import RunFile
from medlord_bench.errors import MissingError, UserError
from medlord_bench.fetching import archives
from medlord_bench.fetching.download import download
from medlord_bench.fetching.http import Client
from medlord_bench.fetching.local import Wanted, gib, present
from medlord_bench.nn import pretrained
from medlord_bench.util.files import write_json
from medlord_bench.util.hashing import file_sha256

DEFAULT_SEGMENTER = DataProtocol.model_fields["segmenter"].default
DONE = ".fetched.json"  # in the folder of an unpacked archive


@dataclass(frozen=True)
class Row:
    """Weights, and who reads them. problem: why a plugin could not say what it needs."""

    readers: tuple[str, ...]
    needed: NeededWeights | None
    problem: str = ""


def of_run(file: RunFile) -> list[Row]:
    """What a run file reads. The data set is not opened: its default segmenter is taken."""
    data = _stand_in(file)
    found: list[tuple[str, str, PluginSpec | Any]] = []
    for text in file.generators:
        one = contestant(text, file.dataset, file.set, file.weights)
        if one.weights is None:  # with --weights, the user has them
            found.append((f"generator {one.name}", "generators", one))
            found += _choices(one.name, one, file)
    masks = nested(file.set, "dataset").get("masks") or "none"
    if masks not in specs.WITHOUT_SEGMENTER:
        found.append(("masks of the data set", "segmenters", plugin_spec("segmenters", masks, nested(file.set, masks))))
    for text in file.metrics:
        spec = metric_spec(text, data, file.set)
        found.append((f"metric {text}", "metrics", spec))
        found += _tools(f"metric {text}", spec)
    return _rows(found)


def of_everything() -> list[Row]:
    """What all installed plugins read in their default configurations, and generators in each variant."""
    found: list[tuple[str, str, Any]] = []
    for kind in ("extractors", "segmenters", "metrics"):
        for name in registry.loadable(kind):
            found.append((f"{kind[:-1]} {name}", kind, plugin_spec(kind, name, {})))
    for name, plugin in registry.loadable("generators").items():
        for variant in ("", *plugin.variants):
            found.append(
                (f"generator {name}{':' if variant else ''}{variant}", "generators", _generator(name, variant))
            )
    return _rows([one for one in found if one[2] is not None])


def _generator(name: str, variant: str) -> Any:
    try:
        return contestant(f"{name}:{variant}" if variant else name, "", {})
    except UserError:  # it needs settings of its own, such as a folder
        return None


def _stand_in(file: RunFile) -> DataProtocol:
    """What metrics need to know of the data, without the data."""
    plugin = registry.load("datasets", file.dataset)
    segmenter = getattr(plugin, "segmenter", DEFAULT_SEGMENTER)
    masks = nested(file.set, "dataset").get("masks")
    if masks and masks not in specs.WITHOUT_SEGMENTER:
        segmenter = masks if file.dataset == "folder" else segmenter
    return DataProtocol(
        name=file.dataset,
        grid=Grid(shape=(64, 64, 64)),
        fit="crop-pad",
        split="",
        split_sha256="",
        counts={},
        masks="dataset",
        segmenter=segmenter,
        rvr_regions=CARDIAC,
        condition_regions=CARDIAC,
        adherence_regions=CARDIAC,
    )


def _choices(name: str, spec: Any, file: RunFile) -> Iterator[tuple[str, str, PluginSpec]]:
    """Extractors by which a generator's stages choose their checkpoints."""
    for stage in specs.make("generators", spec).stages():
        if stage.choice is not None:
            extractor = stage.choice.extractor
            yield f"generator {name}", "extractors", plugin_spec("extractors", extractor, nested(file.set, extractor))


def _tools(reader: str, spec: PluginSpec) -> Iterator[tuple[str, str, PluginSpec]]:
    """The extractor and the segmenter of a metric, with the settings that it gives them."""
    config = spec.config
    for kind, name in (("extractors", config.get("extractor")), ("segmenters", config.get("segmenter"))):
        if not name:
            continue
        settings: Any = config.get("segmenter_settings") if kind == "segmenters" else None
        if kind == "extractors":
            settings = specs.make("metrics", spec).plugin_config()
        yield reader, kind, plugin_spec(kind, name, merged({}, settings or {}))


def _rows(found: Iterable[tuple[str, str, Any]]) -> list[Row]:
    """One row for each file, with all its readers, in their order."""
    readers: dict[NeededWeights | str, list[str]] = {}
    for reader, kind, spec in found:
        plugin = specs.make(kind, spec)
        if not isinstance(plugin, HasWeights):
            continue
        keys: Sequence[NeededWeights | str]
        try:
            keys = list(plugin.needed_weights())
        except MissingError as error:
            keys = [str(error)]
        for key in keys:
            readers.setdefault(key, []).append(reader)
    return [
        Row(tuple(dict.fromkeys(names)), None, key) if isinstance(key, str) else Row(tuple(dict.fromkeys(names)), key)
        for key, names in readers.items()
    ]


# -------------------------------------------------------------------------------------------------------- on the disk
@dataclass(frozen=True)
class State:
    """What is on the disk of a row. sha256: of the file there, else as far as it is known."""

    there: bool
    bytes: int | None
    sha256: str


def state_of(needed: NeededWeights, folder: Path) -> State:
    """Raises `UserError` for a file that is not the expected one."""
    path = folder / needed.path
    expected = f"begins with {needed.sha256}" if needed.sha256 and len(needed.sha256) < 64 else needed.sha256
    if needed.unpacks:
        record = path / DONE
        if record.is_file():
            facts = json.loads(record.read_text())
            return State(True, int(facts["bytes"]), f"{facts['sha256']} (of the archive)")
        return State(path.is_dir(), None, expected or "not known")
    if not path.is_file():
        return State(False, None, expected or "not known: it is locked at the first fetch")
    sha256 = file_sha256(path)
    _check_begin(path, needed, sha256)
    return State(True, path.stat().st_size, sha256)


def lines(row: Row, folder: Path) -> Iterator[str]:
    """A row as text."""
    if row.needed is None:
        yield f"? {', '.join(row.readers)}: {row.problem}"
        return
    needed, state = row.needed, state_of(row.needed, folder)
    yield f"{needed.path}  [{'there' if state.there else 'missing'}]"
    yield f"  for      {', '.join(row.readers)}"
    yield f"  size     {'not known before it is fetched' if state.bytes is None else gib(state.bytes)}"
    yield f"  sha256   {state.sha256}"
    yield f"  licence  {needed.licence}"
    yield f"  address  {needed.address}"
    if needed.by_hand:
        yield f"  by hand  {needed.by_hand}"


def fetch(needed: NeededWeights, folder: Path, client: Client) -> None:
    """Fetch one file or archive into the weights folder. Raises `MissingError` for one that a program may not fetch."""
    path = folder / needed.path
    if state_of(needed, folder).there:
        return
    if needed.by_hand:
        raise MissingError(f"{needed.path}: {needed.licence}; fetch it by hand: {needed.by_hand}")
    if needed.repo:
        file = needed.path.removeprefix(f"{needed.repo}/")
        whole = needed.sha256 if needed.sha256 and len(needed.sha256) == 64 else None
        spec = pretrained.WeightsFile(repo=needed.repo, file=file, revision=needed.revision, sha256=whole)
        pretrained.find(spec, folder, offline=client.offline)
    elif needed.unpacks:
        _fetch_archive(needed, path, client)
    else:
        wanted = Wanted(url=needed.address, name=path.name)
        if not present(path, wanted):
            lock = download(wanted, path, client)
            try:
                _check_begin(path, needed, lock.sha256)
            except UserError:
                path.unlink()
                path.with_name(f"{path.name}.lock.json").unlink(missing_ok=True)
                raise


def _fetch_archive(needed: NeededWeights, path: Path, client: Client) -> None:
    """Unpack an archive beside the others of its kind; its folder is recorded as complete last."""
    place = path.with_name(f"{path.name}.zip")
    wanted = Wanted(url=needed.address, name=place.name)
    if not present(place, wanted):
        download(wanted, place, client)
    with archives.opened(place, str(place)) as archive:
        found = archives.members(archive, str(place), rf"(?:{path.name}/)?(?P<path>.+)", path.name)
        archives.unpack(archive, str(place), found, path.parent, client.check_stop)
    write_json(path / DONE, {"address": needed.address, "bytes": place.stat().st_size, "sha256": file_sha256(place)})
    place.unlink()
    place.with_name(f"{place.name}.lock.json").unlink(missing_ok=True)


def _check_begin(path: Path, needed: NeededWeights, sha256: str) -> None:
    if needed.sha256 and not sha256.startswith(needed.sha256):
        raise UserError(
            f"{path}: sha256 is {sha256}, expected one that begins with {needed.sha256}; the file is damaged or another one: "
            "delete it and fetch it again"
        )
