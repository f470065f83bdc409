"""Readers of files that people give: valid small files, damaged in every way."""

from __future__ import annotations

import gzip
import io
import json
import zipfile
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import strategies as st
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import CTImageStorage, ExplicitVRLittleEndian

from medlord_bench.contracts import Failure, Grid, LabelMap, Volume
from medlord_bench.contracts.results import read_results
from medlord_bench.engine.plan import read_plan
from medlord_bench.engine.run_file import read_run_file
from medlord_bench.errors import UserError
from medlord_bench.generators.own.mapping import MappingConfig
from medlord_bench.generators.own.reading import hu_on_grid, shape_of
from medlord_bench.nn.checkpoints import load_model, read_torch
from medlord_bench.plugins.datasets.on_disk.find import FilesConfig
from medlord_bench.plugins.datasets.on_disk.manifest import cases_of
from medlord_bench.plugins.datasets.on_disk.masks import declared_names
from medlord_bench.plugins.datasets.on_disk.splits import SplitConfig, divide
from medlord_bench.results.run_results import read_run
from medlord_bench.volumes.arrays import load_state, read_hu, save_state
from medlord_bench.volumes.fingerprints import Found
from medlord_bench.volumes.io import read_labels, read_volume
from medlord_bench.volumes.listing import listed
from medlord_bench.volumes.small import SmallVolume, read_small, write_small

SHAPE = (6, 5, 4)
HU = np.random.default_rng(3).integers(-1000, 900, SHAPE).astype(np.int16)
EXTREMES = (0, 1, 2, 0x7F, 0x80, 0xFF, 0x7FFF, 0x8000, 0xFFFF, 2**31 - 1, 2**31, 2**32 - 1, 2**63 - 1, 2**64 - 1)
NUMBERS = (
    b"0",
    b"-1",
    b"1e400",
    b"nan",
    b"inf",
    b"9" * 30,
    b"9" * 5000,
    b"true",
    b"null",
    b"[]",
    b"{}",
    b'""',
    b"100000",
)
WORDS = (
    b"\n",
    b"\0",
    b"\xff\xfe",
    b",",
    b'"',
    b"'",
    b"[" * 2000,
    b"{" * 2000,
    b"*a",
    b"&a ",
    b"..",
    b"\xc3\x28",
    b"\r",
    b";",
)


@st.composite
def damage(draw: Any, content: bytes, text: bool) -> bytes:
    """One to four changes: bits flipped, an end cut off, bytes inserted, doubled or removed, a number made extreme."""
    data = bytearray(content)
    for _ in range(draw(st.integers(1, 4))):
        if not data:
            break
        # Headers are at the front: half of the changes go there.
        last = len(data) - 1
        at = draw(st.one_of(st.integers(0, min(last, 400)), st.integers(0, last)))
        length = draw(st.integers(1, 40))
        kind = draw(st.sampled_from(("flip", "cut", "insert", "double", "remove", "number", "word", "write")))
        if kind == "flip":
            data[at] ^= 1 << draw(st.integers(0, 7))
        elif kind == "cut":
            del data[at:]
        elif kind == "insert":
            data[at:at] = draw(st.binary(min_size=1, max_size=12))
        elif kind == "double":
            data[at:at] = data[at : at + length]
        elif kind == "remove":
            del data[at : at + length]
        elif kind == "write":
            data[at : at + 4] = draw(st.binary(min_size=4, max_size=4))
        elif kind == "word" or (text and kind == "number"):
            data[at : at + draw(st.integers(0, 6))] = draw(st.sampled_from(WORDS if kind == "word" else NUMBERS))
        else:
            size = draw(st.sampled_from((1, 2, 4, 8)))
            value = draw(st.sampled_from(EXTREMES)) % 2 ** (8 * size)
            data[at : at + size] = value.to_bytes(size, draw(st.sampled_from(("little", "big"))))
    return bytes(data)


def ends_well(read: Callable[[], Any]) -> Any:
    """What `read` returns; None if it ends in one line of the bench's own."""
    try:
        return read()
    except UserError as error:
        assert str(error) and "\n" not in str(error), "not one line"
        assert len(str(error)) < 2000, "not a short line"
        return None


def is_volume(found: Any) -> None:
    if isinstance(found, Volume):
        assert found.hu.dtype == np.int16 and found.hu.ndim == 3 and np.isfinite(found.affine).all()
    if isinstance(found, LabelMap):
        assert found.labels.dtype == np.uint8 and found.labels.ndim == 3


# ------------------------------------------------------------------------------------------------------------ images
def itk(path: Path, packed: bool = False) -> bytes:
    image = sitk.GetImageFromArray(HU.T)
    image.SetSpacing((0.8, 0.8, 2.0))
    sitk.WriteImage(image, str(path), useCompression=packed)
    return path.read_bytes()


def nifti(kind: type = nib.Nifti1Image, values: np.ndarray = HU) -> bytes:
    content: bytes = kind(values, np.diag([0.8, 0.8, 2.0, 1.0])).to_bytes()
    return content


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("packed", [False, True])
def test_nifti(fuzz: Any, tmp_path: Path, kind: type, packed: bool) -> None:
    """packed: damaged before it is packed, so that its checksum is right."""
    path = tmp_path / ("a.nii.gz" if packed else "a.nii")

    def check(content: bytes) -> None:
        path.write_bytes(gzip.compress(content, 1) if packed else content)
        is_volume(ends_well(lambda: read_volume(path)))

    fuzz(check, damage(nifti(kind), False))


def test_nifti_labels(fuzz: Any, tmp_path: Path) -> None:
    path = tmp_path / "m.nii"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        is_volume(ends_well(lambda: read_labels(path, {1: "aorta", 2: "lungs"})))

    fuzz(check, damage(nifti(values=(HU > 0).astype(np.uint8)), False))


@pytest.mark.parametrize("suffix", [".nii.gz", ".mha", ".nrrd"])
def test_damaged_packed_values(fuzz: Any, tmp_path: Path, suffix: str) -> None:
    """Values have a checksum: they are the same, or refused."""
    path = tmp_path / f"b{suffix}"
    whole = gzip.compress(nifti(), 1) if suffix == ".nii.gz" else itk(tmp_path / f"a{suffix}", packed=True)
    start = 0 if suffix == ".nii.gz" else max(whole.rfind(b"LOCAL\n") + 6, whole.find(b"\n\n") + 2)
    path.write_bytes(whole)
    expected = read_volume(path).hu

    def check(content: bytes) -> None:
        path.write_bytes(whole[:start] + content)
        found = ends_well(lambda: read_volume(path))
        assert found is None or np.array_equal(found.hu, expected)

    fuzz(check, damage(whole[start:], False))


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("suffix", [".mha", ".nrrd", ".mhd", ".nhdr"])
def test_itk(fuzz: Any, tmp_path: Path, suffix: str, packed: bool, capfd: Any) -> None:
    path = tmp_path / f"a{suffix}"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        is_volume(ends_well(lambda: read_volume(path)))

    fuzz(check, damage(itk(path, packed), True))


def slices(folder: Path) -> list[Path]:
    paths = []
    for k in range(3):
        meta = FileMetaDataset()
        meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = CTImageStorage, f"1.2.3.{k + 1}"
        meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one = FileDataset(None, {}, file_meta=meta, preamble=b"\0" * 128)
        one.SOPClassUID, one.SOPInstanceUID, one.SeriesInstanceUID = CTImageStorage, f"1.2.3.{k + 1}", "1.2.3"
        one.Modality, one.PatientID, one.ImageType = "CT", "p", ["ORIGINAL", "PRIMARY", "AXIAL"]
        one.Rows, one.Columns, one.SamplesPerPixel, one.PhotometricInterpretation = 5, 6, 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 16, 15, 1
        one.PixelSpacing, one.ImageOrientationPatient = [0.8, 0.8], [1, 0, 0, 0, 1, 0]
        one.ImagePositionPatient, one.NumberOfFrames = [0, 0, 2 * k], 1
        one.RescaleSlope, one.RescaleIntercept, one.PixelPaddingValue = 1, -1024, -2000
        one.PixelData = HU[:, :, k].T.astype("<i2").tobytes()
        one.save_as(folder / f"{k}.dcm", enforce_file_format=True)
        paths.append(folder / f"{k}.dcm")
    return paths


def test_dicom(fuzz: Any, tmp_path: Path) -> None:
    paths = slices(tmp_path)

    def check(content: bytes) -> None:
        paths[1].write_bytes(content)
        is_volume(ends_well(lambda: read_volume(tmp_path)))
        ends_well(lambda: listed(tmp_path))

    fuzz(check, damage(paths[1].read_bytes(), False))


# ------------------------------------------------------------------------------------------------------------ arrays
def npy(values: np.ndarray = HU) -> bytes:
    file = io.BytesIO()
    np.save(file, values)
    return file.getvalue()


def own(path: Path) -> None:
    """As the generator `files` reads a volume of the user."""
    ends_well(lambda: shape_of(path, MappingConfig()))
    found = ends_well(lambda: hu_on_grid(path, MappingConfig(fit="crop-pad"), Grid(shape=SHAPE)))
    assert found is None or isinstance(found, Failure) or (found.dtype == np.int16 and found.shape == SHAPE)


def test_npy(fuzz: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.npy"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        own(path)
        ends_well(lambda: np.asarray(read_hu(path)).sum())

    fuzz(check, damage(npy(), True))


@pytest.mark.parametrize("inside", [False, True])
def test_npz(fuzz: Any, tmp_path: Path, inside: bool) -> None:
    """inside: the array is damaged before it is packed."""
    path = tmp_path / "a.npz"

    def packed(content: bytes) -> bytes:
        file = io.BytesIO()
        with zipfile.ZipFile(file, "w", zipfile.ZIP_DEFLATED) as archive:
            archive.writestr("volume.npy", content)
        return file.getvalue()

    def check(content: bytes) -> None:
        path.write_bytes(packed(content) if inside else content)
        own(path)

    fuzz(check, damage(npy() if inside else packed(npy()), inside))


def test_small_volumes(fuzz: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.npz"
    write_small(path, SmallVolume(HU, (1.0, 1.0, 2.0), (HU > 0).astype(np.uint8)))

    def check(content: bytes) -> None:
        path.write_bytes(content)
        ends_well(lambda: read_small(path))

    fuzz(check, damage(path.read_bytes(), False))


def test_safetensors(fuzz: Any, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    save_state(path, {"features": np.ones((3, 4), np.float32), "n": np.array([3])})

    def check(content: bytes) -> None:
        path.write_bytes(content)
        ends_well(lambda: load_state(path))

    fuzz(check, damage(path.read_bytes(), True))


@pytest.mark.parametrize("name", ["model.json", "model.safetensors"])
def test_weights(fuzz: Any, tmp_path: Path, name: str) -> None:
    import torch

    from medlord_bench.nn.checkpoints import save_model

    save_model(tmp_path, "toy", {"width": 3}, {"a": torch.ones(3)})
    path = tmp_path / name

    def check(content: bytes) -> None:
        path.write_bytes(content)
        ends_well(lambda: load_model(tmp_path, "toy"))

    fuzz(check, damage(path.read_bytes(), True))


@pytest.mark.parametrize("zipped", [False, True])
def test_torch_checkpoints(fuzz: Any, tmp_path: Path, zipped: bool) -> None:
    import torch

    path = tmp_path / "a.pt"
    torch.save({"a": torch.ones(3), "step": 4}, path, _use_new_zipfile_serialization=zipped)

    def check(content: bytes) -> None:
        path.write_bytes(content)
        ends_well(lambda: read_torch(path))

    fuzz(check, damage(path.read_bytes(), False))


# -------------------------------------------------------------------------------------------------------------- text
RUN_FILE = b"""generators: [medlord@smoke, noise]
dataset: phantom
metrics: [fid, "fid:maisi-compat"]
samples: 8
seed: 1
set:
  dataset.shape: [32, 32, 16]
  fid.minimum: 2
"""
MANIFEST = (
    "id,patient,image,mask,split\na,p1,a.nii.gz,,train\nb,p2,b.nii.gz,b.nii.gz,val\nc,Müller,c.nii.gz,,test\n".encode()
)
SPLITS = {
    ".json": b'{"train": ["a", "b"], "val": [], "test": ["c"]}',
    ".csv": b"id,split\na,train\nb,train\nc,test\n",
}


def test_run_files(fuzz: Any, tmp_path: Path) -> None:
    path = tmp_path / "run.yaml"

    def check(content: bytes) -> None:
        path.write_bytes(content)
        ends_well(lambda: read_run_file(path))

    fuzz(check, damage(RUN_FILE, True))


def test_manifests(fuzz: Any, tmp_path: Path) -> None:
    for name in "abc":
        (tmp_path / f"{name}.nii.gz").touch()

    def check(content: bytes) -> None:
        (tmp_path / "m.csv").write_bytes(content)
        ends_well(lambda: list(cases_of(tmp_path, Path("m.csv"))))

    fuzz(check, damage(MANIFEST, True))


@pytest.mark.parametrize("suffix", SPLITS)
def test_split_files(fuzz: Any, tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"s{suffix}"
    found = [Found(name, name, tmp_path / name) for name in "abc"]

    def check(content: bytes) -> None:
        path.write_bytes(content)
        ends_well(lambda: divide(found, SplitConfig(file=path), "d"))

    fuzz(check, damage(SPLITS[suffix], True))


@pytest.mark.parametrize("name", ["labels.json", "dataset.json"])
def test_label_tables(fuzz: Any, tmp_path: Path, name: str) -> None:
    (tmp_path / "imagesTr").mkdir()
    table: Mapping[str, Any] = {"1": "aorta", "2": "lungs"}
    content = json.dumps(table if name == "labels.json" else {"labels": table}).encode()

    def check(content: bytes) -> None:
        (tmp_path / name).write_bytes(content)
        ends_well(lambda: declared_names(tmp_path, FilesConfig(data_root=tmp_path)))

    fuzz(check, damage(content, True))


# ------------------------------------------------------------------------------------------- what the bench wrote itself
RUN_FILES = (
    *("plan.json", "events.jsonl", "provenance.json", "results/scores.json", "results/cases.csv", "results/steps.json"),
    *("results/comparisons.json", "results/replicates.json", "results/inputs.json", "results/references.bib"),
)


@pytest.fixture(scope="module")
def finished(bench: Any, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A small finished run."""
    store: Path = tmp_path_factory.mktemp("fuzz") / "store"
    done = bench(
        "run", "--generator", "holdout", "--generator", "noise", "--no-report", *bench.phantom, "--store", store
    )
    assert done.code == 0, done.err
    (run,) = (store / "runs").iterdir()
    return run


@pytest.mark.parametrize("name", RUN_FILES)
def test_run_folder(fuzz: Any, finished: Path, name: str) -> None:
    path = finished / name
    if not path.exists():
        pytest.skip(f"this run has no {name}")
    whole = path.read_bytes()

    def check(content: bytes) -> None:
        path.write_bytes(content)
        ends_well(lambda: read_run(finished))
        if name == "plan.json":
            ends_well(lambda: read_plan(finished))
        if name.startswith("results/"):
            ends_well(lambda: read_results(finished / "results"))

    try:
        fuzz(check, damage(whole, True), 40)
    finally:
        path.write_bytes(whole)


@pytest.mark.parametrize("name", ["step.json", "manifest.json", "sidecar"])
def test_store(fuzz: Any, finished: Path, name: str) -> None:
    from medlord_bench.engine.store import Store
    from medlord_bench.engine.verification import check_store

    store = Store(finished.parent.parent)
    folder = next(path for path in store.objects() if path.parent.name == "images")
    path = next((folder / "items").glob("*.json")) if name == "sidecar" else folder / name
    whole = path.read_bytes()

    def same(content: bytes) -> bool:
        return bool(json.loads(content) == json.loads(whole))

    steps = [step for step in read_plan(finished).steps if step.kind == "images"]

    def check(content: bytes) -> None:
        path.write_bytes(content)
        found = ends_well(lambda: check_store(store, steps))
        assert found is None or found.damages or same(content)

    try:
        fuzz(check, damage(whole, True), 40)
    finally:
        path.write_bytes(whole)
