import json
from pathlib import Path

import pytest

from medlord_bench.engine.store import Store
from medlord_bench.util.files import publish, write_json, write_text
from medlord_bench.util.hashing import file_sha256


def writer(text: str):
    return lambda path: write_text(path, text)


def test_an_item_exists_exactly_when_its_sidecar_does(tmp_path: Path) -> None:
    made = Store(tmp_path).object("samples", "k")
    assert made.missing(["a", "b"]) == ["a", "b"]
    made.put("a", {".txt": writer("hello")}, {"seed": 1})
    assert made.missing(["a", "b"]) == ["b"]
    (made.items / "b.txt").write_text("published by nobody")
    assert made.missing(["a", "b"]) == ["b"]


def test_a_sidecar_holds_the_hash_of_what_was_published(tmp_path: Path) -> None:
    made = Store(tmp_path).object("samples", "k")
    made.put("a", {".txt": writer("hello")}, {"seed": 1})
    sidecar = made.sidecar("a")
    assert sidecar.files == {".txt": file_sha256(made.file("a", ".txt"))}
    assert sidecar.facts == {"seed": 1}
    assert sidecar.failed is None


def test_a_failed_write_leaves_the_old_file_and_no_rubbish(tmp_path: Path) -> None:
    path = tmp_path / "file.txt"
    path.write_text("old")

    def fails(temporary: Path) -> None:
        temporary.write_text("half")
        raise RuntimeError("disk full")

    with pytest.raises(RuntimeError):
        publish(path, fails)
    assert path.read_text() == "old"
    assert [found.name for found in tmp_path.iterdir()] == ["file.txt"]


def test_failures_are_published_and_counted_not_retried(tmp_path: Path) -> None:
    made = Store(tmp_path).object("samples", "k")
    made.put_failure("a", "constant", {})
    assert made.missing(["a"]) == []
    assert made.sidecar("a").failed == "constant"


def test_a_published_folder_survives_changes_of_its_source(tmp_path: Path) -> None:
    source = tmp_path / "best"
    source.mkdir()
    (source / "model.json").write_text("one")
    made = Store(tmp_path / "store").object("weights", "k")
    made.put_folder("weights", source, {})
    write_json(source / "model.json", "two")  # replaced by rename, as every writer of the bench does
    assert (made.items / "weights" / "model.json").read_text() == "one"


def test_the_manifest_grows_with_the_items_asked_for(tmp_path: Path) -> None:
    made = Store(tmp_path).object("samples", "k")
    for item in ("a", "b"):
        made.put(item, {".txt": writer(item)}, {})
        made.complete([item])
    assert sorted(json.loads((made.path / "manifest.json").read_text())) == ["a", "b"]
