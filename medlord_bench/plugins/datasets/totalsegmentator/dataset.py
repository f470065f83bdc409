"""TotalSegmentator's own data set (Wasserthal et al. 2023), version 2: CT at 1.5 mm with a folder of masks for each."""

from __future__ import annotations

import csv
from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from medlord_bench.contracts import Case, DataProtocol, Grid, HUWindow, LabelMap, Shape, Split, Volume
from medlord_bench.contracts.inventory import Inventory
from medlord_bench.errors import MissingError, UserError
from medlord_bench.plugins.datasets.on_disk.cohort import Files
from medlord_bench.plugins.datasets.on_disk.find import FilesConfig, Search
from medlord_bench.volumes.fingerprints import Found

ADVICE = "sNNNN/ct.nii.gz with sNNNN/segmentations/, and meta.csv (docs/datasets.md)"
TABLE = "meta.csv"
# Without a licence number a segmenter finds these; version 2 of the set has no chambers and no pulmonary artery.
REGIONS = ("lungs", "heart", "aorta")
SPACING_MM = (1.5, 1.5, 1.5)


class TotalSegmentatorDataConfig(FilesConfig):
    """Its grid and split."""

    official_split: bool = Field(
        True, description="the column 'split' of meta.csv; false: drawn by dataset.split, e.g. of a few cases"
    )
    shape: Shape = Field((256, 256, 256), description="grid, centre-cropped or padded to, at 1.5 mm")
    hu_window: HUWindow = Field((-1000, 1000), description="lowest and highest HU kept")


class TotalSegmentatorFiles(Files):
    """The layout's cases, with the splits of `meta.csv`."""

    config: TotalSegmentatorDataConfig

    @cached_property
    def search(self) -> Search:
        search = super().search
        if not self.config.official_split or self.config.split.file is not None:
            return search
        splits = read_splits(self.root / TABLE)
        found = [self._placed(one, splits) for one in search.found]
        cases = replace(search.cases, found=found, how=f"the column 'split' of {TABLE}")
        return replace(search, cases=cases)

    def _placed(self, case: Found, splits: dict[str, Split]) -> Found:
        if case.id not in splits:
            raise UserError(
                f"{self.root / TABLE}: has no line of case {case.id}; expected one for each: restore the table, exclude the case, "
                "or draw a split with --set dataset.official_split=false"
            )
        return replace(case, split=splits[case.id])


def read_splits(path: Path) -> dict[str, Split]:
    """Case -> split. Raises `MissingError` without the table, `UserError` for another one."""
    if not path.is_file():
        raise MissingError(
            f"{path}: not found; expected the table of the data set: unpack it too, or draw a split with "
            "--set dataset.official_split=false"
        )
    text = path.read_text(encoding="utf-8-sig")
    rows = csv.DictReader(text.splitlines(), delimiter=";" if ";" in text.partition("\n")[0] else ",")
    if not {"image_id", "split"} <= set(rows.fieldnames or ()):
        raise UserError(f"{path}: no columns image_id and split; expected the data set's own table")
    found: dict[str, Split] = {}
    for row in rows:
        if row["split"] not in ("train", "val", "test"):
            raise UserError(f"{path}: case {row['image_id']}: split {row['split']!r}; expected train, val or test")
        found[row["image_id"]] = row["split"]  # type: ignore[assignment]
    return found


class TotalSegmentatorDataset:
    """1,228 CT (or 102) of many parts of the body at 1.5 mm, with masks of 117 structures; for a first run on real CT.

    Which scans are of one patient is not published, so that no split of it is known to be by patient.
    """

    Config: ClassVar[type[TotalSegmentatorDataConfig]] = TotalSegmentatorDataConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "CC BY 4.0 (Zenodo 10047292 and 10047263)"
    patients_unknown: ClassVar[str] = (
        "patients unknown: 1,204 scans of the published set are of 1,134 subjects, and which is not published "
        "(github.com/wasserth/TotalSegmentator, issue 569): scans of one patient may be in two splits"
    )

    def __init__(self, config: TotalSegmentatorDataConfig) -> None:
        self.config = config
        self.files = TotalSegmentatorFiles(config, "totalsegmentator", ADVICE)

    @property
    def protocol(self) -> DataProtocol:
        files = self.files
        regions = REGIONS if files.masks == "dataset" else ()
        return DataProtocol(
            name="totalsegmentator",
            grid=Grid(shape=self.config.shape, spacing=SPACING_MM, hu_window=self.config.hu_window),
            fit="crop-pad",
            split=files.split_words,
            split_sha256=files.split_sha256,
            counts=files.counts,
            masks=files.masks,
            rvr_regions=regions,
            condition_regions=regions,
            adherence_regions=regions,
        )

    def inventory(self) -> Inventory:
        found = self.files.inventory
        return found.model_copy(update={"warnings": (*found.warnings, self.patients_unknown)})

    def cases(self, split: Split) -> Sequence[Case]:
        return self.files.cases(split)

    def load(self, case: Case) -> tuple[Volume, LabelMap | None]:
        return self.files.read(case.id)
