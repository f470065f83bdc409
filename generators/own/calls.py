"""One call of a user's program per volume: write its inputs, read its output, keep its log."""

from __future__ import annotations

import shlex
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from medlord_bench.contracts import Failure, Grid, LabelMap, Run, Volume
from medlord_bench.util.files import write_json
from medlord_bench.util.hashing import digest
from medlord_bench.volumes.io import write_labels, write_volume

from . import process
from .mapping import MappingConfig
from .reading import hu_on_grid
from .template import filled


class Calls:
    """Calls of one command. Inputs, outputs and logs are in a folder of the run's scratch; the logs are kept.

    words: the command with its placeholders. folder: its working folder. variables: its environment. timeout: seconds
    for one volume. output: suffix of its output file. title: purpose of the calls.
    """

    def __init__(
        self,
        words: Sequence[str],
        folder: Path,
        variables: Mapping[str, str],
        timeout: float,
        mapping: MappingConfig,
        output: str,
        title: str,
        run: Run,
    ) -> None:
        self.words, self.folder, self.variables, self.timeout = words, folder, variables, timeout
        self.mapping, self.output, self.run = mapping, output, run
        # Another contestant's calls, at the same time, have another place.
        told = [list(words), str(folder), dict(variables), timeout, mapping.model_dump(mode="json"), output]
        self.place = run.scratch / "command" / f"{title}-{digest(told)[:8]}"
        self.place.mkdir(parents=True, exist_ok=True)
        self.log = self.place / "none.log"
        run.log.info("command: %s, in %s; %s; logs in %s", " ".join(words), folder, mapping.words(), self.place)

    def make(
        self,
        name: str,
        values: Mapping[str, object],
        grid: Grid,
        affine: NDArray[np.float64],
        condition: LabelMap | None = None,
        image: Volume | None = None,
    ) -> Volume | Failure:
        """Run the program once and read its output; a `Failure` if it fails, hangs, or writes no valid volume."""
        out, mask, source = (self.place / f"{name}{end}" for end in (self.output, ".mask.nii.gz", ".image.nii.gz"))
        self.log = self.place / f"{name}.log"
        x, y, z = grid.shape
        known = {**values, "out": out, "mask": mask, "image": source, "x": x, "y": y, "z": z}
        try:
            _remove(out)
            if condition is not None:
                write_labels(mask, condition)
                write_json(
                    self.place / "labels.json", {str(value): region for value, region in condition.names.items()}
                )
            if image is not None:
                write_volume(source, image)
            words = filled(self.words, known)
            _remove(self.log)
            self.log.write_text(f"$ {shlex.join(words)}\n")
            problem = process.run(words, self.folder, self.variables, self.log, self.timeout, self.run)
            if problem is None and not out.is_file():
                what = "something that is no file was" if out.exists() else "no output"
                problem = f"exit code 0, but {what} written to {{out}}"
            hu = Failure(problem) if problem else hu_on_grid(out, self.mapping, grid)
        finally:
            for path in (out, mask, source):
                _remove(path)
        if isinstance(hu, Failure):
            self.run.log.warning("command: volume %s failed: %s; see %s", name, hu.reason, self.log)
            return hu
        return Volume(hu, affine)


def _remove(path: Path) -> None:
    """Remove whatever a program left at a place: a file, a folder, a link or a pipe."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)
