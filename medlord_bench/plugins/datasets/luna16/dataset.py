"""LUNA16 in its layout on disk: `subset0..9/*.mhd` and `seg-lungs-LUNA16/*.mhd` (paper section 2.1: 800/88 scans)."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cache, cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from medlord_bench.contracts import SPLITS, Case, DataProtocol, Grid, HUWindow, LabelMap, Shape, Split, Volume
from medlord_bench.contracts.inventory import Inventory
from medlord_bench.errors import MissingError, UserError
from medlord_bench.fetching.tables import series_of
from medlord_bench.plugins.datasets.on_disk.find import FilesConfig, Search, root_of
from medlord_bench.plugins.datasets.on_disk.layouts import Cases
from medlord_bench.plugins.datasets.on_disk.masks import load
from medlord_bench.plugins.datasets.on_disk.splits import SplitConfig, Splits, check_disjoint, divide, split_sha256
from medlord_bench.util.seeds import derive
from medlord_bench.volumes.fingerprints import Found, fingerprint
from medlord_bench.volumes.listing import listed, matches

ADVICE = "subset0..subset9 and seg-lungs-LUNA16 of LUNA16 (docs/datasets.md)"
MASKS = "seg-lungs-LUNA16"
RAW_NAMES = {3: "first", 4: "second", 5: "trachea"}  # the position decides which of 3 and 4 is left
NAMES = {1: "lung_left", 2: "lung_right", 3: "trachea"}


class Luna16Config(FilesConfig):
    """The paper's protocol on LUNA16."""

    masks: str | None = Field(
        "dataset",
        description="'dataset': seg-lungs-LUNA16; 'none'; or a segmenter's name (the paper took TotalSegmentator's)",
    )
    test_subset: int = Field(9, ge=0, le=9, description="the subset held out: 8 and 9 have 88 scans, as in the paper")
    n_val: int = Field(40, ge=0, description="validation scans of the other subsets, for checkpoint selection; 0: none")
    seed: int = Field(0, description="seed of the random choice of validation scans")
    split: SplitConfig | None = Field(None, description="another division, instead of test_subset and n_val")  # type: ignore[assignment]
    shape: Shape = Field((512, 512, 256), description="grid that every scan is resized to")
    hu_window: HUWindow = Field((-1000, 2000), description="paper: -1000..2000; its released code: -1000..1000")


class Luna16Dataset:
    """LUNA16 under the paper's protocol: resized to 512x512x256, -1000..2000 HU, subset 9 held out.

    LUNA16 names series; their patients are those of LIDC-IDRI (`patients`). One of the 887 has two of the 888 series. Scans
    outside the test subset of a patient in it are left out.
    """

    Config: ClassVar[type[Luna16Config]] = Luna16Config
    version: ClassVar[int] = 2
    licence: ClassVar[str] = "CC BY 4.0 (Zenodo 3723295 and 4121926)"
    overlaps: ClassVar[tuple[str, ...]] = ("lidc-idri",)  # LUNA16 is a selection of its series

    def __init__(self, config: Luna16Config) -> None:
        self.config = config
        self._cases: dict[Split, list[Case]] = {}

    @cached_property
    def root(self) -> Path:
        return root_of(self.config, "luna16", ADVICE)

    @cached_property
    def subsets(self) -> dict[int, list[Found]]:
        """The scans of each existing subset, each with its mask by series; a missing mask is an error."""
        folders = {n: self.root / f"subset{n}" for n in range(10)}
        subsets = {n: self._scans(folder) for n, folder in folders.items() if folder.is_dir()}
        if not any(subsets.values()):
            raise MissingError(f"{self.root}: no subset*/*.mhd; expected {ADVICE}: unpack its archives here")
        return subsets

    def _scans(self, folder: Path) -> list[Found]:
        kept = [p for p in sorted(folder.glob("*.mhd")) if not matches(p.relative_to(self.root), self.config.exclude)]
        known = patients()
        return [Found(path.stem, known.get(path.stem, path.stem), path, self._mask(path.stem)) for path in kept]

    def _mask(self, series: str) -> Path | None:
        if self.config.masks != "dataset":
            return None
        path = self.root / MASKS / f"{series}.mhd"
        if not path.exists():
            raise MissingError(
                f"{path}: not found; expected the lungs of series {series}: unpack {MASKS}.zip, "
                "or use no masks with --set dataset.masks=none"
            )
        return path

    @cached_property
    def _division(self) -> tuple[Splits, str]:
        config = self.config
        if config.split is not None:
            return divide([case for cases in self.subsets.values() for case in cases], config.split, str(self.root))
        test = self.subsets.get(config.test_subset, [])
        held_out = {case.patient for case in test}
        others = [case for n, cases in self.subsets.items() if n != config.test_subset for case in cases]
        rest = [case for case in others if case.patient not in held_out]
        if not test or len(rest) <= config.n_val:
            raise UserError(
                f"{self.root}: fewer cases than a split needs: {len(test)} scans in subset{config.test_subset} (test), "
                f"{len(rest)} elsewhere for {config.n_val} of validation and the training; unpack more subsets, "
                "or set dataset.split.fractions or dataset.n_val"
            )
        rest.sort(key=lambda case: (derive(config.seed, "split", case.patient), case.id))
        n_val = config.n_val
        while 0 < n_val < len(rest) and rest[n_val - 1].patient == rest[n_val].patient:
            n_val += 1  # both scans of a patient
        splits: Splits = {"train": rest[n_val:], "val": rest[:n_val], "test": test}
        check_disjoint(splits)
        numbers = sorted(n for n in self.subsets if n != config.test_subset)
        words = (
            f"test: subset{config.test_subset}; val: {n_val} scans of subsets {numbers}, seed {config.seed}; by patient"
        )
        left = len(others) - len(rest)
        words += f"; scans of patients in the test subset left out: {left}" if left else ""
        return {split: sorted(splits[split], key=lambda case: case.id) for split in SPLITS}, words

    @property
    def protocol(self) -> DataProtocol:
        splits, words = self._division
        return DataProtocol(
            name="luna16",
            grid=Grid(shape=self.config.shape, hu_window=self.config.hu_window),
            fit="resize",
            split=words,
            split_sha256=split_sha256(splits),
            counts={split: len(splits[split]) for split in SPLITS},
            masks=self.config.masks or "none",
            rvr_regions=("lungs",),
            condition_regions=("lungs",),
            adherence_regions=("lungs",),
        )

    def inventory(self) -> Inventory:
        from medlord_bench.plugins.datasets.on_disk.inventory import inventory_of

        found = [case for cases in self.subsets.values() for case in cases]
        listing = listed(self.root, self.config.exclude)
        used = {path for case in found for path in (case.image, case.mask)}
        unused = ["/".join(image.parts) for image in listing.images if image.path not in used]
        left = {"images that are not of subset0 to subset9": unused} if unused else {}
        unknown = [case.id for case in found if case.patient == case.id]
        warnings = (
            (f"{len(unknown)} series are not of LIDC-IDRI ({unknown[0]}): each counts as a patient",) if unknown else ()
        )
        cases = Cases("LUNA16 (subset0 to subset9, seg-lungs-LUNA16)", found, left, warnings=warnings)
        return inventory_of(Search(cases, listing), self._division[0], self.protocol.masks)

    def cases(self, split: Split) -> Sequence[Case]:
        if split not in self._cases:
            self._cases[split] = fingerprint(self._division[0][split], {"version": self.version})
        return self._cases[split]

    def load(self, case: Case) -> tuple[Volume, LabelMap | None]:
        """The scan in R, A, S for any direction cosines, and its lungs named by their side."""
        if case.image is None:
            raise UserError(f"case {case.id}: has no file; expected a case of this data set")
        volume, labels = load(Found(case.id, case.patient, case.image, case.mask), RAW_NAMES)
        return volume, None if labels is None else name_sides(labels, case.mask or case.image)


@cache
def patients() -> dict[str, str]:
    """Series -> patient of all CT series of LIDC-IDRI, of which LUNA16 is a selection; the table names its source."""
    return {one.uid: one.patient for one in series_of("lidc_idri.csv")}


def name_sides(labels: LabelMap, where: Path) -> LabelMap:
    """Labels 3 and 4 to left and right by their centres along R (a single lung: by the image's middle).

    Returns values 1 lung_left, 2 lung_right, 3 trachea. Raises `UserError` if there is no lung.
    """
    import numpy as np

    counts = {value: (labels.labels == value).sum(axis=(1, 2)) for value in (3, 4)}
    axis = np.arange(labels.shape[0])
    centres = {value: float((n * axis).sum() / n.sum()) for value, n in counts.items() if n.any()}
    if not centres:
        raise UserError(f"{where}: has neither label 3 nor 4; expected the lungs: exclude the scan or restore it")
    middle = sum(centres.values()) / 2 if len(centres) == 2 else (labels.shape[0] - 1) / 2
    table = np.zeros(256, dtype=np.uint8)
    table[5] = 3
    for value, centre in centres.items():
        table[value] = 1 if centre < middle else 2  # R grows to the right: the left lung has the lower index
    return LabelMap(table[labels.labels], labels.affine, NAMES)
