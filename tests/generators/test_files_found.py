"""Which volumes of a folder are samples, and what its inventory says of the rest."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from medlord_bench.contracts import DataProtocol, Grid
from medlord_bench.contracts.specs import make
from medlord_bench.engine.resolve import contestant
from medlord_bench.errors import UserError
from medlord_bench.generators.own.files import Files

SHAPE = (12, 10, 8)


def files(folder: Path) -> Files:
    made = make("generators", contestant("files:mine", "folder", {"files:mine.folder": str(folder)}))
    assert isinstance(made, Files)
    return made


def sample(path: Path, seed: int = 0, shape: tuple[int, ...] = SHAPE) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    np.save(path, np.random.default_rng(seed).integers(-1000, 1000, shape).astype(np.int16))
    return path


def protocol() -> DataProtocol:
    return DataProtocol(
        name="folder", grid=Grid(shape=SHAPE, hu_window=(-1000, 1000)), fit="crop-pad", split="", split_sha256="",
        counts={"test": 2}, masks="none",
    )  # fmt: skip


def test_volumes_directly_in_the_folder_are_the_samples_and_others_are_said(tmp_path: Path) -> None:
    for name in ("s1.npy", "s2.npy", "old/s3.npy", "old/s4.npy"):
        sample(tmp_path / name, len(name))
    (tmp_path / "log.txt").write_text("x")
    generator = files(tmp_path)
    assert [row.path.name for row in generator.rows] == ["s1.npy", "s2.npy"]
    said = {one.reason: one.count for one in generator.inventory().left_out}
    assert said == {"images in sub-folders": 2, "other files: .txt 1": 1}
    assert generator.inventory().taken == "2 volumes"


def test_samples_in_folders_of_their_own_are_found_in_numeric_order(tmp_path: Path) -> None:
    for i in (10, 9, 1):
        sample(tmp_path / f"s{i}" / "ct.npy", i)
    assert [row.path.parent.name for row in files(tmp_path).rows] == ["s1", "s9", "s10"]


def test_a_manifest_leaves_out_what_it_does_not_name(tmp_path: Path) -> None:
    for i in range(3):
        sample(tmp_path / f"s{i}.npy", i)
    (tmp_path / "manifest.csv").write_bytes("sample;condition\ns0.npy;\ns2.npy;\n".encode("utf-8-sig"))
    generator = files(tmp_path)
    assert [row.path.name for row in generator.rows] == ["s0.npy", "s2.npy"]
    assert any(one.reason == "volumes that the manifest does not name" for one in generator.inventory().left_out)


def test_files_without_three_axes_are_refused_before_any_work(tmp_path: Path) -> None:
    for i in range(2):
        sample(tmp_path / f"s{i}.npy", i, (2, *SHAPE))
    with pytest.raises(UserError, match=r"s0\.npy: has shape \(2, 12, 10, 8\), and no file .* has three axes"):
        files(tmp_path).check(protocol())


def test_one_bad_file_among_good_ones_is_no_error_of_all(tmp_path: Path) -> None:
    sample(tmp_path / "s0.npy", 0, (2, *SHAPE))
    sample(tmp_path / "s1.npy")
    files(tmp_path).check(protocol())
