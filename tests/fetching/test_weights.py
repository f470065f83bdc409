"""`fetch weights`: what a run file reads, and files that come, are there, or must be fetched by hand."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner

from medlord_bench.cli.fetch import fetch
from medlord_bench.contracts.weights import NeededWeights
from medlord_bench.engine.run_file import RunFile, read_run_file
from medlord_bench.errors import MissingError, UserError
from medlord_bench.fetching import weights
from medlord_bench.fetching.http import Client
from medlord_bench.nn import pretrained
from tests.fetching.server import Server, serving
from tests.fetching.zips import zip_of

PAPER = Path(__file__).resolve().parents[2] / "docs" / "examples" / "paper-pccta.yaml"
CONTENT = b"weights"
SHA256 = hashlib.sha256(CONTENT).hexdigest()


@pytest.fixture
def server() -> Iterator[Server]:
    with serving() as server:
        yield server


def paths(rows: list[weights.Row]) -> dict[str, tuple[str, ...]]:
    return {row.needed.path: row.readers for row in rows if row.needed is not None}


def test_the_paper_s_run_file_reads_these() -> None:
    """Without the data set, which is not public."""
    found = paths(weights.of_run(read_run_file(PAPER)))
    assert found["nvidia/NV-Generate-CT/models/autoencoder_v1.pt"] == ("generator maisi:foundation@24gb",)
    assert found["squeezenet1_1-b8a52dc0.pth"] == (
        *("generator medlord@24gb", "generator maisi:scratch@24gb", "generator vqtrans@24gb", "generator voldit@24gb"),
    )
    assert found["alexnet-owt-7be5be79.pth"] == ("metric lpips",)
    models = [path for path in found if path.startswith("totalsegmentator/Dataset29")]
    assert len(models) == 5 and "metric rvr" in found[models[0]]


def test_settings_variants_and_the_data_set_decide_what_is_read() -> None:
    assert weights.of_run(RunFile(generators=("medlord@tiny",), dataset="phantom", metrics=("fid", "rvr"))) == []
    radimagenet = RunFile(generators=("noise",), dataset="folder", metrics=("fid:radimagenet", "rvr"))
    assert paths(weights.of_run(radimagenet)) == {
        "MONAI/checkpoints/RadImageNet-ResNet50_notop.pth": ("metric fid:radimagenet",)
    }
    licensed = RunFile(
        generators=("noise",),
        dataset="luna16",
        metrics=("rvr",),
        set={"totalsegmentator.tasks": ["heartchambers_highres"]},
    )
    rows = weights.of_run(licensed)
    by_hand = [row.needed for row in rows if row.needed is not None and row.needed.by_hand]
    assert len(by_hand) == 1 and "Dataset301" in by_hand[0].path
    assert "totalseg_set_license" in by_hand[0].by_hand and "licence number" in by_hand[0].licence


def test_everything_has_a_licence_and_an_https_address() -> None:
    rows = weights.of_everything()
    assert all(row.problem or row.needed for row in rows)
    needed = [row.needed for row in rows if row.needed is not None]
    assert {"ctfm", "medicalnet", "radimagenet"} <= {name.split()[-1] for row in rows for name in row.readers}
    assert all(one.licence and one.address.startswith("https://") for one in needed)
    assert len({one.path for one in needed}) == len(needed)


def test_offline_lists_and_sends_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Client, "http", property(lambda self: pytest.fail("a request")))
    monkeypatch.setattr(pretrained, "download", lambda *_: pytest.fail("a request"))
    words = ["weights", "--for", str(PAPER), "--offline", "--to", str(tmp_path)]
    result = CliRunner().invoke(fetch, words)
    assert result.exit_code == 0, result.output
    for word in ("size ", "sha256 ", "licence ", "address ", "8 files, 0 there"):
        assert word in result.output
    result = CliRunner().invoke(fetch, [word for word in words if word != "--offline"])
    assert isinstance(result.exception, UserError) and "--accept-licence" in str(result.exception)
    assert list(tmp_path.iterdir()) == []


def test_a_file_comes_from_its_address_and_is_compared_with_the_digits_of_its_name(
    server: Server, tmp_path: Path
) -> None:
    server.add("/net.pth", CONTENT)
    good = NeededWeights(path=f"net-{SHA256[:8]}.pth", address=server.url("/net.pth"), sha256=SHA256[:8])
    weights.fetch(good, tmp_path, Client())
    assert (tmp_path / good.path).read_bytes() == CONTENT
    state = weights.state_of(good, tmp_path)
    assert (state.there, state.bytes, state.sha256) == (True, len(CONTENT), SHA256)
    weights.fetch(good, tmp_path, Client(offline=True))
    bad = NeededWeights(path="bad.pth", address=server.url("/net.pth"), sha256="00000000")
    with pytest.raises(UserError, match="expected one that begins with 00000000"):
        weights.fetch(bad, tmp_path, Client())
    assert not (tmp_path / "bad.pth").exists()


def test_an_archive_is_unpacked_to_its_folder(server: Server, tmp_path: Path) -> None:
    server.add("/m.zip", zip_of({"Model/plans.json": b"{}", "Model/fold_0/x.pth": b"x"}))
    one = NeededWeights(path="totalsegmentator/Model", address=server.url("/m.zip"), unpacks=True)
    weights.fetch(one, tmp_path, Client())
    assert (tmp_path / "totalsegmentator/Model/fold_0/x.pth").read_bytes() == b"x"
    assert [path.name for path in (tmp_path / "totalsegmentator").iterdir()] == ["Model"]
    assert weights.state_of(one, tmp_path).there
    weights.fetch(one, tmp_path, Client(offline=True))


def test_a_file_of_the_hub_goes_where_runs_look_for_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def stand_in(spec: pretrained.WeightsFile, folder: Path) -> str:
        (folder / spec.file).parent.mkdir(parents=True, exist_ok=True)
        (folder / spec.file).write_bytes(CONTENT)
        return "c0ffee"

    monkeypatch.setattr(pretrained, "download", stand_in)
    spec = pretrained.WeightsFile(repo="owner/name", file="models/net.pt")
    weights.fetch(spec.needed("some licence"), tmp_path, Client())
    assert pretrained.find(spec, tmp_path, offline=True).sha256 == SHA256


def test_what_a_licence_keeps_from_programs_is_named(tmp_path: Path) -> None:
    one = NeededWeights(path="x", address="https://example.org", licence="on request", by_hand="write to them")
    with pytest.raises(MissingError, match="x: on request; fetch it by hand: write to them"):
        weights.fetch(one, tmp_path, Client())
