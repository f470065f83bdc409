"""A shared report of real CT has nothing of the patients: not in texts, not in pictures and their metadata."""

from __future__ import annotations

import base64
import gzip
import io
import json
import re
import socket
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

WORDS = (
    *("--generator", "noise", "--generator", "holdout", "--generator", "copycat", "--dataset", "folder"),
    *("--metric", "rvr", "--metric", "axes", "--samples", "4", "--no-conditional", "--no-report"),
)
SETS = ("patches.shape=32,32,24", "patches.per_volume=4", "spacing=4,4,4", "split.fractions=0.34,0.33,0.33")


def contents(path: Path) -> list[bytes]:
    """A file, and what is packed inside it: pictures with their metadata, and volumes."""
    found = [path.read_bytes()]
    if path.suffix == ".html":
        text = path.read_text()
        found += [base64.b64decode(code) for code in re.findall(r"data:image/png;base64,([A-Za-z0-9+/=]+)", text)]
        for block in re.findall(r'<script type="application/json"[^>]*>(.*?)</script>', text, re.DOTALL):
            packed = re.findall(r'"(?:hu|labels)":"([A-Za-z0-9+/=]+)"', block)
            found += [gzip.decompress(base64.b64decode(code)) for code in packed]
    for content in list(found):
        if content.startswith(b"\x89PNG"):
            found.append(
                json.dumps({name: str(value) for name, value in Image.open(io.BytesIO(content)).info.items()}).encode()
            )
    return found


@pytest.mark.slow
def test_a_shared_report_of_real_ct_names_no_patient_and_shows_none(bench: Any, data_dir: Path, tmp_path: Path) -> None:
    root = tmp_path / "hospital-archive"
    for patient, source in (
        ("Mustermann_01", "thorax_cta"),
        ("Mustermann_02", "abdomen"),
        ("Mustermann_03", "chest_lung1"),
    ):
        (root / patient).mkdir(parents=True)
        (root / patient / "ct.nii.gz").symlink_to(data_dir / source / "ct.nii.gz")
    words = [*WORDS, "--data-root", root, *(word for one in SETS for word in ("--set", f"dataset.{one}"))]
    done = bench("run", *words, "--store", tmp_path / "store")
    assert done.code == 0, done.err
    open_, shared = tmp_path / "open", tmp_path / "shared"
    assert bench("report", "--store", tmp_path / "store", "--out", open_).code == 0
    done = bench("report", "--store", tmp_path / "store", "--out", shared, "--share", "--crate")
    assert done.code == 0, done.err
    secrets = ["Mustermann", "hospital-archive", str(tmp_path), str(data_dir)]
    secrets += [
        host for host in [socket.gethostname()] if len(host) > 4
    ]  # a shorter one is found in any picture by chance
    files = [path for path in shared.rglob("*") if path.is_file()]
    everything = b"".join(content for path in files for content in contents(path))
    assert len(files) > 10
    assert [secret for secret in secrets if re.search(rf"\b{re.escape(secret)}".encode(), everything)] == []
    assert b"Mustermann" in b"".join(path.read_bytes() for path in open_.rglob("*") if path.is_file()), (
        "the open one does"
    )
    pictures = [path for path in shared.rglob("*.png") if path.stem.startswith(("montage", "samples", "conditional"))]
    assert pictures == [], "holdout and copycat show real volumes, noise is a control too"
