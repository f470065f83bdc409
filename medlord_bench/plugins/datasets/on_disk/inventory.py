"""The inventory of a data set on disk: what is taken of its folder, and what is left out and why."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from medlord_bench.contracts import SPLITS
from medlord_bench.contracts.inventory import Inventory, LeftOut
from medlord_bench.plugins.datasets.on_disk.find import FilesConfig, Search
from medlord_bench.plugins.datasets.on_disk.layouts import WITHOUT_SPLIT, Cases
from medlord_bench.plugins.datasets.on_disk.masks import lacking_regions
from medlord_bench.plugins.datasets.on_disk.splits import Splits
from medlord_bench.util.paths import shown
from medlord_bench.volumes.fingerprints import Found, contents
from medlord_bench.volumes.listing import Listing, matches
from medlord_bench.volumes.names import common_glob, literal

EXAMPLES = 3
CROWD = 10  # images of one patient that are worth a look
WORDS = {
    "localizer": "localizers or scouts",
    "not fetched": "links or pointers whose content was not fetched",
    "link": "links to folders that are listed under another name",
    "one slice": "series or images of one slice",
    "copy": "copied files, counted once",
    "excluded": "files by dataset.exclude or dataset.include",
    "system": "hidden or system files",
    "special": "pipes, sockets or devices",
    "not read": "files of formats that are not read",
}

WITHOUT_GLOB = (WITHOUT_SPLIT, WORDS["excluded"], WORDS["system"], WORDS["copy"])


def inventory_of(search: Search, splits: Splits, masks: str, config: FilesConfig | None = None) -> Inventory:
    """The block of a search. masks: the protocol's description of them. config: settings that may name masks."""
    warnings = [*_crowded(search.found), *_duplicates(splits), *lacking_regions(search.found)]
    warnings += [] if config is None else _unused_masks(search.found, masks, config)
    cases = search.cases
    used = {one.id for split in SPLITS for one in splits[split]}
    without = [one.id for one in cases.found if one.id not in used]
    if without and WITHOUT_SPLIT not in cases.unused:
        cases = replace(cases, unused={**cases.unused, WITHOUT_SPLIT: without})
    taken = [one for one in cases.found if one.id in used]
    return block(search.listing, cases, _taken(taken, search.listing, masks), warnings)


def block(listing: Listing, cases: Cases, words: str, warnings: Sequence[str] = ()) -> Inventory:
    """The block of a listing. words: what is taken. warnings: besides those of the listing and the layout."""
    found = cases.found
    places = {image.path: "/".join(image.parts) for image in listing.images}
    series = {image.path: image.series.files for image in listing.images if image.series is not None}
    taken = [shown(path, listing.root) for one in found for path in _files(one, series)]
    left = [_left(_words(reason), where, taken) for reason, where in listing.left_out.items()]
    left += [_left(reason, where, taken) for reason, where in cases.unused.items()]
    empty = _without_images(listing, found, places)
    left += [_left("folders without an image that can be read", empty, taken)] if empty else []
    if listing.other:
        kinds = ", ".join(f"{kind} {count}" for kind, count in listing.other.most_common(5))
        left.append(LeftOut(reason=f"other files: {kinds}", count=listing.other.total()))
    own = [f"dataset.exclude {glob} matches nothing{_escaped(glob)}" for glob in listing.unmatched]
    return Inventory(
        root=shown(listing.root),
        layout=cases.layout,
        files=listing.files,
        taken=words,
        left_out=tuple(sorted(left, key=lambda one: -one.count)),
        warnings=(*own, *cases.warnings, *warnings),
    )


def _taken(found: Sequence[Found], listing: Listing, masks: str) -> str:
    dicom = {image.path for image in listing.images if image.series is not None}
    series = sum(one.image in dicom for one in found)
    kinds = [f"{series} CT series"] if series else []
    kinds += [f"{len(found) - series} image files"] if len(found) > series else []
    patients = len({one.patient for one in found})
    with_mask = sum(one.mask is not None for one in found)
    how = (
        f"masks for {with_mask}" + ("" if masks == "dataset" else f", not used (masks: {masks})")
        if with_mask
        else "no masks"
    )
    return f"{' and '.join(kinds)} of {patients} patients, {how}"


def _words(reason: str) -> str:
    return WORDS.get(reason, f"series that are not CT: {reason}")


def _left(reason: str, places: Sequence[str], taken: Iterable[str]) -> LeftOut:
    glob = common_glob([literal(place) for place in places]) if len(places) > 1 and reason not in WITHOUT_GLOB else ""
    if glob and any(matches(place, [glob]) for place in taken):
        glob = ""
    return LeftOut(reason=reason, count=len(places), places=tuple(places[:EXAMPLES]), glob=glob)


def _files(case: Found, series: Mapping[Path, Sequence[Path]]) -> list[Path]:
    """The files of an image and of its mask."""
    return [*series.get(case.image, [case.image]), *([case.mask] if case.mask is not None else [])]


def _without_images(listing: Listing, found: Sequence[Found], places: Mapping[Path, str]) -> list[str]:
    """The topmost folders that have no image, no mask and nothing that another line names as a series."""
    used: set[str] = set()
    named = [shown(path, listing.root) for one in found for path in (one.image, one.mask) if path is not None]
    named += list(places.values())
    named += [
        place for reason, where in listing.left_out.items() if reason not in ("not read", "system") for place in where
    ]
    for place in named:
        parts = place.split("/")
        used.update("/".join(parts[:n]) for n in range(1, len(parts) + 1))
    empty: list[str] = []
    for folder in sorted(listing.folders):
        if folder not in used and not (empty and folder.startswith(empty[-1] + "/")):
            empty.append(folder)
    return empty


def _escaped(glob: str) -> str:
    """Advice for a glob with brackets, which mean a set of characters."""
    return f"; to name a folder with brackets, write {literal(glob.removesuffix('/*'))}/*" if "[" in glob else ""


def _crowded(found: Sequence[Found]) -> list[str]:
    """A warning if a folder that counts as one patient has many images: it may be a batch, a fold or a site."""
    counts = Counter(one.patient for one in found)
    most = [(name, count) for name, count in counts.most_common() if count >= CROWD]
    if not most:
        return []
    name, count = most[0]
    return [
        f"{name} counts as one patient with {count} images ({len(most)} such patients): if they are of several patients, give "
        "dataset.manifest"
    ]


def _unused_masks(found: Sequence[Found], masks: str, config: FilesConfig) -> list[str]:
    """A warning if masks that the user named are not used, because nothing says what their values mean."""
    named = {"dataset.manifest": config.manifest, "dataset.mask_folder": config.mask_folder}
    source = next((field for field, value in named.items() if value is not None), None)
    count = sum(one.mask is not None for one in found)
    if source is None or not count or masks != "none" or config.masks is not None:
        return []
    return [
        f"{source} names masks of {count} images, which are not used, since their values have no names: give "
        "dataset.label_names or labels.json, or --set dataset.masks=none if that is meant"
    ]


def _duplicates(splits: Splits) -> list[str]:
    """A warning for each content that is in two splits, or of two patients."""
    split_of = {one.id: split for split in SPLITS for one in splits[split]}
    warnings = []
    for group in contents(one for split in SPLITS for one in splits[split]).values():
        across = sorted({split_of[one.id] for one in group}, key=SPLITS.index)
        if len(across) > 1:
            firsts = [next(one for one in group if split_of[one.id] == split) for split in across]
            names = " and ".join(f"{one.id} ({split_of[one.id]})" for one in firsts)
            warnings.append(
                f"same content in {' and '.join(across)}: {names}: exclude one, or scores of memorisation mean nothing"
            )
        elif len(group) > 1:
            names = " and ".join(one.id for one in group[:EXAMPLES])
            whose = "of several patients" if len({one.patient for one in group}) > 1 else "twice"
            warnings.append(f"same content {whose}: {names}: exclude one, so that it counts once")
    return warnings
