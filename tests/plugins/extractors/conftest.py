"""A ResNet-50 in Keras layout built another way, from torchvision's parts, with random weights."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest
import torch
from torch import nn

from medlord_bench.nn import pretrained
from medlord_bench.plugins.extractors.radimagenet.extractor import WEIGHTS


@dataclass(frozen=True)
class Backbone:
    """folder: a weights folder that holds `network`'s tensors under the real file's name."""

    folder: Path
    network: nn.Module

    @property
    def file(self) -> Path:
        return self.folder / WEIGHTS.repo / WEIGHTS.file


def keras_resnet50() -> nn.Module:
    """torchvision's ResNet-50 turned into Keras': biases, the stride on the first 1x1, its epsilon; (N, 2048) out.

    Batch norms have seen images, as in a trained network: features then tell images apart, and differences count.
    """
    from torchvision.models import resnet50

    network = resnet50(weights=None, norm_layer=lambda channels: nn.BatchNorm2d(channels, eps=1.001e-5))
    network.fc = nn.Identity()
    for name, part in list(network.named_modules()):
        if isinstance(part, nn.Conv2d):
            part.bias = nn.Parameter(torch.randn(part.out_channels) * 0.1)
        elif isinstance(part, nn.BatchNorm2d):
            nn.init.normal_(part.weight, 0.3 if name.endswith("bn3") else 1.0, 0.1)
            nn.init.normal_(part.bias, 0.0, 0.1)
            part.momentum = 1.0
    for stage in (network.layer2, network.layer3, network.layer4):
        stage[0].conv1.stride, stage[0].conv2.stride = (2, 2), (1, 1)
    blocks = torch.rand(4, 1, 9, 9).repeat_interleave(7, -1).repeat_interleave(7, -2)
    with torch.no_grad():
        network.train()(blocks.expand(-1, 3, -1, -1) - 0.45)
    return network.eval().requires_grad_(False)


@pytest.fixture(scope="session")
def backbone(tmp_path_factory: pytest.TempPathFactory) -> Backbone:
    torch.manual_seed(0)
    found = Backbone(tmp_path_factory.mktemp("weights"), keras_resnet50())
    found.file.parent.mkdir(parents=True)
    torch.save(found.network.state_dict(), found.file)
    return found


@pytest.fixture
def weights_folder(backbone: Backbone, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The environment of an air-gapped machine whose weights folder holds the file."""
    monkeypatch.setenv(pretrained.ENVIRONMENT, str(backbone.folder))
    monkeypatch.setenv(pretrained.OFFLINE, "1")
    return backbone.folder
