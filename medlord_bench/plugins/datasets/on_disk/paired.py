"""Layouts in which image and mask are files of one name in two folders, or two names of one number."""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from medlord_bench.contracts import Split
from medlord_bench.volumes.fingerprints import Found
from medlord_bench.volumes.listing import Image
from medlord_bench.volumes.names import IMAGE_FOLDER, is_mask, key, split_of

CHANNEL = re.compile(r"(.*)_(\d{4})$")  # nnU-Net: CASE_0000 is the first channel
LITS = re.compile(r"(volume|segmentation)-(\d+)$", re.IGNORECASE)
MMWHS = re.compile(r"(ct|mr)_(train|test)_(\d+)_(image|label)$", re.IGNORECASE)
SUBJECT = re.compile(r"sub-[A-Za-z0-9]+$")
BIDS_MASK = re.compile(r"_(?:dseg|mask|seg|label|probseg)$", re.IGNORECASE)


@dataclass(frozen=True)
class Result:
    """Cases, and reason -> places of images that are none. how: how the splits were made; empty if not by the layout."""

    found: list[Found]
    unused: dict[str, list[str]] = field(default_factory=dict)
    how: str = ""


def found_of(image: Image, id: str, patient: str, mask: Path | None = None, split: Split | None = None) -> Found:
    """A case of an image."""
    return Found(id, patient, image.path, mask, split, image.files)


def place(image: Image) -> str:
    return "/".join(image.parts)


def nnunet(images: Sequence[Image], masks: bool) -> Result | None:
    """`imagesTr/CASE_0000`, `labelsTr/CASE` and `imagesTs`: each file a patient. None if there is no `imagesTr`.

    imagesTs are the test split where no masks are used; with masks they are left out, since they have none, unless there
    is `labelsTs`. MSD's files have no channel number.
    """
    of = {
        name: [one for one in images if one.parts[0] == name and len(one.parts) == 2]
        for name in ("imagesTr", "imagesTs")
    }
    if not of["imagesTr"]:
        return None
    labels = {(one.parts[0], one.stem): one.path for one in images if one.parts[0] in ("labelsTr", "labelsTs")}
    unused: dict[str, list[str]] = {}
    found, used = [], set()
    take_test = not masks or any(folder == "labelsTs" for folder, _ in labels)
    channels = any((match := CHANNEL.fullmatch(one.stem)) and match[2] == "0000" for one in of["imagesTr"])
    for folder, split in (("imagesTr", None), ("imagesTs", "test")):
        for image in of[folder]:
            match = CHANNEL.fullmatch(image.stem) if channels else None
            name = match[1] if match else image.stem
            if match and match[2] != "0000":
                unused.setdefault("images of further channels", []).append(place(image))
            elif folder == "imagesTs" and not take_test:
                unused.setdefault("test images without masks (taken with dataset.masks=none)", []).append(place(image))
            else:
                where = (folder.replace("images", "labels"), name)
                used.add(where)
                found.append(found_of(image, name, name, labels.get(where), split))  # type: ignore[arg-type]
    lost = [f"{folder}/{name}" for folder, name in labels if (folder, name) not in used]
    if lost:
        unused["masks without an image"] = lost
    in_place = {"imagesTr", "imagesTs", "labelsTr", "labelsTs"}
    others = [place(one) for one in images if one.parts[0] not in in_place or len(one.parts) != 2]
    if others:
        unused["images outside imagesTr and imagesTs"] = others
    return Result(found, unused, "imagesTs is the test split" if any(one.split for one in found) else "")


def bids(images: Sequence[Image]) -> Result | None:
    """`sub-NAME/[ses-NAME/]ct/sub-NAME_..._ct` and masks below `derivatives`. None without such folders."""
    inside: list[Image] = []
    rest: list[Image] = []
    for one in images:
        (inside if SUBJECT.fullmatch(one.parts[0]) and len(one.parts) > 1 else rest).append(one)
    if not inside or any(one.parts[0] not in ("derivatives", "sourcedata", "code") for one in rest):
        return None
    masks = [one for one in images if BIDS_MASK.search(one.stem)]
    by_name = sorted(masks, key=lambda one: one.stem)
    names = [one.stem for one in by_name]
    found: list[Found] = []
    unused: dict[str, list[str]] = {}
    taken: set[Path] = set()
    for image in inside:
        if BIDS_MASK.search(image.stem):
            continue
        if image.series is None and not image.stem.lower().endswith("_ct"):
            unused.setdefault("images that are not _ct (BIDS)", []).append(place(image))
            continue
        stem = image.stem[: -len("_ct")] if image.series is None else image.parts[0]
        first = bisect_left(names, stem + "_")  # a search, since a scan of all masks for each image takes minutes
        own = [one for one in by_name[first : first + 2] if one.stem.startswith(stem + "_")]
        mask = own[0].path if len(own) == 1 else None
        taken |= {mask} if mask is not None else set()
        base = re.sub(r"_ct$", "", image.stem, flags=re.IGNORECASE)
        found.append(found_of(image, "__".join((*image.parts[:-1], base)), image.parts[0], mask))
    left = [place(one) for one in (*masks, *rest) if one.path not in taken]
    if left:
        unused["masks without one image, or derivatives"] = sorted(set(left))
    return Result(found, unused) if found else None


def lits(images: Sequence[Image]) -> Result | None:
    """`volume-N` and `segmentation-N`, in one folder or in several: N is the patient. None if any file is named otherwise."""
    matches = [(one, LITS.fullmatch(one.stem)) for one in images]
    if (
        not matches
        or any(match is None for _, match in matches)
        or not any(m and m[1].lower() == "segmentation" for _, m in matches)
    ):
        return None
    masks = {m[2]: one for one, m in matches if m and m[1].lower() == "segmentation"}
    volumes = [(one, m[2]) for one, m in matches if m and m[1].lower() == "volume"]
    found = [
        found_of(one, "__".join(one.parts), f"volume-{n}", masks[n].path if n in masks else None) for one, n in volumes
    ]
    numbers = {number for _, number in volumes}
    lost = [place(one) for n, one in masks.items() if n not in numbers]
    return Result(found, {"masks without an image": lost} if lost else {})


def mmwhs(images: Sequence[Image], masks: bool) -> Result | None:
    """`ct_train_N_image`, `ct_train_N_label`, `ct_test_N_image` in any folders; MR is left out. None otherwise."""
    matches = [(one, MMWHS.fullmatch(one.stem)) for one in images]
    if not matches or any(match is None for _, match in matches) or all(len(one.parts) == 1 for one in images):
        return None  # all at the root: files that are paired by name
    unused: dict[str, list[str]] = {}
    labels = {m[3]: one for one, m in matches if m and m[1].lower() == "ct" and m[4].lower() == "label"}
    found = []
    for one, m in matches:
        if m is None or m[4].lower() == "label":
            continue
        test = m[2].lower() == "test"
        if m[1].lower() == "mr":
            unused.setdefault("MR images", []).append(place(one))
        elif test and masks and m[3] not in labels:
            unused.setdefault("test images without masks (taken with dataset.masks=none)", []).append(place(one))
        else:
            name = f"ct_{m[2].lower()}_{m[3]}"
            mask = labels[m[3]].path if m[3] in labels else None
            found.append(found_of(one, name, name, mask, "test" if test else None))
    return Result(found, unused, "ct_test is the test split" if any(one.split for one in found) else "")


def two_folders(images: Sequence[Image]) -> Result | None:
    """A folder of images with one of masks beside it; or `images/` alone. The patient is the first name in it.

    None unless there is `images/`, or exactly one folder of images whose name says so or whose files share their names
    with those of a folder of masks.
    """
    tops: dict[str, list[Image]] = {}
    for image in images:
        if len(image.parts) > 1:
            tops.setdefault(image.parts[0], []).append(image)
    mask_tops = [top for top in tops if is_mask(top)]
    others = [top for top in tops if not is_mask(top)]
    flat = any(len(image.parts) == 1 for image in images)
    top = "images" if "images" in tops else others[0] if len(others) == 1 and not flat else ""
    if not top:
        return None
    masks = _masks_of(tops, mask_tops)
    if top != "images" and not IMAGE_FOLDER.fullmatch(top) and not any(_mask_for(one, masks) for one in tops[top]):
        return None
    return _of_two(images, tops, top, masks)


def _masks_of(tops: dict[str, list[Image]], mask_tops: Iterable[str]) -> dict[tuple[str, ...], Image]:
    """Place below its folder -> mask; `masks` before `labels` before others. By name, and by what names share."""
    masks: dict[tuple[str, ...], Image] = {}
    names = sorted(mask_tops, key=lambda name: ("masks", "labels", name).index(name))
    for exact in (True, False):
        for name in names:
            for one in tops[name]:
                inner = one.parts[1:]
                masks.setdefault(inner if exact else (*inner[:-1], "key", key(inner[-1])), one)
    return masks


def _mask_for(image: Image, masks: dict[tuple[str, ...], Image]) -> Image | None:
    inner = image.parts[1:]
    return masks.get(inner) or masks.get((*inner[:-1], "key", key(inner[-1])))


def _of_two(
    images: Sequence[Image], tops: dict[str, list[Image]], top: str, masks: dict[tuple[str, ...], Image]
) -> Result:
    found, used = [], set()
    own = tops[top]
    first = {one.parts[1] for one in own if len(one.parts) > 2}
    divided = bool(first) and all(len(one.parts) > 2 for one in own) and all(split_of(name) for name in first)
    for image in own:
        mask = _mask_for(image, masks)
        used |= {mask.path} if mask is not None else set()
        inner = image.parts[1:]
        patient, split = inner[0], None
        if divided:
            split = split_of(inner[0])
            patient = inner[1] if len(inner) > 2 else "__".join(inner)
        found.append(found_of(image, "__".join(inner), patient, mask.path if mask else None, split))
    unused: dict[str, list[str]] = {}
    for one in images:
        if (one.parts[0] != top or len(one.parts) < 2) and one.path not in used:
            reason = "masks without an image of their name" if is_mask(one.parts[0]) else f"images outside {top}/"
            unused.setdefault(reason, []).append(place(one))
    return Result(found, unused, f"folders in {top}: {', '.join(sorted(first))}" if divided else "")
