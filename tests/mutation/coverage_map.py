"""Which tests run which lines, and how long each test takes: measured once, again where a test or the code changed."""

from __future__ import annotations

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import coverage
import pytest

Lines = dict[str, dict[int, set[str]]]  # path -> line -> tests


class Recorder:
    """A pytest plugin: the coverage context is the running test, or the shared fixture that is being set up."""

    def __init__(self, measured: coverage.Coverage) -> None:
        self.measured = measured
        self.seconds: dict[str, float] = defaultdict(float)
        self.failed: set[str] = set()
        self.fixtures: dict[str, list[str]] = {}

    def pytest_collection_modifyitems(self, items: list[Any]) -> None:
        """A test that starts the command line in another process never sees a mutant of this one."""
        items[:] = [item for item in items if not _starts_commands(item)]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_protocol(self, item: pytest.Item) -> Iterator[Any]:
        self.fixtures[item.nodeid] = list(getattr(item, "fixturenames", ()))
        self.measured.switch_context(item.nodeid)
        try:
            return (yield)
        finally:
            self.measured.switch_context("")

    @pytest.hookimpl(wrapper=True)
    def pytest_fixture_setup(self, fixturedef: Any, request: Any) -> Iterator[Any]:
        if fixturedef.scope == "function":
            return (yield)
        self.measured.switch_context(f"fixture {fixturedef.argname}")
        try:
            return (yield)
        finally:
            self.measured.switch_context(request._pyfuncitem.nodeid)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        self.seconds[report.nodeid] += report.duration
        if report.outcome != "passed":
            self.failed.add(report.nodeid)


def _starts_commands(item: Any) -> bool:
    """Whether a test uses `bench` of tests/conftest.py; other files have fixtures of that name."""
    found = item._fixtureinfo.name2fixturedefs.get("bench", ())
    return bool(found) and found[-1].scope == "session"


def measure(files: list[str], sources: list[str], out: Path, stamps: dict[str, str]) -> None:
    """Run test files and write, for each, the seconds of its tests and the lines that they run."""
    measured = coverage.Coverage(data_file=None, include=sources, config_file=False)
    recorder = Recorder(measured)
    measured.start()
    pytest.main([*files, "-q", "-p", "no:cacheprovider", "--timeout=120"], plugins=[recorder])
    measured.stop()
    data = measured.get_data()
    found: dict[str, Any] = {file: {"stamp": stamps[file], "seconds": {}, "lines": {}} for file in files}
    for test, seconds in recorder.seconds.items():
        if test not in recorder.failed:
            found[test.partition("::")[0]]["seconds"][test] = round(seconds, 3)
    for path in data.measured_files():
        for line, contexts in data.contexts_by_lineno(path).items():
            for test in _tests(contexts, recorder):
                if test in found[test.partition("::")[0]]["seconds"]:
                    lines = found[test.partition("::")[0]]["lines"].setdefault(path, {})
                    lines.setdefault(str(line), []).append(test)
    out.mkdir(exist_ok=True)
    for file, content in found.items():
        (out / (file.replace("/", "+") + ".json")).write_text(json.dumps(content))


def _tests(contexts: list[str], recorder: Recorder) -> set[str]:
    shared = {context.removeprefix("fixture ") for context in contexts if context.startswith("fixture ")}
    users = {test for test, names in recorder.fixtures.items() if shared.intersection(names)} if shared else set()
    return users | {context for context in contexts if context and not context.startswith("fixture ")}


def stamps(files: list[str], sources: list[str]) -> dict[str, str]:
    """Test file -> a hash of it and of the code."""
    code = hashlib.sha256(b"".join(Path(source).read_bytes() for source in sources))
    return {file: hashlib.sha256(Path(file).read_bytes() + code.digest()).hexdigest() for file in files}


def read(files: list[str], out: Path, wanted: dict[str, str]) -> tuple[dict[str, float], Lines, list[str]]:
    """(test -> seconds, lines, files to measure anew) of what was measured before."""
    seconds: dict[str, float] = {}
    lines: Lines = defaultdict(lambda: defaultdict(set))
    stale = []
    for file in files:
        place = out / (file.replace("/", "+") + ".json")
        content = json.loads(place.read_text()) if place.is_file() else {"stamp": None}
        if content["stamp"] != wanted[file]:
            stale.append(file)
            continue
        seconds |= content["seconds"]
        for path, own in content["lines"].items():
            for line, tests in own.items():
                lines[path][int(line)].update(tests)
    return seconds, lines, stale
