"""3D residual networks written from tensors and functions alone: a reference that shares no code with ours."""

from __future__ import annotations

from collections.abc import Mapping

import torch
from torch import Tensor
from torch.nn import functional as F

from medlord_bench.plugins.extractors.resnet3d import Layout, ResNet3D

EPS = 1e-5


def norm(state: Mapping[str, Tensor], name: str, x: Tensor) -> Tensor:
    mean, variance, weight, bias = (
        state[f"{name}.{part}"].float().view(1, -1, 1, 1, 1)
        for part in ("running_mean", "running_var", "weight", "bias")
    )
    return (x - mean) / torch.sqrt(variance + EPS) * weight + bias


def reference(state: Mapping[str, Tensor], layout: Layout, x: Tensor) -> Tensor:
    """(N, features) of x (N, channels, D, H, W)."""
    x = F.conv3d(x, state["conv1.weight"].float(), stride=layout.stride, padding=[k // 2 for k in layout.kernel])
    x = F.max_pool3d(F.relu(norm(state, "bn1", x)), 3, 2, 1)
    for stage in range(4):
        for index in range(layout.blocks[stage]):
            stride = layout.strides[stage] if index == 0 else 1
            x = block(state, f"layer{stage + 1}.{index}", x, stride, layout.dilations[stage], layout.bottleneck)
    return x.flatten(2).mean(2)


def block(state: Mapping[str, Tensor], name: str, x: Tensor, stride: int, dilation: int, bottleneck: bool) -> Tensor:
    def convolved(index: int, h: Tensor, step: int) -> Tensor:
        weight = state[f"{name}.conv{index}.weight"].float()
        apart = dilation if weight.shape[-1] == 3 else 1
        return norm(
            state,
            f"{name}.bn{index}",
            F.conv3d(h, weight, stride=step, padding=apart * (weight.shape[-1] // 2), dilation=apart),
        )

    steps = (1, stride, 1) if bottleneck else (stride, 1)
    h = x
    for index, step in enumerate(steps, 1):
        h = convolved(index, h, step)
        h = F.relu(h) if index < len(steps) else h
    if f"{name}.downsample.0.weight" in state:
        x = norm(
            state, f"{name}.downsample.1", F.conv3d(x, state[f"{name}.downsample.0.weight"].float(), stride=stride)
        )
    elif x.shape != h.shape:
        x = F.avg_pool3d(x, 1, stride)
        x = torch.cat([x, x.new_zeros(x.shape[0], h.shape[1] - x.shape[1], *x.shape[2:])], dim=1)
    return F.relu(h + x)


def random_state(layout: Layout, seed: int = 0) -> dict[str, Tensor]:
    """A state dict with statistics of a network that has seen volumes, so that no part of it is without effect."""
    torch.manual_seed(seed)
    network = ResNet3D(layout)
    for name, part in network.named_modules():
        if isinstance(part, torch.nn.BatchNorm3d):
            torch.nn.init.normal_(part.weight, 0.4 if name.endswith("3") else 1.0, 0.1)
            torch.nn.init.normal_(part.bias, 0.0, 0.1)
            part.momentum = 1.0
    with torch.no_grad():
        network.train()(torch.rand(2, layout.channels, 32, 40, 48))
    return network.state_dict()
