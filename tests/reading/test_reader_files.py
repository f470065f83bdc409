"""The files of the browser reader in a pack."""

from __future__ import annotations

import base64
import json
import re
from pathlib import Path

import pytest

from medlord_bench.reading import reader_files
from medlord_bench.reading.pack import read_pack
from medlord_bench.reading.reader_files import page_files, study_script
from tests.reading.pack_data import CODES, write_pack

WORDS = reader_files.page_files()["words.js"]


def test_a_small_pack_has_its_cases_as_scripts_of_one_size(tmp_path: Path) -> None:
    pack = write_pack(tmp_path)
    scripts = sorted((tmp_path / "cases").glob("*.js"))
    assert [path.stem for path in scripts] == sorted(CODES[:3])
    assert len({path.stat().st_size for path in scripts}) == 1
    found = re.fullmatch(r'readingCase\("(\w+)", "([\w+/=]+)"\);\n', scripts[0].read_text())
    assert found is not None and base64.b64decode(found[2]) == scripts[0].with_suffix(".i16").read_bytes()
    study = json.loads((tmp_path / "study.js").read_text().removeprefix("window.study = ").rstrip(";\n"))
    assert study["pack_sha256"] == read_pack(tmp_path).digest() == pack.digest()
    assert study["served"] is False and "files" not in study["pack"]


def test_a_large_pack_has_the_page_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reader_files, "MOST_VOXELS", 32 * 28 * 24 - 1)
    write_pack(tmp_path)
    assert (tmp_path / "index.html").exists() and not (tmp_path / "study.js").exists()
    assert not list((tmp_path / "cases").glob("*.js"))


def test_the_page_loads_its_own_files_and_nothing_else() -> None:
    texts = page_files()
    named = re.findall(r'(?:src|href)="([^"]+)"', texts["index.html"])
    assert set(named) - {"data:,", "study.js"} == set(texts) - {"index.html"}
    for name, text in texts.items():
        assert not re.search(r"https?://|//cdn|\beval\(|innerHTML|insertAdjacentHTML|document\.write", text), name


def test_both_languages_have_all_texts_and_their_values() -> None:
    english, german = (re.search(rf"  {language}: {{(.*?)\n  }},", WORDS, re.S)[1] for language in ("en", "de"))  # type: ignore[index]
    texts = [dict(re.findall(r'\b(\w+): "((?:[^"\\]|\\.)*)"', text)) for text in (english, german)]
    assert len(texts[0]) > 60 and list(texts[0]) == list(texts[1])
    for name, text in texts[0].items():
        assert set(re.findall(r"{\w+}", text)) == set(re.findall(r"{\w+}", texts[1][name])), name
    said = set(re.findall(r'say\("(\w+)"', "".join(page_files().values())))
    assert said - {"keys"} <= set(texts[0])


def test_a_hostile_title_stays_text(tmp_path: Path) -> None:
    pack = write_pack(tmp_path, title="</script><script>alert(1)</script>\u2028")
    assert json.loads(study_script(pack).removeprefix("window.study = ").rstrip(";\n"))["pack"]["title"] == pack.title
