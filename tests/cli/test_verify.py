"""`verify`: every kind of damaged file is found, removed, and made again; a run refuses to read it."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from medlord_bench.engine.verification import Checked, check_training


@pytest.fixture
def store(finished: Path, tmp_path: Path) -> Path:
    shutil.copytree(finished, tmp_path / "store", symlinks=True)
    return tmp_path / "store"


def kinds(store: Path) -> dict[str, Path]:
    """One file of each kind that can be damaged: by step and suffix, and of the run folder."""
    found: dict[str, Path] = {}
    for path in sorted((store / "objects").rglob("*")):
        if path.is_file() and "trainings" not in path.parts:  # a training's files have no hashes
            parts = path.relative_to(store / "objects").parts
            name = path.name if len(parts) == 3 else "".join(path.suffixes[-2:])
            found.setdefault(f"{parts[0]} {name}", path)
    (run,) = (store / "runs").iterdir()
    for name in ("plan.json", "run.yaml", "provenance.json", "settings.json", "objects.tsv"):
        found[name] = run / name
    for path in sorted((run / "results").rglob("*")):
        if path.is_file():
            found.setdefault(f"results {path.parent.name} {path.suffix}", path)
    return found


def flip(path: Path) -> None:
    """Change one bit in the middle."""
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 1
    path.write_bytes(bytes(content))


def test_a_sound_store_has_no_damage(bench: Any, store: Path) -> None:
    done = bench("verify", "--store", store)
    assert done.code == 0 and done.out.splitlines()[-1].endswith("no damage")
    (run,) = (store / "runs").iterdir()
    assert bench("verify", run, "--store", store).code == 0


def test_one_changed_bit_in_any_kind_of_file_is_found(bench: Any, store: Path) -> None:
    files = kinds(store)
    assert len(files) > 20
    for name, path in files.items():
        before = path.read_bytes()
        flip(path)
        done = bench("verify", "--store", store, "--json")
        damages = json.loads(done.out)["damages"]
        assert done.code == 1, name
        # A changed hash in a manifest is reported of the sidecar whose hash it is.
        near = path.parent if path.name == "manifest.json" else path
        assert any(Path(one["file"]).is_relative_to(near) or path.name in one["file"] for one in damages), name
        path.write_bytes(before)
    assert bench("verify", "--store", store).code == 0


def test_a_missing_file_is_found(bench: Any, store: Path) -> None:
    image = next((store / "objects" / "images").rglob("*.npy"))
    image.unlink()
    done = bench("verify", "--store", store)
    assert done.code == 1 and f"{image}: is missing" in done.out


def test_a_run_refuses_a_damaged_input_until_it_is_removed(bench: Any, noise: Any, store: Path) -> None:
    image = next((store / "objects" / "images").rglob("*.npy"))
    sound = image.read_bytes()
    flip(image)
    more = ("run", *noise, "--metric", "tissue", "--store", store, "--no-report")
    done = bench(*more)
    assert done.code == 1 and f"{image}: changed since it was published" in done.err
    assert "medlord-bench verify --remove" in done.err
    assert bench("verify", "--remove", "--store", store).code == 1
    assert not image.exists()
    done = bench(*more)
    assert done.code == 0, done.err
    assert image.read_bytes() == sound
    assert bench("verify", "--store", store).code == 0


def test_a_checkpoint_of_a_training_is_checked_by_its_own_checksums(tmp_path: Path) -> None:
    import torch

    torch.save({"weights": torch.arange(1000.0)}, tmp_path / "last.pt")
    check_training(tmp_path, sound := Checked())
    assert sound.damages == [] and sound.files == 1
    flip(tmp_path / "last.pt")
    check_training(tmp_path, found := Checked())
    assert [one.path for one in found.damages] == [tmp_path / "last.pt"]
    (tmp_path / "last.pt").write_bytes(b"")
    check_training(tmp_path, cut := Checked())
    assert len(cut.damages) == 1
