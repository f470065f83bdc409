"""The data set of a reference file: the protocol of its real volumes, and no cases."""

from __future__ import annotations

from pathlib import Path

import pytest

from medlord_bench.contracts import SPLITS, Case, DataProtocol, Grid
from medlord_bench.contracts.reference import ReferenceMeta, write_reference
from medlord_bench.errors import MissingError, UserError
from medlord_bench.plugins.datasets.reference.dataset import ReferenceConfig, ReferenceDataset

DATA = DataProtocol(
    name="toy",
    grid=Grid(shape=(10, 12, 14)),
    fit="crop-pad",
    split="by hand",
    split_sha256="0" * 64,
    counts={"train": 24, "val": 0, "test": 12},
    masks="none",
)


def test_it_has_the_protocol_of_the_real_volumes_and_no_cases(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    meta = ReferenceMeta(
        medlord_bench="0.1.0", data=DATA, patients={"train": 24, "test": 12}, metrics=(), overlaps=("luna16",)
    )
    write_reference(tmp_path / "r.safetensors", meta, {})
    monkeypatch.chdir(tmp_path)
    dataset = ReferenceDataset(ReferenceConfig(file=Path("r.safetensors")))
    assert dataset.config.file == tmp_path / "r.safetensors"
    assert dataset.protocol == DATA and list(dataset.overlaps) == ["luna16"]
    assert [list(dataset.cases(split)) for split in SPLITS] == [[], [], []]
    with pytest.raises(UserError, match="has no cases"):
        dataset.load(Case("a", "a", "0" * 64))


def test_a_file_that_is_not_given_or_not_there_is_named(tmp_path: Path) -> None:
    with pytest.raises(MissingError, match="no file given; expected --set dataset.file=FILE"):
        ReferenceDataset(ReferenceConfig()).cases("train")
    with pytest.raises(MissingError, match=r"none\.safetensors"):
        ReferenceDataset(ReferenceConfig(file=tmp_path / "none.safetensors")).cases("train")
