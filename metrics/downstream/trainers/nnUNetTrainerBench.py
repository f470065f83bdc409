"""The trainer of the arms, which nnU-Net finds through `nnUNet_extTrainer`. Settings are JSON in MEDLORD_BENCH_TRAINER.

It differs from nnU-Net's own in three ways. Its length is a setting. Every epoch starts from the random state of (seed,
epoch), so that a training that is killed and resumed ends in the same weights if data are loaded in its own process
(nnUNet_n_proc_DA=0) on a CPU. It writes each checkpoint whole or not at all. With `tiny` it is small enough for a CPU.
"""

import hashlib
import json
import os
import random
import time
from pathlib import Path

import numpy as np
import torch
from nnunetv2.training.lr_scheduler.polylr import PolyLRScheduler
from nnunetv2.training.nnUNetTrainer.nnUNetTrainer import nnUNetTrainer

from medlord_bench.nn.checkpoints import more_than_numbers

SETTINGS = "MEDLORD_BENCH_TRAINER"
TINY_RATE = 5e-3  # of AdamW; SGD with nnU-Net's 1e-2 does not learn small organs in a few hundred iterations


class nnUNetTrainerBench(nnUNetTrainer):  # type: ignore[misc]
    """epochs, iterations, val_iterations, seed, tiny, save_every, progress (file of one JSON line for each epoch)."""

    def __init__(self, plans, configuration, fold, dataset_json, device=torch.device("cuda")):  # noqa: B008
        super().__init__(plans, configuration, fold, dataset_json, device)  # nnU-Net reads the parameters' names
        self.bench = json.loads(os.environ[SETTINGS])
        self.num_epochs = self.bench["epochs"]
        self.num_iterations_per_epoch = self.bench["iterations"]
        self.save_every = self.bench["save_every"]
        self.logger.plot_progress_png = lambda *_: None
        self.num_val_iterations_per_epoch = self.bench["val_iterations"]
        if self.bench["tiny"]:
            self.enable_deep_supervision = False
            self.initial_lr = TINY_RATE

    def _seed(self, *parts):
        text = repr((self.bench["seed"], *parts)).encode()
        number = int.from_bytes(hashlib.sha256(text).digest()[:4], "big")
        random.seed(number)
        np.random.seed(number)
        torch.manual_seed(number)

    def initialize(self):
        self._seed("initial weights")
        super().initialize()

    def configure_optimizers(self):
        if not self.bench["tiny"]:
            return super().configure_optimizers()
        found = torch.optim.AdamW(
            self.network.parameters(), self.initial_lr, weight_decay=self.weight_decay, amsgrad=True
        )
        return found, PolyLRScheduler(found, self.initial_lr, self.num_epochs)

    def configure_rotation_dummyDA_mirroring_and_inital_patch_size(self):
        rotation, dummy, patch, mirrored = super().configure_rotation_dummyDA_mirroring_and_inital_patch_size()
        if self.bench["tiny"]:  # a short training has no time to learn both sides of the body
            mirrored = self.inference_allowed_mirroring_axes = None
        return rotation, dummy, patch, mirrored

    def on_train_epoch_start(self):
        self._seed("epoch", self.current_epoch)
        super().on_train_epoch_start()
        self._times = [time.monotonic()]

    def on_train_epoch_end(self, train_outputs):
        self._times.append(time.monotonic())
        super().on_train_epoch_end(train_outputs)

    def on_validation_epoch_end(self, val_outputs):
        self._times.append(time.monotonic())
        super().on_validation_epoch_end(val_outputs)

    def on_epoch_end(self):
        started, trained, validated = self._times
        epoch = self.current_epoch
        super().on_epoch_end()
        ended = time.monotonic()
        told = {
            "epoch": epoch,
            "epochs": self.num_epochs,
            "seconds": round(ended - started, 3),
            "iteration": round((trained - started) / self.num_iterations_per_epoch, 4),
            "validation": round((validated - trained) / self.num_val_iterations_per_epoch, 4),
            "saving": round(ended - validated, 3),
            "loss": round(float(self.logger.get_value("train_losses", step=-1)), 4),
            "dice": [round(float(one), 4) for one in self.logger.get_value("dice_per_class_or_region", step=-1)],
        }
        with open(self.bench["progress"], "a") as file:
            file.write(json.dumps(told) + "\n")

    def save_checkpoint(self, filename):
        if Path(filename).name == "checkpoint_best.pth":  # the last weights are used; the best of a split are not
            return
        super().save_checkpoint(f"{filename}.part")
        if not self.disable_checkpointing:
            os.replace(f"{filename}.part", filename)

    def load_checkpoint(self, filename_or_checkpoint):
        """nnU-Net loads its checkpoint as a pickle, which can run any code: one that has more than numbers is refused."""
        problem = more_than_numbers(Path(filename_or_checkpoint))
        if problem is not None:
            raise RuntimeError(f"{filename_or_checkpoint}: {problem}; remove it, and the training begins anew")
        super().load_checkpoint(filename_or_checkpoint)

    def perform_actual_validation(self, save_probabilities=False):
        """The bench predicts and measures the test cases itself."""
