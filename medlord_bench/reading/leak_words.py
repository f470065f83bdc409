"""Names that must not occur in a pack: of sources, items, paths, the user and the host."""

from __future__ import annotations

import getpass
import re
import socket
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath

import numpy as np

from .key import Key
from .leak_files import Leak, Part, parts_of
from .protocol import StudyProtocol

TEXTS = (".json", ".html", ".js", ".css", ".txt", ".csv")
COMMON = {
    "real",
    "fake",
    "synthetic",
    "root",
    "user",
    "admin",
    "localhost",
    "test",
}  # in many texts; tell nothing there
LAYOUT = {"cases", "practice", "nifti", "dicom", "png", "mha", "lung", "mediastinum", "bone", "form", "readme", "pack"}
HEADERS = LAYOUT | {  # words that the bench writes into every header, which the comparison of headers covers
    *("image", "true", "false", "local", "derived", "secondary", "axial", "wholebody", "reading", "study", "clinical"),
    *("not for clinical use", "code", "none", "isotropic"),
}
SHORT, LONG = 4, 12  # letters: shorter words are looked for in names only; in voxels only longer ones
ANYWHERE = 8  # letters: shorter words must not continue on either side
PRINTABLE = 0x2000  # an int16 of less has a high byte that is no printable character


@dataclass(frozen=True)
class Needle:
    """A word in one encoding, in lower case. whole: it must not continue on either side."""

    word: str
    content: bytes
    whole: bool

    def within(self, low: bytes) -> bool:
        at = low.find(self.content)
        while at >= 0 and self.whole and not _bounded(low, at, at + len(self.content)):
            at = low.find(self.content, at + 1)
        return at >= 0


class Words:
    """words: word -> what it names. own: text of the bench itself, whose words are no leak in a text of the pack."""

    def __init__(self, words: Mapping[str, str], own: str = "") -> None:
        self.words = {word.casefold(): what for word, what in words.items() if len(word) > 1}
        self.own = own.casefold()
        self.name = _needles([word for word in self.words if not word.isdigit() and word not in LAYOUT], ("utf-8",))
        self.content = _needles([word for word in self.words if _tells(word)])
        self.long = _needles([word for word in self.words if len(word) >= LONG])

    def in_name(self, name: str) -> list[Leak]:
        """Leaks of a relative path."""
        return self._leaks(self.name, name, name.encode(errors="replace"), False, "its name has")

    def in_file(self, path: Path, name: str) -> list[Leak]:
        """Leaks of a file's content, archives unpacked."""
        leaks: set[Leak] = set()
        ends: dict[str, bytes] = {}
        text = PurePosixPath(name).suffix.lower() in TEXTS
        for part in parts_of(path, name):
            if isinstance(part, Leak):
                leaks.add(part)
            elif not (part.voxels and _only_voxels(part)):
                content = ends.get(part.name, b"") + part.content
                needles = self.long if part.voxels else self.content
                leaks.update(self._leaks(needles, part.name, content, text, "contains"))
                ends[part.name] = part.content[-1024:]
        return sorted(leaks)

    def _leaks(self, needles: Sequence[Needle], name: str, content: bytes, text: bool, verb: str) -> list[Leak]:
        low = content.lower()
        found = {needle.word for needle in needles if needle.within(low)}
        known = {word for word in found if (word in COMMON or word in self.own if text else word in HEADERS)}
        inner = {word for word in found for other in found if word != other and word in other}  # the longest is enough
        return [Leak(name, f"{verb} {word!r}, {self.words[word]}") for word in sorted(found - known - inner)]


def study_words(key: Key | None, protocol: StudyProtocol | None, labels: Iterable[str] = ()) -> dict[str, str]:
    """What a pack must not contain."""
    words: dict[str, str] = {}
    for path in (one.run or one.folder for one in protocol.sources) if protocol else ():
        if path is not None:
            words |= {str(path): "the path of a source", str(path.resolve()): "the path of a source"}
            words[path.name] = "the folder of a source"
    for name, what in ((socket.gethostname(), "the host"), (_user(), "the user")):
        if name.casefold() not in COMMON and len(name) >= SHORT:
            words[name] = f"the name of {what}"
    for one in key.entries if key else ():
        words |= {one.item: "an item of a source", one.sha256: "the hash of a source's file"}
        words |= dict.fromkeys(_spellings(one.source), "the name of a source")
    for label in labels:
        words |= dict.fromkeys(_spellings(label), "the name of a source")
    return words


def _spellings(source: str) -> list[str]:
    """A name as it is, and as folders write it."""
    return [source, re.sub(r"[^A-Za-z0-9.-]", "_", source), re.sub(r"[^A-Za-z0-9]", "-", source)]


def _user() -> str:
    try:
        return getpass.getuser()
    except (KeyError, OSError):
        return ""


def _tells(word: str) -> bool:
    """Whether a word is so long that it does not occur by chance."""
    return len(word) >= SHORT and (any(letter.isalpha() for letter in word) or len(word) >= 6)


def _needles(words: Iterable[str], encodings: Sequence[str] = ("utf-8", "utf-16-le", "utf-16-be")) -> list[Needle]:
    """The words in each encoding; what differs in upper case beyond ASCII is a needle of its own."""
    found = {}
    for word in words:
        for encoding in encodings:
            for case in (word, word.upper()):
                content = case.encode(encoding, errors="replace").lower()
                found[content] = Needle(word, content, encoding == "utf-8" and len(word) < ANYWHERE)
    return list(found.values())


def _bounded(content: bytes, start: int, end: int) -> bool:
    return not (content[max(start - 1, 0) : start].isalnum() or content[end : end + 1].isalnum())


def _only_voxels(part: Part) -> bool:
    """Whether bytes are small int16 values, which cannot spell a word."""
    values = np.frombuffer(part.content[: len(part.content) // 2 * 2], "<i2")
    return bool(len(values)) and int(values.min()) > -PRINTABLE and int(values.max()) < PRINTABLE
