"""The quantities of the diversity of a set of samples."""

from __future__ import annotations

from medlord_bench.contracts.metrics import Headline, Quantity

QUANTITIES = (
    Quantity(
        name="distinct_samples",
        criterion="coverage",
        title="Distinct samples",
        decimals=0,
        meaning="Number of samples left if those that are much nearer to each other than real patients are count as one.",
        better="higher",
        headline=(Headline(rank=35, reference="train"),),
        watches="repeated samples",
    ),
    Quantity(
        name="vendi",
        criterion="coverage",
        title="Vendi score",
        decimals=2,
        meaning="Effective number of different samples, 1 if all are equal; it grows with n, so read it beside the same of as many real patients.",
        interval="delete-one jackknife by sample",
        watches="samples that differ less than patients do",
    ),
    Quantity(
        name="pair_ms_ssim",
        criterion="coverage",
        title="MS-SSIM between samples",
        decimals=3,
        meaning="Mean similarity of pairs of different samples: lower is more varied, and noise is the most varied. Not fidelity. A good value is that of real patients.",
        interval="delete-one jackknife by sample",
        watches="samples more alike than patients are",
    ),
)
