"""The wheel holds what the checkout holds: a plugin or data file left out works here and breaks for everybody else."""

from __future__ import annotations

import subprocess
import sys
import tomllib
import zipfile
from configparser import ConfigParser
from email import message_from_bytes
from importlib import metadata
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
SHELVES = ("generators", "metrics", "reports")
DATA = {".yaml", ".html", ".j2", ".css", ".js", ".bib", ".csv", ".json"}


@pytest.fixture(scope="module")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> zipfile.ZipFile:
    """A wheel of the tracked and untracked files of this checkout, built apart from it so that nothing stale counts."""
    if int(_setuptools().partition(".")[0]) < 77:
        pytest.skip(f"building the wheel needs setuptools 77 or newer, found {_setuptools()}")
    clone, out = tmp_path_factory.mktemp("clone"), tmp_path_factory.mktemp("wheel")
    listed = subprocess.run(
        ["git", "-C", str(ROOT), "ls-files", "--cached", "--others", "--exclude-standard"],
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    if listed.returncode:
        pytest.skip("not a git checkout: what belongs to the distribution is not known")
    for name in listed.stdout.splitlines():
        source, target = ROOT / name, clone / name
        if source.is_symlink() or source.is_file():
            target.parent.mkdir(parents=True, exist_ok=True)
            if source.is_symlink():
                target.symlink_to(source.readlink())
            else:
                target.write_bytes(source.read_bytes())
    # Through the build backend itself: needs neither pip nor the network, only the setuptools that is installed.
    code = "import sys; from setuptools import build_meta; print(build_meta.build_wheel(sys.argv[1]))"
    build = subprocess.run(
        [sys.executable, "-c", code, str(out)], cwd=clone, capture_output=True, text=True, check=False
    )
    assert build.returncode == 0, build.stderr[-2000:]
    (path,) = out.glob("*.whl")
    return zipfile.ZipFile(path)


def _setuptools() -> str:
    try:
        return metadata.version("setuptools")
    except metadata.PackageNotFoundError:
        return "0 (none)"


def expected() -> set[str]:
    """Every module and data file of the checkout, by its installed path."""
    found = set()
    for folder in ("medlord_bench", *SHELVES):
        for path in (ROOT / folder).rglob("*"):
            inside = path.relative_to(ROOT)
            if folder == "medlord_bench" and len(inside.parts) > 1 and inside.parts[1] in SHELVES:
                continue
            if path.is_file() and (path.suffix in {".py", *DATA} or path.name == "py.typed"):
                found.add(inside.as_posix() if folder == "medlord_bench" else f"medlord_bench/{inside.as_posix()}")
    return found


def test_every_module_and_data_file_is_in_the_wheel_and_nothing_else(wheel: zipfile.ZipFile) -> None:
    packed = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert expected() - packed == set(), "left out of the wheel"
    assert packed - expected() == set(), "in the wheel though not in the checkout"


def test_the_wheel_installs_no_generic_name(wheel: zipfile.ZipFile) -> None:
    assert {name.partition("/")[0].partition("-")[0] for name in wheel.namelist()} == {"medlord_bench"}


def test_the_page_has_its_template_and_style_in_the_wheel(wheel: zipfile.ZipFile) -> None:
    for name in ("page.html.j2", "page.css", "page.js"):
        assert f"medlord_bench/reports/page/{name}" in wheel.namelist()


def test_the_wheel_announces_every_entry_point(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/entry_points.txt"))
    parser = ConfigParser()
    parser.optionxform = str  # type: ignore[assignment, method-assign]  # names keep their case
    parser.read_string(wheel.read(name).decode())
    announced = {section: dict(parser[section]) for section in parser.sections()}
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    assert announced == {"console_scripts": project["scripts"], **project["entry-points"]}


def test_the_licence_travels_with_the_wheel(wheel: zipfile.ZipFile) -> None:
    (name,) = (name for name in wheel.namelist() if name.endswith("/METADATA"))
    assert message_from_bytes(wheel.read(name))["License-Expression"] == "Apache-2.0"
    (licence,) = (name for name in wheel.namelist() if name.endswith("/LICENSE"))
    assert b"Version 2.0, January 2004" in wheel.read(licence)


def test_one_version_is_stated_everywhere() -> None:
    import medlord_bench

    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    assert medlord_bench.__version__ == version
    assert f"version: {version}\n" in (ROOT / "CITATION.cff").read_text()
    assert f"## {version}" in (ROOT / "CHANGELOG.md").read_text()


@pytest.mark.parametrize("shelf", SHELVES)
def test_the_links_in_the_core_lead_to_the_shelves(shelf: str) -> None:
    link = ROOT / "medlord_bench" / shelf
    if not link.is_symlink():  # a checkout without links works; only type checkers miss them
        pytest.skip("this checkout was made without links")
    assert link.resolve() == ROOT / shelf
    assert not link.readlink().is_absolute()
