"""The process in which a trained nnU-Net runs (`child.serve`): the model is loaded once and stays in memory."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medlord_bench.errors import UserError
from medlord_bench.plugins.segmenters.subprocess.child import Segment, serve


def prepare(settings: Mapping[str, Any], folder: Path) -> Segment:
    """Load the model; returns the function that segments one volume. settings: see `nnunet.segment`."""
    import nibabel as nib
    import numpy as np
    import torch
    from nibabel.affines import voxel_sizes
    from nnunetv2.inference.predict_from_raw_data import nnUNetPredictor

    predictor = nnUNetPredictor(
        use_mirroring=settings["mirroring"], device=torch.device(settings["device"]), allow_tqdm=False
    )
    predictor.initialize_from_trained_model_folder(
        settings["folder"], tuple(settings["folds"]), checkpoint_name=settings["checkpoint"]
    )
    if predictor.configuration_manager.previous_stage_name is not None:
        raise UserError(
            f"{settings['folder']}: the second stage of a cascade needs the first one's output; expected a standalone "
            "model: give the folder of 3d_fullres"
        )
    turned = tuple(axis for axis in range(3) if settings["orientation"][axis] != "RAS"[axis])

    def segment(source: Path, target: Path) -> None:
        image = nib.load(source)
        hu = np.flip(np.asarray(image.dataobj), turned)
        # All of nnU-Net's readers return (channel, z, y, x) and spacing in that order.
        spacing = [float(length) for length in voxel_sizes(image.affine)[::-1]]
        data = np.ascontiguousarray(hu.T[None].astype(np.float32))
        labels = predictor.predict_single_npy_array(data, {"spacing": spacing})
        labels = np.flip(np.asarray(labels).T, turned)
        nib.save(nib.Nifti1Image(np.ascontiguousarray(labels.astype(np.uint8)), image.affine), target)

    return segment


if __name__ == "__main__":
    serve(prepare)
