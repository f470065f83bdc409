"""Points of detail in a picture, and descriptors of the patches around them.

Points are extrema of detail at one scale (a difference of Gaussians, Lowe 2004) over its local contrast; points on edges
and ridges, which fit at many places, are left out. The descriptor of a point is the detail in a ball around it, times
the sign at its centre, so that inverted HU give the same descriptor. Shell moments of a ball do not change under
rotations and flips; they screen, and only the best are compared in all 48 orientations of the axes.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from .matching import EPS, band, smooth, unit

POINTS = 600  # of a picture at most: those of the strongest detail
CONTRAST_CELLS = 3.0  # Gaussian over which local contrast is taken
ROUNDING_HU = 0.1  # detail of a constant picture, by rounding, is below
CONTRAST_FLOOR = 0.1  # of the picture's own contrast: what is below is noise
STEP_CELLS, RADIUS_STEPS = 1.5, 10**0.5  # of the places in a ball
BORDER = 5, 1 / 8  # without points at each face: the reach of a ball in cells, but at most this part of the side
LEAST = 0.5  # detail of a point, over the local contrast
ROUNDNESS = 0.15  # least ratio of the structure tensor's smallest to largest eigenvalue: an edge or a tube has less


def _ball() -> Tensor:
    reach = int(RADIUS_STEPS)
    axis = torch.arange(-reach, reach + 1)
    places = torch.stack(torch.meshgrid(axis, axis, axis, indexing="ij"), -1).reshape(-1, 3)
    return places[places.square().sum(1) <= RADIUS_STEPS**2 + EPS]


def _orientations() -> Tensor:
    rows = torch.eye(3)
    signs = itertools.product((1.0, -1.0), repeat=3)
    return torch.stack(
        [torch.tensor(sign)[:, None] * rows[list(axes)] for sign in signs for axes in itertools.permutations(range(3))]
    )


def _orders(ball: Tensor, orientations: Tensor) -> Tensor:
    index = {tuple(place): i for i, place in enumerate(ball.tolist())}
    turned = torch.einsum("oij,dj->odi", orientations, ball.float()).round().int().tolist()
    return torch.tensor([[index[tuple(place)] for place in one] for one in turned])


BALL = _ball()  # (D, 3) in steps
ORIENTATIONS = _orientations()  # (48, 3, 3): every permutation of the axes with every flip
ORDERS = _orders(BALL, ORIENTATIONS)  # (48, D): values[ORDERS[o]] are those at ORIENTATIONS[o] @ BALL


@dataclass(frozen=True, eq=False)
class Points:
    """at: (n, 3) in cells from the picture's centre. sign: (n,) of the detail there. balls: (n, D) descriptors."""

    at: Tensor
    sign: Tensor
    balls: Tensor

    def __len__(self) -> int:
        return len(self.at)


def contrast(picture: Tensor) -> Tensor:
    """Detail of a picture (X, Y, Z) over its local contrast; 0 in a constant picture."""
    detail = band(picture[None])
    energy = detail.square()
    floor = CONTRAST_FLOOR**2 * energy.mean() + ROUNDING_HU**2
    return (detail / (smooth(energy, CONTRAST_CELLS).clamp_min(0) + floor).sqrt())[0]


def read(pictures: Tensor, places: Tensor) -> Tensor:
    """Pictures (C, X, Y, Z) at places (..., 3) in cells from their centre, trilinear, the border repeated: (C, ...)."""
    half = torch.tensor([max((n - 1) / 2, 0.5) for n in pictures.shape[1:]])
    grid = (places / half).flip(-1).reshape(-1, 3)
    parts = torch.get_num_threads()  # grid_sample has one thread for each item of a batch
    batch = F.pad(grid, (0, 0, 0, -len(grid) % parts)).reshape(parts, -1, 1, 1, 3)
    repeated = pictures.expand(parts, *pictures.shape)
    values = F.grid_sample(repeated, batch, mode="bilinear", padding_mode="border", align_corners=True)
    return values.transpose(0, 1).flatten(1)[:, : len(grid)].reshape(len(pictures), *places.shape[:-1])


def points(detail: Tensor) -> Points:
    """The points of detail (X, Y, Z) from `contrast`, the strongest first; none in a constant picture."""
    found = _extrema(detail)
    strength = detail[found.unbind(1)].abs()
    found = found[strength.argsort(descending=True, stable=True)]
    centre = torch.tensor([(n - 1) / 2 for n in detail.shape])
    at = found - centre + _offsets(detail, found)
    kept = _structured(detail, at).nonzero()[:POINTS, 0]
    at, sign = at[kept], torch.sign(detail[found[kept].unbind(1)])
    return Points(at, sign, unit(read(detail[None], places(at))[0] * sign[:, None]))


def places(at: Tensor, matrix: Tensor | None = None) -> Tensor:
    """(n, D, 3): the places of the balls around points (n, 3), turned by a matrix."""
    ball = STEP_CELLS * BALL.float()
    return at[:, None] + (ball if matrix is None else ball @ matrix.T)


def _extrema(detail: Tensor) -> Tensor:
    """(n, 3): cells that are extreme among their neighbours, away from the border."""
    strength = detail.abs()
    largest = strength[None, None]
    for axis in range(3):  # of 27 neighbours by three passes over 3
        side = [3 if i == axis else 1 for i in range(3)]
        largest = F.max_pool3d(largest, side, 1, [n // 2 for n in side])
    extreme = (strength == largest[0, 0]) & (strength > LEAST)
    inner = torch.zeros_like(extreme)
    borders = [max(1, min(BORDER[0], int(n * BORDER[1]))) for n in detail.shape]
    inner[tuple(slice(border, -border) for border in borders)] = True
    return (extreme & inner).nonzero()


def _structured(detail: Tensor, at: Tensor) -> Tensor:
    """Whether detail changes along every direction in the ball around each point (structure tensor, Foerstner 1986)."""
    slopes = read(torch.stack(torch.gradient(detail)), places(at)).movedim(0, -1)
    values = torch.linalg.eigvalsh(slopes.transpose(1, 2) @ slopes)
    return values[:, 0] > ROUNDNESS * values[:, 2]


def _offsets(detail: Tensor, cells: Tensor) -> Tensor:
    """(n, 3): from each cell to the vertex of the parabola along each axis, at most half a cell."""
    offsets = torch.zeros(len(cells), 3)
    for axis, step in enumerate(torch.eye(3, dtype=torch.long)):
        ahead, here, behind = (detail[(cells + k * step).unbind(1)] for k in (1, 0, -1))
        curve = ahead - 2 * here + behind
        offsets[:, axis] = torch.where(curve.abs() > EPS, (behind - ahead) / (2 * curve), torch.zeros_like(curve))
    return offsets.clamp(-0.5, 0.5)


def moments(balls: Tensor) -> Tensor:
    """(n, M): shell means of balls (n, D), and inner products of the shells' first and second moments.

    Rotations, flips and permutations of the axes do not change them.
    """
    radius = BALL.square().sum(1)
    shells = (radius == radius.unique()[:, None]).float()  # (S, D)
    shells = shells / shells.sum(1, keepdim=True)
    direction = BALL / radius.clamp_min(1).sqrt()[:, None]
    second = direction[:, :, None] * direction[:, None, :] - torch.eye(3) / 3 * (radius > 0)[:, None, None]
    parts = [balls @ shells.T]
    pairs = torch.triu_indices(len(shells) - 1, len(shells) - 1)
    for basis in (direction, second.reshape(len(BALL), -1)):
        moment = torch.einsum("nd,sd,db->nsb", balls, shells[1:], basis)
        product = moment @ moment.transpose(1, 2)
        product = product[:, pairs[0], pairs[1]]
        parts.append(product.sign() * product.abs().sqrt())
    return torch.cat(parts, 1)
