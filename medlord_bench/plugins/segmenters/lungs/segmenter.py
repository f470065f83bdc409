"""The lungs by classical image analysis, without weights or downloads."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import ClassVar

from pydantic import Field

from medlord_bench.contracts import Failure, FrozenConfig, LabelMap, Run, Volume


class LungsConfig(FrozenConfig):
    """The definition of lung."""

    threshold: int = Field(-320, ge=-700, le=-100, description="HU below which a voxel is air or lung")
    closing: float = Field(7.0, ge=0, description="radius in mm of the closing that includes vessels in the lung")


class LungsSegmenter:
    """Left and right lung with their vessels, without trachea and main bronchi; classical, needs no weights."""

    Config: ClassVar[type[LungsConfig]] = LungsConfig
    version: ClassVar[int] = 3
    names: Mapping[int, str] = {1: "lung_left", 2: "lung_right"}

    def __init__(self, config: LungsConfig) -> None:
        self.config = config

    def fingerprint(self, case_ids: Sequence[str]) -> Mapping[str, str]:
        """Nothing decides the labels besides version and configuration."""
        return {}

    def segment(self, volumes: Iterable[tuple[str, Volume]], run: Run) -> Iterator[LabelMap | Failure]:
        """Labels 1 (left) and 2 (right) on each volume's own grid; all zero if no lung is found.

        Lengths are in mm by the volume's affine. They scale with the size of the lungs, so that a grid of unknown
        spacing (nominally 1 mm) and a small patch are segmented too.
        """
        from medlord_bench.plugins.segmenters.lungs.anatomy import lungs

        for _, volume in volumes:
            labels = lungs(volume.hu, volume.spacing, self.config.threshold, self.config.closing)
            yield LabelMap(labels, volume.affine, self.names)
