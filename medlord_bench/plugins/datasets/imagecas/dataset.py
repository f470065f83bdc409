"""ImageCAS (Zeng et al. 2023) with the label maps of the heart by Hansen et al. (STACOM 2025), under the paper's protocol."""

from __future__ import annotations

import re
from functools import cached_property
from pathlib import Path
from typing import ClassVar

from pydantic import Field

from medlord_bench.errors import UserError
from medlord_bench.plugins.datasets.on_disk.cardiac import CardiacConfig, CardiacDataset
from medlord_bench.plugins.datasets.on_disk.cohort import Files
from medlord_bench.plugins.datasets.on_disk.find import Search
from medlord_bench.plugins.datasets.on_disk.layouts import Cases
from medlord_bench.plugins.datasets.on_disk.splits import SplitConfig
from medlord_bench.volumes.fingerprints import Found
from medlord_bench.volumes.listing import check_readable, listed

ADVICE = "N.img.nii.gz of ImageCAS in any folders, and segmentations/ with the label maps (docs/datasets.md)"
IMAGE = re.compile(r"(?P<number>\d+)\.img")
MAP = re.compile(r"(?P<number>\d+)(?:\.img|\.label)?")
SEGMENTATIONS = "segmentations"
INVALID = ("90", "141")  # scans for which the authors of the label maps could make none


class ImageCasConfig(CardiacConfig):
    """The paper's cardiac protocol on ImageCAS."""

    split: SplitConfig = Field(
        SplitConfig(counts=(108, 12, 16)),
        description="as many as in the paper; of a larger cohort the rest is left out: other counts, or fractions with "
        "counts=null, use more",
    )


class ImageCasFiles(Files):
    """`N.img.nii.gz` with `segmentations/N*.nii.gz`, by number, in any folders."""

    @cached_property
    def search(self) -> Search:
        listing = listed(self.root, self.config.exclude, self.config.include)
        check_readable(listing)
        images: dict[str, list[Path]] = {}
        maps: dict[str, Path] = {}
        left: dict[str, list[str]] = {}
        for one in listing.images:
            place = "/".join(one.parts)
            in_maps, number = SEGMENTATIONS in one.parts[:-1], MAP.fullmatch(one.stem)
            if in_maps and number:
                maps[number["number"]] = one.path
            elif not in_maps and (image := IMAGE.fullmatch(one.stem)):
                images.setdefault(image["number"], []).append(one.path)
            elif one.stem.endswith(".label"):
                left.setdefault("label maps of the coronaries", []).append(place)
            else:
                left.setdefault("images not named N.img, such as copies named (1)", []).append(place)
        use = self.config.masks in (None, "dataset") and bool(maps)
        found = self._found(images, maps if use else {}, left)
        orphans = [number for number in maps if number not in images]
        if orphans:
            left["label maps without their scan"] = [f"{SEGMENTATIONS}/{number}" for number in orphans]
        if not found:
            raise UserError(f"{self.root}: no N.img.nii.gz{' with a label map' if use else ''}; expected {ADVICE}")
        return Search(Cases("ImageCAS (N.img, segmentations/N)", found, left), listing)

    def _found(self, images: dict[str, list[Path]], maps: dict[str, Path], left: dict[str, list[str]]) -> list[Found]:
        found = []
        for number in sorted(images, key=int):
            paths = images[number]
            if len(paths) > 1:
                raise UserError(f"{paths[1]}: scan {number} is also {paths[0]}; exclude one with dataset.exclude")
            if maps and number not in maps:
                why = (
                    "scans that the authors of the label maps found invalid"
                    if number in INVALID
                    else "scans without a label map"
                )
                left.setdefault(why, []).append(number)
            else:
                found.append(Found(number, number, paths[0], maps.get(number)))
        return found


class ImageCasDataset(CardiacDataset):
    """ImageCAS with the label maps of STACOM2025, as a surrogate of the paper's cohort: 512x512x256, -1000..2000 HU.

    Conventional CT of the coronary arteries has another kernel and noise than the paper's photon-counting CT: its numbers are
    not the paper's. The label maps come from TotalSegmentator, so that measuring with it is circular.
    """

    Config: ClassVar[type[ImageCasConfig]] = ImageCasConfig
    version: ClassVar[int] = 1
    licence: ClassVar[str] = "images: see their page at Kaggle; label maps: MIT, made with TotalSegmentator"
    protocol_name: ClassVar[str] = "imagecas-pccta-surrogate"

    def __init__(self, config: ImageCasConfig) -> None:
        super().__init__(config, ImageCasFiles(config, "imagecas", ADVICE))
