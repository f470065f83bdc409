"""The loss terms of a VQ-GAN besides L1 and commitment: perceptual, adversarial, spectral.

All are MONAI's, used as MedLoRD's repository uses them. Inputs are float32 images (B, 1, X, Y, Z) in [-1, 1].
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import torch
from monai.losses import JukeboxLoss, PatchAdversarialLoss, PerceptualLoss
from monai.networks.nets import PatchDiscriminator
from torch import Tensor, nn

from medlord_bench.errors import MissingError, UserError
from medlord_bench.nn.checkpoints import load_strict, read_torch
from medlord_bench.util.hashing import file_sha256

BACKBONE = "squeezenet1_1-b8a52dc0.pth"  # torchvision's own name: the digits begin the file's sha256
BACKBONE_URL = f"https://download.pytorch.org/models/{BACKBONE}"
BACKBONE_SHA256 = BACKBONE.removesuffix(".pth").rpartition("-")[2]


def check_perceptual_weights(offline_folder: Path | None) -> Path:
    """Where the perceptual loss's backbone lies: in `offline_folder`, else in torch hub's folder. Downloads nothing.

    Raises `MissingError` naming the file and how to get it, and `UserError` where the file is damaged.
    """
    hub = Path(torch.hub.get_dir()) / "checkpoints"
    places = [folder / BACKBONE for folder in (offline_folder, hub) if folder is not None]
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        raise MissingError(
            f"{BACKBONE}: not found (looked for {', '.join(map(str, places))}); the perceptual loss needs torchvision's "
            f"squeezenet1_1: download {BACKBONE_URL} to {places[0]}, or set the perceptual weight to 0"
        )
    found = file_sha256(path)
    if not found.startswith(BACKBONE_SHA256):
        raise UserError(
            f"{path}: sha256 begins {found[:8]}, expected {BACKBONE_SHA256}; the file is damaged: download {BACKBONE_URL} again"
        )
    return path


class Perceptual(PerceptualLoss):  # type: ignore[misc]
    """LPIPS (squeezenet) on a random half of the slices of each axis; `backbone`: from `check_perceptual_weights`.

    Zhang et al., "The unreasonable effectiveness of deep features as a perceptual metric" (2018). The slices are drawn
    from torch's global random state. MONAI's constructor would go to the network, or take random weights, where a file
    is missing; this one loads the file it is given, strictly. Always in evaluation mode: training mode would drop out.
    backbone: None only to measure memory and time, which weights do not change.
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
    """LPIPS with its own linear heads, which come with the package, on the squeezenet in `backbone`."""
    from lpips import LPIPS

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # torchvision's, about the way lpips calls it
        network: Any = LPIPS(net="squeeze", pnet_rand=True, pretrained=backbone is not None, verbose=False)
    if backbone is None:
        return network  # type: ignore[no-any-return]
    # lpips cuts `features` into slices that keep the layers' numbers: slice4.8.squeeze.weight is features.8....
    tensors = {name.removeprefix("features."): tensor for name, tensor in read_torch(backbone).items()}
    names = {name: name.partition(".")[2] for name in network.net.state_dict()}
    load_strict(network.net, {name: tensors[old] for name, old in names.items() if old in tensors}, str(backbone))
    return network  # type: ignore[no-any-return]


class Spectral(JukeboxLoss):  # type: ignore[misc]
    """Mean squared difference of Fourier amplitudes; Dhariwal et al., "Jukebox" (2020), section 3.3.

    MONAI's values on images shifted by 1, so that air, not soft tissue, is 0. That changes one coefficient of many, the
    mean's: unshifted, a reconstruction of mean m and one of mean -m look alike, and since CT patches are mostly air,
    most trainings from scratch then settle on the wrong sign and stay there. Where an amplitude is 0 the gradient is 0
    instead of NaN.
    """

    def __init__(self) -> None:
        super().__init__(spatial_dims=3)

    def _get_fft_amplitude(self, images: Tensor) -> Tensor:
        amplitude: Tensor = torch.fft.fftn(images.float() + 1, dim=self.fft_dim, norm=self.fft_norm).abs()
        return amplitude


class Adversary(nn.Module):
    """PatchGAN discriminator with instance norm, and its least-squares losses.

    Isola et al., "Image-to-image translation with conditional adversarial networks" (2017).
    channels: features of the first convolution. layers: convolutions after it, all but the last with stride 2.
    """

    def __init__(self, channels: int = 64, layers: int = 3) -> None:
        super().__init__()
        self.discriminator = PatchDiscriminator(
            spatial_dims=3, channels=channels, in_channels=1, out_channels=1, num_layers_d=layers, norm="INSTANCE"
        )
        self.criterion = PatchAdversarialLoss(criterion="least_squares")

    def generator_loss(self, fake: Tensor) -> Tensor:
        """How far `fake` is from being taken for real."""
        return self._loss(fake, real=True, for_discriminator=False)

    def discriminator_loss(self, fake: Tensor, real: Tensor) -> Tensor:
        """How far both are from being told apart."""
        told_fake = self._loss(fake.detach(), real=False, for_discriminator=True)
        return (told_fake + self._loss(real, real=True, for_discriminator=True)) / 2

    def _loss(self, images: Tensor, *, real: bool, for_discriminator: bool) -> Tensor:
        logits = self.discriminator(images.contiguous())[-1].float()
        return self.criterion(logits, target_is_real=real, for_discriminator=for_discriminator)  # type: ignore[no-any-return]
