"""A user's own program as a generator: what it is given, what becomes of what it writes, and of all it can do wrong."""

from __future__ import annotations

import logging
import os
import random
import signal
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from medlord_bench.contracts import DataProtocol, Failure, Generator, Grid, LabelMap, Request, Run, Volume
from medlord_bench.contracts.specs import make
from medlord_bench.engine.keys import decides
from medlord_bench.engine.resolve import contestant
from medlord_bench.errors import MemoryBudgetError, MissingError, StepError, Stopped, UserError
from medlord_bench.generators.own.command import Command
from medlord_bench.generators.own.template import files_in, filled, words_of
from medlord_bench.util import seeds

SHAPE = (12, 10, 8)
GRID = Grid(shape=SHAPE, hu_window=(-1000, 1000))
SAMPLER = """
import array, random, sys, time  # no NumPy: it would cost most of each test's time
from pathlib import Path
given = dict(zip(sys.argv[1::2], sys.argv[2::2]))
x, y, z = shape = tuple(int(given["--" + axis]) for axis in "xyz")
seed, index = (int(given.get("--" + name, 0)) for name in ("seed", "index"))
out = given["--out"]
draw = random.Random(seed)
values = [draw.randrange(-1000, 1000) for _ in range(x * y * z)]

def save(values, shape=shape, kind="<i2"):
    header = repr({"descr": kind, "fortran_order": False, "shape": shape}).encode()
    header += b" " * (-(len(header) + 11) % 64) + b"\\n"
    data = array.array({"<i2": "h", "<f4": "f"}[kind], values).tobytes()
    Path(out).write_bytes(b"\\x93NUMPY\\x01\\x00" + len(header).to_bytes(2, "little") + header + data)
"""


def expected(request: Request) -> Any:
    """What the sampler draws for a request."""
    draw = random.Random(seeds.derive(request.seed, "command") % 2**31)
    return np.reshape([draw.randrange(-1000, 1000) for _ in range(int(np.prod(SHAPE)))], SHAPE)


@pytest.fixture(autouse=True)
def _own_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDLORD_BENCH_CACHE", str(tmp_path / "memory.json"))


@pytest.fixture
def program(tmp_path: Path) -> Callable[..., dict[str, Any]]:
    """``program(body)`` writes a sampler that ends with `body`; the settings of a `command` that calls it."""

    def write(body: str, words: str = "--seed {seed} --index {index}", **config: Any) -> dict[str, Any]:
        script = tmp_path / "my models" / "sample it.py"  # with spaces, as real paths have
        script.parent.mkdir(exist_ok=True)
        script.write_text(SAMPLER + body)
        text = f"'{sys.executable}' {'' if 'import numpy' in body else '-S '}'{script}' {words} --x {{x}} --y {{y}} --z {{z}} --out {{out}}"
        field = (
            "conditional_command" if "{mask}" in words else "reconstruct_command" if "{image}" in words else "command"
        )
        return {field: text, "output": ".npy", **config}

    return write


def command(config: dict[str, Any]) -> Command:
    made = make(
        "generators", contestant("command:mine", "phantom", {f"command:mine.{k}": v for k, v in config.items()})
    )
    assert isinstance(made, Command)
    return made


def in_key(generator: Command) -> dict[str, Any]:
    return decides(generator.config, generator.dependencies("sample"))


def protocol() -> DataProtocol:
    return DataProtocol(name="folder", grid=GRID, fit="crop-pad", split="", split_sha256="", counts={}, masks="none")


def requests(n: int) -> list[Request]:
    return [Request(index, seeds.derive("test", index), GRID) for index in range(n)]


def draw(generator: Command, run: Run, n: int = 1) -> list[Volume | Failure]:
    return list(generator.sample({}, requests(n), run))


SAVE = "save(values)"


# ------------------------------------------------------------------------------------------------------ when all is well
def test_each_sample_is_what_the_program_wrote_for_its_seed(program: Any, run: Run) -> None:
    generator = command(program(SAVE))
    assert isinstance(generator, Generator)
    assert (generator.capabilities, generator.stages(), generator.available(protocol())) == (
        {"unconditional"},
        (),
        None,
    )
    generator.check(protocol())
    volumes = draw(generator, run, 3)
    for request, volume in zip(requests(3), volumes, strict=True):
        assert isinstance(volume, Volume)
        np.testing.assert_array_equal(volume.hu, expected(request))
    (alone,) = generator.sample({}, requests(3)[2:], run)
    assert isinstance(alone, Volume) and isinstance(volumes[2], Volume)
    np.testing.assert_array_equal(alone.hu, volumes[2].hu)


def test_a_conditional_program_gets_the_mask_with_its_names(program: Any, run: Run) -> None:
    body = """
import json
import numpy as np, nibabel as nib
mask = nib.load(given["--mask"])
assert mask.get_data_dtype() == np.uint8
names = json.loads((Path(given["--mask"]).parent / "labels.json").read_text())
values = np.full(shape, -900)
for value, name in names.items():
    values[np.asarray(mask.dataobj) == int(value)] = {"aorta": 350, "heart": 100}[name]
np.save(out, values)
"""
    generator = command(program(body, "--mask {mask}"))
    assert generator.capabilities == {"conditional"}
    labels = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)
    affine = np.diag([2.0, 2.0, 3.0, 1.0])
    condition = LabelMap(labels, affine, {1: "aorta", 2: "heart"})
    (volume,) = generator.sample({}, [Request(0, 0, GRID, condition, "case")], run)
    assert isinstance(volume, Volume)
    np.testing.assert_array_equal(volume.hu, np.array([-900, 350, 100])[labels])
    np.testing.assert_array_equal(volume.affine, affine)


def test_a_reconstructing_program_gets_the_image_in_hu(program: Any, run: Run) -> None:
    body = "import numpy as np, nibabel as nib; np.save(out, np.asarray(nib.load(given['--image']).dataobj) // 2)"
    generator = command(program(body, "--image {image}"))
    assert generator.capabilities == {"reconstructs"}
    hu = np.random.default_rng(0).integers(-1000, 1000, SHAPE).astype(np.int16)
    (volume,) = generator.reconstruct({}, [("a/b", Volume(hu, np.eye(4)))], run)
    assert isinstance(volume, Volume)
    np.testing.assert_array_equal(volume.hu, hu // 2)


def test_what_it_writes_is_mapped_as_declared(program: Any, run: Run) -> None:
    body = "rows = [values[i : i + y * z] for i in range(0, len(values), y * z)][::-1]\n"
    body += "save([(v + 1000) / 2000 for row in rows for v in row], kind='<f4')"
    plain, mapped = program(SAVE), {"intensity": {"from": [0, 1], "to": [-1000, 1000]}, "orientation": "LAS"}
    (first,) = draw(command(plain), run)
    (second,) = draw(command(program(body) | mapped), run)
    assert isinstance(first, Volume) and isinstance(second, Volume)
    np.testing.assert_array_equal(first.hu, second.hu)


def test_it_runs_where_it_is_told_with_the_variables_it_is_given(
    program: Any, run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    body = """
import os
assert os.getcwd() == os.path.realpath("WHERE"), os.getcwd()
assert os.environ["WANTED"] == "yes" and "UNWANTED" not in os.environ and os.environ["PATH"]
save(values)
"""
    monkeypatch.setenv("WANTED", "yes")
    monkeypatch.setenv("UNWANTED", "yes")
    place = tmp_path / "work"
    place.mkdir()
    (volume,) = draw(command(program(body.replace("WHERE", str(place)), cwd=str(place), environment="WANTED")), run)
    assert isinstance(volume, Volume), volume.reason


def test_nothing_but_logs_is_left(program: Any, run: Run) -> None:
    draw(command(program("print('drawing', index); save(values)")), run, 2)
    left = sorted(path for path in run.scratch.rglob("*") if path.is_file())
    assert [path.name for path in left] == ["00000.log", "00001.log"]
    text = left[1].read_text()
    assert text.startswith("$ ") and "sample it.py" in text and text.endswith("drawing 1\n")


# ------------------------------------------------------------------------------------------------- when it goes wrong
BAD = {
    "fails": ("sys.exit('no GPU, said the model')", "exit code 1: no GPU, said the model"),
    "raises": ("raise ValueError('twelve heads')", "exit code 1: ValueError: twelve heads"),
    "is killed": ("import os; os.kill(os.getpid(), 9)", "ended by signal 9"),
    "writes nothing": ("pass", "exit code 0, but no output written to {out}"),
    "writes text": ("open(out, 'w').write('hello')", "cannot be read"),
    "writes the wrong shape": (
        "save(values[: (x - 1) * y * z], (x - 1, y, z))",
        "shape (11, 10, 8), asked for (12, 10, 8)",
    ),
    "writes NaN": ("save([float('nan')] * len(values), kind='<f4')", "NaN"),
    "writes a constant": ("save([0] * len(values))", "constant (0 HU)"),
    "writes 0..1": ("save([v > 0 for v in values])", "scaled to [0, 1]"),
    "leaves a pipe": ("import os; os.mkfifo(out)", "something that is no file was written"),
    "leaves a folder": ("Path(out).mkdir(); (Path(out) / 'x').touch()", "something that is no file was written"),
    "leaves a link to a device": ("import os; os.symlink('/dev/zero', out)", "something that is no file was written"),
    "puts a pipe in place of its log": (
        "import os; log = out.replace('.npy', '.log'); os.unlink(log); os.mkfifo(log); sys.exit('no')",
        "exit code 1: no",
    ),
    "talks": ("sys.stderr.write('word ' * 10**6 + chr(10) + 'enough'); sys.exit(2)", "exit code 2: enough"),
    "writes beyond its limit": (
        "import resource, signal; signal.signal(signal.SIGXFSZ, signal.SIG_DFL)\n"
        "    resource.setrlimit(resource.RLIMIT_FSIZE, (500, 500)); save(values)",
        "ended by SIGXFSZ: it wrote a file larger than the limit (ulimit -f)",
    ),
    "declares terabytes": (
        "save(values, (100000, 100000, 100))",
        "its header declares shape (100000, 100000, 100), 2000000000000 bytes, and 1920 are there",
    ),
    "hangs": ("time.sleep(600)", "ran past its time limit of 3 s and was ended"),
}


@pytest.mark.parametrize("fault", BAD)
def test_one_bad_sample_is_a_failure_and_the_others_go_on(
    fault: str, program: Any, run: Run, caplog: pytest.LogCaptureFixture
) -> None:
    body, why = BAD[fault]
    body = f"if index == 1:\n    {body}\nelse:\n    {SAVE}"
    with caplog.at_level(logging.WARNING):
        made = draw(command(program(body, timeout_s=3)), run, 3)
    assert [isinstance(one, Volume) for one in made] == [True, False, True]
    assert isinstance(made[1], Failure) and why in made[1].reason
    assert "command: volume 00001 failed" in caplog.text and "00001.log" in caplog.text


def test_a_stale_file_is_not_taken_for_the_sample(program: Any, run: Run) -> None:
    generator = command(program("save(values) if index == 0 else None"))
    good = draw(generator, run)
    for path in run.scratch.rglob("00000.log"):
        np.save(path.with_name("00001.npy"), np.zeros(SHAPE))
    made = draw(generator, run, 2)
    assert isinstance(good[0], Volume) and isinstance(made[1], Failure) and "no output written" in made[1].reason


def test_where_the_first_three_all_fail_nothing_is_published_and_the_log_is_named(program: Any, run: Run) -> None:
    made = command(program("sys.exit('no module named torch')")).sample({}, requests(5), run)
    with pytest.raises(StepError, match=r"the first 3 volumes all failed.*no module named torch; see .*00002\.log"):
        next(made)


def test_three_failures_after_a_success_are_failures_and_no_more(program: Any, run: Run) -> None:
    made = draw(command(program(f"if index:\n    sys.exit('no')\n{SAVE}")), run, 5)
    assert [isinstance(one, Volume) for one in made] == [True, *[False] * 4]


def test_after_a_stop_failures_are_failures_and_no_more(program: Any, run: Run) -> None:
    """Else a run whose last samples fail could never end."""
    made = list(command(program("sys.exit(1)")).sample({}, requests(8)[4:], run))
    assert [type(one) for one in made] == [Failure] * 4


def test_two_samples_that_both_fail_are_two_failures(program: Any, run: Run) -> None:
    assert [type(one) for one in draw(command(program("sys.exit(1)")), run, 2)] == [Failure, Failure]


CHILD = """
import subprocess
child = subprocess.Popen([sys.executable, "-c", "import time; time.sleep(600)"])
Path("PLACE").write_text(str(child.pid))
"""


def _gone(pid: int) -> bool:
    for _ in range(100):
        state = Path(f"/proc/{pid}/stat")
        if not state.exists() or state.read_text().rpartition(")")[2].split()[0] == "Z":
            return True
        time.sleep(0.05)
    return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="looks processes up in /proc")
@pytest.mark.parametrize("end", ["", pytest.param("time.sleep(600)", marks=pytest.mark.slow)])
def test_what_a_program_leaves_running_is_ended_with_it(end: str, program: Any, run: Run, tmp_path: Path) -> None:
    place = tmp_path / "pid"
    draw(command(program(CHILD.replace("PLACE", str(place)) + (end or SAVE), timeout_s=10)), run)
    assert _gone(int(place.read_text()))


def test_a_background_process_that_keeps_the_output_open_delays_nothing(program: Any, run: Run, tmp_path: Path) -> None:
    place = tmp_path / "pid"
    away = CHILD.replace("PLACE", str(place)).replace('600)"]', '60)"], start_new_session=True')
    start = time.monotonic()
    (made,) = draw(command(program(away + SAVE, timeout_s=50)), run)
    assert isinstance(made, Volume) and time.monotonic() - start < 30
    os.kill(int(place.read_text()), signal.SIGKILL)


def test_a_stop_ends_the_program_and_publishes_nothing(program: Any, run: Run, tmp_path: Path) -> None:
    place = tmp_path / "pid"
    body = "import os; Path('PLACE').write_text(str(os.getpid())); time.sleep(600)".replace("PLACE", str(place))
    start = time.monotonic()
    with pytest.raises(Stopped):
        draw(command(program(body)), replace(run, stop=lambda: place.exists() and bool(place.read_text())))
    assert time.monotonic() - start < 60
    assert _gone(int(place.read_text()))


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("x = bytearray(b'1') * 400 * 2**20; time.sleep(600)", r"took 0\.\d+ GiB of memory, over the cap of 0.2 GiB"),
        ("raise MemoryError", "out of memory under the cap of 0.2 GiB .*: exit code 1: MemoryError"),
    ],
)
def test_a_program_over_the_memory_limit_is_ended_and_its_sample_is_no_failure(
    body: str, said: str, program: Any, run: Run, tmp_path: Path
) -> None:
    place = tmp_path / "pid"
    body = f"import os; Path({str(place)!r}).write_text(str(os.getpid())); {body}"
    with pytest.raises(MemoryBudgetError, match=f"^the program python.*: {said}"):
        draw(command(program(body)), replace(run, memory_limit=0.2))
    assert _gone(int(place.read_text()))


def test_a_program_that_will_not_end_is_killed(
    program: Any, run: Run, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr("medlord_bench.generators.own.process.GRACE_SECONDS", 0.2)
    body = "import os, signal; signal.signal(signal.SIGTERM, signal.SIG_IGN); time.sleep(600)"
    (made,) = draw(command(program(body, timeout_s=2)), run)
    assert isinstance(made, Failure) and "time limit" in made.reason


# --------------------------------------------------------------------------------------------------- before any work
@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"command": "run --seed {sed} --out {out}"}, "field 'command': unknown placeholder {sed}; expected one of"),
        ({"command": "run --mask {mask} --seed {seed} --out {out}"}, "unknown placeholder {mask}"),
        ({"command": "run --out {out}"}, r"expected {seed} or {index} in it"),
        ({"command": "run --seed {seed}"}, r"expected {out} in it"),
        ({"conditional_command": "run --out {out}"}, r"expected {mask} in it"),
        ({"reconstruct_command": "run --out {out}"}, r"expected {image} in it"),
        ({"command": "run 'x {seed} {out}"}, "No closing quotation"),
        ({"command": ""}, "expected a program and its arguments"),
        ({"timeout_s": 0}, "field 'timeout_s'"),
    ],
)
def test_a_wrong_command_is_named(config: dict[str, Any], message: str) -> None:
    with pytest.raises(UserError, match=message):
        command(config)


@pytest.mark.parametrize(
    ("config", "error", "message"),
    [
        ({}, UserError, "no command given; expected --set 'command:NAME.command="),
        ({"command": "smaple {seed} {out}"}, MissingError, "smaple: no such program in PATH"),
        ({"command": "./nowhere.sh {seed} {out}"}, MissingError, "nowhere.sh: no such program in /"),
        ({"command": "true {seed} {out}", "cwd": "/nowhere"}, MissingError, "/nowhere: not a folder"),
        (
            {"command": "true {seed} {out}", "intensity": {"from": [0, 1], "to": [0, 100]}},
            UserError,
            "dataset.hu_window=0,100",
        ),
    ],
)
def test_what_cannot_be_started_is_said_while_planning(
    config: dict[str, Any], error: type[UserError], message: str
) -> None:
    with pytest.raises(error, match=message):
        command(config).check(protocol())


def test_a_program_that_is_there_and_no_program_is_said(tmp_path: Path, run: Run) -> None:
    script = tmp_path / "sample.sh"
    script.write_text("not a program")
    script.chmod(0o755)
    with pytest.raises(UserError, match="cannot be started"):
        draw(command({"command": f"{script} {{seed}} {{out}}"}), run)


# --------------------------------------------------------------------------------------------------------- the key
def test_the_key_holds_the_command_its_revision_and_the_files_it_names(program: Any, tmp_path: Path) -> None:
    config = program(SAVE)
    first = in_key(command(config))
    assert in_key(command(config)) == first
    assert in_key(command(config | {"timeout_s": 5, "cwd": str(Path.cwd())})) == first
    assert in_key(command(config | {"revision": "2"})) != first
    assert in_key(command(config | {"fit": "resize"})) != first
    script = next(tmp_path.rglob("sample it.py"))
    script.write_text(script.read_text() + "# another model\n")
    assert in_key(command(config)) != first


def test_files_are_found_as_words_and_after_an_equals_sign(tmp_path: Path) -> None:
    for name in ("a.py", "b.pt", "c.pt"):
        (tmp_path / name).write_text(name)
    words = ["python", "a.py", "--weights=b.pt", "--other", "nowhere", str(tmp_path / "c.pt"), "--out", "{out}"]
    assert files_in(words, tmp_path) == [tmp_path / "a.py", tmp_path / "b.pt", tmp_path / "c.pt"]


def test_nothing_in_a_value_is_split_or_run() -> None:
    words = words_of("prog '{out}' --json '{\"a\": 1}' --at={x},{y}", ("out", "x", "y"), [["out"]])
    values = {"out": "/tmp/a b; rm -rf $HOME", "x": 1, "y": 2}
    assert filled(words, values) == ["prog", "/tmp/a b; rm -rf $HOME", "--json", '{"a": 1}', "--at=1,2"]
