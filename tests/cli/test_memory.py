"""`memory`: what a generator would need, in a terminal and as JSON."""

from __future__ import annotations

import json
from typing import Any

import pytest

from medlord_bench.memory.budget import total_gib

SMALL = ("--generator", "medlord@smoke", "--grid", "64,64,64")
STAGES = [
    *("train autoencoder", "encode", "train diffusion", "sample", "decode", "train ControlNet", "sample to masks"),
    "reconstruct",
]


def test_every_stage_is_told_with_what_makes_its_peak_and_a_verdict(bench: Any) -> None:
    done = bench("memory", *SMALL)
    assert (done.code, done.err) == (0, "")
    title, _, head, *rows = done.out.splitlines()
    assert title == "medlord@smoke on 64x64x64, 6 condition regions; a 24 GiB card gives 22.5"
    assert head.split() == ["allocated", "workspace", "needs", "GiB"]
    told = [row for row in rows if not row.startswith(" ") and row.endswith("  fits")]
    assert [row[:18].strip() for row in told] == STAGES
    largest = [row for row in rows if row.startswith("    ")]
    assert len(largest) == 5 * len(STAGES) and any("VQGAN.decoder" in row for row in largest)
    assert rows[-1].startswith("needs = 1.05 x allocated + workspace + 0.5 GiB for the context. Computed from shapes")
    assert "not measured on a card" in rows[-1]


def test_json_is_whole_and_its_total_is_the_one_rules(bench: Any) -> None:
    done = bench("memory", *SMALL, "--stage", "sample", "--stage", "decode", "--budget", "16GiB", "--json")
    assert done.code == 0, done.err
    answer = json.loads(done.out)
    assert (answer["grid"], answer["condition_regions"], answer["batch"]) == ([64, 64, 64], 6, 1)
    assert (answer["budget_gib"], answer["usable_gib"]) == (16, 15)
    assert [row["stage"] for row in answer["stages"]] == ["sample", "decode"]
    for row in answer["stages"]:
        assert (row["contestant"], row["during"], row["reason"], row["fits"]) == ("medlord@smoke", "sample", "", True)
        assert row["advice"] is None
        need = row["need_gib"]
        assert need["total"] == total_gib(need["allocated"], need["workspace"])
        assert len(need["largest"]) == 5
        assert set(need["largest"][0]) == {"bytes", "shape", "dtype", "by", "module"}
        assert sum(made["bytes"] for made in need["largest"]) <= need["allocated"] * 2**30


def test_what_does_not_fit_is_exit_4_with_the_change_that_does_and_making_it_is_exit_0(bench: Any) -> None:
    big = ("--set", "medlord.diffusion.batch=64", "--set", "medlord.diffusion.micro_batch=64")
    words = ("memory", *SMALL, "--stage", "train diffusion", "--budget", "2GiB")
    done = bench(*words, *big, "--json")
    assert done.code == 4, done.err
    (row,) = json.loads(done.out)["stages"]
    usable = json.loads(done.out)["usable_gib"]
    assert row["fits"] is False and row["need_gib"]["total"] > usable
    assert row["advice"]["total"] <= usable
    (path, value), *others = row["advice"]["sets"].items()
    assert path == "medlord.diffusion.micro_batch" and not others
    text = bench(*words, *big)
    assert text.code == 4 and "DOES NOT FIT" in text.out
    assert f"    -> --set {path}={value} reduces it to " in text.out
    assert bench(*words, *big, "--set", f"{path}={value}").code == 0


def test_where_nothing_helps_it_says_so(bench: Any) -> None:
    done = bench("memory", *SMALL, "--stage", "sample", "--budget", "512MiB")
    assert done.code == 4
    assert "    -> no known change makes it fit: take a smaller grid or a larger card" in done.out


def test_none_for_a_budget_gives_no_verdict(bench: Any) -> None:
    done = bench("memory", *SMALL, "--stage", "sample", "--budget", "none")
    assert done.code == 0 and "fits" not in done.out and "a 24 GiB card" not in done.out


def test_a_generator_that_has_no_dry_runs_gets_no_number(bench: Any) -> None:
    done = bench("memory", "--generator", "noise")
    assert done.code == 0
    assert done.out.splitlines()[3] == "all                not predictable: generator noise has no dry run"
    (row,) = json.loads(bench("memory", "--generator", "noise", "--json").out)["stages"]
    assert (row["need_gib"], row["fits"], row["reason"]) == (None, None, "generator noise has no dry run")


def test_several_generators_are_told_apart(bench: Any) -> None:
    done = bench("memory", *SMALL, "--generator", "medlord:untrained@smoke", "--stage", "sample", "--json")
    assert [row["contestant"] for row in json.loads(done.out)["stages"]] == [
        *("medlord@smoke", "medlord:untrained@smoke")
    ]


def test_a_data_sets_own_grid_and_regions_are_used(bench: Any) -> None:
    words = ("--generator", "medlord@smoke", "--dataset", "phantom", "--set", "dataset.shape=32,32,16")
    done = bench("memory", *words, "--stage", "sample", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["grid"] == [32, 32, 16]


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--stage", "decoed"), "--stage decoed: unknown stage 'decoed'; did you mean 'decode'?"),
        (("--stage", "decode", "--grid", "64,64"), "--grid 64,64: expected three numbers of voxels, e.g. 512,512,256"),
        (("--stage", "decode", "--grid", "64,64,0"), "--grid 64,64,0: expected three numbers of voxels"),
        (("--stage", "decode", "--grid", "64,64,-8"), "--grid 64,64,-8: expected three numbers of voxels"),
        (("--stage", "decode", "--budget", "much"), "--budget much: expected a size such as 24"),
        (("--stage", "decode", "--budget", "0"), "--budget 0: expected a size such as 24"),
        (("--stage", "decode", "--set", "medlord.diffusion.micro_batch=3"), "is not a multiple of micro_batch = 3"),
    ],
)
def test_bad_input_is_one_line_and_exit_2(bench: Any, words: tuple[str, ...], message: str) -> None:
    done = bench("memory", *SMALL, *words)
    assert (done.code, done.out) == (2, "")
    assert message in done.err and len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize("grid", ["512,512,260", "2,2,2"])
def test_a_grid_that_the_networks_cannot_take_is_never_given_numbers(bench: Any, grid: str) -> None:
    done = bench("memory", "--generator", "medlord:ds8@24gb", "--grid", grid, "--stage", "decode")
    assert (done.code, done.out) == (2, "")
    assert "the autoencoder and the U-Net need sides that are multiples of 64; the nearest such grid is" in done.err


def test_a_generator_has_to_be_named(bench: Any) -> None:
    done = bench("memory")
    assert done.code == 2 and "give --generator NAME" in done.err
