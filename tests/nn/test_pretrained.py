"""Pretrained weights are found offline, fetched once, and never change unnoticed."""

from __future__ import annotations

import hashlib
import json
import socket
from pathlib import Path

import pytest
from pydantic import ValidationError

from medlord_bench.errors import ExitCode, MissingError, UserError
from medlord_bench.nn import pretrained
from medlord_bench.nn.pretrained import WeightsFile, find, find_matching

SPEC = WeightsFile(repo="somebody/model", file="sub/net.safetensors")
CONTENT = b"tensors"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


def place(folder: Path, content: bytes = CONTENT) -> Path:
    path = folder / SPEC.repo / SPEC.file
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


@pytest.fixture
def no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("a network call was made")

    monkeypatch.setattr(socket.socket, "connect", refuse)
    monkeypatch.setattr(socket, "getaddrinfo", refuse)
    monkeypatch.setattr(pretrained, "download", refuse)


@pytest.fixture
def hub(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """A hub with one file; the list grows by the repository of each fetch."""
    fetched: list[str] = []

    def download(spec: WeightsFile, folder: Path) -> str:
        fetched.append(spec.repo)
        path = folder / spec.file
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(CONTENT)
        return "c0ffee" * 6 + "abcd"

    monkeypatch.setattr(pretrained, "download", download)
    return fetched


def test_a_file_in_the_folder_is_used_without_the_network(tmp_path: Path, no_network: None) -> None:
    path = place(tmp_path)
    first = find(SPEC, tmp_path, offline=False)
    second = find(SPEC, tmp_path, offline=True)
    assert (first.path, first.sha256) == (path, SHA256)
    assert first == second


def test_locked_says_the_same_at_the_first_look_and_the_second(tmp_path: Path, no_network: None) -> None:
    place(tmp_path)
    assert [find(SPEC, tmp_path, offline=True).locked for _ in range(2)] == [True, True]


def test_weights_whose_lock_cannot_be_written_are_unlocked_every_time(
    tmp_path: Path, no_network: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    place(tmp_path)

    def read_only(*_: object) -> None:
        raise PermissionError("read-only")

    monkeypatch.setattr(pretrained.os, "replace", read_only)
    assert [find(SPEC, tmp_path, offline=True).locked for _ in range(2)] == [False, False]
    assert [file.name for file in (tmp_path / SPEC.repo / SPEC.file).parent.iterdir()] == ["net.safetensors"]
    assert find(SPEC.model_copy(update={"sha256": SHA256}), tmp_path, offline=True).locked


@pytest.mark.parametrize(("value", "offline"), [("1", True), ("true", True), ("0", False), ("no", False), ("", False)])
def test_without_arguments_folder_and_network_are_those_of_the_environment(
    tmp_path: Path, hub: list[str], monkeypatch: pytest.MonkeyPatch, value: str, offline: bool
) -> None:
    monkeypatch.setenv("MEDLORD_BENCH_WEIGHTS", str(tmp_path))
    monkeypatch.setenv("MEDLORD_BENCH_OFFLINE", value)
    if offline:
        with pytest.raises(MissingError, match="MEDLORD_BENCH_OFFLINE"):
            find(SPEC)
        assert not hub
    else:
        assert find(SPEC).path == tmp_path / SPEC.repo / SPEC.file


def test_an_argument_overrules_the_environment(tmp_path: Path, hub: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDLORD_BENCH_WEIGHTS", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("MEDLORD_BENCH_OFFLINE", "1")
    assert find(SPEC, tmp_path, offline=False).path == tmp_path / SPEC.repo / SPEC.file


def test_offline_and_absent_is_exit_3_and_says_where_to_put_it(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(MissingError) as caught:
        find(SPEC, tmp_path, offline=True)
    assert caught.value.code == ExitCode.MISSING
    hint = f"hf download somebody/model sub/net.safetensors --local-dir {tmp_path / SPEC.repo}"
    for part in (str(tmp_path / SPEC.repo / SPEC.file), hint, "--weights-dir"):
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_fetch_happens_once_and_is_locked_with_its_commit(tmp_path: Path, hub: list[str]) -> None:
    find(SPEC, tmp_path, offline=False)
    again = find(SPEC, tmp_path, offline=False)
    assert hub == ["somebody/model"]
    assert again.locked
    lock = json.loads((tmp_path / SPEC.repo / (SPEC.file + ".lock.json")).read_text())
    assert lock["sha256"] == SHA256
    assert lock["bytes"] == len(CONTENT)
    assert lock["revision"].startswith("c0ffee")
    assert (lock["repo"], lock["file"]) == (SPEC.repo, SPEC.file)


def test_changed_content_is_an_error_with_both_hashes(tmp_path: Path, hub: list[str]) -> None:
    find(SPEC, tmp_path, offline=False)
    place(tmp_path, b"other")
    with pytest.raises(UserError) as caught:
        find(SPEC, tmp_path, offline=True)
    assert SHA256 in str(caught.value)
    assert hashlib.sha256(b"other").hexdigest() in str(caught.value)


def test_a_pinned_hash_is_checked_at_the_first_fetch(tmp_path: Path, hub: list[str]) -> None:
    pinned = SPEC.model_copy(update={"sha256": "0" * 64})
    with pytest.raises(UserError, match="0" * 64):
        find(pinned, tmp_path, offline=False)
    assert not (tmp_path / SPEC.repo / (SPEC.file + ".lock.json")).exists()
    assert find(SPEC.model_copy(update={"sha256": SHA256}), tmp_path, offline=True).locked


def test_a_damaged_lock_is_named(tmp_path: Path) -> None:
    path = place(tmp_path)
    lock = path.with_name(path.name + ".lock.json")
    lock.write_text("{")
    with pytest.raises(UserError, match="lock.json"):
        find(SPEC, tmp_path, offline=True)


def test_the_hub_switched_off_is_exit_3_with_its_own_reason(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from huggingface_hub import constants

    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(MissingError, match="(?i)fetching it failed: .*offline"):
        find(SPEC, tmp_path, offline=False)


def test_the_folder_comes_from_the_flag_then_the_environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDLORD_BENCH_WEIGHTS", str(tmp_path / "environment"))
    assert pretrained.weights_folder(tmp_path / "flag") == tmp_path / "flag"
    assert pretrained.weights_folder() == tmp_path / "environment"
    monkeypatch.delenv("MEDLORD_BENCH_WEIGHTS")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert pretrained.weights_folder() == tmp_path / "medlord-bench" / "weights"


@pytest.mark.parametrize("file", ["../net.pt", "/etc/passwd", "a/../../b", ""])
def test_a_file_outside_the_folder_is_refused(file: str) -> None:
    with pytest.raises(ValidationError):
        WeightsFile(repo="somebody/model", file=file)


# --------------------------------------------------------------------------------------------------- a name not known
def test_a_pattern_finds_the_one_file_of_the_folder_or_of_the_hubs_listing(
    tmp_path: Path, hub: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    import huggingface_hub

    names = ["README.md", "vqgan_a.pth", "dit_a.pth", "dit_b.pth"]
    monkeypatch.setattr(huggingface_hub.HfApi, "list_repo_files", lambda self, repo: names)
    found = find_matching("somebody/model", "*vqgan*.pth", tmp_path, offline=False)
    assert found.path == tmp_path / "somebody/model/vqgan_a.pth" and hub == ["somebody/model"]
    assert find_matching("somebody/model", "*vqgan*.pth", tmp_path, offline=True).path == found.path
    with pytest.raises(UserError, match=r"2 files match '\*dit\*.pth' \(dit_a.pth, dit_b.pth\)"):
        find_matching("somebody/model", "*dit*.pth", tmp_path, offline=False)
    with pytest.raises(MissingError, match="the repository has no such file"):
        find_matching("somebody/model", "*other*.pth", tmp_path, offline=False)


def test_a_pattern_without_a_file_offline_says_how_to_fetch_it(tmp_path: Path, no_network: None) -> None:
    with pytest.raises(MissingError, match=r"hf download somebody/model --include '\*dit\*.pth'") as caught:
        find_matching("somebody/model", "*dit*.pth", tmp_path, offline=True)
    assert str(tmp_path / "somebody/model/*dit*.pth") in str(caught.value)
