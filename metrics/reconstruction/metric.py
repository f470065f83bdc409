"""`reconstruction`: how much an autoencoder loses. PSNR and MS-SSIM of each real image and its reconstruction."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal

from pydantic import Field, model_validator

from medlord_bench.contracts import DataProtocol, Frozen, Item, MetricInputs, Need, Run, State
from medlord_bench.errors import UserError
from medlord_bench.hashing import digest
from medlord_bench.results import CaseRow, Score

if TYPE_CHECKING:
    from medlord_bench.stats import MedianInterval

NEED = Need("reconstructions", "states")
REGIONS = ("", "body")  # the order of the numbers in a state
Name = Literal["psnr", "ms_ssim"]
NAMES: tuple[Name, ...] = ("psnr", "ms_ssim")


class ReconstructionConfig(Frozen):
    """hu_window: both images are clipped to it, and its width is the range of PSNR and MS-SSIM."""

    hu_window: tuple[int, int] = (-1000, 2000)
    kernel_size: int = Field(3, ge=3, description="of the Gaussian window of MS-SSIM, in voxels; odd")
    kernel_sigma: float = Field(1.5, gt=0, description="of the Gaussian window of MS-SSIM, in voxels")
    body_threshold: int = Field(-500, description="HU above which a voxel of the real image may be body")

    @model_validator(mode="after")
    def _usable(self) -> ReconstructionConfig:
        if self.hu_window[0] >= self.hu_window[1]:
            raise ValueError("hu_window: the first value must be below the second")
        if self.kernel_size % 2 == 0:
            raise ValueError("kernel_size: must be odd")
        return self


class Reconstruction:
    """PSNR and MS-SSIM of the autoencoder, medians over patients, whole volume and inside the body.

    Both higher is better.
    """

    Config: ClassVar[type[ReconstructionConfig]] = ReconstructionConfig
    version: ClassVar[int] = 1
    variants: ClassVar[Mapping[str, Mapping[str, Any]]] = {}

    def __init__(self, config: ReconstructionConfig) -> None:
        self.config = config

    def needs(self) -> Sequence[Need]:
        """Each test image's reconstruction, with the real image as its reference."""
        return [NEED]

    def plugin_config(self) -> Mapping[str, Any]:
        return {}

    def protocol(self, data: DataProtocol) -> tuple[str, dict[str, object]]:
        """The protocol's id, e.g. ``reconstruction-hu-1000..2000-1f00ab42``, and its full text."""
        from .scales import scale_weights

        low, high = self.config.hu_window
        text: dict[str, object] = {
            "metric": "reconstruction",
            "version": self.version,
            "config": self.config.model_dump(mode="json"),
            "psnr": f"10 log10({high - low}^2 / mean squared error in HU), clipped to {low}..{high}",
            "ms_ssim_scale_weights": list(scale_weights(min(data.grid.shape), self.config.kernel_size)),
            "body": f"of the real image: above {self.config.body_threshold} HU, largest component, "
            "holes filled in each axial slice",
            "summary": "median over patients of each one's median; a failed case ranks last",
            "data": data.model_dump(mode="json"),
        }
        return f"reconstruction-hu{low}..{high}-{digest(text)[:8]}", text

    def extract(self, items: Iterable[Item], run: Run) -> Iterator[State]:
        """Per case {"mse": HU^2, "ms_ssim"}, each float64 (2,): whole volume, body. NaN where there is none."""
        import numpy as np

        from medlord_bench.states import read_hu

        from .similarity import compare

        for item in items:
            if item.path is None:
                yield {"mse": np.full(2, np.nan), "ms_ssim": np.full(2, np.nan), "failed": np.ones(1)}
                continue
            if item.reference is None:
                raise UserError(f"case {item.id}: no real image beside {item.path}; expected one: reconstruct it again")
            made, real = read_hu(item.path), read_hu(item.reference)
            if made.shape != real.shape:
                raise UserError(
                    f"{item.path}: grid {made.shape}, but its real image {item.reference} has {real.shape}; "
                    "expected one grid: reconstruct it again on the protocol's"
                )
            config = self.config
            yield compare(
                made, real, config.hu_window, config.kernel_size, config.kernel_sigma, config.body_threshold, run.device
            )

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score | CaseRow]:
        """`psnr` (dB) and `ms_ssim`, whole and body: medians with order-statistic intervals, and every case."""
        items = inputs.items.get(NEED, ())
        id, _ = self.protocol(inputs.protocol)
        common = {"protocol": id, "generator": inputs.generator, "dataset": inputs.dataset, "better": "higher"}
        common["reference"] = "test"
        if not items:
            reason = "the generator has no autoencoder, so nothing was reconstructed"
            for name in NAMES:
                yield Score(metric=name, status="not_run", reason=reason, **common)
            return
        states = _load(items)
        for name in NAMES:
            for place, region in enumerate(REGIONS):
                values = self._values(name, place, states)
                yield _score(name, region, items, values, common)
                for case, value in values.items():
                    if value is not None and math.isfinite(value):
                        yield CaseRow(
                            metric=name, generator=inputs.generator, case=case, region=region, value=float(value)
                        )

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


def _load(items: Sequence[Item]) -> dict[str, State | None]:
    """The state of each case; None where it failed."""
    from medlord_bench.states import load_state

    states = {item.id: None if item.path is None else load_state(item.path) for item in items}
    return {case: None if state is None or "failed" in state else state for case, state in states.items()}


def _score(
    name: Name, region: str, items: Sequence[Item], values: Mapping[str, float | None], common: Mapping[str, Any]
) -> Score:
    """The median over patients, or `not_run` where it is not a number."""
    from medlord_bench.stats import median_interval

    patients: dict[str, list[float]] = {}
    for item in items:
        value = values[item.id]
        if value is not None:
            patients.setdefault(item.patient or item.id, []).append(value)
    with_value = sum(map(len, patients.values()))
    failed = sum(value == -math.inf for value in values.values())
    shared = {**common, "metric": name, "region": region, "unit": "dB" if name == "psnr" else "", "failed": failed}
    shared["n"] = with_value or len(items)
    if not patients:
        return Score(status="not_run", reason="no case has a value: too small a grid, or no body in it", **shared)
    found = median_interval([median_interval(own).value for own in patients.values()])
    notes = _notes(found, values, len(patients))
    if not math.isfinite(found.value):
        reason = (
            f"{failed} of {len(items)} cases failed" if found.value < 0 else "most cases equal their image: infinite"
        )
        return Score(status="not_run", reason=reason, note=notes, **shared)
    how = "" if found.low is None else f"95 % order statistics of the median of {len(patients)} patients"
    return Score(
        value=found.value, low=_finite(found.low), high=_finite(found.high), interval=how, note=notes, **shared
    )


def _finite(value: float | None) -> float | None:
    return value if value is not None and math.isfinite(value) else None


def _notes(found: MedianInterval, values: Mapping[str, float | None], patients: int) -> str:
    identical = sum(value == math.inf for value in values.values())
    missing = sum(value is None for value in values.values())
    notes = [f"median, IQR {found.lower_quartile:.4g} to {found.upper_quartile:.4g}"]
    if len(values) - missing > patients:
        notes.append(f"{len(values) - missing} cases of {patients} patients, a patient counts once")
    if identical:
        notes.append(f"{identical} cases equal their image: infinite, ranked first")
    if missing:
        notes.append(f"{missing} cases have no value here (too small a grid, or no body) and are left out of n")
    if found.low is None:
        notes.append(f"no interval: {patients} patients, at least 6 are needed")
    return "; ".join(notes)
