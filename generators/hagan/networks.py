"""HA-GAN's networks (Sun et al., IEEE JBHI 2022, section III), written from the paper for any cube of 4 * 2**n.

S is the side of the cube and c the channels at the coarsest level. Axes are (slice, row, column): the sub-volume is a
slab of S/8 slices. Features A are (N, c/8, S/4, S/4, S/4).

    z (N, latent) -> Trunk -> A -> Low              -> the whole volume at a quarter of the resolution, (N, 1, S/4, S/4, S/4)
                              A[a slab] -> High     -> the slab at full resolution, (N, 1, S/8, S, S)
    a slab -> SlabEncoder -> A[that slab];   A -> LatentEncoder -> z

In sampling `High` receives all of A, so that the volume has no seams.
"""

from __future__ import annotations

from itertools import pairwise
from math import log2

import torch
from torch import Tensor, nn
from torch.nn.functional import interpolate
from torch.nn.utils.parametrizations import spectral_norm
from torch.nn.utils.parametrize import is_parametrized

from .configs import NetConfig

COARSEST_VOXELS = 4  # voxels per side after the linear layer
SUB_VOLUMES = 8  # sub-volumes of a volume


def _unit(channels_in: int, channels_out: int, groups: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 3, padding=1), nn.GroupNorm(groups, channels_out), nn.ReLU()
    )


def _down(channels_in: int, channels_out: int, groups: int) -> nn.Sequential:
    """Half the resolution."""
    return nn.Sequential(
        nn.Conv3d(channels_in, channels_out, 4, stride=2, padding=1), nn.GroupNorm(groups, channels_out), nn.ReLU()
    )


def _doubled(features: Tensor) -> Tensor:
    return interpolate(features, scale_factor=2, mode="nearest")


class Trunk(nn.Module):
    """G^A: z to the features A shared by both resolutions."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        c, self.doublings = config.channels, round(log2(config.coarse // COARSEST_VOXELS))
        count = max(5, self.doublings + 1)  # the authors use five for both 128 and 256
        widths = [c] * (count - 3) + [c // 2, c // 4, c // 8]
        self.channels = c
        self.project = nn.Linear(config.latent, COARSEST_VOXELS**3 * c)
        self.units = nn.ModuleList(_unit(a, b, config.norm_num_groups) for a, b in pairwise([c, *widths]))

    def forward(self, z: Tensor) -> Tensor:
        """z (N, latent) -> A (N, c/8, S/4, S/4, S/4)."""
        features = self.project(z).view(len(z), self.channels, COARSEST_VOXELS, COARSEST_VOXELS, COARSEST_VOXELS)
        for i, unit in enumerate(self.units):
            features = unit(features)
            if i < self.doublings:
                features = _doubled(features)
        return features


class Low(nn.Module):
    """G^L: A to the whole volume at a quarter of the resolution."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        c, groups = config.channels, config.norm_num_groups
        self.units = nn.ModuleList([_unit(c // 8, c // 16, groups), _unit(c // 16, c // 32, groups)])
        self.image = nn.Conv3d(c // 32, 1, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """A -> (N, 1, S/4, S/4, S/4) in [-1, 1]."""
        for unit in self.units:
            features = unit(features)
        return torch.tanh(self.image(features))


class High(nn.Module):
    """G^H: a slab of A, or all of it, to full resolution."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        c = config.channels
        self.unit = _unit(c // 8, c // 16, config.norm_num_groups)
        self.image = nn.Conv3d(c // 16, 1, 3, padding=1)

    def forward(self, features: Tensor) -> Tensor:
        """(N, c/8, d, h, w) -> (N, 1, 4 d, 4 h, 4 w) in [-1, 1]."""
        return torch.tanh(self.image(_doubled(self.unit(_doubled(features)))))


class Generator(nn.Module):
    """The three parts of the generator."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.config = config
        self.trunk, self.low, self.high = Trunk(config), Low(config), High(config)

    def forward(self, z: Tensor, first: int) -> tuple[Tensor, Tensor]:
        """In training: the slab of S/8 slices from slice `first` on, a multiple of 4, and the whole volume at low
        resolution."""
        features = self.trunk(z)
        return self.high(slab(features, first // 4, self.config.thickness // 4)), self.low(features)

    def volume(self, z: Tensor) -> Tensor:
        """In sampling: the whole volume at full resolution, (N, 1, S, S, S)."""
        volume: Tensor = self.high(self.trunk(z))
        return volume


def slab(values: Tensor, first: int, thickness: int) -> Tensor:
    """Slices `first` to `first + thickness` of (N, C, slices, rows, columns)."""
    return values[:, :, first : first + thickness]


class SlabEncoder(nn.Module):
    """E^H: a slab of an image to its part of A."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        c, groups = config.channels, config.norm_num_groups
        self.units = nn.Sequential(
            _down(1, c // 16, groups), _unit(c // 16, c // 16, groups), _down(c // 16, c // 8, groups)
        )

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, d, h, w) -> (N, c/8, d/4, h/4, w/4)."""
        features: Tensor = self.units(image)
        return features

    def whole(self, image: Tensor) -> Tensor:
        """A of a whole volume, slab by slab as in training."""
        return torch.cat([self(part) for part in image.chunk(SUB_VOLUMES, dim=2)], dim=2)


class LatentEncoder(nn.Module):
    """E^L: A to z."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        c, halvings = config.channels, round(log2(config.coarse // COARSEST_VOXELS))
        widths = [c // 2 >> (halvings - 1 - i) for i in range(halvings)]
        self.units = nn.Sequential(*(_down(a, b, config.norm_num_groups) for a, b in pairwise([c // 8, *widths])))
        self.vector = nn.Conv3d(widths[-1], config.latent, COARSEST_VOXELS)

    def forward(self, features: Tensor) -> Tensor:
        """(N, c/8, S/4, S/4, S/4) -> (N, latent)."""
        vector: Tensor = self.vector(self.units(features))
        return vector.flatten(1)


def _critic(channels_in: int, channels_out: int, kernel: tuple[int, ...], stride: int | tuple[int, ...]) -> nn.Module:
    padding = tuple((size - 1) // 2 for size in kernel)
    return spectral_norm(nn.Conv3d(channels_in, channels_out, kernel, stride, padding))  # type: ignore[arg-type]


class HighCritic(nn.Module):
    """D^H: a slab and its position, to one logit. All layers are spectrally normalised."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        c, self.span = config.channels, config.size - config.thickness
        halvings = round(log2(config.size // COARSEST_VOXELS))
        widths = [c >> (halvings - 1 - i) for i in range(halvings)]
        layers = []
        for i, (a, b) in enumerate(pairwise([1, *widths])):
            left = halvings - 1 - i  # halvings after this one: the last keeps the slices, before it few are left
            depth, step = (1, 1) if left == 0 else (2, 2) if left <= 2 else (4, 2)
            layers.append(_critic(a, b, (depth, 4, 4), (step, 2, 2)))
        self.layers = nn.ModuleList(layers)
        self.collapse = spectral_norm(nn.Conv3d(c, c // 4, (1, COARSEST_VOXELS, COARSEST_VOXELS)))
        self.hidden = spectral_norm(nn.Linear(c // 4 + 1, c // 8))
        self.logit = spectral_norm(nn.Linear(c // 8, 1))

    def forward(self, image: Tensor, first: int) -> Tensor:
        """(N, 1, S/8, S, S) from slice `first` on -> (N, 1)."""
        for layer in [*self.layers, self.collapse]:
            image = _leaky(layer(image))
        place = torch.full((len(image), 1), first / self.span, device=image.device, dtype=image.dtype)
        logit: Tensor = self.logit(_leaky(self.hidden(torch.cat([image.flatten(1), place], dim=1))))
        return logit


class LowCritic(nn.Module):
    """D^L: the whole volume at a quarter of the resolution, to one logit."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        c, halvings = config.channels, round(log2(config.coarse // COARSEST_VOXELS))
        widths = [c // 2 >> (halvings - 1 - i) for i in range(halvings)]
        self.layers = nn.ModuleList(_critic(a, b, (4, 4, 4), 2) for a, b in pairwise([1, *widths]))
        self.logit = spectral_norm(nn.Conv3d(widths[-1], 1, COARSEST_VOXELS))

    def forward(self, image: Tensor) -> Tensor:
        """(N, 1, S/4, S/4, S/4) -> (N, 1)."""
        for layer in self.layers:
            image = _leaky(layer(image))
        logit: Tensor = self.logit(image)
        return logit.flatten(1)


class Discriminator(nn.Module):
    """The mean logit of both resolutions."""

    def __init__(self, config: NetConfig) -> None:
        super().__init__()
        self.high, self.low = HighCritic(config), LowCritic(config)

    def forward(self, part: Tensor, small: Tensor, first: int) -> Tensor:
        """A slab from slice `first` on, and the whole volume at low resolution -> (N, 1)."""
        logit: Tensor = (self.high(part, first) + self.low(small)) / 2
        return logit

    @torch.no_grad()
    def skip(self, passes: int) -> None:
        """Take the power iterations of passes that another process does.

        Spectral normalisation estimates the largest singular value of a layer by one more iteration in each pass, so that
        the weights in use depend on the number of passes before.
        """
        for layer in self.modules():
            if is_parametrized(layer, "weight"):
                for _ in range(passes):
                    layer.weight  # noqa: B018  # reading it is what iterates


def _leaky(features: Tensor) -> Tensor:
    return nn.functional.leaky_relu(features, 0.2)
