"""All chance of a study: which volumes are drawn, in which order, and under which codes.

Every draw is an HMAC of one secret of 256 bits, so that nobody without the key can repeat it. Draws depend on the items of
the sources and on the content of the drawn volumes, never on the names of the sources: exchanging two names leaves every
pack as it is.
"""

from __future__ import annotations

import hmac
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from medlord_bench.errors import UserError

from .protocol import GAP, StudyProtocol

ALPHABET = "23456789ABCDEFGHJKLMNPQRSTUVWXYZ"  # without 0, O, 1 and I
CODE_LETTERS = 6
MAX_RUN = 3  # most cases of one source in a row, where that is possible
TRIES = 200


class Secret:
    """A secret of 256 bits and what is derived from it."""

    def __init__(self, value: bytes | None = None) -> None:
        self.value = secrets.token_bytes(32) if value is None else value
        if len(self.value) != 32:
            raise UserError(f"secret of {len(self.value)} bytes, expected 32: the key is damaged")

    def number(self, *parts: str | int) -> int:
        """A whole number of 256 bits from the parts."""
        text = "\x1f".join(f"{type(part).__name__}:{part}" for part in parts)
        return int.from_bytes(hmac.digest(self.value, f"medlord-bench/reading/v1\x1f{text}".encode(), "sha256"), "big")

    def shuffled(self, items: Sequence[str], *parts: str | int) -> list[str]:
        """The items in random order, each at a place that depends on itself and the parts alone."""
        return sorted(items, key=lambda item: self.number(*parts, item))

    def code(self, *parts: str | int) -> str:
        """A code of six letters."""
        number = self.number("code", *parts)
        letters = []
        for _ in range(CODE_LETTERS):
            number, rest = divmod(number, len(ALPHABET))
            letters.append(ALPHABET[rest])
        return "".join(letters)


@dataclass(frozen=True)
class Drawn:
    """A volume of the study. source: place of its source in the protocol. sha256: of the source file's content."""

    source: int
    item: str
    sha256: str


def choose(secret: Secret, items: Sequence[str], n: int, practice: int) -> tuple[list[str], list[str]]:
    """`n` items for the study and up to `practice` others, from all items of a source."""
    order = secret.shuffled(sorted(items), "draw")
    return order[:n], order[n : n + practice]


@dataclass(frozen=True)
class Place:
    """One case of a reader. repeat: 0 for the first time that the volume is shown, 1 for its hidden repeat."""

    code: str
    volume: Drawn
    repeat: int = 0


def order_for(reader: str, volumes: Sequence[Drawn], protocol: StudyProtocol, secret: Secret) -> list[Place]:
    """The cases of a reader in their order: random, at most three of a source in a row, repeats far from their first.

    Of `TRIES` random orders the first without a longer run is taken; if there is none, the one with the fewest.
    """
    codes = [secret.code(reader, one.sha256, repeat) for one in volumes for repeat in (0, 1)]
    if len(set(codes)) < len(codes):
        raise UserError("two cases got one code, by a chance of one in a million; export again")
    found: list[tuple[int, list[Place]]] = []
    for attempt in range(TRIES):
        order = _one_order(reader, volumes, protocol, secret, attempt)
        found.append((_long_runs(order), order))
        if found[-1][0] == 0:
            break
    return min(found, key=lambda one: one[0])[1]


def _one_order(
    reader: str, volumes: Sequence[Drawn], protocol: StudyProtocol, secret: Secret, attempt: int
) -> list[Place]:
    """The volumes in random order; then each hidden repeat at a random place at least `GAP` cases after its first.

    Repeated are volumes that come early enough for that, chosen at random.
    """
    by_hash = {one.sha256: one for one in volumes}
    first = secret.shuffled(list(by_hash), "order", reader, attempt)
    order = [Place(secret.code(reader, sha, 0), by_hash[sha]) for sha in first]
    count = protocol.hidden_repeats
    gap = min(GAP, len(order) - max(count, len(order) // 3))
    early = secret.shuffled(first[: len(order) - gap + 1], "repeat", reader, attempt)[:count]
    for sha in sorted(early, key=first.index):
        start = next(i for i, place in enumerate(order) if place.volume.sha256 == sha)
        room = len(order) - (start + gap) + 1
        at = start + gap + secret.number("place", reader, attempt, sha) % room
        order.insert(at, Place(secret.code(reader, sha, 1), by_hash[sha], 1))
    return order


def _long_runs(order: Sequence[Place]) -> int:
    """Cases that continue a run of one source beyond `MAX_RUN`."""
    long, run = 0, 0
    for i, place in enumerate(order):
        run = run + 1 if i and order[i - 1].volume.source == place.volume.source else 1
        long += run > MAX_RUN
    return long


def pairs_for(
    reader: str, volumes: Sequence[Drawn], real: int | None, protocol: StudyProtocol, secret: Secret
) -> list[tuple[Place, Place]]:
    """The choices of a reader: each of two volumes of different sources, as many of each two sources as possible.

    real: place of the source of real volumes; with one, every pair has a real volume (two-alternative forced choice).
    Without one, all sources are paired with each other.
    """
    groups: dict[int, list[Drawn]] = {}
    for one in volumes:
        groups.setdefault(one.source, []).append(one)
    order = sorted(groups, key=lambda source: _key(groups[source]))
    kinds = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :] if real is None or real in (a, b)]
    found: dict[str, tuple[Place, Place]] = {}
    for number in range(protocol.choices):
        turn, kind = divmod(number, len(kinds))
        chosen = [_turn(groups[source], groups[other], turn, reader, secret) for source, other in _both(kinds[kind])]
        places = [Place(secret.code(reader, one.sha256, 0), one) for one in chosen]
        left = secret.number("side", reader, kind, turn) % 2
        found[f"{kind}-{turn}"] = (places[left], places[1 - left])
    return [found[key] for key in secret.shuffled(list(found), "order", reader)]


def _both(kind: tuple[int, int]) -> tuple[tuple[int, int], tuple[int, int]]:
    return kind, (kind[1], kind[0])


def _turn(own: Sequence[Drawn], other: Sequence[Drawn], turn: int, reader: str, secret: Secret) -> Drawn:
    """The volume of a source for a turn: every one once before any comes again, against each other source."""
    rounds, place = divmod(turn, len(own))
    hashes = secret.shuffled([one.sha256 for one in own], "pair", reader, rounds, _key(other))
    return next(one for one in own if one.sha256 == hashes[place])


def _key(volumes: Sequence[Drawn]) -> str:
    """A group of volumes by its content, not by the name of its source."""
    return min(one.sha256 for one in volumes)
