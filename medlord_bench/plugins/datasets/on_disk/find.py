"""Code shared by data sets on disk: their config, finding images and masks, and loading a case."""

from __future__ import annotations

import csv
import fnmatch
import json
import os
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path

from pydantic import Field, field_validator

from medlord_bench.contracts import FrozenConfig, LabelMap, Volume
from medlord_bench.errors import MissingError, UserError
from medlord_bench.plugins.datasets.on_disk.splits import SplitConfig
from medlord_bench.volumes.fingerprints import Found
from medlord_bench.volumes.formats import SUFFIXES, stem_of, suffix_of

MASK_WORD = "masks?|labels?|seg|segmentations?"
MASK_NAME = re.compile(rf"(?:^|(?P<base>.*)[._-])(?:{MASK_WORD})(?:[._-].*)?$", re.IGNORECASE)
IMAGE_END = re.compile(r"[._-](?:img|image|ct)$", re.IGNORECASE)
COLUMNS = ("id", "patient", "image", "mask", "split")


class FilesConfig(FrozenConfig):
    """The settings of every data set on disk."""

    data_root: Path | None = Field(None, description="folder of the images; also --data-root, MEDLORD_BENCH_DATA_ROOT")
    exclude: tuple[str, ...] = Field((), description="globs of paths below data_root to exclude, e.g. 'odd/*'")
    manifest: Path | None = Field(None, description="CSV with columns id, patient, image, mask, split (image needed)")
    mask_folder: Path | None = Field(None, description="separate folder of masks named as their images")
    masks: str | None = Field(
        None,
        description="'dataset': masks beside the images; 'none'; or a segmenter's name. "
        "Unset: 'dataset' if masks and names for their values are found, else 'none'",
    )
    label_names: dict[int, str] = Field(
        {}, description="mask value to region name; unset: labels.json in data_root, the same as JSON"
    )
    split: SplitConfig = SplitConfig()

    @field_validator("exclude", mode="before")
    @classmethod
    def _one_or_many(cls, value: object) -> object:
        return (value,) if isinstance(value, str) else value


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


def find(root: Path, config: FilesConfig) -> list[Found]:
    """Every image of the cohort, sorted by id.

    In this order: the manifest; else `images/` with `masks/` or `labels/` beside it; else all folders below `root`.
    There, a folder with a `ct.*` has that one image and its masks; in any other folder each image file is a case unless
    it is named as a mask. A folder of DICOM files is one image. The id is the path below the root, joined by "__";
    the patient is its first part: all images below one folder of the root belong to one patient.
    Raises `UserError` if there is none, or if two images have the same id.
    """
    if config.manifest is not None:
        found = list(_from_manifest(root, config.manifest))
    elif (root / "images").is_dir():
        found = list(_from_images(root, config.exclude))
    else:
        found = list(_from_folders(root, config.exclude))
    if config.mask_folder is not None:
        found = _with_masks(found, root / config.mask_folder)
    if not found:
        raise UserError(f"{root}: no images; expected {', '.join(SUFFIXES)} files or DICOM folders, not excluded")
    _check_unique(found)
    return sorted(found, key=lambda case: case.id)


def _check_unique(found: Iterable[Found]) -> None:
    seen: dict[str, Path] = {}
    for case in found:
        if case.id in seen:
            raise UserError(
                f"{case.image}: its case id {case.id!r} is also that of {seen[case.id]}; expected different ids: "
                "exclude one with dataset.exclude, or give ids in dataset.manifest"
            )
        seen[case.id] = case.image


def _from_manifest(root: Path, manifest: Path) -> Iterator[Found]:
    path = manifest if manifest.is_absolute() or not (root / manifest).exists() else root / manifest
    if not path.exists():
        raise MissingError(f"{path}: not found; expected the manifest: a CSV with columns {', '.join(COLUMNS)}")
    with open(path, newline="") as file:
        rows = csv.DictReader(file)
        fields = rows.fieldnames or []
        unknown = sorted(set(fields) - set(COLUMNS))
        if "image" not in fields or unknown:
            wrong = f"unknown column {unknown[0]!r}" if unknown else "no column 'image'"
            raise UserError(f"{path}: {wrong}; expected the columns {', '.join(COLUMNS)}, 'image' at least")
        for number, row in enumerate(rows, start=2):
            yield _row(root, path, number, {name: (value or "").strip() for name, value in row.items() if name})


def _row(root: Path, path: Path, number: int, row: Mapping[str, str]) -> Found:
    if not row["image"]:
        raise UserError(f"{path}: line {number}, column 'image' is empty; expected a path below {root}")
    image = root / row["image"]
    if not image.exists():
        raise MissingError(f"{path}: line {number}: {image}: not found; expected an image: fix the path or the line")
    split = row.get("split") or None
    if split not in (None, "train", "val", "test"):
        raise UserError(f"{path}: line {number}, column 'split' is {split!r}; expected train, val, test or nothing")
    name = row.get("id") or "__".join([*Path(row["image"]).parts[:-1], stem_of(image)])
    mask = root / row["mask"] if row.get("mask") else None
    return Found(name, row.get("patient") or name, image, mask, split)  # type: ignore[arg-type]


def excluded(relative: Path, globs: Iterable[str]) -> bool:
    """Whether a path below the root, or a folder above it, matches one of the globs."""
    text = relative.as_posix()
    return any(fnmatch.fnmatch(text, glob) or fnmatch.fnmatch(text, glob.rstrip("/") + "/*") for glob in globs)


def _folders(root: Path, exclude: Iterable[str]) -> Iterator[tuple[Path, list[str], list[Path]]]:
    """Every folder with its sub-folders' names and its image files, sorted; loops of links are visited once."""
    seen: set[Path] = set()
    for here, folders, files in os.walk(root, followlinks=True):
        folder = Path(here)
        if folder.resolve() in seen:
            folders.clear()
            continue
        seen.add(folder.resolve())
        folders[:] = sorted(f for f in folders if not f.startswith("."))
        kept = [folder / name for name in sorted(files) if not name.startswith(".") and suffix_of(Path(name))]
        yield folder, folders, [path for path in kept if not excluded(path.relative_to(root), exclude)]


def _is_dicom(folder: Path) -> bool:
    """Whether the first file of a folder is DICOM: the letters DICM after a preamble of 128 bytes."""
    first = next((entry for entry in sorted(folder.iterdir()) if entry.is_file()), None)
    if first is None:
        return False
    with open(first, "rb") as file:
        return file.read(132)[128:] == b"DICM"


def _from_images(root: Path, exclude: Iterable[str]) -> Iterator[Found]:
    base = root / "images"
    for folder, _, files in _folders(base, ()):
        images = files or ([folder] if _is_dicom(folder) else [])
        for image in images:
            if excluded(image.relative_to(root), exclude):
                continue
            relative = image.relative_to(base)
            parts = [*relative.parts[:-1], stem_of(image)]
            within = [root / name / relative.parent for name in ("masks", "labels")]
            mask = next((path for place in within for path in _named(place, stem_of(image))), None)
            yield Found("__".join(parts), parts[0], image, mask)


def _named(folder: Path, name: str) -> list[Path]:
    return [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").exists()]


def _from_folders(root: Path, exclude: Iterable[str]) -> Iterator[Found]:
    for folder, below, files in _folders(root, exclude):
        own = folder.relative_to(root)
        if own.parts and MASK_NAME.fullmatch(own.parts[-1]):
            below.clear()  # masks of the parent subject
            continue
        if not files and own.parts and not excluded(own, exclude) and _is_dicom(folder):
            yield Found("__".join(own.parts), own.parts[0], folder)
            continue
        subject = [path for path in files if stem_of(path).lower() == "ct"]
        if subject:
            masks = [path for path in files if MASK_NAME.fullmatch(stem_of(path))]
            masks += [folder / name for name in below if MASK_NAME.fullmatch(name)]
            parts = own.parts or (root.name,)
            yield Found("__".join(parts), parts[0], subject[0], masks[0] if masks else None)
            continue
        masks_by_base = {match["base"]: path for path in files if (match := MASK_NAME.fullmatch(stem_of(path)))}
        for image in files:
            if MASK_NAME.fullmatch(stem_of(image)):
                continue
            base = IMAGE_END.sub("", stem_of(image))
            parts = (*own.parts, base)
            yield Found("__".join(parts), parts[0], image, masks_by_base.get(base))


def _with_masks(found: Iterable[Found], folder: Path) -> list[Found]:
    """Masks from a separate folder: the file whose name, without a word such as ".label", is the image's."""
    if not folder.is_dir():
        raise MissingError(f"{folder}: not a folder; expected dataset.mask_folder: masks named as their images")
    masks: dict[str, Path] = {}
    for path in sorted(folder.iterdir()):
        match = MASK_NAME.fullmatch(stem_of(path))
        if suffix_of(path):
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


def region_names(root: Path, config: FilesConfig, found: Iterable[Found]) -> dict[int, str]:
    """Mask value to region name: from the config, labels.json, or the file names of folders of binary masks."""
    if config.label_names:
        return dict(config.label_names)
    table = root / "labels.json"
    if table.exists():
        try:
            return {int(value): str(name) for value, name in json.loads(table.read_text()).items() if int(value)}
        except (ValueError, AttributeError):
            raise UserError(f'{table}: not a table of labels; expected JSON such as {{"1": "aorta"}}') from None
    folders = [case.mask for case in found if case.mask is not None and case.mask.is_dir()]
    names = sorted({stem_of(path) for folder in folders for path in folder.iterdir() if suffix_of(path)})
    return dict(enumerate(names, start=1))


def masks_of(config: FilesConfig, found: Iterable[Found], names: Mapping[int, str]) -> str:
    """The protocol's description of masks. Raises `UserError` if the data set's masks are requested and one is
    missing."""
    cases = list(found)
    masks = config.masks
    if masks is None:
        masks = "dataset" if names and any(case.mask for case in cases) else "none"
    if masks != "dataset":
        return masks
    for case in cases:
        if case.mask is None or not case.mask.exists():
            raise UserError(
                f"{case.image}: no mask beside it; expected one for every image: add it, exclude the image, "
                "or use no masks with --set dataset.masks=none"
            )
    if not names:
        raise UserError(
            f"{cases[0].mask}: its values have no names; expected dataset.label_names, or labels.json in data_root"
        )
    return masks


def load(case: Found, names: Mapping[int, str] | None) -> tuple[Volume, LabelMap | None]:
    """Read and check an image and, if `names` are given, its mask. Raises `UserError` as `volumes` does."""
    from medlord_bench.volumes.checks import check_ct, check_same_grid
    from medlord_bench.volumes.io import read_labels, read_volume

    volume = read_volume(case.image)
    check_ct(volume, case.image)
    if names is None or case.mask is None:
        return volume, None
    labels = _join_masks(case.mask, names) if case.mask.is_dir() else read_labels(case.mask, names)
    check_same_grid(volume, labels, case.image, case.mask)
    return volume, labels


def _join_masks(folder: Path, names: Mapping[int, str]) -> LabelMap:
    """One label map from a folder of binary masks; if two overlap, the higher value is kept."""
    from medlord_bench.volumes.io import read_labels

    joined: LabelMap | None = None
    for value, name in sorted(names.items()):
        for path in _named(folder, name):
            part = read_labels(path, {1: name})
            if joined is None:
                joined = LabelMap(part.labels * 0, part.affine, dict(names))
            if part.labels.shape != joined.labels.shape:
                raise UserError(
                    f"{path}: its grid is {part.shape}, others in its folder have {joined.shape}; repair it"
                )
            joined.labels[part.labels > 0] = value
    if joined is None:
        raise UserError(f"{folder}: none of {', '.join(list(names.values())[:5])} is there; expected <region>.nii.gz")
    return joined
