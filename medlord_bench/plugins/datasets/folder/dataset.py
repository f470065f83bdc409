"""Your own CT: a folder of images, with masks or without, whole or as random patches."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar, Literal

from pydantic import Field

from medlord_bench.contracts import (
    Case,
    DataProtocol,
    FrozenConfig,
    Grid,
    HUWindow,
    LabelMap,
    Shape,
    Spacing,
    Split,
    Volume,
)
from medlord_bench.contracts.inventory import Inventory
from medlord_bench.contracts.specs import WITHOUT_SEGMENTER
from medlord_bench.errors import UserError
from medlord_bench.plugins.datasets.on_disk.cohort import Files
from medlord_bench.plugins.datasets.on_disk.find import FilesConfig
from medlord_bench.util.hashing import digest

ADVICE = "CT images (images/*.nii.gz with masks/, subject folders with ct.nii.gz, or plain files; see docs/datasets.md)"


class PatchConfig(FrozenConfig):
    """Random patches instead of whole images."""

    shape: Shape = Field((64, 64, 64), description="voxels of a patch along R, A, S")
    per_volume: int = Field(16, ge=1, le=10_000, description="patches from each image")
    min_body: float = Field(0.5, ge=0, le=1, description="smallest fraction of a patch that is inside the body")
    seed: int = Field(0, description="seed of the patches' positions")


class FolderConfig(FilesConfig):
    """Your own CT. Give `shape` or `patches`."""

    shape: Shape | None = Field(None, description="grid of whole images, voxels along R, A, S")
    fit: Literal["crop-pad", "resize"] = Field("crop-pad", description="how whole images are fitted to the grid")
    patches: PatchConfig | None = Field(None, description="patches instead of whole images")
    spacing: Spacing | None = Field(
        None, description="resample every image to this voxel size in mm first; unset: each image keeps its own"
    )
    hu_window: HUWindow = Field((-1000, 1000), description="lowest and highest HU kept")
    rvr_regions: tuple[str, ...] | None = Field(None, description="regions of RVR; unset: all that have a name")
    condition_regions: tuple[str, ...] | None = Field(None, description="regions that condition; unset: all")
    adherence_regions: tuple[str, ...] | None = Field(None, description="regions of adherence; unset: all")


class FolderDataset:
    """Any folder of CT images, with or without masks; whole or in patches. Splits are by patient.

    The patient is the first folder below the root (or the name of a file at the root), unless a manifest names it.
    """

    Config: ClassVar[type[FolderConfig]] = FolderConfig
    version: ClassVar[int] = 1
    segmenter: ClassVar[str] = "lungs"  # of generated volumes, where the masks are no segmenter's

    def __init__(self, config: FolderConfig) -> None:
        self.config = config
        self.files = Files(config, "folder", ADVICE)
        self._last: tuple[str, Volume, LabelMap | None] | None = None

    @property
    def grid(self) -> Grid:
        """Raises `UserError` if neither `patches` nor `shape` is given."""
        config = self.config
        shape = config.patches.shape if config.patches else config.shape
        if shape is None:
            raise UserError(
                "dataset folder: no grid given; expected --set dataset.shape=X,Y,Z for whole images, "
                "or --set dataset.patches.shape=64,64,64 for patches"
            )
        spacing = config.spacing if config.patches or config.fit == "crop-pad" else None
        return Grid(shape=shape, spacing=spacing, hu_window=config.hu_window)

    @property
    def protocol(self) -> DataProtocol:
        files, config = self.files, self.config
        _ = files.root  # missing data are reported before a missing grid
        grid = self.grid
        each = config.patches.per_volume if config.patches else 1
        known = tuple(dict.fromkeys(files.names.values())) if files.masks == "dataset" else ()
        segmenter = self.segmenter if files.masks in WITHOUT_SEGMENTER else files.masks
        # A patch does not show whether its lung is the left or the right one.
        measured = known or (("lungs",) if config.patches and segmenter == "lungs" else ())
        return DataProtocol(
            name="folder",
            grid=grid,
            fit="crop-pad" if config.patches else config.fit,
            split=files.split_words + self._patch_words(),
            split_sha256=digest({"lists": files.split_sha256, "patches": self._patch_facts()}),
            counts={split: n * each for split, n in files.counts.items()},
            masks=files.masks,
            segmenter=segmenter,
            rvr_regions=measured if config.rvr_regions is None else config.rvr_regions,
            condition_regions=known if config.condition_regions is None else config.condition_regions,
            adherence_regions=known if config.adherence_regions is None else config.adherence_regions,
        )

    def _patch_facts(self) -> dict[str, object] | None:
        return self.config.patches.model_dump(mode="json") if self.config.patches else None

    def _patch_words(self) -> str:
        patches = self.config.patches
        if patches is None:
            return ""
        return f"; {patches.per_volume} random patches a volume, {patches.min_body:.0%} or more in the body, seed {patches.seed}"

    def inventory(self) -> Inventory:
        return self.files.inventory

    def cases(self, split: Split) -> Sequence[Case]:
        config = self.config
        facts: dict[str, object] = {"spacing": config.spacing, "window": config.hu_window, "version": self.version}
        facts["patches"] = self._patch_facts()
        images = [replace(c, sha256=digest({"case": c.sha256, **facts})) for c in self.files.cases(split)]
        if config.patches is None:
            return images
        return [
            replace(case, id=f"{case.id}-p{index:03d}", sha256=digest({"volume": case.sha256, "patch": index}))
            for case in images
            for index in range(config.patches.per_volume)
        ]

    def load(self, case: Case) -> tuple[Volume, LabelMap | None]:
        patches = self.config.patches
        if patches is None:
            return self._whole(case.id)
        from medlord_bench.plugins.datasets.folder.patches import cut, place

        name, _, index = case.id.rpartition("-p")
        volume, labels = self._whole(name)
        start = place(volume, patches.shape, patches.min_body, (patches.seed, name, int(index)))
        return cut(volume, labels, start, patches.shape, self.config.hu_window[0])

    def _whole(self, name: str) -> tuple[Volume, LabelMap | None]:
        """The image at the common spacing; the last one is cached, since its patches are read in sequence."""
        if self._last is None or self._last[0] != name:
            volume, labels = self.files.read(name)
            if self.config.spacing is not None:
                from medlord_bench.volumes.grid import resample, resample_labels

                volume = resample(volume, self.config.spacing, self.config.hu_window)
                labels = None if labels is None else resample_labels(labels, self.config.spacing)
            self._last = name, volume, labels
        return self._last[1], self._last[2]
