"""A file that would be larger than this process may write."""

from __future__ import annotations

import errno
import resource
import signal
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from medlord_bench.util.files import publish, publish_folder


@pytest.fixture(autouse=True)
def small_files() -> Iterator[None]:
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    assert signal.getsignal(signal.SIGXFSZ) == signal.SIG_IGN, "as Python sets it"
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_FSIZE, before)


@pytest.mark.parametrize("write", ["bytes", "numpy", "safetensors"])
def test_the_file_is_named_whoever_writes_it(tmp_path: Path, write: str) -> None:
    values = np.arange(10_000)
    writers = {
        "bytes": lambda path: path.write_bytes(values.tobytes()),
        "numpy": lambda path: np.save(path, values),
        "safetensors": lambda path: save_file({"a": values}, path),
    }
    path = tmp_path / "a.npy"
    with pytest.raises(OSError) as error:
        publish(path, writers[write])
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(path))
    assert list(tmp_path.iterdir()) == []


def test_a_folder_too(tmp_path: Path) -> None:
    def fill(folder: Path) -> None:
        folder.mkdir()
        np.save(folder / "a.npy", np.arange(10_000))

    with pytest.raises(OSError) as error:
        publish_folder(tmp_path / "weights", fill)
    assert (error.value.errno, error.value.filename) == (errno.EFBIG, str(tmp_path / "weights"))


def test_other_errors_stay_what_they_are(tmp_path: Path) -> None:
    def write(path: Path) -> None:
        path.write_text("some")
        raise ValueError("other")

    with pytest.raises(ValueError, match="other") as error:
        publish(tmp_path / "a", write)
    assert error.value.__cause__ is None, "no cause of itself"
