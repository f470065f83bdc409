"""Training of the VQ-GAN on random patches, and storing its weights: the first stage of generators with a VQ-GAN.

Losses and schedule are those of MedLoRD (section 2.1 of its paper; if the paper gives no value,
`configs/stage1/vqgan_ds4_new.yaml` of its repository).
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import torch
from pydantic import ValidationError
from torch import Tensor

from medlord_bench.contracts import Cohort, Run, Split
from medlord_bench.errors import MissingError, UserError
from medlord_bench.nn.checkpoints import load_model, load_strict, save_model
from medlord_bench.nn.intensity import Window, scale_hu
from medlord_bench.nn.losses import Adversary, Perceptual, Spectral, check_perceptual_weights
from medlord_bench.nn.optimiser import Optimiser, autocast
from medlord_bench.nn.pretrained import weights_folder
from medlord_bench.nn.ranks import current
from medlord_bench.nn.training import Stateful
from medlord_bench.nn.vqgan.config import AutoencoderConfig
from medlord_bench.nn.vqgan.network import VQGAN, VQGANConfig
from medlord_bench.nn.vqgan.quantiser import Quantised, Statistics, usage
from medlord_bench.util import seeds

KIND = "medlord.autoencoder"  # one kind for all generators, so that they can use each other's VQ-GAN


class Patches:
    """Random patches of one split. A patch is a pure function of the arguments of `draw`."""

    def __init__(self, data: Cohort, split: Split, config: AutoencoderConfig) -> None:
        self.data, self.config = data, config
        self.ids: Sequence[str] = data.ids(split)
        self.window = data.protocol.grid.hu_window
        grid = data.protocol.grid.shape
        if not self.ids:
            raise MissingError(f"{data.protocol.name}: no {split} case; add at least one to the split")
        if any(side > full for side, full in zip(config.patch, grid, strict=True)):
            raise UserError(f"autoencoder.patch: {config.patch} is larger than the grid {grid}; choose a smaller patch")

    def draw(self, *parts: str | int) -> Tensor:
        """One patch, float32 (1, X, Y, Z) in [-1, 1], from `seeds.numpy_rng(*parts)`."""
        rng = seeds.numpy_rng(*parts)
        hu = self.data.hu(self.ids[int(rng.integers(len(self.ids)))])
        corner = [int(rng.integers(n - side + 1)) for n, side in zip(hu.shape, self.config.patch, strict=True)]
        return scale_hu(np.ascontiguousarray(self._augmented(hu, corner, rng)), self.window)[None]

    def _augmented(self, hu: np.ndarray, corner: Sequence[int], rng: np.random.Generator) -> np.ndarray:
        """The patch at `corner` of the volume `hu`, perhaps rotated and flipped."""
        config = self.config
        flips, turns = rng.random(), rng.random()
        if turns < config.rotate:
            patch = self._rotated(hu, corner, rng.uniform(-config.rotate_degrees, config.rotate_degrees, 3))
        else:
            patch = hu[tuple(slice(start, start + side) for start, side in zip(corner, config.patch, strict=True))]
        return patch[:, ::-1] if flips < config.flip else patch

    def _rotated(self, hu: np.ndarray, corner: Sequence[int], degrees: np.ndarray) -> np.ndarray:
        """The patch at `corner`, rotated about its centre. Its edges are the volume's own voxels, and air outside it.

        MedLoRD's repository rotates after scaling to [-1, 1] and pads with 0, the middle of the HU window.
        """
        from scipy.ndimage import affine_transform
        from scipy.spatial.transform import Rotation

        turn = Rotation.from_euler("xyz", degrees, degrees=True).as_matrix()
        half = (np.array(self.config.patch) - 1) / 2
        centre, reach = corner + half, np.abs(turn) @ half + 1
        low = np.maximum(np.floor(centre - reach), 0).astype(int)
        high = np.minimum(np.ceil(centre + reach) + 1, hu.shape).astype(int)
        block = np.asarray(hu[tuple(map(slice, low, high))], dtype=np.float32)
        offset = centre - turn @ half - low  # voxel p of the patch is at turn @ p + offset in the block
        air = self.window[0]
        return affine_transform(block, turn, offset, self.config.patch, order=1, mode="constant", cval=air)


class CodeWindow:
    """How often training used each code since the last validation. counts: float32 (K,)."""

    def __init__(self, codes: int, device: str) -> None:
        self.counts = torch.zeros(codes, device=device)

    def state_dict(self) -> dict[str, Tensor]:
        return {"counts": self.counts}

    def load_state_dict(self, state: Mapping[str, Tensor]) -> None:
        self.counts.copy_(state["counts"])


class AutoencoderRecipe:
    """Training of the first stage: a `training.Recipe`."""

    def __init__(self, config: AutoencoderConfig, data: Cohort, run: Run) -> None:
        self.config, self.seed, self.device = config, run.seed, run.device
        self.weights_dir = weights_folder(run.weights_dir)
        self.train, self.val = Patches(data, "train", config), Patches(data, "val", config)
        self.perceptual = self._perceptual() if config.perceptual else None  # first, because its weights may be missing
        self.spectral = Spectral()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seeds.derive(run.seed, "autoencoder", "initial weights"))
            self.net = VQGAN(config.net).to(run.device)
            self.adversary = self._adversary() if config.adversarial else None
        self.optimiser = self._optimiser(self.net, config.lr_g)
        self.critic = self._optimiser(self.adversary, config.lr_d) if self.adversary else None
        self.window = CodeWindow(config.net.codes, run.device)

    def _perceptual(self) -> Perceptual:
        backbone = check_perceptual_weights(self.weights_dir)
        loss = Perceptual(backbone, self.config.perceptual_slices)
        loss.to(self.device)
        return loss

    def _adversary(self) -> Adversary:
        return Adversary(self.config.discriminator_channels, self.config.discriminator_layers).to(self.device)

    def _optimiser(self, module: torch.nn.Module, lr: float) -> Optimiser:
        parameters = [parameter for parameter in module.parameters() if parameter.requires_grad]
        config = self.config
        return Optimiser(
            parameters,
            lr=lr,
            betas=config.betas,
            precision=config.precision,
            lr_factor=config.lr_factor,
            kind=config.optimiser,
        )

    def stateful(self) -> Mapping[str, Stateful]:
        parts: dict[str, Stateful] = {"net": self.net, "optimiser": self.optimiser, "window": self.window}
        if self.adversary and self.critic:
            parts |= {"adversary": self.adversary, "critic": self.critic}
        return parts

    def batch(self, step: int) -> Tensor:
        """Patches of a step, float32 (batch, 1, X, Y, Z) in [-1, 1], on the CPU."""
        return torch.stack([self.train.draw(self.seed, "autoencoder", step, i) for i in range(self.config.batch)])

    def step(self, step: int, batch: Tensor) -> Mapping[str, Tensor | float]:
        """One step of the generator, of the discriminator and of the codebook, on one batch."""
        self.net.train()
        gathered = self.net.quantiser.no_statistics()
        share, ranks = self.config.micro_batch / len(batch), current()
        figures: dict[str, Tensor] = {}
        parts = torch.split(batch, self.config.micro_batch)
        for number in ranks.parts(len(parts), self.seed, "autoencoder", step):
            images = parts[number].to(self.device, non_blocking=True)
            terms, z = self._accumulate(images, step, share, gathered)
            figures = {name: figures.get(name, 0) + share * term.detach() for name, term in terms.items()}
        figures = ranks.total(figures)
        self.optimiser.step(step)
        if self.critic:
            self.critic.step(step)
        ranks.sum_([gathered.counts, gathered.sums])
        self.net.quantiser.update(gathered)
        if self.config.net.restart_below:
            z = ranks.of(len(parts) - 1, z)
            figures["codes_restarted"] = self.net.quantiser.restart(z, seeds.torch_rng(self.seed, "restart", step))
        self.window.counts.add_(gathered.counts)
        return {**figures, "perplexity": usage(gathered.counts).perplexity}

    @property
    def micro_batches(self) -> int:
        return len(range(0, self.config.batch, self.config.micro_batch))

    def _accumulate(
        self, images: Tensor, step: int, share: float, gathered: Statistics
    ) -> tuple[dict[str, Tensor], Tensor]:
        """Accumulate the gradients of one micro-batch. Returns its loss terms, unweighted, and its latents."""
        with autocast(self.config.precision, self.device):
            z = self.net.encode(images)
            quantised = self.net.quantise(z, gathered)
            fake = self.net.decode(quantised.codes)
        fake = fake.float()
        terms = self._terms(images, fake, quantised)
        self.optimiser.backward(share * self._total(terms, step))
        if self.adversary and self.critic:
            self.adversary.requires_grad_(True)
            with autocast(self.config.precision, self.device):
                terms["discriminator"] = self.adversary.discriminator_loss(fake, images)
            self.critic.backward(share * terms["discriminator"])
        return terms, z.detach()

    def _terms(self, images: Tensor, fake: Tensor, quantised: Quantised) -> dict[str, Tensor]:
        terms = {"l1": torch.nn.functional.l1_loss(fake, images), "commitment": quantised.loss}
        if self.config.spectral:
            terms["spectral"] = self.spectral(fake, images)
        if self.perceptual:
            terms["perceptual"] = self.perceptual(fake, images)
        if self.adversary:
            self.adversary.requires_grad_(False)  # the generator's loss must not update the discriminator
            with autocast(self.config.precision, self.device):
                terms["adversarial"] = self.adversary.generator_loss(fake)
        return terms

    def _total(self, terms: Mapping[str, Tensor], step: int) -> Tensor:
        config = self.config
        warm = min(1.0, step / config.adversarial_warmup) if config.adversarial_warmup else 1.0
        weights = {
            "l1": config.l1,
            "commitment": 1.0,  # already weighted by the quantiser
            "spectral": config.spectral,
            "perceptual": config.perceptual,
            "adversarial": config.adversarial * warm,
        }
        return torch.stack([weights[name] * term for name, term in terms.items()]).sum()

    @torch.no_grad()
    def validate(self, step: int) -> Mapping[str, float]:
        """Mean L1 ("loss") and PSNR on the same validation patches at each call, and the usage of the codebook.

        The usage is reported for these patches and for the training since the last validation.
        """
        self.net.eval()
        losses, errors, chosen = [], [], self.net.quantiser.no_statistics().counts
        for i in range(self.config.validation_patches):
            images = self.val.draw(self.seed, "autoencoder", "val", i)[None].to(self.device)
            with autocast(self.config.precision, self.device):
                fake, quantised = self.net(images)
            fake = fake.float().clamp(-1, 1)
            losses.append(torch.nn.functional.l1_loss(fake, images))
            errors.append(torch.nn.functional.mse_loss(fake, images))
            indices = quantised.indices.flatten()  # (1, x, y, z) -> (x*y*z,)
            chosen.index_add_(0, indices, torch.ones_like(indices, dtype=chosen.dtype))
        trained, seen = usage(self.window.counts), usage(chosen)
        self.window.counts.zero_()
        psnr = 10 * torch.log10(4 / torch.stack(errors).clamp(min=1e-12))
        return {
            "loss": float(torch.stack(losses).mean()),
            "psnr": float(psnr.mean()),
            "codes_used": float(seen.share),
            "perplexity": float(seen.perplexity),
            "codes_used_in_training": float(trained.share),
            "perplexity_in_training": float(trained.perplexity),
        }

    def export(self, folder: Path) -> None:
        """Write the network without its discriminator. Latents and sampling need only the network."""
        facts = self.config.model_dump(mode="json", exclude={"net"})
        save_autoencoder(folder, self.net, self.train.window, facts)


def save_autoencoder(folder: Path, net: VQGAN, window: Window, training: Mapping[str, Any]) -> None:
    """Write weights, architecture and HU window to `folder`. training: facts about the training, for the record."""
    config = {"net": net.config.model_dump(mode="json"), "hu_window": list(window), "training": dict(training)}
    save_model(folder, KIND, config, net.state_dict())


def load_autoencoder(folder: Path, device: str) -> VQGAN:
    """Load the network that `save_autoencoder` wrote, in evaluation mode. Raises `MissingError` or `UserError`."""
    config, tensors = load_model(folder, KIND)
    try:
        net = VQGAN(VQGANConfig.model_validate(config["net"]))
    except KeyError:
        raise UserError(f"{folder / 'model.json'}: no field net; restore the file or train again") from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, ("net", *first["loc"])))
        raise UserError(f"{folder / 'model.json'}: field {field}: {first['msg']}; restore it or train again") from None
    load_strict(net, tensors, str(folder / "model.safetensors"))
    return net.to(device).eval().requires_grad_(False)


def hu_window(folder: Path) -> Window:
    """The HU window that a saved autoencoder maps to [-1, 1]."""
    path = folder / "model.json"
    try:
        low, high = json.loads(path.read_text())["config"]["hu_window"]
    except FileNotFoundError:
        raise MissingError(f"{path}: not found; expected the weights of {KIND}: train them or give --weights") from None
    except (KeyError, ValueError, TypeError):
        raise UserError(f"{path}: field hu_window: expected two numbers; restore the file or train again") from None
    return int(low), int(high)
