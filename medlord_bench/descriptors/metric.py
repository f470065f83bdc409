"""What the metrics that measure descriptors share: their inputs, their rules, and the comparison with real volumes."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, ClassVar

from medlord_bench.contracts import MetricInputs, Need, Run
from medlord_bench.contracts.results import CaseRow, Replicates, Score
from medlord_bench.contracts.values import Made, Source

from .compare import RULES, Compared, DescriptorConfig
from .table import Descriptor

SOURCES = (Source.SAMPLES, Source.REAL_TRAIN, Source.REAL_TEST)


class DescriptorMetric:
    """A metric whose `extract` gives the states of `table.state_of`, and whose `descriptors` names their numbers.

    prefix: of its quantities; the joint score is `prefix`_joint. segmenter: of the label maps that it reads beside the
    volumes; empty for a metric that reads volumes alone.
    """

    prefix: ClassVar[str]
    config: DescriptorConfig

    @property
    def segmenter(self) -> str:
        return ""

    def descriptors(self) -> Sequence[Descriptor]:
        """What the numbers of a state are, in order."""
        raise NotImplementedError

    def needs(self) -> Sequence[Need]:
        """States of the samples and of both real splits."""
        return [Need(source, Made.STATES, segmenter=self.segmenter) for source in SOURCES]

    def compared_by(self, own: Mapping[str, str]) -> dict[str, Any]:
        """The part of a protocol that says how descriptors are compared. own: the metric's own rules."""
        config = self.config
        settings = {"minimum": config.minimum, "permutations": config.permutations, "seed": config.seed}
        return {**settings, "rules": {**RULES, **own}}

    def reduce(self, inputs: MetricInputs, run: Run) -> Iterable[Score | CaseRow | Replicates]:
        """Every descriptor's level and shift, the joint score, and a row for every descriptor of every volume."""
        compared = Compared.of(self.prefix, self.descriptors(), inputs, self.needs(), self.config)
        return (*compared.scores(), *compared.rows())
