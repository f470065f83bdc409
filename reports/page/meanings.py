"""What each quantity means, in one sentence; the pages under docs/metrics say the rest."""

from __future__ import annotations

from collections.abc import Sequence

from medlord_bench.contracts.results import Score

MEANINGS = {
    "fid": "Squared Fréchet distance between slice features of samples and real volumes: look and variety in one number.",
    "fid_debiased": "The same distance with its estimated bias of few volumes taken off; about 0 for equal sets.",
    "fid_infinity": "The same distance extrapolated to endless volumes, from how it falls with n.",
    "kid": "Unbiased kernel distance on the same features: about 0 for equal sets at any n, with a p-value against that.",
    "precision": "Share of samples that lie near real volumes: realism.",
    "recall": "Share of real volumes that lie near samples: variety.",
    "density": "How many real neighbourhoods hold a sample, about 1 for equal sets: realism that no outlier can buy.",
    "coverage": "Share of real volumes with a sample in their neighbourhood: variety that no outlier can buy.",
    "axes": "Correlation of the mean sample with the mean real volume as they lie; warned where they fit better turned.",
    "copy_rate": "Share of samples nearer to one training patient than unseen patients are: copies. Its floor is the share "
    "of unseen real volumes that the same threshold calls copies.",
    "memorised_share": "Share of training patients that have a copy among the samples; more samples find more.",
    "nearest_correlation": "How like its nearest training volume a sample is, once registered; unseen real volumes beside.",
    "rvr": "Voxels of a region over all voxels, median of the samples: right where it is as in real volumes.",
    "rvr_ml": "Volume of a region in mL, median of the samples: right where it is as in real volumes.",
    "rvr_missing": "Share of samples that lack a region, or have less than half of the smallest real one.",
    "rvr_w1": "How far a region's volume ratios lie from the real ones (Wasserstein-1).",
    "rvr_ks": "The largest gap between the distributions of a region's volume ratios, samples and real volumes.",
    "rvr_variance_ratio": "Spread of a region's volume ratios over that of real volumes: 1 is right, below 1 too alike.",
    "rvr_joint": "How far the volumes of all regions together lie from real ones: about 0 for equal sets.",
    "dsc": "Overlap (Dice) of each conditional sample, segmented again, with the mask it had to follow; beside it the "
    "ceiling that the segmenter reaches on real images.",
    "nsd": "Share of the surfaces of sample and mask that lie within the tolerance of each other.",
    "hd95": "Distance that 95 % of the surfaces of sample and mask stay within.",
    "dsc_ceiling_real": "What the segmenter itself reaches on real test images: no sample can be asked for more.",
    "dsc_ceiling_reconstruction": "What the segmenter reaches on the autoencoder's reconstructions of real images.",
    "psnr": "How closely the autoencoder gives back real test images, voxel by voxel.",
    "ms_ssim": "How closely the autoencoder gives back the structure of real test images, over several scales.",
    "lpips": "How far the autoencoder's reconstructions lie from real test images in the features of a network.",
}
# What a metric looks for that would earn a warning: (metric, in words).
WATCHED = (
    ("axes", "samples that lie turned or mirrored"),
    ("copy_rate", "copies of training patients"),
    ("rvr_missing", "missing organs"),
    ("dsc", "regions of masks that are missed"),
)


def meaning(metric: str) -> str:
    """One sentence; empty for a metric that this page does not know."""
    return MEANINGS.get(metric, "")


def watched(scores: Sequence[Score]) -> list[str]:
    """What this run looked for; a metric that was not run looked for nothing."""
    ran = {score.metric for score in scores if score.status == "ok"}
    return [words for metric, words in WATCHED if metric in ran]
