"""Train, validation and test lists, disjoint by patient and a function of the seed and the ids alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Self

from pydantic import Field, model_validator

from medlord_bench.contracts import SPLITS, FrozenConfig, Split
from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.hashing import digest
from medlord_bench.util.seeds import derive
from medlord_bench.util.text_tables import read_json, read_table

if TYPE_CHECKING:
    from medlord_bench.volumes.fingerprints import Found

Splits = Mapping[Split, Sequence["Found"]]


class SplitConfig(FrozenConfig):
    """How patients are divided. A `split` column of the manifest overrides all of these."""

    fractions: tuple[float, float, float] = Field((0.7, 0.1, 0.2), description="of the patients, in train, val, test")
    counts: tuple[int, int, int] | None = Field(None, description="patients in train, val, test; instead of fractions")
    seed: int = Field(0, description="seed of the patients' order, which fractions or counts divide")
    file: Path | None = Field(
        None, description='the lists themselves: JSON {"train": [ids], ...} or CSV with columns id, split'
    )

    @model_validator(mode="after")
    def _whole(self) -> Self:
        if min(self.fractions) < 0 or abs(sum(self.fractions) - 1) > 1e-6:
            raise ValueError("fractions must not be negative and must add up to 1")
        if self.counts is not None and min(self.counts) < 0:
            raise ValueError("counts must not be negative")
        return self


def divide(found: Sequence[Found], config: SplitConfig, where: str, how: str = "") -> tuple[Splits, str]:
    """The three lists, and their origin as text.

    Patients are ordered by the hash of (seed, patient): test takes the first, then val, then train, so a new patient
    displaces few others. where: the data set's folder, for messages. how: the origin of the cases' own splits; cases
    without one are divided into train and val if only `test` is given, by a layout.
    Raises `UserError` if a patient is in two splits or a split gets too few.
    """
    if config.file is not None:
        splits, how = _listed(found, config.file), f"lists of {config.file.name}"
    elif any(case.split for case in found):
        split_of: dict[str, Split | None] = {case.id: case.split for case in found if case.split}
        if set(split_of.values()) == {"test"} and len(split_of) < len(found):
            split_of |= _train_and_val([case for case in found if case.split is None], config)
        splits, how = _by_name(found, split_of), how or "the manifest's column"
    else:
        splits, how = _drawn(found, config, where)
    check_disjoint(splits)
    for split in ("train", "test"):
        if not splits[split]:
            raise UserError(f"{where}: split {split!r} has no case; expected at least one: see dataset.split")
    return splits, how


def _train_and_val(found: Sequence[Found], config: SplitConfig) -> dict[str, Split | None]:
    """The cases beside a test split that their layout names: val gets its fraction of the two, at least one patient."""
    train, val, _ = config.counts or config.fractions
    patients = sorted({case.patient for case in found}, key=lambda p: (derive(config.seed, "split", p), p))
    n_val = 0 if not val or len(patients) < 2 else max(1, round(len(patients) * val / (train + val)))
    chosen = set(patients[:n_val])
    return {case.id: "val" if case.patient in chosen else "train" for case in found}


def split_sha256(splits: Splits) -> str:
    """The identity of the lists: sha256 over the ids of each split."""
    return digest({split: sorted(case.id for case in splits[split]) for split in SPLITS})


def check_disjoint(splits: Splits) -> None:
    """Raises `UserError` naming the patient and both splits if a patient is in two."""
    seen: dict[str, Split] = {}
    for split in SPLITS:
        for case in splits[split]:
            other = seen.setdefault(case.patient, split)
            if other != split:
                raise UserError(
                    f"patient {case.patient!r} is in {other!r} and in {split!r} ({case.image}); "
                    "expected each patient in one split: move or exclude one of the two"
                )


def _drawn(found: Sequence[Found], config: SplitConfig, where: str) -> tuple[Splits, str]:
    patients = sorted({case.patient for case in found}, key=lambda p: (derive(config.seed, "split", p), p))
    n = len(patients)
    train, val, test = config.counts or _shares(n, config.fractions)
    if train + val + test > n or train < 1 or test < 1:
        wanted = "at least one for each of its splits" if train < 0 else f"train {train}, val {val}, test {test}"
        raise UserError(
            f"{where}: fewer cases than a split needs: {n} patients for {wanted}; "
            "give more patients, or set dataset.split.counts or dataset.split.fractions"
        )
    of: dict[str, Split] = dict.fromkeys(patients[:test], "test")
    of |= dict.fromkeys(patients[test : test + val], "val")
    of |= dict.fromkeys(patients[test + val : test + val + train], "train")
    left = n - train - val - test
    words = f"by patient, {train}/{val}/{test}, seed {config.seed}" + (f"; {left} patients left out" if left else "")
    return _by_name(found, {case.id: of[case.patient] for case in found if case.patient in of}), words


def _shares(n: int, fractions: tuple[float, float, float]) -> tuple[int, int, int]:
    """Patients for each split; a fraction above zero gets at least one, training gets the rest."""
    test, val = (max(1, round(n * share)) if share > 0 else 0 for share in (fractions[2], fractions[1]))
    return n - val - test, val, test


def _by_name(found: Sequence[Found], split_of: Mapping[str, Split | None]) -> Splits:
    return {split: [case for case in found if split_of.get(case.id) == split] for split in SPLITS}


def _listed(found: Sequence[Found], path: Path) -> Splits:
    """The lists of a file; an entry is a case id or a patient."""
    if not path.exists():
        raise MissingError(f"{path}: not found; expected dataset.split.file: JSON or CSV with the three lists")
    entries = _read_json(path) if path.suffix.lower() == ".json" else _read_csv(path)
    of: dict[str, Split] = {}
    named: dict[str, list[str]] = {}
    for case in found:
        for name in {case.id, case.patient}:
            named.setdefault(name, []).append(case.id)
    for split, names in entries.items():
        if split not in SPLITS:
            raise UserError(f"{path}: unknown split {split!r}; expected train, val or test")
        for name in names:
            cases = named.get(name, [])
            if not cases:
                raise UserError(f"{path}: {name!r} of {split!r} is neither a case id nor a patient of the data; fix it")
            for case_id in cases:
                other = of.setdefault(case_id, split)
                if other != split:
                    raise UserError(f"{path}: case {case_id!r} is in {other!r} and in {split!r}; expected one of them")
    return _by_name(found, of)


def _read_json(path: Path) -> dict[str, list[str]]:
    try:
        lists = read_json(path)
        return {str(split): [str(name) for name in names] for split, names in lists.items()}
    except (ValueError, AttributeError, TypeError):
        raise UserError(f'{path}: not split lists; expected JSON such as {{"train": ["a"], "test": ["b"]}}') from None


def _read_csv(path: Path) -> dict[str, list[str]]:
    columns, rows = read_table(path)
    if not {"id", "split"} <= set(columns):
        raise UserError(f"{path}: expected a CSV with columns id and split")
    lists: dict[str, list[str]] = {}
    for _, row in rows:
        lists.setdefault(row["split"].lower(), []).append(row["id"])
    return lists
