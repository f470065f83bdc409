"""What file and folder names say: image or mask, which belong together, which split. Imports nothing heavy."""

from __future__ import annotations

import re
from collections.abc import Iterable

from medlord_bench.contracts import Split

IMAGE_WORDS = "imaging|images?|imgs?|volumes?|vol|scans?|cts?|ct_scans?"
MASK_WORD = "masks?|labels?|seg|segs|dseg|segmentations?|annotations?"
MASK_NAME = re.compile(rf"(?:^|(?P<base>.*)[._-])(?:{MASK_WORD})(?:[._-].*)?$", re.IGNORECASE)
IMAGE_END = re.compile(r"[._-](?:img|image|ct)$", re.IGNORECASE)
IMAGE_FOLDER = re.compile(rf"(?:{IMAGE_WORDS})$", re.IGNORECASE)
_NUMBERED_MASK = re.compile(rf"(?:{MASK_WORD})\d+$", re.IGNORECASE)  # label0001 (BTCV)
_WORDS = rf"{IMAGE_WORDS}|{MASK_WORD}"
_BEGIN = re.compile(rf"(?:{_WORDS})(?:[._-]+|(?=\d))", re.IGNORECASE)
_END = re.compile(rf"[._-](?:{_WORDS})$", re.IGNORECASE)
_SPLIT_WORDS: dict[str, Split] = {
    **dict.fromkeys(("train", "training", "trainset", "tr"), "train"),
    **dict.fromkeys(("val", "valid", "validation", "valset", "dev"), "val"),
    **dict.fromkeys(("test", "testing", "testset", "ts"), "test"),
}


def is_mask(stem: str) -> bool:
    """Whether a file name without its suffix, or a folder's name, is that of a mask: `label`, `a_seg`, `label0001`."""
    return bool(MASK_NAME.fullmatch(stem) or _NUMBERED_MASK.fullmatch(stem))


def key(stem: str) -> str:
    """The part of a name that image and mask share: `volume-3` and `segmentation-3` give `3`, `a_image` gives `a`."""
    match = MASK_NAME.fullmatch(stem)
    if match and match["base"]:
        stem = match["base"]
    for pattern in (_BEGIN, _END):
        shorter = pattern.sub("", stem, count=1) if pattern is _END or pattern.match(stem) else stem
        stem = shorter or stem
    return stem


def split_of(name: str) -> Split | None:
    """The split that a folder's name says: `train`, `Validation`, `ct_test`, `valid_fixed`; None for other names.

    A name with a number is a patient's: `train_001`.
    """
    words = [word for word in re.split(r"[._\- ]+", name.lower()) if word]
    found = {_SPLIT_WORDS[word] for word in words if word in _SPLIT_WORDS}
    return found.pop() if len(found) == 1 and not any(char.isdigit() for char in name) else None


def common_glob(paths: Iterable[str]) -> str:
    """One glob that matches paths of equal depth, `*` where they differ; empty if nothing of them is common."""
    parts = [path.split("/") for path in paths]
    if not parts or len({len(one) for one in parts}) != 1:
        return ""
    same = [names[0] if len(set(names)) == 1 else _affix(names) for names in zip(*parts, strict=True)]
    text = "/".join(same)
    return "" if set(text) <= {"*", "/"} else text


def _affix(names: tuple[str, ...]) -> str:
    """`*` between what all names begin with and what all end with, if the latter is a suffix such as `.dcm`."""
    endings = {name[name.rindex(".") :] if "." in name else "" for name in names}
    return "*" + (endings.pop() if len(endings) == 1 else "")


def literal(text: str) -> str:
    """A path as a glob that matches only it: brackets, stars and question marks are escaped."""
    return re.sub(r"([\[*?])", r"[\1]", text)
