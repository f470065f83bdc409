"""Layouts of data folders, recognised by names: which images there are, of which patient, with which mask and split.

Each layout is a function from the images of a listing to cases; `recognise` tries them in order, the most specific
first. Nothing is guessed: what fits no layout is an error that names the layouts, and what a layout does not use is
returned with the reason.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path

from medlord_bench.contracts import SPLITS, Split
from medlord_bench.errors import UserError
from medlord_bench.plugins.datasets.on_disk import folders, paired
from medlord_bench.util.paths import shown
from medlord_bench.volumes.fingerprints import Found
from medlord_bench.volumes.listing import Image, Listing
from medlord_bench.volumes.names import is_mask, split_of

LAYOUTS = (
    "train/ val/ test/ folders; images/ with masks/ or labels/; img/ with label/ (BTCV); imagesTr with labelsTr (nnU-Net, "
    "MSD); volume-N with segmentation-N (LiTS); ct_train_N_image with ct_train_N_label (MM-WHS); sub-NAME (BIDS); flat files; one "
    "folder per patient (KiTS, TotalSegmentator, TCIA, IDC); PACS exports with DICOMDIR; or dataset.manifest"
)
INITIALS = {"tr", "ts", "dev"}  # beside other folders, these are rather those of a patient than a split
FLAT, BY_FOLDER = "flat files, each a patient", "one folder per patient"
WITHOUT_SPLIT = "cases that are in no split"
TWO_FOLDERS = "images in one folder, masks in another"


@dataclass(frozen=True)
class Cases:
    """What a layout finds. unused: reason -> places. how: how the splits were made, if by the layout; empty if not."""

    layout: str
    found: list[Found]
    unused: Mapping[str, list[str]] = field(default_factory=dict)
    how: str = ""
    warnings: tuple[str, ...] = ()


def recognise(listing: Listing, masks: bool) -> Cases:
    """The cases of a listing. masks: whether the masks of the data set are wanted.

    Raises `UserError` where names say different things: folders named as splits beside others, or one folder that holds
    all images of unknown patients.
    """
    images = listing.images
    heart = paired.mmwhs(images, masks)  # before folders of splits: its own are ct_train and ct_test
    if heart is not None:
        return Cases("MM-WHS (ct_train_N_image, ct_train_N_label)", heart.found, heart.unused, heart.how)
    splits = _split_folders(listing)
    if splits:
        return _of_splits(listing, splits, masks)
    _check_nested(listing)
    cases = _of_one(listing.root, images, masks)
    _check_splits_inside(listing, cases)
    return _patients_by_dicom(listing, cases)


def of_samples(listing: Listing) -> Cases:
    """The images of a folder of samples, which have no patients: those directly in it, else those of its layout.

    A file named as a mask is not left out: the caller refuses it.
    """
    direct: list[Image] = []
    others: list[Image] = []
    for image in listing.images:
        (direct if len(image.parts) == 1 and image.path != listing.root else others).append(image)
    if direct:
        deeper = [_place(image) for image in others]
        unused = {"images in sub-folders": deeper} if deeper else {}
        return Cases(
            "files or series directly in it", [paired.found_of(one, one.stem, one.stem) for one in direct], unused
        )
    return _of_one(listing.root, listing.images, False)


def _of_one(root: Path, images: Sequence[Image], masks: bool) -> Cases:
    """The cases of a folder that is not divided into splits."""
    tried: tuple[tuple[str, Callable[[], paired.Result | None]], ...] = (
        ("nnU-Net or MSD (imagesTr, labelsTr)", lambda: paired.nnunet(images, masks)),
        ("BIDS (sub-NAME)", lambda: paired.bids(images)),
        ("LiTS (volume-N, segmentation-N)", lambda: paired.lits(images)),
        (TWO_FOLDERS, lambda: paired.two_folders(images)),
    )
    for name, find in tried:
        result = find()
        if result is not None:
            return Cases(name, result.found, result.unused, result.how)
    result = folders.cases(root, images)
    return Cases(_general_name(images), result.found, result.unused)


def _general_name(images: Sequence[Image]) -> str:
    if all(len(image.parts) == 1 and image.path.is_file() for image in images):
        return FLAT
    if all(image.stem.lower() in ("imaging", "segmentation") for image in images):
        return f"{BY_FOLDER} (KiTS: imaging, segmentation)"
    if all(image.series is not None and len(image.folder) >= 3 for image in images):
        return f"{BY_FOLDER} (TCIA or IDC: patient, study, series)"
    return BY_FOLDER


# ------------------------------------------------------------------------------------------------------------- splits
def _split_folders(listing: Listing) -> dict[str, Split]:
    """Folder below the root -> split, if all folders with images are named as splits; empty if none is."""
    images = listing.images
    tops = dict.fromkeys(image.parts[0] for image in images if len(image.parts) > 1)
    named = {top: split for top in tops if (split := split_of(top)) is not None}
    flat = [image.parts[0] for image in images if len(image.parts) == 1]
    others = [top for top in (*tops, *flat) if top not in named and not is_mask(top)]
    twice = len(set(named.values())) < len(named)
    if not named or (others and set(map(str.lower, named)) <= INITIALS):
        return {}
    if len(named) == 1 and not others:
        top = next(iter(named))
        raise UserError(
            f"{listing.root}: all images lie below {top}, which is named as one split; expected train and test: to draw splits "
            f"from it, give --data-root {listing.root / top}"
        )
    if others or twice:
        names = ", ".join(list(named)[:3])
        wrong = f"{others[0]} beside them is not" if others else "two of them are of one split"
        raise UserError(
            f"{names}: named as splits, but {wrong}; expected folders of splits alone: move or exclude the others, or give "
            "dataset.manifest with a column 'split'"
        )
    return named


def _of_splits(listing: Listing, splits: Mapping[str, Split], masks: bool) -> Cases:
    found: list[Found] = []
    unused: dict[str, list[str]] = {}
    names = []
    inside: dict[str, set[str]] = {}
    for top, split in splits.items():
        below = [
            replace(image, parts=image.parts[1:])
            for image in listing.images
            if image.parts[0] == top and len(image.parts) > 1
        ]
        cases = _of_one(listing.root / top, below, masks)
        names.append(cases.layout)
        for one in cases.found:
            own = f"{top}__{one.id}"
            alone = one.patient == one.id and one.image.is_file() and shown(Path(one.image.parent.name)) != one.patient
            if alone:  # a file of its own, not a folder of a patient
                inside.setdefault(one.patient, set()).add(top)
            found.append(replace(one, id=own, patient=own if alone else one.patient, split=split))
        for reason, places in cases.unused.items():
            unused.setdefault(reason, []).extend(f"{top}/{place}" for place in places)
    outside = [image for image in listing.images if image.parts[0] not in splits]
    if outside:
        unused["masks or images outside the folders of the splits"] = [_place(image) for image in outside]
    again = sorted(name for name, tops in inside.items() if len(tops) > 1)
    warnings: tuple[str, ...] = (
        (
            f"{again[0]} is a name in {' and in '.join(sorted(inside[again[0]]))} ({len(again)} such names): files of one name in two splits count as two patients",
        )
        if again
        else ()
    )
    warnings += tuple(_shared_ids(found, _ids(listing), lambda one: str(one.split)))
    how = "folders " + ", ".join(f"{top} ({split})" for top, split in splits.items())
    return Cases(f"{how}; inside: {names[0]}", found, unused, how, warnings)


def _place(image: Image) -> str:
    return "/".join(image.parts)


# ----------------------------------------------------------------------------------------------------------- patients
def _check_nested(listing: Listing) -> None:
    """A data set that lies one folder deeper than the root."""
    deeper = sorted(
        {image.parts[0] for image in listing.images if len(image.parts) > 2 and image.parts[1] == "imagesTr"}
    )
    if deeper and not any(image.parts[0] == "imagesTr" for image in listing.images):
        raise UserError(
            f"{listing.root}: {deeper[0]} is a data set of nnU-Net or MSD; expected one at the root: --data-root {listing.root / deeper[0]}"
        )


def _check_splits_inside(listing: Listing, cases: Cases) -> None:
    """Folders named as splits that the layout takes for something else: a data set one folder deeper, or a mixture."""
    if cases.how or not cases.layout.startswith((BY_FOLDER, TWO_FOLDERS)):
        return
    taken = {one.image for one in cases.found}
    named: dict[str, Split] = {}
    for image in listing.images:
        folders = image.parts[:-1] if image.path in taken else ()
        for depth, name in enumerate(folders):
            split = split_of(name)
            if split is not None and name.lower() not in INITIALS:
                named.setdefault("/".join(folders[: depth + 1]), split)
    if len(set(named.values())) < 2 and not (named and cases.layout == TWO_FOLDERS):
        return
    first = next(iter(named))
    raise UserError(
        f"{listing.root}: {first} is named as a split, but the splits are not the folders below the root; expected train/ and "
        f"test/ there: give --data-root {(listing.root / first).parent}, move what lies beside them, or give dataset.manifest "
        "with a column 'split'"
    )


def _ids(listing: Listing) -> dict[Path, str]:
    """Image -> PatientID, of DICOM."""
    return {image.path: image.series.patient for image in listing.images if image.series is not None}


def _patients_by_dicom(listing: Listing, cases: Cases) -> Cases:
    """PatientID names the patients of an export whose folders do not: below one folder, or with a DICOMDIR at the root."""
    patients = {one.patient for one in cases.found}
    ids = _ids(listing)
    named = {ids.get(one.image, "") for one in cases.found}
    export = listing.directory or (len(patients) == 1 and len(cases.found) > 1)
    if export and len(named) > 1 and "" not in named:
        layout = "PACS export with DICOMDIR" if listing.directory else "TCIA or IDC tree"
        found = [replace(one, patient=ids[one.image]) for one in cases.found]
        return replace(cases, layout=f"{layout}, patients by PatientID", found=found)
    nested = len(patients) == 1 and len(cases.found) > 1 and listing.root not in {i.image.parent for i in cases.found}
    if nested and cases.layout.startswith(BY_FOLDER) and not cases.how:
        top = next(iter(patients))
        raise UserError(
            f"{listing.root}: all {len(cases.found)} images lie below {top}, so that they would be of one patient; expected one "
            f"folder per patient: if the files or folders in {top} are patients, give --data-root {listing.root / top}; else dataset.manifest"
        )
    return replace(cases, warnings=(*cases.warnings, *_shared_ids(cases.found, ids, lambda one: one.patient)))


def _shared_ids(found: Iterable[Found], ids: Mapping[Path, str], of_case: Callable[[Found], str]) -> list[str]:
    """A PatientID in several patients' folders or in several splits, unless all have one: then it was replaced.

    of_case: the patient or the split of a case.
    """
    of: dict[str, set[str]] = {}
    for one in found:
        if ids.get(one.image):
            of.setdefault(ids[one.image], set()).add(of_case(one))
    if len(of) < 2:
        return []
    return [
        f"PatientID {name} is in the folders of several {'splits' if groups <= set(SPLITS) else 'patients'} "
        f"({', '.join(sorted(groups)[:3])}): if they are one patient, put them into one folder or give dataset.manifest"
        for name, groups in of.items()
        if len(groups) > 1
    ]
