"""Code shared by the data sets on disk: find, divide, identify and load their cases."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import Any

from medlord_bench.contracts import SPLITS, Case, LabelMap, Split, Volume
from medlord_bench.contracts.inventory import Inventory
from medlord_bench.plugins.datasets.on_disk.find import FilesConfig, Search, find, root_of
from medlord_bench.plugins.datasets.on_disk.masks import declared_names, load, masks_of, region_names
from medlord_bench.plugins.datasets.on_disk.splits import SplitConfig, Splits, divide, split_sha256
from medlord_bench.volumes.fingerprints import Found, fingerprint


class Files:
    """A cohort on disk. Nothing is read before it is needed.

    name, advice: of the data set, for messages (`advice`: expected content of its folder).
    """

    def __init__(self, config: FilesConfig, name: str, advice: str) -> None:
        self.config, self.name, self.advice = config, name, advice
        self._cases: dict[Split, list[Case]] = {}

    @cached_property
    def root(self) -> Path:
        return root_of(self.config, self.name, self.advice)

    @cached_property
    def search(self) -> Search:
        return find(self.root, self.config, bool(declared_names(self.root, self.config)))

    @property
    def found(self) -> list[Found]:
        return self.search.found

    @cached_property
    def _by_id(self) -> dict[str, Found]:
        return {one.id: one for one in self.found}

    @cached_property
    def inventory(self) -> Inventory:
        """What is taken and left out, and the same content in two splits; hashes the images the first time."""
        from medlord_bench.plugins.datasets.on_disk.inventory import inventory_of

        return inventory_of(self.search, self.splits, self.masks, self.config)

    @cached_property
    def names(self) -> dict[int, str]:
        return region_names(self.root, self.config, self.found)

    @cached_property
    def masks(self) -> str:
        return masks_of(self.config, self.found, self.names)

    @cached_property
    def _division(self) -> tuple[Splits, str]:
        return divide(self.found, self.split_config, str(self.root), self.search.cases.how)

    @property
    def split_config(self) -> SplitConfig:
        return self.config.split

    @property
    def splits(self) -> Splits:
        return self._division[0]

    @property
    def split_words(self) -> str:
        """How the split was made."""
        return self._division[1]

    @property
    def split_sha256(self) -> str:
        return split_sha256(self.splits)

    @property
    def counts(self) -> dict[str, int]:
        return {split: len(self.splits[split]) for split in SPLITS}

    def facts(self) -> dict[str, Any]:
        """The settings that decide the loaded case besides its files."""
        return {"names": {str(k): v for k, v in self.names.items()} if self.masks == "dataset" else {}}

    def cases(self, split: Split) -> Sequence[Case]:
        """The cases of a split; their files are hashed the first time (hashes are cached between runs)."""
        if split not in self._cases:
            use_masks = self.masks == "dataset"
            chosen = [c if use_masks else replace(c, mask=None) for c in self.splits[split]]
            self._cases[split] = fingerprint(chosen, self.facts())
        return self._cases[split]

    def read(self, case_id: str) -> tuple[Volume, LabelMap | None]:
        """A checked case of the cohort, as on disk."""
        case = self._by_id[case_id]
        window = getattr(self.config, "hu_window", None)
        return load(case, self.names if self.masks == "dataset" else None, window)
