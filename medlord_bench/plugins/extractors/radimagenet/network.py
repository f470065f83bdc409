"""Keras's ResNet-50, in plain torch, for the weights of `RadImageNet-ResNet50_notop.pth`.

He et al., "Deep Residual Learning" (arXiv 1512.03385), Table 1, 50 layers. `keras.applications.ResNet50` differs
from torchvision's: every convolution has a bias, a stage's stride is on its first 1x1 convolution (in torchvision on
the 3x3), and batch norms divide by sqrt(var + 1.001e-5). Names of tensors are those of torchvision.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

from medlord_bench.nn.checkpoints import load_strict, read_torch

if TYPE_CHECKING:
    from torch import Tensor

CHANNELS = 2048
BN_EPS = 1.001e-5
STAGES = ((3, 64, 1), (4, 128, 2), (6, 256, 2), (3, 512, 2))  # (blocks, channels inside a block, stride of the first)
EXPANSION = 4


class Bottleneck(nn.Module):
    """1x1 (with the stride), 3x3, 1x1 to four times the channels, and a shortcut."""

    def __init__(self, inputs: int, width: int, stride: int) -> None:
        super().__init__()
        outputs = EXPANSION * width
        self.conv1 = nn.Conv2d(inputs, width, 1, stride)
        self.bn1 = nn.BatchNorm2d(width, eps=BN_EPS)
        self.conv2 = nn.Conv2d(width, width, 3, padding=1)
        self.bn2 = nn.BatchNorm2d(width, eps=BN_EPS)
        self.conv3 = nn.Conv2d(width, outputs, 1)
        self.bn3 = nn.BatchNorm2d(outputs, eps=BN_EPS)
        self.downsample = (
            nn.Sequential(nn.Conv2d(inputs, outputs, 1, stride), nn.BatchNorm2d(outputs, eps=BN_EPS))
            if stride != 1 or inputs != outputs
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        around = x if self.downsample is None else self.downsample(x)
        h = F.relu(self.bn1(self.conv1(x)), inplace=True)
        h = F.relu(self.bn2(self.conv2(h)), inplace=True)
        h = self.bn3(self.conv3(h))
        return F.relu(h.add_(around), inplace=True)


class ResNet50(nn.Module):
    """(N, 3, H, W) -> (N, 2048): the average over the image of the last stage's activations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(3, 64, 7, stride=2, padding=3)
        self.bn1 = nn.BatchNorm2d(64, eps=BN_EPS)
        inputs, stages = 64, []
        for blocks, width, stride in STAGES:
            stage = [Bottleneck(inputs, width, stride)]
            inputs = EXPANSION * width
            stage += [Bottleneck(inputs, width, 1) for _ in range(blocks - 1)]
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool2d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3))


def _fuse(module: nn.Module, conv: str, norm: str) -> None:
    setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
    setattr(module, norm, nn.Identity())


def load(path: Path) -> ResNet50:
    """The network with the weights of `path`, in evaluation mode, its batch norms folded into the convolutions.

    Raises `MissingError` or `UserError` if the file is missing or has another architecture.
    """
    network = ResNet50()
    load_strict(network, read_torch(path), str(path))
    network.eval().requires_grad_(False)
    fuse(network)
    return network.to(memory_format=torch.channels_last)


def fuse(network: ResNet50) -> None:
    """Fold every batch norm into the convolution before it, in place."""
    _fuse(network, "conv1", "bn1")
    for block in network.modules():
        if isinstance(block, Bottleneck):
            for index in "123":
                _fuse(block, f"conv{index}", f"bn{index}")
            if block.downsample is not None:
                _fuse(block.downsample, "0", "1")
