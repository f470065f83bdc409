"""Draws the cases of a study and writes its key and packs."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medlord_bench.engine.store import Store
from medlord_bench.errors import UserError
from medlord_bench.util.files import write_text
from medlord_bench.util.hashing import file_sha256
from medlord_bench.util.progress import make_progress

from .draw import Drawn, Place, Secret, choose, margin_for, offset_of, order_for, pairs_for, real_in_pairs
from .formats import SIZES, require, scripts_share
from .key import Entry, Key, SourceRecord, check_recipient, new_nonce, read_key, write_key
from .pack import Pack, case_file, hashes_of, practice_items, session_starts, set_times, write_case, write_manifest
from .protocol import REAL, StudyProtocol
from .rebuild import StudyGrid, grid_of, rebuilt
from .rubric import Rubric, read_rubric
from .sources import Source, open_source
from .study import Study, no_pack_above

Finish = Callable[
    [Path, Pack, Sequence[str], Secret, Callable[[], object]], None
]  # adds the files of formats to a pack that has its cases
SPARE_BYTES = 50_000_000


@dataclass(frozen=True)
class Cases:
    """What one reader reads. items: in order, of one place or of the two of a pair."""

    reader: str
    items: Sequence[tuple[Place, ...]]
    practice: Sequence[Place]

    @property
    def places(self) -> list[Place]:
        """Every showing of a volume, each a case of its own."""
        return [place for item in self.items for place in item]


@dataclass(frozen=True)
class Planned:
    """A study before its volumes are written. margin: voxels that a case is smaller than its field along each axis."""

    protocol: StudyProtocol
    rubric: Rubric
    grid: StudyGrid
    sources: Sequence[Source]
    cases: Sequence[Cases]
    secret: Secret
    margin: int

    @property
    def volumes(self) -> int:
        """Of all packs, practice included."""
        return sum(len(one.places) + len(one.practice) for one in self.cases)

    def bytes(self) -> int:
        """On disk, of the cases of all packs in all formats; the raw cases are always written first."""
        formats = self.protocol.formats
        share = 1 + sum(SIZES.get(name, 0) for name in formats)
        share += scripts_share(self.grid) if "browser" in formats else 0
        return int(self.volumes * self.grid.bytes * share)


def plan(protocol: StudyProtocol, store: Store, secret: Secret) -> Planned:
    """Draw every case. Raises `UserError` for a source that has too few volumes."""
    rubric = read_rubric(protocol.rubric, protocol.language)
    sources = [open_source(spec, store, protocol.n) for spec in protocol.sources]
    each = -(-protocol.practice // len(sources))
    real = next((place for place, source in enumerate(sources) if source.real), None)
    drawn: list[Drawn] = []
    practice: list[Drawn] = []
    for place, source in enumerate(sources):
        chosen, others = choose(secret, list(source.volumes), _number(protocol, source, each), each)
        drawn += [Drawn(place, item, file_sha256(source.volumes[item])) for item in chosen]
        practice += [Drawn(place, item, file_sha256(source.volumes[item])) for item in others]
    _all_different([*drawn, *practice], sources)
    _enough_practice(protocol, len(practice))
    if protocol.design == "ratings" and not any(source.real for source in sources):
        raise UserError(
            f"sources {', '.join(source.name for source in sources)}: none is of real volumes, so nothing can be compared; "
            f"name that source {REAL!r}"
        )
    first = sources[0].read(next(one.item for one in drawn if one.source == 0))
    cases = [_cases(reader, drawn, practice, real, protocol, secret) for reader in protocol.readers]
    margin = margin_for(1 + max(place.showing for one in cases for place in one.places))
    return Planned(protocol, rubric, grid_of(protocol, first, margin), sources, cases, secret, margin)


def _number(protocol: StudyProtocol, source: Source, practice: int) -> int:
    """Volumes to draw of a source: `n`, but more real ones for pairs, if the source has them."""
    if protocol.design == "ratings" or not source.real:
        return protocol.n
    return real_in_pairs(protocol.n, len(protocol.sources) - 1, protocol.choices, len(source.volumes) - practice)


def _enough_practice(protocol: StudyProtocol, spare: int) -> None:
    if "practice" in protocol.model_fields_set and spare < protocol.practice:
        raise UserError(
            f"field 'practice': {protocol.practice}, but the sources have {spare} usable volumes that are not drawn; lower "
            "practice or n, or give the sources more volumes"
        )


def _all_different(drawn: Sequence[Drawn], sources: Sequence[Source]) -> None:
    seen: dict[str, Drawn] = {}
    for one in drawn:
        other = seen.setdefault(one.sha256, one)
        if other is not one:
            sources[one.source].read(one.item)  # a constant volume is named as such
            names = f"{sources[other.source].name}/{other.item} and {sources[one.source].name}/{one.item}"
            raise UserError(f"{names} are the same file; expected different volumes: check the sources")


def _cases(
    reader: str,
    drawn: Sequence[Drawn],
    practice: Sequence[Drawn],
    real: int | None,
    protocol: StudyProtocol,
    secret: Secret,
) -> Cases:
    by_hash = {one.sha256: one for one in practice}
    order = secret.shuffled(list(by_hash), "practice", reader)[: protocol.practice]
    trials = [Place(secret.code(reader, sha, "practice"), by_hash[sha]) for sha in order]
    if protocol.design == "pairs":
        return Cases(reader, pairs_for(reader, drawn, real, protocol, secret), trials)
    return Cases(reader, [(place,) for place in order_for(reader, drawn, protocol, secret)], trials)


def key_of(planned: Planned, nonce: str) -> Key:
    """The key of a planned study."""
    entries = []
    for cases in planned.cases:
        for places, practice in ((cases.places, False), (cases.practice, True)):
            repeats = planned.protocol.design == "ratings"  # of pairs, a later showing is a choice like any other
            entries += [
                _entry(cases.reader, place, planned.sources, practice, repeats and place.showing > 0)
                for place in places
            ]
    drawn = {(place.volume.source, place.volume.item) for cases in planned.cases for place in cases.places}
    records = [
        SourceRecord(
            name=source.name,
            real=source.real,
            available=len(source.volumes),
            failed=source.failed,
            drawn=tuple(sorted(item for at, item in drawn if at == number)),
        )
        for number, source in enumerate(planned.sources)
    ]
    return Key(
        nonce=nonce,
        secret=planned.secret.value.hex(),
        protocol=planned.protocol.digest(),
        rubric=planned.rubric.digest(),
        sources=tuple(records),
        entries=tuple(entries),
    )


def _entry(reader: str, place: Place, sources: Sequence[Source], practice: bool, repeat: bool) -> Entry:
    volume = place.volume
    return Entry(
        reader=reader,
        code=place.code,
        source=sources[volume.source].name,
        item=volume.item,
        sha256=volume.sha256,
        repeat=1 if repeat else 0,
        practice=practice,
    )


def export(
    protocol: StudyProtocol,
    study: Study,
    store: Store,
    finish: Finish,
    check: Callable[[Study, Key], object],
    recipient: str = "",
) -> list[Path]:
    """Write the study: its key first, then the packs, which become visible only after the leak check.

    A stopped export goes on with the same draws. finish: adds the files of the formats. check: raises `UserError` on a leak.
    Returns the packs. Raises `UserError` if a pack is there already, or the disk is too small.
    """
    require(protocol.formats)
    check_recipient(recipient)
    no_pack_above(study.root)
    existing = [reader for reader in protocol.readers if study.pack(reader).exists()]
    if existing:
        raise UserError(f"{study.pack(existing[0])}: is there already; a study is exported once: give another --out")
    secret, nonce = _begun(study, protocol)
    planned = plan(protocol, store, secret)
    _room(study, planned)
    key = key_of(planned, nonce)
    write_key(study.sealed, key)
    write_text(study.sealed / "commitment.txt", key.commitment() + "\n")
    write_text(study.protocol, _yaml(protocol))
    partial = study.root / ".partial"
    written = planned.volumes * (1 + sum(name in SIZES for name in protocol.formats))
    with make_progress().task("packs, volumes", written) as task:
        for cases in planned.cases:
            _write(planned, cases, key, partial / cases.reader, finish, task.advance)
    check(Study(study.root), key)
    packs = []
    for cases in planned.cases:
        study.packs.mkdir(parents=True, exist_ok=True)
        (partial / cases.reader).rename(study.pack(cases.reader))
        packs.append(study.pack(cases.reader))
    shutil.rmtree(partial, ignore_errors=True)
    if recipient:
        write_key(study.sealed, key, recipient)
        (study.sealed / "key.json").unlink()
    return packs


def _begun(study: Study, protocol: StudyProtocol) -> tuple[Secret, str]:
    """Secret and nonce of a stopped export of the same protocol, or new ones."""
    if not study.key.exists():
        return Secret(), new_nonce()
    key = read_key(study.key)
    if key.protocol != protocol.digest():
        raise UserError(f"{study.key}: is of another protocol; give another --out, or the protocol of the first export")
    return Secret(bytes.fromhex(key.secret)), key.nonce


def _room(study: Study, planned: Planned) -> None:
    study.root.mkdir(parents=True, exist_ok=True)
    free, needed = shutil.disk_usage(study.root).free, planned.bytes() + SPARE_BYTES
    if free < needed:
        raise UserError(
            f"{study.root}: {free / 1e9:.1f} GB free, the packs need about {needed / 1e9:.1f} GB; choose another disk, a "
            "smaller grid (shape, spacing), or fewer cases"
        )


def _write(
    planned: Planned, cases: Cases, key: Key, folder: Path, finish: Finish, advance: Callable[[], object]
) -> None:
    """The pack of a reader. A case that is there already is kept; what a stopped export left half written is removed."""
    for path in sorted(folder.rglob(".tmp-*")):
        shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
    for places, practice in ((cases.places, False), (cases.practice, True)):
        for place in sorted(places, key=lambda one: one.code):
            path = case_file(folder, place.code, practice)
            if not path.exists() or path.stat().st_size != planned.grid.bytes:
                write_case(path, _case(planned, cases.reader, place))
            advance()
    protocol = planned.protocol
    real = sum(planned.sources[place.volume.source].real for place in cases.places) / len(cases.places)
    pack = Pack(
        id=planned.secret.code("pack", cases.reader),
        title=protocol.title,
        reader=cases.reader,
        design=protocol.design,
        language=protocol.language,
        rubric=planned.rubric,
        grid=planned.grid,
        items=tuple(tuple(place.code for place in item) for item in cases.items),
        practice=practice_items([place.code for place in cases.practice], protocol.design),
        sessions=session_starts(len(cases.items), protocol.sessions),
        real_share=real if protocol.disclosed else None,
        commitment=key.commitment(),
        files={},
    )
    finish(folder, pack, protocol.formats, planned.secret, advance)
    write_manifest(folder, pack.model_copy(update={"files": hashes_of(folder)}))
    set_times(folder)


def _case(planned: Planned, reader: str, place: Place) -> NDArray[np.int16]:
    """The voxels of a case. Raises `UserError` naming the volume that is constant there."""
    source = planned.sources[place.volume.source]
    at = offset_of(place, reader, planned.margin, planned.secret)
    volume = source.read(place.volume.item)
    try:
        return rebuilt(volume, planned.grid, planned.margin, at)
    except UserError as error:
        raise UserError(f"{source.volumes[place.volume.item]}: {error}") from None


def _yaml(protocol: StudyProtocol) -> str:
    import yaml

    text: Mapping[str, object] = protocol.model_dump(mode="json", exclude_defaults=True)
    return str(yaml.safe_dump(dict(text), sort_keys=False, allow_unicode=True))
