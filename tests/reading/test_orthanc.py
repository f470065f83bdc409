"""A DICOM series through Orthanc, an independent server: it takes every slice and gives back equal HU."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest

from medlord_bench.reading.dicom import write_series
from medlord_bench.volumes.io import read_volume
from tests.reading.test_formats import SPACING, grid_of, number, phantom

ORTHANC = shutil.which("Orthanc") or "/usr/sbin/Orthanc"
TRIP = """
import io, json, subprocess, sys, time, urllib.request, zipfile
from pathlib import Path
program, series, out = sys.argv[1], Path(sys.argv[2]), Path(sys.argv[3])
settings = {"StorageDirectory": str(out / "db"), "IndexDirectory": str(out / "db"), "Plugins": [], "HttpPort": 8042,
            "RemoteAccessAllowed": False, "AuthenticationEnabled": False, "DicomServerEnabled": False}
(out / "orthanc.json").write_text(json.dumps(settings))
def call(path, data=None):
    with urllib.request.urlopen("http://127.0.0.1:8042" + path, data=data, timeout=30) as answer:
        return answer.read()
with open(out / "log", "w") as log:
    server = subprocess.Popen([program, str(out / "orthanc.json")], stdout=log, stderr=log)
    try:
        for _ in range(300):
            try:
                call("/system")
                break
            except OSError:
                time.sleep(0.1)
        stored = [json.loads(call("/instances", path.read_bytes())) for path in sorted(series.glob("*.dcm"))]
        parent = stored[0]["ParentSeries"]
        print(json.dumps({"stored": sorted({one["Status"] for one in stored}),
                          "type": json.loads(call(f"/series/{parent}/ordered-slices"))["Type"]}))
        zipfile.ZipFile(io.BytesIO(call(f"/series/{parent}/archive"))).extractall(out / "back")
    finally:
        server.terminate()
        server.wait(20)
"""


def _own_network() -> bool:
    """Whether a network namespace of its own can be made: Orthanc listens on all addresses whatever its settings."""
    tools = all(shutil.which(tool) for tool in ("unshare", "ip"))
    return tools and not subprocess.run(["unshare", "-rn", "true"], capture_output=True, check=False).returncode


@pytest.mark.skipif(not Path(ORTHANC).exists(), reason="Orthanc is not installed (Debian: orthanc)")
def test_orthanc_takes_the_series_and_gives_back_equal_hu(tmp_path: Path) -> None:
    pytest.importorskip("pydicom")
    if not _own_network():
        pytest.skip("no network namespace can be made (unshare -rn)")
    hu = phantom()
    write_series(tmp_path / "series", hu, grid_of(hu), "AAAAAA", number)
    (tmp_path / "out").mkdir()
    script = tmp_path / "trip.py"
    script.write_text(TRIP)
    inner = f'ip link set lo up && exec "{sys.executable}" "{script}" "{ORTHANC}" "{tmp_path / "series"}" "{tmp_path / "out"}"'
    done = subprocess.run(
        ["unshare", "-rn", "sh", "-c", inner], capture_output=True, text=True, timeout=120, check=False
    )
    assert done.stdout.strip() == '{"stored": ["Success"], "type": "Volume"}', done.stderr
    folder = next(path.parent for path in (tmp_path / "out" / "back").rglob("*.dcm"))
    back = read_volume(folder)
    assert np.array_equal(back.hu, hu) and np.allclose(back.affine, np.diag([*SPACING, 1.0]), atol=1e-6)
