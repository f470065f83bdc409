"""The cumulative logit model of ordered answers, with standard errors clustered by case."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import LEVEL, Vector

LARGEST = 15.0  # log odds: an estimate beyond has no maximum in reach


@dataclass(frozen=True, eq=False)
class Effects:
    """log odds of a higher answer for each column of the design, with standard errors, Wald intervals and p-values."""

    value: Vector
    error: Vector
    low: Vector
    high: Vector
    p: Vector


def cumulative_logit(levels: ArrayLike, design: ArrayLike, clusters: ArrayLike | None = None) -> Effects:
    """Maximum likelihood of logit P(level > j) = x b - c_j (McCullagh 1980; statsmodels' `OrderedModel`).

    levels: (n,), ordered answers. design: (n, p), without a constant. clusters: (n,), the case of each answer: answers of
    one case are dependent, and the standard errors are robust to that; None for independent answers. Raises `UserError`
    with a sentence for a sample without an estimate: one level only, or separated.
    """
    from scipy.stats import norm
    from statsmodels.miscmodels.ordinal_model import OrderedModel

    y, x = np.asarray(levels), np.asarray(design, dtype=np.float64)
    used = np.unique(y)
    if len(used) < 2:
        raise UserError("all answers are equal: there is nothing to model")
    _not_separated(y, x, used)
    codes = np.searchsorted(used, y)
    groups = None if clusters is None else np.unique(np.asarray(clusters), return_inverse=True)[1]
    how = {} if groups is None else {"cov_type": "cluster", "cov_kwds": {"groups": groups}}
    try:
        with warnings.catch_warnings(), np.errstate(all="ignore"):
            warnings.simplefilter("ignore")
            found = OrderedModel(codes, x, distr="logit").fit(method="bfgs", maxiter=500, disp=False, **how)
    except (np.linalg.LinAlgError, ValueError):
        raise UserError("the model has no unique estimate: a source or reader has too few different answers") from None
    value, error = found.params[: x.shape[1]], found.bse[: x.shape[1]]
    reliable = np.isfinite(value).all() and np.isfinite(error).all() and (error > 0).all()
    if not reliable or np.abs(value).max() > LARGEST or np.abs(found.model.score(found.params)).max() > 1e-2:
        raise UserError("the model did not converge: the answers are nearly separated")
    reach = float(norm.ppf(0.5 + LEVEL / 2)) * error
    return Effects(value, error, value - reach, value + reach, 2 * norm.sf(np.abs(value / error)))


def _not_separated(y: Vector, x: Vector, used: Vector) -> None:
    """Raise `UserError` if the effect of a 0/1 column is infinite: its answers are all at one end, or apart from the rest."""
    for column in x.T:
        if not set(np.unique(column)) <= {0.0, 1.0}:
            continue
        own, others = y[column == 1], y[column == 0]
        if not len(own) or not len(others):
            raise UserError("a source or reader has no answers, or all of them: it has no effect to estimate")
        ends = own.min() == own.max() and own[0] in (used[0], used[-1])
        if ends or own.min() > others.max() or own.max() < others.min():
            raise UserError("the answers are separated: those of one source or reader are all at one end of the scale")
