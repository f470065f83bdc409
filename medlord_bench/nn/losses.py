"""The loss terms of a VQ-GAN besides L1 and commitment: perceptual, adversarial, spectral.

All losses are MONAI's and are used as in MedLoRD's repository. Inputs are float32 images (B, 1, X, Y, Z) in [-1, 1].
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from monai.losses import JukeboxLoss, PatchAdversarialLoss, PerceptualLoss
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn

from medlord_bench.contracts.weights import NeededWeights
from medlord_bench.errors import MissingError, UserError
from medlord_bench.nn.checkpoints import load_strict, read_torch
from medlord_bench.util.hashing import file_sha256

BACKBONE = "squeezenet1_1-b8a52dc0.pth"  # torchvision's name: its digits are the first of the file's sha256
BACKBONE_URL = f"https://download.pytorch.org/models/{BACKBONE}"
BACKBONE_LICENCE = "code: BSD-3 (torchvision); trained on ImageNet, whose images are for research"
BACKBONE_SHA256 = BACKBONE.removesuffix(".pth").rpartition("-")[2]


def needed_backbone() -> NeededWeights:
    """The backbone of the perceptual loss as `fetch weights` lists it."""
    return NeededWeights(path=BACKBONE, address=BACKBONE_URL, licence=BACKBONE_LICENCE, sha256=BACKBONE_SHA256)


def check_perceptual_weights(offline_folder: Path | None) -> Path:
    """The path of the perceptual loss's backbone in `offline_folder`, else in torch hub's folder. Downloads nothing.

    Raises `MissingError` with the file and its source, and `UserError` if the file is damaged.
    """
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    places = [folder / BACKBONE for folder in (offline_folder, hub) if folder is not None]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise MissingError(
            f"{BACKBONE}: not found (searched {', '.join(map(str, places))}); the perceptual loss needs torchvision's "
            f"squeezenet1_1: download {BACKBONE_URL} to {places[0]}, or set the perceptual weight to 0"
        )
    found = file_sha256(path)
    if not found.startswith(BACKBONE_SHA256):
        raise UserError(
            f"{path}: sha256 begins with {found[:8]}, expected {BACKBONE_SHA256}; the file is damaged: "
            f"download {BACKBONE_URL} again"
        )
    return path


class Perceptual(PerceptualLoss):  # type: ignore[misc]
    """LPIPS (squeezenet) on a random half of the slices of each axis; `backbone`: from `check_perceptual_weights`.

    Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric" (2018). The slices are drawn
    from torch's global random state. If a file is missing, MONAI's constructor downloads it or uses random weights;
    this class loads the given file strictly. It is always in evaluation mode, since training mode would apply dropout.
    backbone: None only to measure memory and time, which do not depend on the weights.
    """

    def __init__(self, backbone: Path | None, slices: float = 0.5) -> None:
        nn.Module.__init__(self)
        self.spatial_dims, self.is_fake_3d, self.fake_3d_ratio, self.channel_wise = 3, True, slices, False
        self.perceptual_function = _lpips(backbone)
        self.requires_grad_(False).eval()

    def train(self, mode: bool = True) -> Perceptual:
        super().train(False)
        return self


def _lpips(backbone: Path | None) -> nn.Module:
    """LPIPS with the linear heads of its package, on the squeezenet in `backbone`."""
    from lpips import LPIPS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision warns about the arguments that lpips uses
        network: Any = LPIPS(net="squeeze", pnet_rand=True, pretrained=backbone is not None, verbose=False)
    if backbone is None:
        return network  # type: ignore[no-any-return]
    # lpips splits `features` into slices and keeps the layers' numbers: slice4.8.squeeze.weight is features.8....
    tensors = {name.removeprefix("features."): tensor for name, tensor in read_torch(backbone).items()}
    names = {name: name.partition(".")[2] for name in network.net.state_dict()}
    load_strict(network.net, {name: tensors[old] for name, old in names.items() if old in tensors}, str(backbone))
    return network  # type: ignore[no-any-return]


class Spectral(JukeboxLoss):  # type: ignore[misc]
    """Mean squared difference of Fourier amplitudes; Dhariwal et al., "Jukebox" (2020), section 3.3.

    MONAI's loss on images shifted by 1, so that air instead of soft tissue is 0. The shift changes only the coefficient
    of the mean. Without the shift, reconstructions with mean m and mean -m have equal loss. Since CT patches are mostly
    air, most trainings from scratch then converge to the wrong sign and remain there. The gradient of an amplitude of 0
    is 0 instead of NaN.
    """

    def __init__(self) -> None:
        super().__init__(spatial_dims=3)

    def _get_fft_amplitude(self, images: Tensor) -> Tensor:
        """Amplitudes of `images`, float32, same shape."""
        amplitude: Tensor = torch.fft.fftn(images.float() + 1, dim=self.fft_dim, norm=self.fft_norm).abs()
        return amplitude


class Adversary(nn.Module):
    """PatchGAN discriminator with instance norm, and its least-squares losses.

    Isola et al., "Image-to-image translation with conditional adversarial networks" (2017).
    channels: of the first convolution. layers: convolutions after the first; all except the last have stride 2.
    """

    def __init__(self, channels: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.discriminator = PatchDiscriminator(
            spatial_dims=3, channels=channels, in_channels=1, out_channels=1, num_layers_d=layers, norm="INSTANCE"
        )
        self.criterion = PatchAdversarialLoss(criterion="least_squares")

    def generator_loss(self, fake: Tensor) -> Tensor:
        """Squared error of the discriminator's outputs for `fake` against the target of real images."""
        return self._loss(fake, real=True, for_discriminator=False)

    def discriminator_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        """Mean of the squared errors for `fake` against its target and for `real` against its target."""
        loss_fake = self._loss(fake.detach(), real=False, for_discriminator=True)
        return (loss_fake + self._loss(real, real=True, for_discriminator=True)) / 2

    def _loss(self, images: Tensor, *, real: bool, for_discriminator: bool) -> Tensor:
        logits = self.discriminator(images.contiguous())[-1].float()
        return self.criterion(logits, target_is_real=real, for_discriminator=for_discriminator)  # type: ignore[no-any-return]
