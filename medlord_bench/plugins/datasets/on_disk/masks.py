"""The masks of data sets on disk: names of their values, whether they are used, and loading an image with its mask."""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from pathlib import Path

from medlord_bench.contracts import LabelMap, Volume
from medlord_bench.errors import UserError
from medlord_bench.plugins.datasets.on_disk.find import FilesConfig
from medlord_bench.util.text_tables import read_json
from medlord_bench.volumes.fingerprints import Found
from medlord_bench.volumes.formats import SUFFIXES, stem_of, suffix_of

log = logging.getLogger("medlord_bench")
SHOWN = 3  # regions and cases of a warning
FEW = 1e-4  # of the voxels that are brighter than any CT: worth a warning


def declared_names(root: Path, config: FilesConfig) -> dict[int, str]:
    """Mask value to region name: from the config, labels.json, or the dataset.json of nnU-Net and MSD; empty if none.

    Raises `UserError` for a file that has no such table.
    """
    if config.label_names:
        return dict(config.label_names)
    for name in ("labels.json", "dataset.json"):
        table = root / name
        if not table.exists() or (name == "dataset.json" and not (root / "imagesTr").is_dir()):
            continue
        try:
            return _names(read_json(table), name)
        except (ValueError, AttributeError, TypeError):
            raise UserError(
                f'{table}: not a table of labels; expected JSON such as {{"1": "aorta"}}, values from 1 up'
            ) from None
    return {}


def _names(found: dict[str, object], name: str) -> dict[int, str]:
    """labels.json: value -> name. dataset.json: its `labels`, value -> name (MSD) or name -> value (nnU-Net)."""
    table = found if name == "labels.json" else found.get("labels")
    if name == "dataset.json" and not isinstance(table, dict):
        return {}
    if not isinstance(table, dict):
        raise TypeError(name)
    pairs = [(key, value) if str(key).lstrip("-").isdigit() else (value, key) for key, value in table.items()]
    if name == "dataset.json":  # regions of several values (nnU-Net) have no value of their own
        pairs = [(value, text) for value, text in pairs if not isinstance(value, list)]
    names = {int(value): str(text) for value, text in pairs if int(value)}
    if min(names, default=0) < 0:
        raise ValueError(f"label value {min(names)}")
    return names


def region_names(root: Path, config: FilesConfig, found: Iterable[Found]) -> dict[int, str]:
    """The declared names, else the file names of folders of binary masks, numbered in their order."""
    declared = declared_names(root, config)
    if declared:
        return declared
    names = sorted(set[str]().union(*_regions_of(found).values()))
    return dict(enumerate(names, start=1))


def _regions_of(found: Iterable[Found]) -> dict[str, set[str]]:
    """Case -> the regions that its folder of binary masks has a file for."""
    return {
        case.id: {stem_of(path) for path in case.mask.iterdir() if suffix_of(path) and not path.name.startswith(".")}
        for case in found
        if case.mask is not None and case.mask.is_dir()
    }


def lacking_regions(found: Iterable[Found]) -> list[str]:
    """A warning if a region has a file in the mask folders of some cases only."""
    known = _regions_of(found)
    lacking = {
        name: [case for case, regions in known.items() if name not in regions]
        for name in sorted(set[str]().union(*known.values()))
    }
    partly = {name: cases for name, cases in lacking.items() if cases}
    if not partly:
        return []
    shown = [f"{name} in {len(cases)} ({', '.join(cases[:SHOWN])})" for name, cases in list(partly.items())[:SHOWN]]
    more = f" and {len(partly) - SHOWN} more regions" if len(partly) > SHOWN else ""
    return [
        f"of {len(known)} mask folders some have no file of a region, which counts as absent there: {'; '.join(shown)}{more}"
    ]


def masks_of(config: FilesConfig, found: Iterable[Found], names: Mapping[int, str]) -> str:
    """The protocol's description of masks. Raises `UserError` if the data set's masks are requested and one is
    missing, or if names are given for masks and there is none."""
    cases = list(found)
    masks = config.masks
    given = config.label_names and config.label_names != type(config).model_fields["label_names"].default
    if masks is None and given and not any(case.mask for case in cases):
        raise UserError(
            f"{cases[0].image}: dataset.label_names is given and no image has a mask; expected one beside each image (docs/datasets.md): "
            "name masks as their images, give dataset.mask_folder, or use none with --set dataset.masks=none"
        )
    if masks is None:
        masks = "dataset" if names and any(case.mask for case in cases) else "none"
    if masks != "dataset":
        return masks
    for case in cases:
        if case.mask is None or not case.mask.exists():
            raise UserError(
                f"{case.image}: no mask beside it, or several; expected one for every image: add it, exclude the image or the other masks, "
                "or use no masks with --set dataset.masks=none"
            )
    if not names:
        raise UserError(
            f"{cases[0].mask}: its values have no names; expected dataset.label_names, or labels.json in data_root"
        )
    return masks


def load(
    case: Found, names: Mapping[int, str] | None, window: tuple[int, int] | None = None
) -> tuple[Volume, LabelMap | None]:
    """Read and check an image and, if `names` are given, its mask. Raises `UserError` as `volumes` does.

    window: the HU window of the protocol. An image whose slices are shifted against each other (a gantry tilt) is resampled to an upright grid, and its mask
    with it.
    """
    from medlord_bench.volumes.checks import check_ct, check_same_grid, check_voxel_size
    from medlord_bench.volumes.io import read_labels, read_volume
    from medlord_bench.volumes.plausible import WRAPPED
    from medlord_bench.volumes.shear import straightened

    volume = read_volume(case.image, case.files)
    check_voxel_size(volume, case.image)
    check_ct(volume, case.image, window)
    wrapped = float((volume.hu >= WRAPPED).mean())
    if wrapped > FEW:
        log.warning(
            "%s: %.2g %% of the voxels are above %d HU, perhaps negative values that were stored as unsigned",
            *(case.image, 100 * wrapped, WRAPPED),
        )
    labels = None
    if names is not None and case.mask is not None:
        labels = _join_masks(case.mask, names) if case.mask.is_dir() else read_labels(case.mask, names)
        check_same_grid(volume, labels, case.image, case.mask)
    return straightened(volume, labels, case.image)


def _named(folder: Path, name: str) -> list[Path]:
    return [path for suffix in SUFFIXES if (path := folder / f"{name}{suffix}").exists()]


def _join_masks(folder: Path, names: Mapping[int, str]) -> LabelMap:
    """One label map from a folder of binary masks; if two overlap, the higher value is kept."""
    from medlord_bench.volumes.checks import check_same_grid
    from medlord_bench.volumes.io import read_labels

    joined: LabelMap | None = None
    first = folder
    for value, name in sorted(names.items()):
        for path in _named(folder, name):
            part = read_labels(path, {1: name})
            if joined is None:
                joined, first = LabelMap(part.labels * 0, part.affine, dict(names)), path
            check_same_grid(joined, part, first, path)
            joined.labels[part.labels > 0] = value
    if joined is None:
        raise UserError(f"{folder}: none of {', '.join(list(names.values())[:5])} is there; expected <region>.nii.gz")
    return joined
