"""Pretrained weights: read from a folder, or fetched from the Hugging Face hub if allowed; locked by sha256.

The weights folder contains `OWNER/NAME/FILE`. `hf download OWNER/NAME FILE --local-dir FOLDER/OWNER/NAME` writes to the
same path, so a machine without network needs only a copy of the folder. `FILE.lock.json` beside each file is written
when the file is first used; every later use compares the file with it.
"""

from __future__ import annotations

import fnmatch
import os
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

from pydantic import Field, ValidationError, field_validator

from medlord_bench.contracts import FrozenConfig
from medlord_bench.contracts.weights import LICENCE_UNKNOWN, NeededWeights
from medlord_bench.errors import MissingError, UserError
from medlord_bench.util.files import write_json
from medlord_bench.util.hashing import file_sha256

ENVIRONMENT = "MEDLORD_BENCH_WEIGHTS"
OFFLINE = "MEDLORD_BENCH_OFFLINE"


class WeightsFile(FrozenConfig):
    """One file of a hub repository.

    revision: a branch, tag or commit. sha256: expected hash of the content; None: not known.
    """

    repo: str = Field(pattern=r"^[\w.-]+/[\w.-]+$", description="OWNER/NAME on the hub")
    file: str
    revision: str = "main"
    sha256: str | None = Field(None, pattern=r"^[0-9a-f]{64}$")

    def needed(self, licence: str = LICENCE_UNKNOWN) -> NeededWeights:
        """The file as `fetch weights` lists it."""
        return NeededWeights(
            path=f"{self.repo}/{self.file}",
            address=f"https://huggingface.co/{self.repo}/resolve/{self.revision}/{self.file}",
            licence=licence,
            sha256=self.sha256,
            repo=self.repo,
            revision=self.revision,
        )

    @field_validator("file", "repo")
    @classmethod
    def _stays_below(cls, value: str) -> str:
        if value.startswith("/") or {"", ".", ".."} & set(value.split("/")):
            raise ValueError("must be a relative path without '..'")
        return value


class Lock(FrozenConfig):
    """`FILE.lock.json`. revision: the commit that was fetched; None for a file that the user copied to the folder."""

    repo: str
    file: str
    revision: str | None
    sha256: str
    bytes: int
    date: str


@dataclass(frozen=True)
class Found:
    """Weights on disk. locked: the sha256 is recorded (in the configuration or the lock file) and equals the record.

    `locked` is False only if the lock file could not be written.
    """

    path: Path
    sha256: str
    locked: bool


def weights_folder(folder: Path | None = None) -> Path:
    """The weights folder: `folder`, else MEDLORD_BENCH_WEIGHTS, else in the user's cache."""
    if folder is not None:
        return folder
    if place := os.environ.get(ENVIRONMENT):
        return Path(place)
    cache = os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache"
    return Path(cache) / "medlord-bench" / "weights"


def is_offline() -> bool:
    """Whether MEDLORD_BENCH_OFFLINE forbids the network. Any value except an empty one or a no forbids it."""
    return os.environ.get(OFFLINE, "").strip().lower() not in ("", "0", "false", "f", "no", "n", "off")


def find(spec: WeightsFile, folder: Path | None = None, offline: bool | None = None) -> Found:
    """The file on disk, fetched if it does not exist and the network is allowed. Its sha256 is checked and locked.

    folder: the weights folder; None: the default (`weights_folder`). offline: None: as the environment defines
    (`is_offline`).
    Raises `MissingError` if the file is not available, and `UserError` if its content has changed.
    """
    root = weights_folder(folder)
    path = root / spec.repo / spec.file
    commit = None
    if not path.is_file():
        if is_offline() if offline is None else offline:
            raise _missing(spec, path, f"--offline or {OFFLINE} forbids network calls")
        commit = _fetch(spec, root / spec.repo, path)
    return _verify(spec, path, commit)


def find_matching(repo: str, pattern: str, folder: Path | None = None, offline: bool | None = None) -> Found:
    """`find` of the one file of a hub repository whose name matches `pattern`, e.g. ``*vqgan*.pth``.

    The folder is searched first; if it has no such file and the network is allowed, the repository is listed.
    Raises `MissingError` if no file matches, and `UserError` if several do.
    """
    root = weights_folder(folder)
    names = sorted(path.name for path in (root / repo).glob(pattern))
    if not names:
        if is_offline() if offline is None else offline:
            raise _missing(
                WeightsFile(repo=repo, file=pattern), root / repo / pattern, f"--offline or {OFFLINE} is set"
            )
        names = _listed(repo, pattern, root)
    if len(names) != 1:
        raise UserError(
            f"{root / repo}: {len(names)} files match {pattern!r} ({', '.join(names)}); keep only the one to be used"
        )
    return find(WeightsFile(repo=repo, file=names[0]), folder, offline)


def _listed(repo: str, pattern: str, root: Path) -> list[str]:
    """The names of the hub repository's files that match. Raises `MissingError` if there are none."""
    from huggingface_hub import HfApi

    spec = WeightsFile(repo=repo, file=pattern)
    try:
        names = fnmatch.filter(HfApi().list_repo_files(repo), pattern)
    except Exception as error:  # the hub's errors have no common base
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _missing(spec, root / repo / pattern, f"listing the repository failed: {reason}") from error
    if not names:
        raise _missing(spec, root / repo / pattern, "the repository has no such file")
    return names


def download(spec: WeightsFile, folder: Path) -> str:
    """Fetch the file to `folder / spec.file`, resuming a partial download; returns the commit of the file.

    Only this function and `_listed` use the network.
    """
    from huggingface_hub import HfApi, hf_hub_download

    commit = HfApi().model_info(spec.repo, revision=spec.revision).sha or spec.revision
    hf_hub_download(spec.repo, spec.file, revision=commit, local_dir=folder)
    return commit


def _fetch(spec: WeightsFile, folder: Path, path: Path) -> str:
    try:
        folder.mkdir(parents=True, exist_ok=True)
        commit = download(spec, folder)
    except Exception as error:  # the hub's errors have no common base: no connection, gated, unknown file, full disk
        reason = (str(error).strip().splitlines() or [type(error).__name__])[0]
        raise _missing(spec, path, f"fetching it failed: {reason}") from error
    if not path.is_file():
        raise _missing(spec, path, "the download ended without this file")
    return commit


def _verify(spec: WeightsFile, path: Path, commit: str | None) -> Found:
    sha256 = file_sha256(path)
    lock_path = path.with_name(path.name + ".lock.json")
    lock = _read_lock(lock_path)
    for expected, source in ((spec.sha256, "the configuration"), (lock and lock.sha256, str(lock_path))):
        if expected and expected != sha256:
            raise UserError(
                f"{path}: sha256 is {sha256}, but {source} records {expected}; the file is damaged or another version: "
                "delete it to fetch it again"
                + (", or delete the lock to accept it" if source == str(lock_path) else "")
            )
    written = lock is None and _write_lock(lock_path, spec, path, sha256, commit)
    return Found(path, sha256, locked=bool(spec.sha256 or lock or written))


def _read_lock(path: Path) -> Lock | None:
    if not path.exists():
        return None
    try:
        return Lock.model_validate_json(path.read_text())
    except ValidationError as error:
        first = error.errors()[0]
        where = ".".join(map(str, first["loc"])) or "the file"
        raise UserError(f"{path}: {where}: {first['msg']}; restore the lock, or delete it to write a new one") from None


def _write_lock(lock_path: Path, spec: WeightsFile, path: Path, sha256: str, commit: str | None) -> bool:
    """Write the lock file. False if it is not writable: a shared read-only folder remains usable."""
    lock = Lock(
        repo=spec.repo,
        file=spec.file,
        revision=commit,
        sha256=sha256,
        bytes=path.stat().st_size,
        date=datetime.now(UTC).isoformat(timespec="seconds"),
    )
    try:
        write_json(lock_path, lock.model_dump())
    except OSError:
        return False
    return True


def _missing(spec: WeightsFile, path: Path, why: str) -> MissingError:
    """The error for a file that is not available; `spec.file` may be a pattern."""
    chosen = f"--include '{spec.file}'" if "*" in spec.file else spec.file
    return MissingError(
        f"weights {spec.file!r} of the Hugging Face repository {spec.repo!r} (revision {spec.revision}) are not at "
        f"{path}: {why}; on a machine with network, fetch the file with "
        f"`hf download {spec.repo} {chosen} --local-dir {path.parents[spec.file.count('/')]}` and copy it there, "
        f"or give the folder that contains {spec.repo}/{spec.file} with --weights-dir or {ENVIRONMENT}"
    )
