"""Tiny nnU-Net models whose answer is known: each voxel gets the label whose HU lies nearest.

The network is nnU-Net's own PlainConvUNet with weights set by hand. One feature carries the intensity x through the
top level, and the head's class k scores 2 t_k x - t_k^2, which is largest where x is nearest to t_k.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

MEAN, STD, LOW, HIGH = 0.0, 500.0, -1000.0, 2000.0  # of CTNormalization: x = (clip(HU, LOW, HIGH) - MEAN) / STD
SHARPNESS = 20.0  # nnU-Net sums weighted scores in half precision: large enough to tell them apart in the corners
TOTAL_6MM = "Dataset298_TotalSegmentator_total_6mm_1559subj"
TOTAL_6MM_MODEL = "nnUNetTrainer_4000epochs_NoMirroring__nnUNetPlans__3d_fullres"
ARCHITECTURE = {
    "n_stages": 2,
    "features_per_stage": [2, 2],
    "conv_op": "torch.nn.modules.conv.Conv3d",
    "kernel_sizes": [[3, 3, 3]] * 2,
    "strides": [[1, 1, 1], [2, 2, 2]],
    "n_conv_per_stage": [1, 1],
    "n_conv_per_stage_decoder": [1],
    "conv_bias": True,
    "norm_op": None,
    "norm_op_kwargs": None,
    "dropout_op": None,
    "dropout_op_kwargs": None,
    "nonlin": "torch.nn.LeakyReLU",
    "nonlin_kwargs": {"inplace": True},
}


def nearest(hu: NDArray[Any], prototypes: Mapping[int, float]) -> NDArray[np.uint8]:
    """The answer the planted network gives, by NumPy: the label with the nearest HU, after clipping."""
    labels = np.array(sorted(prototypes))
    distance = np.abs(np.clip(hu, LOW, HIGH)[..., None] - np.array([prototypes[label] for label in labels.tolist()]))
    return labels[distance.argmin(axis=-1)].astype(np.uint8)


def plant(model: Path, labels: Sequence[str], prototypes: Mapping[int, float], spacing: float, trainer: str) -> Path:
    """Write a trained-model folder (dataset.json, plans.json, fold_0/checkpoint_final.pth) and return it.

    labels: the names of labels 0, 1, 2, ...; prototypes: label to HU, 0 included; a label without one never wins.
    """
    import torch

    (model / "fold_0").mkdir(parents=True)
    dataset = {
        "channel_names": {"0": "CT"},
        "labels": {name: value for value, name in enumerate(labels)},
        "numTraining": 4,
        "file_ending": ".nii.gz",
    }
    (model / "dataset.json").write_text(json.dumps(dataset))
    (model / "plans.json").write_text(json.dumps(_plans(spacing)))
    checkpoint = {
        "network_weights": _weights(len(labels), prototypes),
        "trainer_name": trainer,
        "init_args": {"configuration": "3d_fullres"},
        "inference_allowed_mirroring_axes": None,
        "_best_ema": np.float32(0.5),  # real checkpoints hold NumPy scalars, which plain weights_only refuses
    }
    torch.save(checkpoint, model / "fold_0" / "checkpoint_final.pth")
    return model


def plant_totalsegmentator(weights: Path, prototypes: Mapping[int, float]) -> Path:
    """TotalSegmentator's 6 mm model (`fastest`) of all 117 structures, below its weights folder."""
    from totalsegmentator.map_to_binary import class_map

    names = ["background", *(name for _, name in sorted(class_map["total"].items()))]
    trainer = TOTAL_6MM_MODEL.partition("__")[0]
    return plant(weights / TOTAL_6MM / TOTAL_6MM_MODEL, names, prototypes, 6.0, trainer)


def _weights(heads: int, prototypes: Mapping[int, float]) -> dict[str, Any]:
    import torch
    from dynamic_network_architectures.architectures.unet import PlainConvUNet
    from torch import nn

    given = ARCHITECTURE | {"conv_op": nn.Conv3d, "nonlin": nn.LeakyReLU}
    network = PlainConvUNet(input_channels=1, num_classes=heads, deep_supervision=False, **given)
    shift = 1 - (LOW - MEAN) / STD  # keeps the feature above 0, where the LeakyReLU is the identity
    with torch.no_grad():
        for parameter in network.parameters():
            parameter.zero_()
        encode = network.encoder.stages[0][0].convs[0].conv
        encode.weight[0, 0, 1, 1, 1], encode.bias[0] = 1.0, shift
        network.decoder.stages[0].convs[0].conv.weight[0, 2, 1, 1, 1] = 1.0  # 2: the skip follows the 2 from below
        head = network.decoder.seg_layers[0]
        head.bias.fill_(-1000.0)
        for label, hu in prototypes.items():
            t = (hu - MEAN) / STD + shift
            head.weight[label, 0, 0, 0, 0], head.bias[label] = SHARPNESS * 2 * t, -SHARPNESS * t * t
    return dict(network.state_dict())


def _plans(spacing: float) -> dict[str, Any]:
    resample = "resample_data_or_seg_to_shape"
    linear = {"is_seg": False, "order": 1, "order_z": 0, "force_separate_z": None}
    configuration = {
        "data_identifier": "nnUNetPlans_3d_fullres",
        "preprocessor_name": "DefaultPreprocessor",
        "batch_size": 2,
        "patch_size": [32, 32, 32],
        "median_image_size_in_voxels": [32.0, 32.0, 32.0],
        "spacing": [spacing] * 3,
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": resample,
        "resampling_fn_seg": resample,
        "resampling_fn_probabilities": resample,
        "resampling_fn_data_kwargs": linear,
        "resampling_fn_seg_kwargs": linear | {"is_seg": True},
        "resampling_fn_probabilities_kwargs": linear,
        "batch_dice": False,
        "architecture": {
            "network_class_name": "dynamic_network_architectures.architectures.unet.PlainConvUNet",
            "arch_kwargs": ARCHITECTURE,
            "_kw_requires_import": ["conv_op", "norm_op", "dropout_op", "nonlin"],
        },
    }
    intensity = {"mean": MEAN, "std": STD, "percentile_00_5": LOW, "percentile_99_5": HIGH}
    return {
        "dataset_name": "Dataset298_planted",
        "plans_name": "nnUNetPlans",
        "original_median_spacing_after_transp": [spacing] * 3,
        "original_median_shape_after_transp": [32, 32, 32],
        "image_reader_writer": "SimpleITKIO",
        "transpose_forward": [0, 1, 2],
        "transpose_backward": [0, 1, 2],
        "experiment_planner_used": "ExperimentPlanner",
        "label_manager": "LabelManager",
        "foreground_intensity_properties_per_channel": {"0": intensity | {"min": LOW, "max": HIGH, "median": MEAN}},
        "configurations": {"3d_fullres": configuration},
    }
