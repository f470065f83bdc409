"""`lpips`: perceptual difference of a reconstruction, by a network fitted to human judgement.

A metric separate from `reconstruction`, with its own protocol, so that a machine without the backbone's
weights still has PSNR and MS-SSIM under the same protocol as one with them.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Self

from pydantic import Field

from medlord_bench.contracts import (
    DataProtocol,
    FrozenConfig,
    HUWindow,
    Item,
    Made,
    MetricInputs,
    Need,
    Run,
    Source,
    State,
)
from medlord_bench.contracts.metrics import MetricProtocol, Quantity
from medlord_bench.contracts.results import CaseRow, Score
from medlord_bench.contracts.weights import NeededWeights
from medlord_bench.errors import UserError

from .backbones import FILES, Net, missing, needed, path_of, sha256_of
from .quantities import BY_NAME, LPIPS_QUANTITIES

NEED = Need(Source.RECONSTRUCTIONS, Made.STATES)


class LPIPSConfig(FrozenConfig):
    """The network, and its input."""

    net: Net = Field("alex", description="backbone: alex, vgg or squeeze")
    hu_window: HUWindow = Field((-1000, 2000), description="HU that both images are clipped to, then -1 to 1")
    stride: int = Field(4, ge=1, description="every stride-th slice of each plane is used; 1 for all")
    body_threshold: int = Field(-500, description="HU above which a voxel of the real image may be body")
    backbone_sha256: str | None = Field(
        None, pattern=r"^[0-9a-f]{64}$", description="sha256 of the backbone's file; unset: that of the file found"
    )

    def for_data(self, data: DataProtocol) -> Self:
        """Set the sha256 of the existing backbone, so that results without it are not reused.

        Raises `UserError` if the file is not the requested one.
        """
        found = sha256_of(self.net)
        if found and self.backbone_sha256 not in (None, found):
            raise UserError(
                f"{path_of(self.net)}: sha256 is {found}, but lpips.backbone_sha256 asks for {self.backbone_sha256}; "
                "put that file there, or remove the setting"
            )
        return self.model_copy(update={"backbone_sha256": self.backbone_sha256 or found})


class LPIPS:
    """Learned perceptual difference of images and their reconstructions, slice by slice, whole volume and body.

    Lower is better.
    """

    Config: ClassVar[type[LPIPSConfig]] = LPIPSConfig
    version: ClassVar[int] = 1
    default: ClassVar[int | None] = 6
    quantities: ClassVar[tuple[Quantity, ...]] = LPIPS_QUANTITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, config: LPIPSConfig) -> None:
        self.config = config

    def needs(self) -> Sequence[Need]:
        """Each test image's reconstruction, with the real image as its reference."""
        return [NEED]

    def needed_weights(self) -> Sequence[NeededWeights]:
        return [needed(self.config.net)]

    def plugin_config(self) -> Mapping[str, Any]:
        return {}

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        """Everything that decides its numbers besides the data."""
        from importlib.metadata import version

        low, high = self.config.hu_window
        text: dict[str, Any] = {
            "config": self.config.model_dump(mode="json"),
            "backbone": {"file": FILES[self.config.net], "sha256": self.config.backbone_sha256 or "absent"},
            "heads": f"linear, v0.1, of the package lpips {version('lpips')}",
            "input": f"clipped to {low}..{high} HU, scaled to -1..1, grey three times, slices upright",
            "mean": "of the difference at each pixel, over the pixels of a plane's slices, then over the three planes",
            "body": f"of the real image: above {self.config.body_threshold} HU, largest component, "
            "holes filled in each axial slice",
            "summary": "median over patients of each one's median; a failed case ranks last",
        }
        return MetricProtocol(label=self.config.net, text=text)

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """Per case {"lpips"}, float64 (2,): whole volume, body. NaN if there is none, or no backbone."""
        import numpy as np

        from .cases import read_pair
        from .similarity import body_mask

        looks = self._network(run.device)
        for item in items:
            nothing = {"lpips": np.full(2, np.nan)}
            if item.path is None:
                yield {**nothing, "failed": np.ones(1)}
            elif looks is None:
                yield nothing
            else:
                made, real = read_pair(item)
                body = body_mask(real, self.config.body_threshold)
                yield {"lpips": looks.difference(made, real, self.config.hu_window, self.config.stride, body)}

    def _network(self, device: str) -> Any:
        """The network, or None if its weights are not there. Raises `UserError` if they changed meanwhile."""
        if self.config.backbone_sha256 is None:
            return None
        if sha256_of(self.config.net) != self.config.backbone_sha256:
            raise UserError(
                f"{path_of(self.config.net)}: not the file that the run was planned with (sha256 "
                f"{self.config.backbone_sha256}); restore it, or run again with a new plan"
            )
        from .perceptual import Network

        return Network(self.config.net, path_of(self.config.net), device)

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score | CaseRow]:
        """`lpips`, whole and body: medians with order-statistic intervals, and every case."""
        from .cases import REGIONS, load_states, not_reconstructed, summarise

        items = inputs.items.get(NEED, ())
        common = {
            "protocol": inputs.protocol_id,
            "generator": inputs.generator,
            "dataset": inputs.dataset,
        }
        if not items:
            yield not_reconstructed("lpips", common)
            return
        if self.config.backbone_sha256 is None:
            failed = sum(item.path is None for item in items)
            counts = {"n": len(items), "failed": failed, "reference": "test"}
            yield Score(metric="lpips", status="not_run", reason=missing(self.config.net), **counts, **common)
            return
        states = load_states(items)
        for place, region in enumerate(REGIONS):
            values = {case: _value(state, place) for case, state in states.items()}
            yield from summarise(items, values, BY_NAME["lpips"], {**common, "region": region})


def _value(state: State | None, place: int) -> float | None:
    """Of a case: infinity where it failed, None if it has no value."""
    value = math.inf if state is None else float(state["lpips"][place])
    return None if math.isnan(value) else value
