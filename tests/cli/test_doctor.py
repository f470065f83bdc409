"""The doctor names what is amiss and the line to type, from nvidia-smi outputs that are fabricated here."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from click.testing import CliRunner

from medlord_bench.cli import doctor as module
from medlord_bench.util import provenance
from medlord_bench.util.provenance import Driver, nvidia_driver

HEADER = """
+-----------------------------------------------------------------------------------------+
| NVIDIA-SMI {release}              Driver Version: {release}      CUDA Version: {cuda}     |
|-----------------------------------------+------------------------+----------------------+
"""


def smi(release: str, cuda: str, *cards: str) -> Callable[[Sequence[str]], str | None]:
    """An nvidia-smi of that driver with `cards` ("name, MiB")."""

    def answer(command: Sequence[str]) -> str | None:
        if command[0] != "nvidia-smi":
            return None
        if len(command) == 1:
            return HEADER.format(release=release, cuda=cuda)
        rows = (card.rsplit(", ", 1) for card in cards)
        return "\n".join(f"{name}, {release}, {memory}" for name, memory in rows)

    return answer


def driver(release: str, cuda: str, *cards: str) -> Driver:
    found = nvidia_driver(smi(release, cuda, *(cards or ("NVIDIA GeForce RTX 4090, 24564",))))
    assert found is not None
    return found


@pytest.mark.parametrize(
    ("build", "release", "cuda", "state", "told"),
    [
        ("12.8", "570.86.10", "12.8", "ok", ""),
        ("12.8", "550.54.14", "12.4", "ok", ""),  # minor version compatibility
        ("13.2", "580.65.06", "13.0", "ok", ""),
        ("12.8", "580.65.06", "13.0", "ok", ""),  # an old build on a new driver
        ("13.0", "550.54.14", "12.4", "fail", "whl/cu126"),
        ("12.6", "470.82.01", "11.4", "fail", "whl/cu118"),
        ("11.8", "390.77", "9.1", "fail", "525"),
        (None, "550.54.14", "12.4", "fail", "whl/cu126"),
    ],
)
def test_a_driver_too_old_for_torch_gets_the_index_to_install_from(
    build: str | None, release: str, cuda: str, state: str, told: str
) -> None:
    row = module.check_driver(build, driver(release, cuda))
    assert row.state == state
    assert told in row.advice
    assert bool(row.advice) == (state == "fail")
    assert release in row.found
    assert cuda in row.found


def test_a_small_card_is_warned_about_and_a_24_gib_card_is_not() -> None:
    rows = module.check_cards(driver("570.1", "12.8", "NVIDIA GeForce RTX 3060, 12288", "NVIDIA RTX A5000, 24564"))
    assert [(row.state, row.name) for row in rows] == [("warn", "gpu 0"), ("ok", "gpu 1")]
    assert "tiny" in rows[0].advice


def test_a_card_whose_memory_is_unknown_is_listed() -> None:
    (row,) = module.check_cards(driver("580.95.05", "13.0", "NVIDIA GB10, [N/A]"))
    assert (row.state, row.found) == ("ok", "NVIDIA GB10, memory unknown")


@pytest.mark.parametrize(("version", "state"), [((3, 10, 9), "fail"), ((3, 11, 0), "ok"), ((3, 14, 1), "ok")])
def test_python_below_3_11_fails(version: tuple[int, int, int], state: str) -> None:
    assert module.check_python(version).state == state


def test_a_store_under_a_file_fails_and_a_new_folder_does_not(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    assert module.check_disk(tmp_path / "new" / "store").state in {"ok", "warn"}
    assert module.check_disk(tmp_path / "file" / "store").state == "fail"


def test_weights_are_counted_without_their_locks(tmp_path: Path) -> None:
    folder = tmp_path / "owner" / "name" / "sub"
    folder.mkdir(parents=True)
    for name in ("net.pt", "net.pt.lock.json"):
        (folder / name).write_text("")
    assert module.check_weights(tmp_path).found.startswith("1 files")
    assert "--weights-dir" in module.check_weights(tmp_path / "absent").advice


def test_the_verb_answers_in_json_and_fails_with_exit_3_for_a_driver_too_old(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(provenance, "_output", smi("470.82.01", "11.4", "Tesla V100, 16160"))
    monkeypatch.setattr(provenance, "torch_cuda_build", lambda: "12.8")
    done = CliRunner().invoke(module.doctor, ["--json", "--store", str(tmp_path)])
    assert done.exit_code == 3
    rows = {row["name"]: row for row in json.loads(done.output)}
    assert rows["driver"]["state"] == "fail"
    assert "cu118" in rows["driver"]["advice"]
    assert {"python", "torch", "gpu 0", "memory", "store", "weights", "xformers", "totalsegmentator"} <= set(rows)


def test_a_machine_without_a_card_passes_with_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "_output", lambda command: None)
    done = CliRunner().invoke(module.doctor, ["--store", str(tmp_path)])
    assert done.exit_code == 0, done.output
    assert "warn  gpu" in done.output
    assert "phantom" in done.output


def test_a_card_that_torch_cannot_use_fails_with_torchs_own_words(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(provenance, "torch_cuda_build", lambda: "12.8")
    monkeypatch.setattr(module, "_cuda_fault", lambda: "no kernel image is available for execution on the device")
    row = next(row for row in module.check_torch(driver("570.1", "12.8")) if row.name == "driver")
    assert row.state == "fail"
    assert "no kernel image" in row.found
    assert "--index-url" in row.advice
