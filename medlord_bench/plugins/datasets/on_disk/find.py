"""Code shared by data sets on disk: their settings, and finding their cases."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass, replace
from pathlib import Path

from pydantic import Field, field_validator

from medlord_bench.contracts import FrozenConfig, LabelNames
from medlord_bench.errors import MissingError, UserError
from medlord_bench.plugins.datasets.on_disk import layouts, manifest
from medlord_bench.plugins.datasets.on_disk.splits import SplitConfig
from medlord_bench.volumes.fingerprints import Found
from medlord_bench.volumes.formats import stem_of, suffix_of
from medlord_bench.volumes.listing import Listing, check_readable, listed
from medlord_bench.volumes.names import IMAGE_END, MASK_NAME


class FilesConfig(FrozenConfig):
    """The settings of every data set on disk."""

    data_root: Path | None = Field(None, description="folder of the images; also --data-root, MEDLORD_BENCH_DATA_ROOT")
    exclude: tuple[str, ...] = Field((), description="globs of paths below data_root to exclude, e.g. 'odd/*'")
    include: tuple[str, ...] = Field((), description="globs of paths below data_root; unset: all; exclude goes first")
    manifest: Path | None = Field(None, description="CSV with columns id, patient, image, mask, split (image needed)")
    mask_folder: Path | None = Field(None, description="separate folder of masks named as their images")
    masks: str | None = Field(
        None,
        description="'dataset': masks beside the images; 'none'; or a segmenter's name. "
        "Unset: 'dataset' if masks and names for their values are found, else 'none'",
    )
    label_names: LabelNames = Field(
        {}, description="mask value to region name; unset: labels.json or dataset.json in data_root"
    )
    split: SplitConfig = SplitConfig()

    @field_validator("data_root")
    @classmethod
    def _writable_as_text(cls, value: Path | None) -> Path | None:
        if value is not None and any("\ud800" <= char <= "\udfff" for char in str(value)):
            raise ValueError("its name is not UTF-8, and could not be written into run.yaml: rename it or link to it")
        return value

    @field_validator("exclude", "include", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


@dataclass(frozen=True)
class Search:
    """What was found below a root: the cases, how, and every file that was seen."""

    cases: layouts.Cases
    listing: Listing

    @property
    def found(self) -> list[Found]:
        return self.cases.found


def root_of(config: FilesConfig, name: str, advice: str) -> Path:
    """The data folder. Raises `MissingError` if none is given or it does not exist. advice: alternatives."""
    given = config.data_root or os.environ.get("MEDLORD_BENCH_DATA_ROOT")
    if not given:
        raise MissingError(
            f"{name}: no data given; expected --data-root DIR (or MEDLORD_BENCH_DATA_ROOT) with {advice}; "
            "to try the bench now: medlord-bench run --generator medlord --dataset phantom"
        )
    root = Path(given).expanduser()
    if not root.is_dir():
        raise MissingError(f"{root}: not a folder; expected data_root of the data set {name}: {advice}")
    return root


def find(root: Path, config: FilesConfig, named: bool = False) -> Search:
    """Every image of the cohort, sorted by id: by the manifest, else by the layout that the names show (`layouts`).

    The id is the path below the root, joined by "__". named: whether mask values have names, so that masks are used.
    Raises `UserError` naming files that cannot be read, if there is no image, or if two images have the same id.
    """
    by_name = config.manifest is not None
    listing = listed(root, config.exclude, config.include, named=by_name)
    if not by_name:
        check_readable(listing)
    if config.manifest is not None:
        cases = _by_manifest(root, config.manifest, listing)
    elif listing.images:
        wanted = config.masks == "dataset" or (config.masks is None and named)
        cases = layouts.recognise(listing, wanted and config.mask_folder is None)
    else:
        cases = layouts.Cases("none", [])
    found = cases.found
    if config.mask_folder is not None:
        found = _with_masks(found, root / config.mask_folder)
    if not found:
        raise UserError(f"{root}: no images; expected one of the layouts: {layouts.LAYOUTS}{_instead(listing, cases)}")
    _check_unique(found)
    return Search(replace(cases, found=sorted(found, key=lambda case: case.id)), listing)


def _instead(listing: Listing, cases: layouts.Cases) -> str:
    """What is there instead of images."""
    seen = [f"{len(places)} {reason}" for reason, places in cases.unused.items()]
    seen += [f"{len(places)} {reason}" for reason, places in listing.left_out.items()]
    seen += [f"{count} {kind}" for kind, count in listing.other.most_common(3)]
    return f" (found: {', '.join(seen)})" if seen else ""


def _by_manifest(root: Path, path: Path, listing: Listing) -> layouts.Cases:
    found = list(manifest.cases_of(root, path))
    used = {one.image for one in found} | {one.mask for one in found}
    unused = ["/".join(image.parts) for image in listing.images if image.path not in used]
    without = [one.id for one in found if one.split is None] if any(one.split for one in found) else []
    left = {"images that the manifest does not name": unused, layouts.WITHOUT_SPLIT: without}
    how = "the manifest's column" if any(one.split for one in found) else ""
    return layouts.Cases(f"manifest {path.name}", found, {k: v for k, v in left.items() if v}, how)


def _check_unique(found: Iterable[Found]) -> None:
    seen: dict[str, Path] = {}
    for case in found:
        if case.id in seen:
            raise UserError(
                f"{case.image}: its case id {case.id!r} is also that of {seen[case.id]}; expected different ids: "
                "exclude one with dataset.exclude, or give ids in dataset.manifest"
            )
        seen[case.id] = case.image


def _with_masks(found: Iterable[Found], folder: Path) -> list[Found]:
    """Masks from a separate folder: the file whose name, without a word such as ".label", is the image's."""
    if not folder.is_dir():
        raise MissingError(f"{folder}: not a folder; expected dataset.mask_folder: masks named as their images")
    masks: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = MASK_NAME.fullmatch(stem_of(path))
        if suffix_of(path) and not path.name.startswith("."):
            masks[(match["base"] if match else None) or stem_of(path)] = path
    out = []
    for case in found:
        mask = masks.get(IMAGE_END.sub("", stem_of(case.image))) or masks.get(case.id)
        if mask is None:
            raise UserError(
                f"{folder}: no mask for {case.image}; expected {case.id}.nii.gz: add it, or exclude the image"
            )
        out.append(replace(case, mask=mask))
    return out
