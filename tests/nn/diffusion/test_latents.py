"""The cohort's latents: encoded once whatever stops it, and scaled to unit deviation."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from medlord_bench.contracts import Cohort, Run, Split
from medlord_bench.errors import MissingError, StepError, Stopped
from medlord_bench.nn.diffusion.latents import StoredLatents, case_arrays, encode_cohort, latent_facts
from medlord_bench.util.seeds import noise

SPLITS: Mapping[str, Sequence[str]] = {"train": ["a", "b", "c"], "val": ["d"], "test": ["e"]}


def ids(split: Split) -> Sequence[str]:
    return SPLITS[split]


DATA = cast(Cohort, SimpleNamespace(ids=ids))


class Encoder:
    """Noise about 3 of deviation 2, the validation case's of another; counts how often it is asked."""

    def __init__(self, deviation: float = 2.0) -> None:
        self.deviation, self.asked = deviation, [""][:0]

    def __call__(self, case_id: str) -> Mapping[str, NDArray[Any]]:
        self.asked.append(case_id)
        deviation = 100.0 if case_id == "d" else self.deviation
        latent = 3 + deviation * noise((4, 6, 5, 4), case_id).numpy()
        return {"latent": latent.astype(np.float32), "size": np.array([len(self.asked)], dtype=np.float32)}


def encoded(encode: Encoder, out: Path, run: Run, scale: float | None = None) -> Path:
    return encode_cohort(encode, DATA, out, run, scale, lambda folder: {"files": len(list(folder.iterdir()))})


def test_every_case_of_training_and_validation_is_kept_with_all_its_arrays(run: Run, tmp_path: Path) -> None:
    encode = Encoder()
    folder = encoded(encode, tmp_path, run)
    assert encode.asked == ["a", "b", "c", "d"], "the test split is not for training"
    assert {path.name for path in folder.iterdir()} == {*(f"{case}.safetensors" for case in "abcd"), "latents.json"}
    for place, case in enumerate("abcd", 1):
        kept = case_arrays(folder, case)
        np.testing.assert_array_equal(kept["latent"], Encoder()(case)["latent"])
        assert kept["size"].tolist() == [place]
    with pytest.raises(MissingError, match="e.safetensors: not found"):
        case_arrays(folder, "e")


def test_folders_that_are_not_there_are_made(run: Run, tmp_path: Path) -> None:
    folder = encoded(Encoder(), tmp_path / "a" / "b", run)
    assert folder == tmp_path / "a" / "b" / "latents" and latent_facts(folder)["measured"]


def test_the_scale_brings_the_training_latents_to_unit_deviation(run: Run, tmp_path: Path) -> None:
    stored = StoredLatents(encoded(Encoder(), tmp_path, run), DATA)
    scaled = np.stack([stored.latent(case).numpy() for case in stored.ids("train")])
    assert np.std(scaled.astype(np.float64)) == pytest.approx(1, rel=1e-5)
    assert stored.scale == pytest.approx(1 / 2, rel=0.1), "the validation split is not measured"
    assert stored.latent("a").dtype == torch.float32


def test_a_given_scale_is_taken(run: Run, tmp_path: Path) -> None:
    folder = encoded(Encoder(), tmp_path, run, scale=1.25)
    assert (latent_facts(folder)["scale"], latent_facts(folder)["measured"]) == (1.25, False)
    raw = case_arrays(folder, "a")["latent"]
    np.testing.assert_allclose(StoredLatents(folder, DATA).latent("a").numpy(), raw * 1.25, rtol=1e-6)


def test_facts_are_json_with_the_generators_own_which_see_every_case(run: Run, tmp_path: Path) -> None:
    folder = encoded(Encoder(), tmp_path, run)
    found = json.loads((folder / "latents.json").read_text())
    assert set(found) == {"scale", "measured", "files"} and (found["measured"], found["files"]) == (True, 4)


def test_encoding_goes_on_where_it_was_stopped(run: Run, tmp_path: Path) -> None:
    looks = iter([False, True])
    with pytest.raises(Stopped):
        encoded(Encoder(), tmp_path, dataclasses.replace(run, stop=lambda: next(looks)))
    folder = tmp_path / "latents"
    assert {path.name for path in folder.iterdir()} == {"a.safetensors", "b.safetensors"}
    with pytest.raises(MissingError, match=r"latents\.json: not found; the latents are not complete"):
        StoredLatents(folder, DATA)
    rest = Encoder()
    encoded(rest, tmp_path, run)
    assert rest.asked == ["c", "d"]


@pytest.mark.parametrize("deviation", [0.0, np.nan])
def test_latents_that_do_not_vary_or_are_not_finite_end_the_run(run: Run, tmp_path: Path, deviation: float) -> None:
    with pytest.raises(StepError, match="the autoencoder did not learn"):
        encoded(Encoder(deviation), tmp_path, run)
    assert not (tmp_path / "latents" / "latents.json").exists()
