"""The cumulative logit model of ordered answers, with standard errors clustered by case."""

from __future__ import annotations

import warnings
from dataclasses import dataclass

import numpy as np
from numpy.typing import ArrayLike

from medlord_bench.errors import UserError
from medlord_bench.stats.arrays import LEVEL, Vector

LARGEST = 10.0  # log odds, of an estimate or its standard error: beyond it the sample does not determine the effect
APART = "the answers are separated: those of one source or reader lie, but for ties, beyond those of others"


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
    _estimable(y, x, used)
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
    if (
        not reliable
        or max(np.abs(value).max(), error.max()) > LARGEST
        or np.abs(found.model.score(found.params)).max() > 1e-2
    ):
        raise UserError("the model did not converge: the answers are nearly separated")
    reach = float(norm.ppf(0.5 + LEVEL / 2)) * error
    return Effects(value, error, value - reach, value + reach, 2 * norm.sf(np.abs(value / error)))


def _estimable(y: Vector, x: Vector, used: Vector) -> None:
    """Raise `UserError` if the likelihood has no maximum: the answers are separated, wholly or but for ties.

    So it is if some b and limits c, not all 0, have c_{y-1} <= x b <= c_y for every answer, with at least one inequality
    (Albert & Anderson 1984, for binary answers); a linear program looks for them (Konis 2007).
    """
    from scipy.optimize import linprog

    for column in x.T:
        if column.min() == column.max():
            raise UserError("a source or reader has no answers, or all of them: it has no effect to estimate")
    cells = np.unique(np.column_stack([np.searchsorted(used, y), x]), axis=0)
    slack = []  # rows (b, c) of the inequalities
    for level, *values in cells:
        for limit, sign in ((int(level) - 1, 1.0), (int(level), -1.0)):
            if 0 <= limit < len(used) - 1:
                row = np.zeros(x.shape[1] + len(used) - 1)
                row[: x.shape[1]], row[x.shape[1] + limit] = sign * np.array(values), -sign
                slack.append(row)
    rows = np.array(slack)
    found = linprog(-rows.sum(0), A_ub=-rows, b_ub=np.zeros(len(rows)), bounds=(-1, 1))
    if not found.success or float(rows.sum(0) @ found.x) > 1e-7:
        raise UserError(APART)
