"""The block of a data folder, and what of it may leave the hospital."""

from __future__ import annotations

from medlord_bench.contracts.inventory import Inventory, LeftOut


def test_a_shared_inventory_has_counts_and_no_names() -> None:
    found = Inventory(
        root="/data/Mustermann",
        layout="manifest Mustermann.csv",
        files=12,
        taken="3 CT series of 3 patients, no masks",
        left_out=(LeftOut(reason="localizers or scouts", count=4, places=("Mustermann/scout",), glob="*/scout"),),
        warnings=("same content in train and test: Mustermann and b",),
    )
    assert found.lines() == [
        "/data/Mustermann: 3 CT series of 3 patients, no masks; layout: manifest Mustermann.csv; 12 files seen",
        "  left out: 4 localizers or scouts (Mustermann/scout, ...) [*/scout]",
        "  (in brackets: globs for dataset.exclude; dataset.include takes only what it matches)",
    ]
    text = found.anonymous().model_dump_json()
    assert "Mustermann" not in text
    assert "scout)" not in text
    assert '"count":4' in text
