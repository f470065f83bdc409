"""The unit and direction of every number of the built-in metrics, which only its quantity declares."""

from __future__ import annotations

from medlord_bench.contracts import registry
from medlord_bench.contracts.metrics import quantities_of

HIGHER = "dsc nsd dsc_ceiling_real dsc_ceiling_reconstruction psnr ms_ssim precision recall density coverage axes distinct_samples precision3d recall3d density3d coverage3d"
LOWER = "anatomy_joint artefact_joint rvr_missing rvr_absent rvr_w1 rvr_ks rvr_joint hd95 copy_rate memorised_share dar_copy_rate dar_memorised_share mask_copy_rate lpips fid fid_debiased kid fid_infinity tissue_joint fid3d kid3d mmd3d frd"
TISSUE = {"hu": "HU", "spread": "HU", "noise": "HU", "share": "", "nps": "1/voxel", "edge": "voxels"}
OF_TISSUE = {f"tissue_{name}{end}": unit for name, unit in TISSUE.items() for end in ("", "_shift")}
OWN = {f"anatomy_{name}": "" for name in ("share", "extent", "place", "sphericity", "distance", "vessels")}
OWN |= {"anatomy_bone": "HU", "artefact_banding": "HU", "artefact_period": "HU", "artefact_nodules": "1/L"}
OWN |= {f"artefact_{name}": "" for name in ("seam", "detail", "uneven")}
OF_SHAPE = {f"{name}{end}": unit for name, unit in OWN.items() for end in ("", "_shift")}
SYNTHETIC, REAL = "synthetic real_synthetic mixed", "real real_longer real_other_seed"
HIGHER += "".join(f" dt_dsc_{arm} dt_nsd_{arm}" for arm in SYNTHETIC.split()) + " dt_dsc_on_samples"
LOWER += "".join(f" dt_hd95_{arm}" for arm in SYNTHETIC.split())
OF_REAL = " ".join(f"dt_{measure}_{arm}" for measure in ("dsc", "nsd", "hd95") for arm in REAL.split())
HIGHER += "".join(f" dt_external_{arm}" for arm in SYNTHETIC.split()) + " dt_dose_1x dt_dose_2x dt_dose_3x"
OF_REAL += "".join(f" dt_external_{arm}" for arm in REAL.split()) + " dt_dose_0x"
COMPARED = (*SYNTHETIC.split(), *REAL.split()[1:])
GAINS = " ".join(f"dt_{set}gain_{arm}" for set in ("", "external_") for arm in COMPARED)
GAINS += "".join(f" dt_dose_gain_{multiple}x" for multiple in (1, 2, 3))
NEITHER = f"{OF_REAL} {GAINS} rvr rvr_ml rvr_variance_ratio nearest_correlation mask_correlation vendi pair_ms_ssim {' '.join((*OF_TISSUE, *OF_SHAPE))}"
METRICS = (
    "rvr",
    "adherence",
    "memorisation",
    "reconstruction",
    "lpips",
    "fid",
    "axes",
    "diversity",
    "tissue",
    "fid3d",
    "frd",
    "anatomy",
    "artefacts",
    "downstream",
)


def test_units_and_directions_of_the_built_in_metrics() -> None:
    found = quantities_of({name: registry.load("metrics", name) for name in METRICS})
    sides = (("higher", HIGHER), ("lower", LOWER), ("", NEITHER))
    assert {name: one.better for name, one in found.items()} == {
        name: side for side, names in sides for name in names.split()
    }
    units = {name: one.unit for name, one in found.items() if one.unit}
    tissue = {name: unit for name, unit in (OF_TISSUE | OF_SHAPE).items() if unit}
    distances = {f"dt_hd95_{arm}": "mm" for arm in f"{SYNTHETIC} {REAL}".split()}
    assert units == {**distances, "rvr_ml": "mL", "hd95": "mm", "psnr": "dB", **tissue}


def test_dsc_has_the_paper_s_margin_of_equivalence() -> None:
    """0.05 DSC, of samples against masks and of segmenters that were trained on them; no other quantity has one."""
    found = quantities_of({name: registry.load("metrics", name) for name in METRICS})
    assert {one.margin for one in found.values()} == {0.05, None}
    arms = {f"dt_{set}_{arm}" for set in ("dsc", "external") for arm in SYNTHETIC.split()}
    doses = {f"dt_dose_{multiple}x" for multiple in (1, 2, 3)}
    assert {name for name, one in found.items() if one.margin} == {"dsc", "dt_dsc_on_samples"} | arms | doses
