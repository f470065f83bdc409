"""3D residual networks in plain torch, for published weights: inflated ImageNet networks, and MedicalNet's.

He et al., "Deep Residual Learning" (arXiv 1512.03385), with 3D convolutions. A stage's stride is on its first 3x3x3
convolution, as in torchvision. Names of tensors are those of torchvision.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import torch
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import fuse_conv_bn_eval

from medlord_bench.nn.checkpoints import load_strict

if TYPE_CHECKING:
    from torch import Tensor

Triple = tuple[int, int, int]
WIDTHS = (64, 128, 256, 512)  # channels inside a block, by stage


@dataclass(frozen=True)
class Layout:
    """The shape of a network. Axes are (D, H, W).

    blocks: of each stage. bottleneck: 1x1x1, 3x3x3, 1x1x1 to four times the channels; else two 3x3x3. channels: of the
    input. kernel, stride: of the first convolution. strides, dilations: of the stages. projects: whether a shortcut of
    another shape is a 1x1x1 convolution (option B of He et al.), or every stride-th voxel and channels of zeros (option A).
    """

    blocks: tuple[int, int, int, int]
    bottleneck: bool
    channels: int
    kernel: Triple
    stride: Triple
    strides: tuple[int, int, int, int] = (1, 2, 2, 2)
    dilations: tuple[int, int, int, int] = (1, 1, 1, 1)
    projects: bool = True
    widths: tuple[int, int, int, int] = field(default=WIDTHS)

    @property
    def expansion(self) -> int:
        return 4 if self.bottleneck else 1

    @property
    def features(self) -> int:
        """The length of a feature vector."""
        return self.widths[-1] * self.expansion


class Block(nn.Module):
    """Two or three convolutions with batch norms, and a shortcut."""

    def __init__(self, layout: Layout, inputs: int, width: int, stride: int, dilation: int) -> None:
        super().__init__()
        self.outputs, self.stride = width * layout.expansion, stride
        wide = {"kernel_size": 3, "padding": dilation, "dilation": dilation, "bias": False}
        if layout.bottleneck:
            self.conv1 = nn.Conv3d(inputs, width, 1, bias=False)
            self.conv2 = nn.Conv3d(width, width, stride=stride, **wide)  # type: ignore[arg-type]
            self.conv3: nn.Module | None = nn.Conv3d(width, self.outputs, 1, bias=False)
            self.bn3: nn.Module | None = nn.BatchNorm3d(self.outputs)
        else:
            self.conv1 = nn.Conv3d(inputs, width, stride=stride, **wide)  # type: ignore[arg-type]
            self.conv2 = nn.Conv3d(width, width, **wide)  # type: ignore[arg-type]
            self.conv3 = self.bn3 = None
        self.bn1, self.bn2 = nn.BatchNorm3d(width), nn.BatchNorm3d(width)
        self.reshapes = stride != 1 or inputs != self.outputs
        self.downsample = (
            nn.Sequential(nn.Conv3d(inputs, self.outputs, 1, stride, bias=False), nn.BatchNorm3d(self.outputs))
            if self.reshapes and layout.projects
            else None
        )

    def forward(self, x: Tensor) -> Tensor:
        h = F.relu(self.bn1(self.conv1(x)), inplace=True)
        h = self.bn2(self.conv2(h))
        if self.conv3 is not None and self.bn3 is not None:
            h = self.bn3(self.conv3(F.relu(h, inplace=True)))
        return F.relu(h.add_(self._shortcut(x)), inplace=True)

    def _shortcut(self, x: Tensor) -> Tensor:
        if self.downsample is not None:
            found: Tensor = self.downsample(x)
            return found
        if not self.reshapes:
            return x
        x = x[:, :, :: self.stride, :: self.stride, :: self.stride]
        return F.pad(x, (0, 0, 0, 0, 0, 0, 0, self.outputs - x.shape[1]))


class ResNet3D(nn.Module):
    """(N, channels, D, H, W) -> (N, features): the average over the volume of the last stage's activations."""

    def __init__(self, layout: Layout) -> None:
        super().__init__()
        first = layout.widths[0]
        padding = tuple(size // 2 for size in layout.kernel)
        self.conv1 = nn.Conv3d(layout.channels, first, layout.kernel, layout.stride, padding, bias=False)  # type: ignore[arg-type]
        self.bn1 = nn.BatchNorm3d(first)
        inputs, stages = first, []
        for count, width, stride, dilation in zip(
            layout.blocks, layout.widths, layout.strides, layout.dilations, strict=True
        ):
            stage = [Block(layout, inputs, width, stride, dilation)]
            inputs = width * layout.expansion
            stage += [Block(layout, inputs, width, 1, dilation) for _ in range(count - 1)]
            stages.append(nn.Sequential(*stage))
        self.layer1, self.layer2, self.layer3, self.layer4 = stages

    def forward(self, x: Tensor) -> Tensor:
        x = F.relu(self.bn1(self.conv1(x)), inplace=True)
        x = F.max_pool3d(x, 3, stride=2, padding=1)
        x = self.layer4(self.layer3(self.layer2(self.layer1(x))))
        return x.mean((2, 3, 4))


def build(layout: Layout, tensors: Mapping[str, Tensor], where: str) -> ResNet3D:
    """The network with these tensors, in float32 and evaluation mode, its batch norms folded into the convolutions.

    where: the file, for the message. Raises `UserError` for tensors of another architecture.
    """
    network = ResNet3D(layout)
    counters = {name: value for name, value in network.state_dict().items() if name.endswith("num_batches_tracked")}
    given = {name: value.float() if value.is_floating_point() else value for name, value in tensors.items()}
    load_strict(network, {**counters, **given}, where)  # files of old versions of torch lack the counters
    network.eval().requires_grad_(False)
    for module in network.modules():
        for index in "123" if isinstance(module, Block) else "1" if module is network else "":
            _fuse(module, f"conv{index}", f"bn{index}")
        if isinstance(module, Block) and module.downsample is not None:
            _fuse(module.downsample, "0", "1")
    return network


def _fuse(module: nn.Module, conv: str, norm: str) -> None:
    if getattr(module, conv) is not None:
        setattr(module, conv, fuse_conv_bn_eval(getattr(module, conv), getattr(module, norm)))
        setattr(module, norm, nn.Identity())


@torch.inference_mode()
def forward(network: ResNet3D, volume: Tensor) -> Tensor:
    """(features,) of one volume (channels, D, H, W), in float32 without TF32, deterministic."""
    with torch.backends.cudnn.flags(enabled=True, benchmark=False, deterministic=True, allow_tf32=False):
        found: Tensor = network(volume[None])[0].float().cpu()
    return found
