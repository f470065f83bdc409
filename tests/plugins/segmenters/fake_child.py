"""A segmenter's process without a model: what it does with a volume is written in the volume's first voxel."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from medlord_bench.errors import MissingError
from medlord_bench.plugins.segmenters.subprocess.child import Segment, serve

LABEL, FAIL, DIE, HANG, EXIT, NETWORK, SHORT, GREEDY, STARVED = range(9)


def prepare(settings: Mapping[str, Any], folder: Path) -> Segment:
    if settings.get("start") == "fails":
        raise RuntimeError("no such kernel\nsecond line")
    if settings.get("start") == "missing":
        raise MissingError("weights are gone")
    if settings.get("start") == "dies":
        print("cannot map library", file=sys.stderr, flush=True)
        os._exit(7)

    import nibabel as nib
    import numpy as np

    def segment(source: Path, target: Path) -> None:
        image = nib.load(source)
        hu = np.asarray(image.dataobj)
        task = int(hu.flat[0])
        if task == FAIL:
            raise ValueError("no voxels left\nafter cropping")
        if task == DIE:
            os.kill(os.getpid(), signal.SIGKILL)
        if task == EXIT:
            sys.exit(1)
        if task == NETWORK:
            socket.create_connection(("192.0.2.1", 80), timeout=1)
        if task == GREEDY:
            subprocess.Popen([sys.executable, "-c", "x = bytearray(b'1') * 400 * 2**20; import time; time.sleep(600)"])
            time.sleep(600)
        if task == STARVED:
            raise MemoryError("Unable to allocate 9 GiB")
        if task == HANG:
            subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
            Path(settings["pid"]).write_text(str(os.getpid()))
            time.sleep(600)
        labels = (hu[: -1 if task == SHORT else None] > 0).astype(np.uint8)
        nib.save(nib.Nifti1Image(labels, image.affine), target)

    return segment


if __name__ == "__main__":
    serve(prepare)
