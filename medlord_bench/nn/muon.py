"""Muon: an optimiser of weight matrices that takes fewer steps than AdamW, each of which costs a little more.

Jordan et al. 2024 (https://kellerjordan.github.io/posts/muon/). torch has it since 2.10, in bfloat16, which many CPUs
compute slowly, and for matrices alone. This one also takes the kernels of convolutions, in the type of the weights.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable

import torch
from torch import Tensor, nn

A, B, C = 3.4445, -4.7750, 2.0315  # of the polynomial a x + b x^3 + c x^5, which moves singular values towards 1
ITERATIONS = 5
RMS = 0.2  # of AdamW's usual update (Liu et al. 2025, equation 4), so that both take the same learning rates
EPSILON = 1e-14


def is_matrix(parameter: Tensor) -> bool:
    """Whether Muon can train a parameter: the weights of a linear layer or a convolution, but no bias or scale."""
    return parameter.ndim >= 2 and parameter.shape[0] > 1


class Muon(torch.optim.Optimizer):
    """Momentum whose update is orthogonalised: all its singular values are moved to about 1.

    A kernel (out, in, x, y, z) is the matrix (out, in * x * y * z). Weight decay is AdamW's. Raises ValueError for a
    parameter that is not a matrix.
    """

    def __init__(
        self, parameters: Iterable[nn.Parameter], lr: float, weight_decay: float = 0.01, momentum: float = 0.95
    ) -> None:
        super().__init__(parameters, {"lr": lr, "weight_decay": weight_decay, "momentum": momentum})
        for group in self.param_groups:
            for parameter in group["params"]:
                if not is_matrix(parameter):
                    raise ValueError(
                        f"Muon: a parameter of shape {tuple(parameter.shape)}; expected a matrix or a kernel"
                    )

    @torch.no_grad()
    def step(self) -> None:  # type: ignore[override]
        """One step along the gradients; parameters without one stay."""
        for group in self.param_groups:
            parameters = [parameter for parameter in group["params"] if parameter.grad is not None]
            directions = self._directions(parameters, group["momentum"])
            factors: dict[int, Tensor] = {}
            for rows in _of_equal_side(directions).values():
                found = orthogonalising([directions[i] for i in rows])
                factors.update(zip(rows, found, strict=True))
            for i, parameter in enumerate(parameters):
                matrix = directions[i]
                weights = parameter.view(matrix.shape)
                pair = (factors[i], matrix) if _is_wide(matrix) else (matrix, factors[i])
                kept, rate = 1 - group["lr"] * group["weight_decay"], group["lr"] * RMS * max(matrix.shape) ** 0.5
                weights.addmm_(*pair, beta=kept, alpha=-rate)

    def _directions(self, parameters: list[nn.Parameter], momentum: float) -> list[Tensor]:
        """The gradients with Nesterov's momentum, as matrices."""
        if not parameters:
            return []
        for parameter in parameters:
            if "momentum" not in self.state[parameter]:
                self.state[parameter]["momentum"] = torch.zeros_like(parameter)
        gradients = [parameter.grad for parameter in parameters]
        averages = [self.state[parameter]["momentum"] for parameter in parameters]
        torch._foreach_lerp_(averages, gradients, 1 - momentum)  # type: ignore[arg-type]
        return [x.flatten(1) for x in torch._foreach_lerp(gradients, averages, momentum)]  # type: ignore[arg-type]


def _is_wide(matrix: Tensor) -> bool:
    return matrix.shape[0] <= matrix.shape[1]


def _of_equal_side(matrices: list[Tensor]) -> dict[int, list[int]]:
    """Places in `matrices` by the length of the shorter side: their products can be computed together."""
    places: dict[int, list[int]] = defaultdict(list)
    for place, matrix in enumerate(matrices):
        places[min(matrix.shape)].append(place)
    return places


def orthogonalising(matrices: list[Tensor]) -> Tensor:
    """The factor X of each matrix M, (N, m, m) for N matrices whose shorter side is m, such that the singular values of
    X M (wide M) or M X (tall M) are about 1.

    The iteration of Jordan et al. is M <- (a + b G + c G^2) M with G = M M^T. Its factors commute with G, so that the
    small matrices G and X suffice, and M is multiplied only at the end.
    """
    gram = torch.stack([m @ m.T if _is_wide(m) else m.T @ m for m in matrices])
    squares = gram.diagonal(dim1=1, dim2=2).sum(1).clamp(min=EPSILON)[:, None, None]  # of the Frobenius norms
    gram = gram / squares
    factor = squares.rsqrt()  # so that no singular value is above 1 before the first iteration
    for iteration in range(ITERATIONS):
        polynomial = torch.baddbmm(gram, gram, gram, beta=B, alpha=C)
        polynomial.diagonal(dim1=1, dim2=2).add_(A)
        factor = polynomial * factor if iteration == 0 else polynomial @ factor
        gram = polynomial @ gram @ polynomial
    return factor
