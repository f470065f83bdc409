"""What a reader could see besides the pictures: codes that come again, planes that tell repeats, padding."""

from __future__ import annotations

import json
from collections import Counter
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from medlord_bench.cli.reading import _of_runs, reading
from medlord_bench.contracts import Volume
from medlord_bench.errors import UserError
from medlord_bench.reading.check import check_pack, check_study
from medlord_bench.reading.key import Key, read_key
from medlord_bench.reading.leak_audit import audit, padding_notes, quantities_of
from medlord_bench.reading.pack import hashes_of, read_pack, write_manifest
from medlord_bench.reading.protocol import QUANTITIES
from medlord_bench.reading.study import Study, no_key_below
from medlord_bench.volumes.io import write_volume
from tests.reading.small_study import SHAPE, SPACING, exported, protocol_of, write_sources

NAMES = ("real", "wizard", "oracle9")


def write_noise(root: Path, n: dict[str, int], air: int = 0) -> None:
    """Volumes of noise to their outermost planes. air: planes of padding at both ends of the first axis of `wizard`."""
    rng = np.random.default_rng(5)
    for name, number in n.items():
        for i in range(number):
            hu = rng.normal(0, 100, SHAPE).round().astype(np.int16)
            hu[0, 0, 0], hu[6, 5, 4] = -1100, 2100
            if name == "wizard" and air:
                hu[:air] = hu[-air:] = -1100
            write_volume(root / name / f"scan{i:02d}.nii", Volume(hu, np.diag([*SPACING, 1.0])))


def volumes_of(folder: Path) -> dict[str, np.ndarray[Any, Any]]:
    shape = read_pack(folder).grid.shape
    return {path.stem: np.fromfile(path, "<i2").reshape(shape) for path in sorted((folder / "cases").glob("*.i16"))}


def test_nothing_of_a_case_tells_that_it_is_a_hidden_repeat(tmp_path: Path, monkeypatch: Any) -> None:
    write_noise(tmp_path, dict.fromkeys(NAMES, 11))
    study = exported(protocol_of(tmp_path, n=10, repeats=10), tmp_path / "out", monkeypatch, check_study)
    key = read_key(study / "sealed" / "key.json")
    pack = study / "packs" / "R1"
    assert read_pack(pack).grid.shape == tuple(size - 1 for size in SHAPE)
    found = volumes_of(pack)
    repeats = [one for one in key.entries if one.repeat]
    assert len(found) == 40 and len(repeats) == 10
    assert {quantities_of(hu)["equal_planes"] for hu in found.values()} == {0.0}
    for one in repeats:
        first = next(e.code for e in key.entries if e.sha256 == one.sha256 and not e.repeat)
        assert not np.array_equal(found[one.code], found[first])
    assert max(Counter(one.source for one in repeats).values()) <= 4


def test_a_repeat_with_a_copied_edge_is_a_leak(tmp_path: Path, monkeypatch: Any) -> None:
    write_noise(tmp_path, dict.fromkeys(NAMES, 11))
    study = exported(protocol_of(tmp_path, n=10, repeats=10), tmp_path / "out", monkeypatch)
    key, pack = read_key(study / "sealed" / "key.json"), study / "packs" / "R1"
    assert check_pack(pack, key).leaks == ()
    for one in (one for one in key.entries if one.repeat):
        hu = volumes_of(pack)[one.code]
        hu = np.pad(hu, [(0, 1)] * 3, mode="edge")[1:, 1:, 1:]
        (pack / "cases" / f"{one.code}.i16").write_bytes(np.ascontiguousarray(hu).tobytes())
    leaks = [str(leak) for leak in check_pack(pack, key).leaks]
    assert any("equal_planes tells hidden repeats from first readings" in leak for leak in leaks)


def test_real_volumes_of_pairs_do_not_come_again_if_there_are_enough(tmp_path: Path, monkeypatch: Any) -> None:
    write_noise(tmp_path, {"real": 12, "wizard": 6, "oracle9": 6})
    notes: list[str] = []

    def check(study: Study, key: Key) -> None:
        notes.extend(check_study(study, key))

    study = exported(protocol_of(tmp_path, n=5, design="pairs", disclosed=True), tmp_path / "out", monkeypatch, check)
    key, pack = read_key(study / "sealed" / "key.json"), read_pack(study / "packs" / "R1")
    entries = key.of_reader("R1")
    assert len(pack.items) == 10 and pack.real_share == 0.5
    assert set(Counter(pack.codes).values()) == {1}
    assert set(Counter(entries[code].sha256 for code in pack.codes).values()) == {1}
    assert not any("is shown on average" in note for note in notes)
    assert not any(path.name.startswith("form") for path in (study / "packs" / "R1").iterdir())


def test_real_volumes_of_pairs_that_come_again_have_codes_of_their_own_and_a_note(
    tmp_path: Path, monkeypatch: Any
) -> None:
    write_noise(tmp_path, dict.fromkeys(NAMES, 6))
    notes: list[str] = []

    def check(study: Study, key: Key) -> None:
        notes.extend(check_study(study, key))

    study = exported(protocol_of(tmp_path, n=5, design="pairs"), tmp_path / "out", monkeypatch, check)
    key, folder = read_key(study / "sealed" / "key.json"), study / "packs" / "R1"
    pack = read_pack(folder)
    assert len(set(pack.codes)) == 20 == len(volumes_of(folder))
    assert any("shown on average: oracle9 1 times, real 2 times, wizard 1 times" in note for note in notes)
    assert (study / "sealed" / "leak_check.txt").read_text().splitlines() == notes
    faulty = [pack.items[0], (pack.items[0][0], pack.items[1][1]), *pack.items[2:]]
    write_manifest(folder, pack.model_copy(update={"items": tuple(faulty), "files": hashes_of(folder)}))
    for given in (None, key.model_copy(update={"nonce": key.nonce})):
        leaks = [str(leak) for leak in check_pack(folder, given).leaks]
        assert f"pack.json: case {pack.items[0][0]} is shown 2 times; " in "\n".join(leaks)


def test_padding_is_noted_even_in_few_cases(tmp_path: Path) -> None:
    rng = np.random.default_rng(1)
    quantities, labels = {}, {}
    for i in range(6):
        hu = rng.normal(0, 100, (10, 10, 10)).round().astype(np.int16)
        if i % 2:
            hu[:3] = -1000
        quantities[str(i)], labels[str(i)] = quantities_of(hu), "model" if i % 2 else "real"
    assert quantities["1"]["padding"] == pytest.approx(0.3) and quantities["1"]["equal_planes"] == 1
    notes = padding_notes(quantities, labels, audit(quantities, labels))
    assert "source 'model': 30% of the voxels of a case are padding (median)" in notes
    assert any(note.startswith("padding separates source 'model'") for note in notes)
    even = dict.fromkeys(quantities, quantities["0"])
    assert padding_notes(even, labels, audit(even, labels)) == []


def test_export_prints_the_notes_of_its_check_and_what_is_waived(tmp_path: Path) -> None:
    write_noise(tmp_path, {"real": 4, "wizard": 4}, air=2)
    protocol = protocol_of(tmp_path, ("real", "wizard"), n=3, waived=["minimum"])
    path = tmp_path / "p.yaml"
    path.write_text(json.dumps(protocol.model_dump(mode="json", exclude_unset=True)))
    done = CliRunner().invoke(reading, ["export", "--protocol", str(path), "--out", str(tmp_path / "study")])
    assert done.exit_code == 0, done.output
    for words in ("waived: minimum", "6 cases are too few", "source 'wizard': 27% of the voxels", "separates source"):
        assert words in done.stderr, done.stderr
    assert "waived" in (tmp_path / "study" / "protocol.yaml").read_text()


def test_an_unknown_waived_quantity_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="waived quantity 'minimun' is unknown; expected one of: size, listing"):
        protocol_of(tmp_path, waived=["minimun"])
    write_sources(tmp_path, ("real",), 2)
    with pytest.raises(UserError, match="expected one of: size"):
        check_pack(tmp_path / "real", None, None, ["bordr"])
    known = {*quantities_of(np.arange(8.0).reshape(2, 2, 2), (1, 1, 1)), "not_finite"}
    assert known < set(QUANTITIES)


def test_a_key_under_another_name_is_recognised(tmp_path: Path, monkeypatch: Any) -> None:
    write_noise(tmp_path, {"real": 3, "wizard": 3})
    study = exported(protocol_of(tmp_path, ("real", "wizard"), n=2), tmp_path / "out", monkeypatch)
    pack = study / "packs" / "R1"
    no_key_below(pack)
    (pack / "notes.txt").write_text("\n" + (study / "sealed" / "key.json").read_text())
    assert "notes.txt: a key" in [str(leak) for leak in check_pack(pack).leaks]
    with pytest.raises(UserError, match="notes.txt: the pack contains a key"):
        no_key_below(pack)
    (pack / "notes.txt").write_bytes(b"age-encryption.org/v1\n")
    with pytest.raises(UserError, match="the pack contains a key"):
        no_key_below(pack)


def test_what_the_sources_cannot_give_names_the_field_or_the_volume(tmp_path: Path, monkeypatch: Any) -> None:
    names = ("real", "wizard")
    write_noise(tmp_path, {"real": 4, "wizard": 4})
    with pytest.raises(UserError, match="field 'practice': 5, but the sources have 2 usable volumes"):
        exported(protocol_of(tmp_path, names, n=3, practice=5), tmp_path / "a", monkeypatch)
    exported(protocol_of(tmp_path, names, n=4), tmp_path / "b", monkeypatch)  # the default adapts
    for i in range(4):
        hu = np.zeros(SHAPE, np.int16)
        write_volume(tmp_path / "wizard" / f"scan{i:02d}.nii", Volume(hu, np.diag([*SPACING, 1.0])))
    with pytest.raises(UserError, match=r"wizard/scan0\d.nii: constant"):
        exported(protocol_of(tmp_path, names, n=3), tmp_path / "c", monkeypatch)
    for i in range(4):
        hu = np.full(SHAPE, 50, np.int16)
        hu[0] = i + 60
        write_volume(tmp_path / "wizard" / f"scan{i:02d}.nii", Volume(hu, np.diag([*SPACING, 1.0])))
    with pytest.raises(UserError, match="not a CT in HU.*or leave it out of the source wizard"):
        exported(protocol_of(tmp_path, names, n=3), tmp_path / "d", monkeypatch)
    for i in range(4):
        hu = np.full(SHAPE, -1000, np.int16)
        hu[0, 0, 0] = i
        write_volume(tmp_path / "wizard" / f"scan{i:02d}.nii", Volume(hu, np.diag([*SPACING, 1.0])))
    with pytest.raises(UserError, match=r"wizard/scan0\d.nii: constant \(-1000 HU\) on the study's grid"):
        exported(protocol_of(tmp_path, names, n=3, shape=[4, 4, 4]), tmp_path / "e", monkeypatch)


@pytest.mark.parametrize("repeats", [0, 3])
def test_the_disclosed_share_is_what_the_reader_sees(tmp_path: Path, monkeypatch: Any, repeats: int) -> None:
    write_noise(tmp_path, dict.fromkeys(NAMES, 5))
    given = protocol_of(tmp_path, n=4, repeats=repeats, disclosed=True)
    study = exported(given, tmp_path / "out", monkeypatch)
    pack = read_pack(study / "packs" / "R1")
    entries = read_key(study / "sealed" / "key.json").of_reader("R1")
    shown = [entries[code].source == "real" for code in pack.codes]
    assert len(shown) == 12 + repeats and pack.real_share == sum(shown) / len(shown) == 1 / 3


def test_equal_contestants_of_two_runs_are_named_by_their_run(tmp_path: Path, monkeypatch: Any) -> None:
    from medlord_bench.engine.store import Store

    run = SimpleNamespace(contestants={"a": None, "b": None}, ranked=["a", "b"])
    other = SimpleNamespace(contestants={"a": None, "c": None}, ranked=["a", "c"])
    runs = {"one": run, "two": other}
    monkeypatch.setattr("medlord_bench.engine.run_folder.locate", lambda store, name: tmp_path / name)
    monkeypatch.setattr("medlord_bench.results.run_results.read_run", lambda folder: runs[folder.name])
    found = _of_runs(("one", "two"), (), Store(tmp_path), {})
    assert [source.name for source in found.sources] == ["real", "a of one", "b", "a of two", "c"]
    assert [source.contestant for source in found.sources] == ["real", "a", "b", "a", "c"]
