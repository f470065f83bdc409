"""The general layout: folders of patients, or files of patients at the root; masks beside their images."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from medlord_bench.plugins.datasets.on_disk.paired import Result, found_of, place
from medlord_bench.volumes.fingerprints import Found
from medlord_bench.volumes.listing import Image
from medlord_bench.volumes.names import IMAGE_END, MASK_NAME, is_mask, key

Folder = tuple[str, ...]
Position = tuple[Folder, int]  # of a case in `_General.found`


class _Masks:
    """The mask files of a folder, by what their names say: a search of all of them for each image would take minutes."""

    def __init__(self, files: Sequence[Image]) -> None:
        self.files = {one.path: one for one in files}
        self._by_base: dict[str, list[Image]] = {}
        self._by_key: dict[str, list[Image]] = {}
        for one in files:
            if match := MASK_NAME.fullmatch(one.stem):
                self._by_base.setdefault(match["base"], []).append(one)
            self._by_key.setdefault(key(one.stem), []).append(one)

    def take(self, base: str, stem: str) -> Path | None:
        """The only mask of an image's name, which is then no other's. None if there is none, or several."""
        named = self._left(self._by_base, base) or self._left(self._by_key, key(stem))
        if len(named) != 1:  # several: which one is meant, nobody knows
            return None
        del self.files[named[0].path]
        return named[0].path

    def _left(self, index: dict[str, list[Image]], name: str) -> list[Image]:
        index[name] = [one for one in index.get(name, []) if one.path in self.files]
        return index[name]


class _General:
    """Images and masks while they are paired, folder by folder."""

    def __init__(self, root: Path, images: Sequence[Image]) -> None:
        self.root = root
        self.found: dict[Folder, list[Found]] = {}  # by the folder that holds the image
        self.unused: dict[str, list[str]] = {}
        self.mask_files: dict[Folder, list[Image]] = {}
        self.mask_folders: dict[Folder, list[Image]] = {}
        self.images: dict[Folder, list[Image]] = {}
        for image in images:
            self._sort(image)
        self.folders_below: dict[Folder, list[Folder]] = {}
        for folder in sorted(self.mask_folders):
            self.folders_below.setdefault(folder[:-1], []).append(folder)

    def _sort(self, image: Image) -> None:
        outer = next((i for i, name in enumerate(image.folder) if MASK_NAME.fullmatch(name)), None)
        if outer is not None:
            self.mask_folders.setdefault(image.folder[: outer + 1], []).append(image)
        elif image.series is None and is_mask(image.stem):
            self.mask_files.setdefault(image.folder, []).append(image)
        else:
            self.images.setdefault(image.folder, []).append(image)

    def cases(self) -> Result:
        for folder, images in self.images.items():
            self._folder(folder, images)
        self._pair_the_rest()
        for reason, groups in (
            ("masks that are not paired with one image", self.mask_files),
            ("folders of masks that are not paired with one image", self.mask_folders),
        ):
            left = [
                place(one) if groups is self.mask_files else "/".join(folder)
                for folder, files in groups.items()
                for one in files
            ]
            if left:
                self.unused[reason] = list(dict.fromkeys(left))
        return Result([one for group in self.found.values() for one in group], self.unused)

    def _folder(self, folder: Folder, images: Sequence[Image]) -> None:
        files = [one for one in images if one.series is None]
        series = [one for one in images if one.series is not None]
        if files and series:
            self._leave("DICOM series beside image files of one folder", series)
        if not files:
            self.found[folder] = [found_of(one, "__".join(one.parts), one.parts[0]) for one in series]
            return
        subject = [one for one in files if one.stem.lower() == "ct"]
        if not subject:
            masks = _Masks(self.mask_files.get(folder, []))
            self.found[folder] = [self._file(folder, one, masks) for one in files]
            self.mask_files[folder] = list(masks.files.values())
            return
        self._leave("image files beside ct.*", [one for one in files if one is not subject[0]])
        parts = folder or (self.root.name,)
        mask = self._mask_of_subject(folder)
        self.found[folder] = [Found("__".join(parts), parts[0], subject[0].path, mask)]

    def _mask_of_subject(self, folder: Folder) -> Path | None:
        """The only mask file beside ct.*, or the only one named as a mask of it; else the first folder of masks."""
        files = self.mask_files.get(folder, [])
        bases = {one.stem: match["base"] for one in files if (match := MASK_NAME.fullmatch(one.stem))}
        own = [one for one in files if (bases.get(one.stem) or "ct").lower() == "ct"] if len(files) > 1 else files
        if len(own) == 1:
            mask = own[0].path
            files.remove(own[0])
            return mask
        if files:  # several: which one is meant, nobody knows
            return None
        below = self.folders_below.get(folder)
        if not below:
            return None
        return self._path(below[0], self.mask_folders.pop(below[0]))

    def _path(self, folder: Folder, files: Sequence[Image]) -> Path:
        """The path of a mask folder, from a file in it."""
        path = files[0].path
        for _ in range(len(files[0].parts) - len(folder)):
            path = path.parent
        return path

    def _file(self, folder: Folder, image: Image, masks: _Masks) -> Found:
        base = IMAGE_END.sub("", image.stem)
        parts = (*folder, base)
        return Found("__".join(parts), parts[0], image.path, masks.take(base, image.stem))

    def _leave(self, reason: str, images: Sequence[Image]) -> None:
        if images:
            self.unused.setdefault(reason, []).extend(place(one) for one in images)

    # ------------------------------------------------------------------------------- masks that no name has paired yet
    def _pair_the_rest(self) -> None:
        """A mask in a folder belongs to the only image below it; masks of a folder to the images of their names."""
        self._index()
        for folder in sorted(self.mask_files):
            files = self.mask_files[folder]
            if len(files) == 1 and folder and self._give_to_only(folder, files[0].path):
                files.clear()
        for folder in sorted(self.mask_folders):
            files = self.mask_folders[folder]
            alone = len(files) == 1 and is_mask(files[0].stem)
            mask = files[0].path if alone else self._path(folder, files)
            if folder[:-1] and self._give_to_only(folder[:-1], mask):
                files.clear()
                continue
            named = self._by_name(folder[:-1])
            files = [one for one in files if not self._give_by_name(named, one)]
            self.mask_folders[folder] = [one for one in files if not self._give_by_id(folder, one)]
        self.mask_files = {folder: files for folder, files in self.mask_files.items() if files}
        self.mask_folders = {folder: files for folder, files in self.mask_folders.items() if files}

    def _index(self) -> None:
        """Where the cases are: below each folder, by id and by patient."""
        self.below: dict[Folder, list[Position]] = {}
        self.by_id: dict[str, list[Position]] = {}
        self.by_patient: dict[str, list[Position]] = {}
        for folder, group in self.found.items():
            for number, one in enumerate(group):
                for depth in range(len(folder) + 1):
                    self.below.setdefault(folder[:depth], []).append((folder, number))
                self.by_id.setdefault(one.id, []).append((folder, number))
                self.by_patient.setdefault(one.patient, []).append((folder, number))

    def _give(self, positions: Sequence[Position], mask: Path) -> bool:
        """To the case, if there is only one and it has no mask yet."""
        if len(positions) != 1:
            return False
        folder, number = positions[0]
        one = self.found[folder][number]
        if one.mask is not None:
            return False
        self.found[folder][number] = replace(one, mask=mask)
        return True

    def _give_to_only(self, folder: Folder, mask: Path) -> bool:
        return self._give(self.below.get(folder, []), mask)

    def _give_by_id(self, folder: Folder, mask: Image) -> bool:
        """To the case of that id, or to the only image of that patient, for a folder of masks at the root."""
        if len(folder) > 1:
            return False
        stems = {mask.stem, key(mask.stem)}
        named = [position for stem in stems for position in self.by_id.get(stem, [])]
        named = named or [position for stem in stems for position in self.by_patient.get(stem, [])]
        return self._give(named, mask.path)

    def _by_name(self, folder: Folder) -> dict[tuple[str, str], list[Position]]:
        """The images directly in a folder without a mask: ("stem", name) and ("key", what names share) -> positions."""
        named: dict[tuple[str, str], list[Position]] = {}
        for number, one in enumerate(self.found.get(folder, [])):
            stem = one.id.rpartition("__")[2] or one.id
            for name in (("stem", stem), ("key", key(stem))):
                named.setdefault(name, []).append((folder, number))
        return named

    def _give_by_name(self, named: dict[tuple[str, str], list[Position]], mask: Image) -> bool:
        """To the first image of that name in the folder above the masks'. named: from `_by_name`."""
        names = (("stem", mask.stem), ("stem", IMAGE_END.sub("", mask.stem)), ("key", key(mask.stem)))
        for position in sorted({position for name in names for position in named.get(name, [])}):
            if self._give([position], mask.path):
                return True
        return False


def cases(root: Path, images: Sequence[Image]) -> Result:
    """Cases of folders and files that no other layout describes. The patient is the first folder, or the file itself.

    A folder with a `ct.*` has that one image, and its id; in any other folder each image file is a case. A folder of one
    DICOM series is one image. Masks belong to the image of their name in the folder, to the only image of their folder,
    or, in a folder of masks, to the images of their names above it.
    """
    return _General(root, images).cases()
