"""Shared parts of metrics of label maps: segmenter, regions, and the segmenter's description for a protocol."""

from __future__ import annotations

from functools import cached_property
from typing import Any

from pydantic import Field

from medlord_bench.contracts.specs import PluginSpec, make, plugin_spec, without_places
from medlord_bench.contracts.values import DataProtocol, FrozenConfig
from medlord_bench.errors import UserError

WITHOUT_SPACING = (
    "the median voxel size of the training images, real volumes and samples alike"  # of a grid without one
)


class SegmentationConfig(FrozenConfig):
    """The segmenter and the measured regions; unset fields are taken from the data set."""

    segmenter: str | None = Field(None, description="segmenter of the volumes; unset: the data set's")
    segmenter_settings: dict[str, Any] = Field(default_factory=dict, description="settings of the segmenter")
    regions: tuple[str, ...] | None = Field(
        None, description="regions to measure; unset: the data set's; none: all regions of the segmenter"
    )


class Segmentation:
    """The segmenter of a metric's configuration, created on first use. metric: for messages."""

    def __init__(self, config: SegmentationConfig, metric: str) -> None:
        self.config, self.metric = config, metric

    @property
    def name(self) -> str:
        """Raises `UserError` if neither the user nor the data set names one."""
        if self.config.segmenter is None:
            raise UserError(
                f"metric {self.metric}: segmenter is not given; expected a name: set {self.metric}.segmenter=NAME"
            )
        return self.config.segmenter

    @cached_property
    def _spec(self) -> PluginSpec:
        return plugin_spec("segmenters", self.name, self.config.segmenter_settings)

    @cached_property
    def segmenter(self) -> Any:
        """The segmenter itself."""
        return make("segmenters", self._spec)

    @cached_property
    def regions(self) -> tuple[str, ...]:
        """The regions to measure; all of the segmenter's if none is named."""
        return self.config.regions or tuple(dict.fromkeys(self.segmenter.names.values()))

    def described(self, data: DataProtocol) -> dict[str, object]:
        """The part of the segmenter that decides the label maps of every volume, for a protocol."""
        return {
            "name": self.name,
            "version": self.segmenter.version,
            "config": without_places(self._spec.config),
            "fingerprint": dict(self.segmenter.fingerprint([])),
            **({} if data.grid.spacing else {"voxel_size": WITHOUT_SPACING}),
        }
