"""All chance of a study: which volumes are drawn, in which order, and under which codes.

Every draw is an HMAC of one secret of 256 bits, so that nobody without the key can repeat it. Draws depend on the items of
the sources and on the content of the drawn volumes, never on the names of the sources: exchanging two names leaves every
pack as it is.
"""

from __future__ import annotations

import hmac
import secrets
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import count, product

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
    """One case of a reader. showing: 0 for the first time that its volume is shown; later ones have codes of their own."""

    code: str
    volume: Drawn
    showing: int = 0


def order_for(reader: str, volumes: Sequence[Drawn], protocol: StudyProtocol, secret: Secret) -> list[Place]:
    """The cases of a reader in their order: random, at most three of a source in a row, repeats far from their first.

    Every source has the same number of hidden repeats, up to one. Of `TRIES` random orders the first that keeps both rules is
    taken; if there is none, the one that breaks them least.
    """
    codes = [secret.code(reader, one.sha256, repeat) for one in volumes for repeat in (0, 1)]
    _all_differ(codes)
    found: list[tuple[tuple[int, int], list[Place]]] = []
    for attempt in range(TRIES):
        order = _one_order(reader, volumes, protocol, secret, attempt)
        found.append(((_uneven(order, volumes), _long_runs(order)), order))
        if found[-1][0] == (0, 0):
            break
    return min(found, key=lambda one: one[0])[1]


def _all_differ(codes: Sequence[str]) -> None:
    if len(set(codes)) < len(codes):
        raise UserError("two cases got one code, by a chance of one in a million; export again")


def _one_order(
    reader: str, volumes: Sequence[Drawn], protocol: StudyProtocol, secret: Secret, attempt: int
) -> list[Place]:
    """The volumes in random order; then each hidden repeat at a random place at least `GAP` cases after its first.

    Repeated are volumes that come early enough for that, chosen at random, of each source in turn.
    """
    by_hash = {one.sha256: one for one in volumes}
    first = secret.shuffled(list(by_hash), "order", reader, attempt)
    order = [Place(secret.code(reader, sha, 0), by_hash[sha]) for sha in first]
    repeats = protocol.hidden_repeats
    gap = min(GAP, len(order) - max(repeats, len(order) // 3))
    early = secret.shuffled(first[: len(order) - gap + 1], "repeat", reader, attempt)
    repeated = _in_turn([by_hash[sha] for sha in early])[:repeats]
    for sha in sorted((one.sha256 for one in repeated), key=first.index):
        start = next(i for i, place in enumerate(order) if place.volume.sha256 == sha)
        room = len(order) - (start + gap) + 1
        at = start + gap + secret.number("place", reader, attempt, sha) % room
        order.insert(at, Place(secret.code(reader, sha, 1), by_hash[sha], 1))
    return order


def _in_turn(volumes: Sequence[Drawn]) -> list[Drawn]:
    """The volumes in their order, but the first of every source before the second of any."""
    seen: Counter[int] = Counter()
    turns = []
    for one in volumes:
        turns.append((seen[one.source], one))
        seen[one.source] += 1
    return [one for _, one in sorted(turns, key=lambda turn: turn[0])]


def _uneven(order: Sequence[Place], volumes: Sequence[Drawn]) -> int:
    """By how many more than one the hidden repeats of two sources differ."""
    repeats = Counter({one.source: 0 for one in volumes})
    repeats.update(place.volume.source for place in order if place.showing)
    return max(0, max(repeats.values()) - min(repeats.values()) - 1)


def _long_runs(order: Sequence[Place]) -> int:
    """Cases that continue a run of one source beyond `MAX_RUN`."""
    long, run = 0, 0
    for i, place in enumerate(order):
        run = run + 1 if i and order[i - 1].volume.source == place.volume.source else 1
        long += run > MAX_RUN
    return long


def real_in_pairs(n: int, models: int, choices: int, spare: int) -> int:
    """Volumes to draw of the real source in the design `pairs`: one for each choice, so that none is seen more often than
    those of the models. spare: volumes that the source has besides practice; with fewer, real volumes come again.
    """
    return max(n, min(n * models, choices, spare))


def pairs_for(
    reader: str, volumes: Sequence[Drawn], real: int | None, protocol: StudyProtocol, secret: Secret
) -> list[tuple[Place, Place]]:
    """The choices of a reader: each of two volumes of different sources, as many of each two sources as possible.

    real: place of the source of real volumes; with one, every pair has a real volume (two-alternative forced choice).
    Without one, all sources are paired with each other. No pair comes twice. The volumes of a source are shown as equally
    often as that allows. Each showing has a code of its own, so that no code comes again.
    """
    groups: dict[int, list[Drawn]] = {}
    for one in volumes:
        groups.setdefault(one.source, []).append(one)
    order = sorted(groups, key=lambda source: _key(groups[source]))
    kinds = [(a, b) for i, a in enumerate(order) for b in order[i + 1 :] if real is None or real in (a, b)]
    rank = {sha: i for i, sha in enumerate(secret.shuffled([one.sha256 for one in volumes], "pair", reader))}
    shown: Counter[str] = Counter()
    met: set[frozenset[str]] = set()
    found: dict[str, tuple[Place, Place]] = {}
    for number in range(protocol.choices):
        turn, kind = divmod(number, len(kinds))
        ones, others = (
            sorted(groups[source], key=lambda one: (shown[one.sha256], rank[one.sha256])) for source in kinds[kind]
        )
        chosen = _rarest(ones, others, met)
        places = [Place(secret.code(reader, v.sha256, shown[v.sha256]), v, shown[v.sha256]) for v in chosen]
        shown.update(one.sha256 for one in chosen)
        met.add(frozenset(one.sha256 for one in chosen))
        left = secret.number("side", reader, kind, turn) % 2
        found[f"{kind}-{turn}"] = (places[left], places[1 - left])
    _all_differ([place.code for pair in found.values() for place in pair])
    tries = [
        secret.shuffled(list(found), "order", reader, attempt)
        for attempt in range(TRIES if max(shown.values()) > 1 else 1)
    ]
    return max(([found[key] for key in one] for one in tries), key=_nearest)


def _rarest(ones: Sequence[Drawn], others: Sequence[Drawn], met: set[frozenset[str]]) -> tuple[Drawn, Drawn]:
    """Two that did not meet, each as rarely shown as possible. ones, others: in order of how often they were shown."""
    for total in range(len(ones) + len(others) - 1):
        for i in range(max(0, total - len(others) + 1), min(total + 1, len(ones))):
            two = ones[i], others[total - i]
            if frozenset(one.sha256 for one in two) not in met:
                return two
    raise UserError("field 'pairs': more than there are different pairs of volumes; lower pairs, or raise n")


def _nearest(pairs: Sequence[tuple[Place, Place]]) -> int:
    """The smallest number of pairs from one showing of a volume to its next."""
    last: dict[str, int] = {}
    nearest = len(pairs)
    for at, pair in enumerate(pairs):
        for place in pair:
            nearest = min(nearest, at - last.get(place.volume.sha256, -len(pairs)))
            last[place.volume.sha256] = at
    return nearest


def offset_of(place: Place, reader: str, margin: int, secret: Secret) -> tuple[int, int, int]:
    """Where the case is cut from its volume's field: 0 to `margin` voxels along each axis, by lot.

    Every showing of a volume is cut at another place. Each place is as probable for a first reading as for a repeat.
    """
    places = [" ".join(map(str, at)) for at in product(range(margin + 1), repeat=3)]
    x, y, z = secret.shuffled(places, "offset", reader, place.volume.sha256)[place.showing].split()
    return int(x), int(y), int(z)


def margin_for(showings: int) -> int:
    """Voxels that a case is smaller than its field along each axis, so that a volume can be cut differently each time."""
    return next(margin for margin in count(1) if (margin + 1) ** 3 >= showings)


def _key(volumes: Sequence[Drawn]) -> str:
    """A group of volumes by its content, not by the name of its source."""
    return min(one.sha256 for one in volumes)
