"""From descriptors to scores: each against the real volumes, and all together."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from pydantic import Field

from medlord_bench import stats
from medlord_bench.contracts import FrozenConfig, Item, MetricInputs, Need
from medlord_bench.contracts.results import CaseRow, Replicates, Score, notes

from .table import Descriptor, Table, Vector

OTHER = {"train": "test", "test": "train"}
ALPHA = 0.01  # of the warning that descriptors differ, over all descriptors of the metric together
NAMED = 3  # descriptors that the warning names
HOW_SHIFT = "95 % order statistics of the pairwise differences (Hodges-Lehmann)"
HOW_JOINT = "95 % delete-one jackknife by sample and real patient"
P_EACH = "rank sums, {} permutations of volumes and patients, corrected over all {} descriptors (maxT)"
P_JOINT = "energy distance, largest rank sum and Hotelling distance together, {} permutations of volumes and patients"
RULES = {
    "level": "median of the samples that have the descriptor, with quartiles",
    "shift": "median of all differences of a sample and a real patient (Hodges-Lehmann); 0: as in real volumes",
    "joint": "energy distance over all descriptors, each in standard deviations of the reference, or in its resolution if that "
    "is larger; a missing number counts "
    "as the median; p: the smallest of the p-values of energy distance, largest rank sum and ridge-regularised Hotelling "
    "distance of the ranks, calibrated by permutation",
    "real": "a patient counts once, with the median of the volumes",
    "failed": "counted in n; left out of the values",
    "floor": "the other real split against the same reference",
}


class DescriptorConfig(FrozenConfig):
    """How descriptors are compared.

    minimum: volumes (samples) or patients (real) below which nothing is compared; levels are given at any n.
    """

    minimum: int = Field(6, ge=4, description="volumes on each side below which they are not compared")
    permutations: int = Field(2000, ge=99, description="permutations of the tests")
    seed: int = Field(0, description="seed of the permutations; one for all generators")


@dataclass(frozen=True, eq=False)
class Compared:
    """The samples and both real splits.

    name: of the metric: the joint score is `name`_joint. A descriptor of quantity q gives the scores q (its level) and
    q_shift (the difference from real volumes), and rows q of every volume.
    """

    name: str
    descriptors: Sequence[Descriptor]
    samples: Table
    real: Mapping[str, Table]
    config: DescriptorConfig
    common: Mapping[str, Any]

    @classmethod
    def of(
        cls,
        name: str,
        descriptors: Sequence[Descriptor],
        inputs: MetricInputs,
        needs: Sequence[Need],
        config: DescriptorConfig,
    ) -> Compared:
        """needs: of the samples, of the training and of the test images."""
        samples, train, test = (Table.of(inputs.items.get(need, ()), len(descriptors)) for need in needs)
        common = {"protocol": inputs.protocol_id, "generator": inputs.generator, "dataset": inputs.dataset}
        return cls(name, descriptors, samples, {"train": train, "test": test}, config, common)

    # -------------------------------------------------------------------------------------------------------- scores
    def scores(self) -> Iterator[Score | Replicates]:
        """All descriptors together first, then each; a quantity that no volume has is `not_run` once."""
        if not self.samples.measured:
            reason = "the generator has no unconditional samples"
            if self.samples.n:
                reason = f"all {self.samples.n} samples failed, the first: {self.samples.first_failure}"
            quantities = dict.fromkeys(one.quantity for one in self.descriptors)
            for name in (f"{self.name}_joint", *(text for one in quantities for text in (one, f"{one}_shift"))):
                yield self._not_run(name, reason, "train")
            return
        for split in OTHER:
            yield from self._joint(split)
        for place, one in enumerate(self.descriptors):
            if not any(_known(table.values[:, place]).size for table in (self.samples, *self.real.values())):
                continue
            yield self._level(place, one)
            for split in OTHER:
                yield self._shift(split, place, one)

    def _not_run(self, metric: str, reason: str, split: str, region: str = "") -> Score:
        counts = {"n": self.samples.n, "failed": self.samples.failed, "region": region, "reference": split}
        return Score(metric=metric, status="not_run", reason=reason, **counts, **self.common)

    def _counts(self, split: str) -> dict[str, Any]:
        patients = len(self._patients[split][0])
        return {"n": self.samples.n, "failed": self.samples.failed, "n_reference": patients, "reference": split}

    @cached_property
    def _patients(self) -> dict[str, tuple[list[str], Vector]]:
        return {split: table.by_patient() for split, table in self.real.items()}

    @cached_property
    def _tests(self) -> dict[str, stats.Joint | None]:
        """The joint comparison with each split; None if there are too few volumes."""
        config, found, least = self.config, {}, self._least_scale
        for split, (_, real) in self._patients.items():
            enough = min(len(self.samples.values), len(real)) >= config.minimum
            arguments = (self.samples.values, real, config.seed, config.permutations, least)
            found[split] = stats.joint(*arguments) if enough else None
        return found

    @property
    def _least_scale(self) -> list[float]:
        return [one.resolution for one in self.descriptors]

    def _too_few(self, split: str) -> str:
        least = f"at least {self.config.minimum} are needed"
        measured = len(self.samples.measured)
        if measured < self.config.minimum:
            failed = f" ({self.samples.failed} of {self.samples.n} failed)" if self.samples.failed else ""
            return f"{measured} samples were measured{failed}; {least}"
        patients = len(self._patients[split][0])
        return f"{patients} real {split} patients; {least}" if patients < self.config.minimum else ""

    def _failures(self, split: str) -> list[Any]:
        texts = []
        if self.samples.failed:
            texts.append(f"{self.samples.failed} failed samples are left out")
        real = self.real[split]
        if real.failed:
            texts.append(
                f"{real.failed} of {real.n} real {split} volumes were not measured, the first: {real.first_failure}"
            )
        return list(notes("counts", *texts))

    # ---------------------------------------------------------------------------------------- all descriptors together
    def _joint(self, split: str) -> Iterator[Score | Replicates]:
        name, found = f"{self.name}_joint", self._tests[split]
        if found is None:
            yield self._not_run(name, self._too_few(split), split)
            return
        patients, real = self._patients[split]
        floor, floor_note = self._joint_floor(split)
        unlike = self._unlike(found, split)
        about = notes("counts", f"{len(self.descriptors)} descriptors")
        if split != "train":  # one warning is enough
            about += notes("context", unlike)
        yield Score(
            metric=name,
            value=found.value,
            low=found.low,
            high=found.high,
            interval=HOW_JOINT,
            p=found.p,
            p_of=P_JOINT.format(self.config.permutations),
            floor=floor,
            floor_n=None if floor is None else len(self._patients[OTHER[split]][0]),
            floor_note=floor_note,
            notes=(*about, *self._failures(split)),
            warning=unlike if split == "train" else "",
            **self._counts(split),
            **self.common,
        )
        names = [item.id for item in self.samples.measured]
        yield Replicates(
            metric=name,
            reference=split,
            value=found.value,
            samples=dict(zip(names, found.without_x.tolist(), strict=True)),
            real=dict(zip(patients, found.without_y.tolist(), strict=True)),
            **self.common,
        )

    def _unlike(self, found: stats.Joint, split: str) -> str:
        """The descriptors that differ from the real volumes, the most different first; empty if none does."""
        order = [int(place) for place in np.argsort(found.p_each, kind="stable") if found.p_each[place] < ALPHA]
        if not order:
            return ""
        named = [self._difference(place, split) for place in order[:NAMED]]
        count = f"{len(order)} of {len(self.descriptors)} descriptors differ from real {split} volumes"
        return f"{count}, most: {', '.join(named)}"

    def _difference(self, place: int, split: str) -> str:
        one, real = self.descriptors[place], self._patients[split][1][:, place]
        x, y = (
            f"{np.median(values):.4g}" if values.size else "none"
            for values in map(_known, (self.samples.values[:, place], real))
        )
        return f"{one.quantity} {one.region} {x} (real {y})"

    def _joint_floor(self, split: str) -> tuple[float | None, str]:
        other, real = self._patients[OTHER[split]], self._patients[split]
        if len(other[0]) < self.config.minimum:
            return None, self._no_floor(split)
        note = (
            f"{len(other[0])} real {OTHER[split]} patients against the same {len(real[0])}; unbiased: about 0 at any n"
        )
        return stats.joint(other[1], real[1], self.config.seed, 0, self._least_scale).value, note

    def _no_floor(self, split: str) -> str:
        patients = len(self._patients[OTHER[split]][0])
        return f"no floor: {patients} real {OTHER[split]} patients, at least {self.config.minimum} are needed"

    # ------------------------------------------------------------------------------------------------ each descriptor
    def _level(self, place: int, one: Descriptor) -> Score:
        values = _known(self.samples.values[:, place])
        if not values.size:
            return self._not_run(
                one.quantity, f"none of {len(self.samples.measured)} samples has it", "train", one.region
            )
        found = stats.median_interval(values)
        texts = [_described(split, self.real[split].values[:, place]) for split in OTHER]
        few = f"no interval: {len(values)} samples, at least 6 are needed" if found.low is None else ""
        lack = len(self.samples.measured) - len(values)
        absent = f"{lack} of {len(self.samples.measured)} samples lack it" if lack else ""
        return Score(
            metric=one.quantity,
            region=one.region,
            value=found.value,
            quartiles=(found.lower_quartile, found.upper_quartile),
            low=found.low,
            high=found.high,
            interval="" if found.low is None else f"95 % order statistics of the median of {len(values)} samples",
            notes=(
                *notes("context", *texts),
                *notes("caution", few),
                *notes("counts", absent),
                *self._failures("train"),
            ),
            **self._counts("train"),
            **self.common,
        )

    def _shift(self, split: str, place: int, one: Descriptor) -> Score:
        metric, test = f"{one.quantity}_shift", self._tests[split]
        if test is None:
            return self._not_run(metric, self._too_few(split), split, one.region)
        real = self._patients[split][1][:, place]
        x, y = _known(self.samples.values[:, place]), _known(real)
        for values, whose in ((x, "samples"), (y, f"real {split} patients")):
            if len(values) < self.config.minimum:
                reason = f"{len(values)} {whose} have it; at least {self.config.minimum} are needed"
                return self._not_run(metric, reason, split, one.region)
        found, p = stats.shift(x, y), float(test.p_each[place])
        floor, floor_n, floor_note = self._shift_floor(split, place, y)
        return Score(
            metric=metric,
            region=one.region,
            value=found.value,
            low=found.low,
            high=found.high,
            interval="" if found.low is None else HOW_SHIFT,
            p=p,
            p_of=P_EACH.format(self.config.permutations, len(self.descriptors)),
            floor=floor,
            floor_n=floor_n,
            floor_note=floor_note,
            notes=tuple(self._failures(split)),
            **self._counts(split),
            **self.common,
        )

    def _shift_floor(self, split: str, place: int, reference: Vector) -> tuple[float | None, int | None, str]:
        other = _known(self._patients[OTHER[split]][1][:, place])
        if len(other) < self.config.minimum:
            return None, None, self._no_floor(split)
        note = f"{len(other)} real {OTHER[split]} patients against the same {len(reference)} real {split} patients"
        return stats.shift(other, reference).value, len(other), note

    # ---------------------------------------------------------------------------------------------------------- rows
    def rows(self) -> Iterator[CaseRow]:
        """Every descriptor of every volume: the generator's, then the real ones of each split."""
        for split, table in {"": self.samples, **self.real}.items():
            whose = {"split": split} if split else {"generator": str(self.common["generator"])}
            for item, values in zip(table.measured, table.values.tolist(), strict=True):
                yield from self._of_volume(item, values, whose)

    def _of_volume(self, item: Item, values: Sequence[float], whose: Mapping[str, Any]) -> Iterator[CaseRow]:
        for one, value in zip(self.descriptors, values, strict=True):
            if not np.isnan(value):
                where = {"case": item.id, "region": one.region, "patient": item.patient or ""}
                yield CaseRow(metric=one.quantity, value=value, **whose, **where)


def _known(values: Vector) -> Vector:
    return np.asarray(values[~np.isnan(values)])


def _described(split: str, values: Vector) -> str:
    known = _known(values)
    if not len(known):
        return f"real {split}: none has it"
    found = stats.median_interval(known)
    quartiles = f"IQR {found.lower_quartile:.4g} to {found.upper_quartile:.4g}"
    return f"real {split}: median {found.value:.4g}, {quartiles}, n {len(known)}"
