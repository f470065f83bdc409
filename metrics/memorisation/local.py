"""The local stage: parts of a sample that are parts of a training volume, wherever, in whatever orientation.

1. Screening. Every point of the sample (at three sizes of it) is compared by its moments with the points of all training
   volumes, and with the best of these in all 48 orientations.
2. Consensus. Matches of one training volume, orientation and size vote for the shift (a Hough transform); the largest
   clusters are hypotheses, each an affine map by least squares.
3. Agreement. Under a hypothesis each patch of the sample is registered locally to the training volume (a shift, by
   Gauss-Newton: Lucas & Kanade 1981) and correlated. A patch of common anatomy correlates with many patients. So it counts
   by how much more it correlates with one patient than with any other (Lowe's ratio test, patch by patch).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from .audit import Found
from .matching import unit
from .points import ORDERS, ORIENTATIONS, Points, contrast, moments, places, points, read

SIZES = (0.8, 1.0, 1.25)  # of the sample, so that a zoomed copy is found
CANDIDATES = 32  # points that each point of the sample is compared with in all orientations
ROWS = 64  # points of the sample at a time: memory grows with them
MATCH = 0.6  # least correlation of two balls that match
CLUSTER_CELLS = 5.0  # shifts that agree
GROUPS = 150  # of matches (training volume, orientation, size) that are searched for clusters
EXTRA = 3  # hypotheses beside the best of each patient
STIFFNESS = 200.0  # of an affine map against its orientation and size, in squared cells
SHIFT_CELLS, STEPS = 2.5, 4  # largest local shift, and steps to find it
DAMPING = 0.05  # of a step, of the mean curvature
AGREES = 0.7  # correlation from which a patch agrees


@dataclass(frozen=True, eq=False)
class Matches:
    """Pairs of points: `ours` (m, 3) of the sample, `theirs` (m, 3) of the training volume `owner` (m,), `weight` (m,),
    `orientation` (m,)."""

    ours: Tensor
    theirs: Tensor
    owner: Tensor
    weight: Tensor
    orientation: Tensor


@dataclass(frozen=True, eq=False)
class Cluster:
    """Matches `ours` (n, 3) of the sample (at size `size`) and `theirs` (n, 3) of training volume `training` with about one
    shift. turn: (3, 3), their orientation. votes: the sum of their weights."""

    training: int
    size: int
    votes: float
    ours: Tensor
    theirs: Tensor
    turn: Tensor

    def hypothesis(self) -> Hypothesis:
        """The affine map of the matches."""
        return Hypothesis(self.training, self.size, *fitted(self.ours, self.theirs, self.turn))


@dataclass(frozen=True, eq=False)
class Hypothesis:
    """The place `at` of the sample (at size `size`) is `matrix @ at + shift` in training volume `training`."""

    training: int
    size: int
    matrix: Tensor
    shift: Tensor

    def of_size(self, size: int) -> Hypothesis:
        """The same map, of places of the sample at another size."""
        return replace(self, size=size, matrix=self.matrix * (SIZES[self.size] / SIZES[size]))


class LocalMatcher:
    """The points of all training volumes. load: the picture of a training volume, read again where it is needed."""

    def __init__(self, load: Callable[[int], NDArray[np.float32]], patients: Sequence[str], neighbours: int) -> None:
        self.load, self.neighbours = load, neighbours
        self.patients = np.asarray(patients)
        found = [points(contrast(torch.from_numpy(load(i)))) for i in range(len(patients))]
        self.at = torch.cat([one.at for one in found])
        self.balls = torch.cat([one.balls for one in found])
        self.owner = torch.cat([torch.full((len(one),), i) for i, one in enumerate(found)])
        made = moments(self.balls)
        self.scale = made.std(0).clamp_min(1e-6) if len(made) > 1 else torch.ones(made.shape[1])
        self.moments = made / self.scale
        self.squares = self.moments.square().sum(1)

    @torch.inference_mode()
    def find(self, picture: NDArray[np.float32], patient: str | None = None) -> Found:
        """The patches of a picture (X, Y, Z) that agree with each of the likeliest training volumes, and better than with
        those of other patients; volumes of `patient` are left out."""
        details = [contrast(resized(torch.from_numpy(picture), size)) for size in SIZES]
        ours = [points(detail) for detail in details]
        barred = torch.from_numpy(self.patients == patient)[self.owner]
        found = [
            one
            for size, own in enumerate(ours)
            if len(own) and not bool(barred.all())
            for one in clusters(self._matches(own, barred), size)
        ]
        chosen = [one.hypothesis() for one in self._chosen(found)]
        maps = {one.training: contrast(torch.from_numpy(self.load(one.training))) for one in chosen}
        patches = [correlations(ours[one.size], maps[one.training], one) for one in chosen]
        if chosen:
            best = chosen[int(np.argmax([float(agreement(values).sum()) for values in patches]))].size
            patches = [  # the same ones under every hypothesis
                values if one.size == best else correlations(ours[best], maps[one.training], one.of_size(best))
                for one, values in zip(chosen, patches, strict=True)
            ]
        training = np.array([one.training for one in chosen], np.intp)
        return Found(training, exclusive(patches, self.patients[training]))

    def _matches(self, own: Points, barred: Tensor) -> Matches:
        candidates = self._candidates(moments(own.balls) / self.scale, barred)
        turned = own.balls[:, ORDERS]  # (n, 48, D)
        correlation = torch.einsum("nod,ncd->nco", turned, self.balls[candidates])
        weight, orientation = correlation.max(2)
        row, column = (weight > MATCH).nonzero(as_tuple=True)
        which = candidates[row, column]
        return Matches(
            own.at[row], self.at[which], self.owner[which], weight[row, column] ** 2, orientation[row, column]
        )

    def _candidates(self, query: Tensor, barred: Tensor) -> Tensor:
        """(n, k): the points of training volumes that are nearest by moments, a few rows of `query` at a time."""
        most = min(CANDIDATES, int((~barred).sum()))
        found = []
        for rows in query.split(ROWS):
            distance = self.squares - 2 * rows @ self.moments.T
            distance[:, barred] = torch.inf
            found.append(distance.topk(most, 1, largest=False).indices)
        return torch.cat(found)

    def _chosen(self, found: Sequence[Cluster]) -> list[Cluster]:
        """The best of each of the best patients, and the next best of any."""
        ranked = sorted(found, key=lambda one: (-one.votes, one.training))
        patients = [self.patients[one.training] for one in ranked]
        first = [i for i, patient in enumerate(patients) if patient not in patients[:i]][: self.neighbours]
        extra = [i for i in range(len(ranked)) if i not in first][:EXTRA]
        return [ranked[i] for i in (*first, *extra)]


def resized(picture: Tensor, size: float) -> Tensor:
    if size == 1:
        return picture
    shape = [max(8, round(n * size)) for n in picture.shape]
    return F.interpolate(picture[None, None], size=shape, mode="trilinear", align_corners=False)[0, 0]


def clusters(matches: Matches, size: int) -> list[Cluster]:
    """The largest cluster of shifts of each (training volume, orientation) with the most matches."""
    group = matches.owner * len(ORIENTATIONS) + matches.orientation
    names, group = group.unique(return_inverse=True)
    weight = torch.zeros(len(names)).index_add_(0, group, matches.weight)
    # values[ORDERS[o]] were read at ORIENTATIONS[o] @ place, so a place of the sample is turned back
    matrix = ORIENTATIONS[matches.orientation].transpose(1, 2)
    shift = matches.theirs - (matrix @ matches.ours[:, :, None])[:, :, 0]
    found = []
    for one in weight.argsort(descending=True, stable=True)[:GROUPS].tolist():
        members = (group == one).nonzero()[:, 0]
        near = torch.cdist(shift[members], shift[members]) < CLUSTER_CELLS
        votes = near.float() @ matches.weight[members]
        best = int(votes.argmax())
        inside = members[near[best]]
        training = int(names[one]) // len(ORIENTATIONS)
        ours, theirs = matches.ours[inside], matches.theirs[inside]
        found.append(Cluster(training, size, float(votes[best]), ours, theirs, matrix[inside[0]]))
    return found


def fitted(ours: Tensor, theirs: Tensor, matrix: Tensor) -> tuple[Tensor, Tensor]:
    """The affine map of points (n, 3) to points (n, 3) by least squares, drawn towards `matrix`."""
    centre, target = ours.mean(0), theirs.mean(0)
    x, y = ours - centre, theirs - target
    stiff = STIFFNESS * torch.eye(3)
    linear = torch.linalg.solve(x.T @ x + stiff, x.T @ y + stiff @ matrix.T).T
    return linear, target - linear @ centre


def agreement(correlation: Tensor, least: Tensor | float = AGREES) -> Tensor:
    """How far correlations exceed `least`; a correlation of 1 over `AGREES` is 1, and what does not exceed it is 0."""
    return ((correlation - least) / (1 - AGREES)).clamp_min(0)


def exclusive(correlation: Sequence[Tensor], patients: NDArray[Any]) -> NDArray[np.float64]:
    """The agreement of patches under each hypothesis, beyond that with any other patient, summed over patches.

    correlation: (n,) of the same n patches under each hypothesis. patients: of each hypothesis.
    """
    found = []
    for own, patient in zip(correlation, patients, strict=True):
        others = [one for one, other in zip(correlation, patients, strict=True) if other != patient]
        least = torch.stack([torch.full_like(own, AGREES), *others]).amax(0)
        found.append(float(agreement(own, least).sum()))
    return np.array(found, np.float64)


def correlations(own: Points, detail: Tensor, hypothesis: Hypothesis) -> Tensor:
    """(n,): the correlation of each patch of the sample with the training volume's detail, after a shift of its own.

    HU that are inverted correlate as well: a patch keeps the sign that it has at first. 0 outside the volume.
    """
    half = torch.tensor([(n - 1) / 2 for n in detail.shape])
    at = own.at @ hypothesis.matrix.T + hypothesis.shift
    around = places(at, hypothesis.matrix)
    maps = torch.stack([detail, *torch.gradient(detail)])
    values = read(maps[:1], around)[0]
    fixed = own.balls * torch.sign((unit(values) * own.balls).sum(1, keepdim=True))
    shift = torch.zeros(len(at), 1, 3)
    for _ in range(STEPS):
        values, *slopes = read(maps, around + shift)
        spread = (values - values.mean(1, keepdim=True)).norm(dim=1, keepdim=True).clamp_min(1e-6)
        tangents = torch.stack(slopes, -1) / spread[:, :, None]
        tangents = tangents - tangents.mean(1, keepdim=True)
        hessian = tangents.transpose(1, 2) @ tangents
        ridge = DAMPING * hessian.diagonal(dim1=1, dim2=2).mean(1) + 1e-9
        update = tangents.transpose(1, 2) @ (fixed - unit(values))[:, :, None]
        update = torch.linalg.solve(hessian + ridge[:, None, None] * torch.eye(3), update)[:, :, 0]
        shift = (shift + update.clamp(-1, 1)[:, None]).clamp(-SHIFT_CELLS, SHIFT_CELLS)
    found = (unit(read(maps[:1], around + shift)[0]) * fixed).sum(1)
    return torch.where((at.abs() <= half).all(1), found, torch.zeros_like(found))
