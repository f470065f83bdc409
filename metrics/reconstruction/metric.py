"""`reconstruction`: the loss of an autoencoder. PSNR and MS-SSIM of each real image and its reconstruction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, ClassVar, Literal

from pydantic import Field, model_validator

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

from .quantities import BY_NAME, QUANTITIES

NEED = Need(Source.RECONSTRUCTIONS, Made.STATES)
Name = Literal["psnr", "ms_ssim"]
NAMES: tuple[Name, ...] = ("psnr", "ms_ssim")


class ReconstructionConfig(FrozenConfig):
    """hu_window: both images are clipped to it, and its width is the range of PSNR and MS-SSIM."""

    hu_window: HUWindow = (-1000, 2000)
    kernel_size: int = Field(3, ge=3, description="of the Gaussian window of MS-SSIM, in voxels; odd")
    kernel_sigma: float = Field(1.5, gt=0, description="of the Gaussian window of MS-SSIM, in voxels")
    body_threshold: int = Field(-500, description="HU above which a voxel of the real image may be body")

    @model_validator(mode="after")
    def _usable(self) -> ReconstructionConfig:
        if self.kernel_size % 2 == 0:
            raise ValueError("kernel_size: must be odd")
        return self


class Reconstruction:
    """PSNR and MS-SSIM of the autoencoder, medians over patients, whole volume and inside the body.

    Both higher is better.
    """

    Config: ClassVar[type[ReconstructionConfig]] = ReconstructionConfig
    version: ClassVar[int] = 2
    default: ClassVar[int | None] = 5
    quantities: ClassVar[tuple[Quantity, ...]] = QUANTITIES
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, config: ReconstructionConfig) -> None:
        self.config = config

    def needs(self) -> Sequence[Need]:
        """Each test image's reconstruction, with the real image as its reference."""
        return [NEED]

    def plugin_config(self) -> Mapping[str, Any]:
        return {}

    def protocol(self, data: DataProtocol) -> MetricProtocol:
        """Everything that decides its numbers besides the data."""
        from medlord_bench.volumes.scales import scale_weights

        low, high = self.config.hu_window
        text: dict[str, Any] = {
            "config": self.config.model_dump(mode="json"),
            "psnr": f"10 log10({high - low}^2 / mean squared error in HU), clipped to {low}..{high}",
            "ms_ssim_scale_weights": list(scale_weights(min(data.grid.shape), self.config.kernel_size)),
            "body": f"of the real image: above {self.config.body_threshold} HU, largest component, "
            "holes filled in each axial slice; windows of MS-SSIM weighted by their fraction of body",
            "summary": "median over patients of each one's median; a failed case ranks last",
        }
        return MetricProtocol(label=f"hu{low}..{high}", text=text)

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """Per case {"mse": HU^2, "ms_ssim"}, each float64 (2,): whole volume, body. NaN if there is none."""
        import numpy as np

        from .cases import read_pair
        from .similarity import compare

        for item in items:
            if item.path is None:
                yield {"mse": np.full(2, np.nan), "ms_ssim": np.full(2, np.nan), "failed": np.ones(1)}
                continue
            made, real = read_pair(item)
            config = self.config
            yield compare(
                made, real, config.hu_window, config.kernel_size, config.kernel_sigma, config.body_threshold, run.device
            )

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score | CaseRow]:
        """`psnr` (dB) and `ms_ssim`, whole and body: medians with order-statistic intervals, and every case."""
        from .cases import REGIONS, load_states, not_reconstructed, summarise

        items = inputs.items.get(NEED, ())
        common = {
            "protocol": inputs.protocol_id,
            "generator": inputs.generator,
            "dataset": inputs.dataset,
        }
        if not items:
            yield from (not_reconstructed(name, common) for name in NAMES)
            return
        states = load_states(items)
        for name in NAMES:
            for place, region in enumerate(REGIONS):
                values = self._values(name, place, states)
                yield from summarise(items, values, BY_NAME[name], {**common, "region": region})

    def _values(self, name: Name, place: int, states: Mapping[str, State | None]) -> dict[str, float | None]:
        """Per case: the value; minus infinity for a failed case, plus infinity for identical images, None for none."""
        width = self.config.hu_window[1] - self.config.hu_window[0]
        found: dict[str, float | None] = {}
        for case, state in states.items():
            if state is None:
                found[case] = -math.inf
                continue
            value = float(state["mse" if name == "psnr" else name][place])
            if math.isnan(value):
                found[case] = None
            elif name == "psnr":
                found[case] = 10 * math.log10(width**2 / value) if value > 0 else math.inf
            else:
                found[case] = value
        return found
