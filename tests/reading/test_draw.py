"""The chance of a study: uniform, reproducible from the secret alone, and blind to the names of the sources."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np
import pytest
from scipy.stats import chisquare

from medlord_bench.contracts.validation import validate
from medlord_bench.errors import UserError
from medlord_bench.reading.draw import (
    ALPHABET,
    Drawn,
    Place,
    Secret,
    choose,
    margin_for,
    offset_of,
    order_for,
    pairs_for,
    real_in_pairs,
)
from medlord_bench.reading.protocol import StudyProtocol


def protocol(sources: int = 4, **fields: Any) -> StudyProtocol:
    places = [{"name": f"s{i}", "folder": f"f{i}"} for i in range(sources)]
    return validate(StudyProtocol, {"sources": places, "n": 5, **fields}, "p")


def volumes(sources: int = 4, n: int = 5) -> list[Drawn]:
    return [Drawn(source, f"i{i}", f"{source:02d}-{i:02d}") for source in range(sources) for i in range(n)]


def secret(number: int) -> Secret:
    return Secret(number.to_bytes(32, "big"))


def test_new_secrets_differ_and_a_damaged_one_is_refused() -> None:
    assert Secret().value != Secret().value
    with pytest.raises(UserError, match="expected 32"):
        Secret(b"short")


def test_the_draw_is_from_the_whole_list_and_practice_is_not_in_the_study() -> None:
    items = [f"sample-{i:05d}" for i in range(40)]
    counts: Counter[str] = Counter()
    for number in range(400):
        chosen, practice = choose(secret(number), items[:: -1 if number % 2 else 1], 10, 3)
        assert len(chosen) == 10 and len(practice) == 3 and not set(chosen) & set(practice)
        counts.update(chosen)
    assert chisquare([counts[item] for item in items]).pvalue > 0.001
    assert choose(secret(1), items, 10, 3) == choose(secret(1), items[::-1], 10, 3)


def test_every_source_is_at_every_place_equally_often() -> None:
    places = np.zeros((20, 4))
    for number in range(1000):
        order = order_for("R1", volumes(), protocol(repeats=0), secret(number))
        for at, place in enumerate(order):
            places[at, place.volume.source] += 1
    assert chisquare(places.ravel()).pvalue > 0.001


def test_runs_are_short_and_repeats_far_from_their_first() -> None:
    for number in range(30):
        order = order_for("R1", volumes(4, 10), protocol(n=10), secret(number))
        assert len(order) == 46 and len({place.code for place in order}) == 46
        sources = [place.volume.source for place in order]
        assert all(len(set(sources[i : i + 4])) > 1 for i in range(len(order) - 3))
        first: dict[str, int] = {}
        for at, place in enumerate(order):
            start = first.setdefault(place.volume.sha256, at)
            assert (place.showing == 1) == (start != at)
            assert start == at or at - start >= 20


def test_readers_have_their_own_codes_and_order_and_secrets_theirs() -> None:
    one, two = (order_for(reader, volumes(), protocol(), secret(1)) for reader in ("R1", "R2"))
    other = order_for("R1", volumes(), protocol(), secret(2))
    codes = [{place.code for place in order} for order in (one, two, other)]
    assert not codes[0] & codes[1] and not codes[0] & codes[2]
    assert all(set(code) <= set(ALPHABET) and len(code) == 6 for code in codes[0])
    hashes = [[place.volume.sha256 for place in order] for order in (one, two)]
    assert hashes[0] != hashes[1]


def test_exchanging_the_sources_names_changes_no_code_and_no_order() -> None:
    swapped = [Drawn(3 - one.source, one.item, one.sha256) for one in volumes()]
    for design in ("ratings", "pairs"):
        found = []
        for given in (volumes(), swapped):
            if design == "ratings":
                found.append([place.code for place in order_for("R1", given, protocol(), secret(5))])
            else:
                pairs = pairs_for("R1", given, None, protocol(design="pairs", pairs=30), secret(5))
                found.append([(a.code, b.code) for a, b in pairs])
        assert found[0] == found[1]


def test_every_pair_has_a_real_volume_and_the_sources_are_equally_often_against_it() -> None:
    pairs = pairs_for("R1", volumes(4, 5), 1, protocol(design="pairs", pairs=60), secret(3))
    assert len(pairs) == 60 and all(1 in (a.volume.source, b.volume.source) for a, b in pairs)
    others = Counter(b.volume.source if a.volume.source == 1 else a.volume.source for a, b in pairs)
    assert others == {0: 20, 2: 20, 3: 20}
    left = sum(a.volume.source == 1 for a, _ in pairs)
    assert 15 <= left <= 45
    shown = Counter(place.volume.sha256 for pair in pairs for place in pair)
    assert {shown[one.sha256] for one in volumes(4, 5) if one.source != 1} == {4}
    assert all(11 <= shown[one.sha256] <= 13 for one in volumes(4, 5) if one.source == 1)  # five for three models


def test_without_real_volumes_all_sources_meet() -> None:
    pairs = pairs_for("R1", volumes(3, 5), None, protocol(3, design="pairs", pairs=30), secret(3))
    assert Counter(frozenset((a.volume.source, b.volume.source)) for a, b in pairs) == {
        frozenset(two): 10 for two in ((0, 1), (0, 2), (1, 2))
    }


def test_no_code_comes_twice_in_pairs_and_no_pair() -> None:
    for number in range(20):
        pairs = pairs_for("R1", volumes(3, 4), 0, protocol(3, n=4, design="pairs", pairs=8 + number), secret(number))
        codes = [place.code for pair in pairs for place in pair]
        assert len(set(codes)) == len(codes) == 2 * (8 + number)
        assert len({frozenset(place.volume.sha256 for place in pair) for pair in pairs}) == 8 + number
        for source in range(3):
            shown = Counter(p.volume.sha256 for pair in pairs for p in pair if p.volume.source == source)
            assert max(shown.values()) - min(shown[one.sha256] for one in volumes(3, 4) if one.source == source) <= 2


def test_with_enough_real_volumes_none_is_seen_more_often_than_one_of_a_model() -> None:
    assert real_in_pairs(5, 3, 15, 40) == 15 and real_in_pairs(5, 3, 15, 9) == 9 and real_in_pairs(5, 3, 15, 4) == 5
    drawn = [Drawn(0, f"i{i}", f"r{i:02d}") for i in range(15)] + [one for one in volumes(4, 5) if one.source]
    pairs = pairs_for("R1", drawn, 0, protocol(4, design="pairs", pairs=15), secret(7))
    assert set(Counter(place.volume.sha256 for pair in pairs for place in pair).values()) == {1}


def test_two_showings_of_a_volume_are_far_apart_in_pairs() -> None:
    found = []
    for number in range(5):
        pairs = pairs_for("R1", volumes(3, 10), 0, protocol(3, n=10, design="pairs", pairs=20), secret(number))
        last: dict[str, int] = {}
        for at, pair in enumerate(pairs):
            for place in pair:
                found += [at - last[place.volume.sha256]] if place.volume.sha256 in last else []
                last[place.volume.sha256] = at
    assert len(found) == 50 and min(found) >= 3


def test_every_source_has_as_many_hidden_repeats_up_to_one() -> None:
    for number in range(30):
        for sources, repeats in ((4, 6), (3, 6), (2, 3)):
            given = protocol(sources, repeats=repeats)
            order = order_for("R1", volumes(sources, 5), given, secret(number))
            counts = Counter(place.volume.source for place in order if place.showing)
            assert sum(counts.values()) == repeats
            assert max(counts.values()) - min(counts[source] for source in range(sources)) <= 1


def test_cases_are_cut_at_places_that_do_not_tell_repeats() -> None:
    places = {showing: Counter[tuple[int, int, int]]() for showing in (0, 1)}
    for i in range(800):
        volume = Drawn(0, "i", f"sha{i}")
        first, again = (offset_of(Place("c", volume, showing), "R1", 1, secret(1)) for showing in (0, 1))
        assert first != again
        places[0][first] += 1
        places[1][again] += 1
    for counts in places.values():
        assert len(counts) == 8 and chisquare(list(counts.values())).pvalue > 0.001
    assert [margin_for(n) for n in (1, 2, 8, 9, 27, 28)] == [1, 1, 1, 2, 2, 3]
