"""The one rule, and how sizes are read."""

from __future__ import annotations

import pytest

from medlord_bench.errors import UserError
from medlord_bench.memory.budget import parse_gib, total_gib, usable_gib


def test_a_24_gb_card_gives_22_and_a_half() -> None:
    assert usable_gib(24) == 22.5
    assert usable_gib(80) == 75


def test_the_total_is_allocated_with_its_factor_workspace_and_context() -> None:
    assert total_gib(20, 1) == pytest.approx(1.05 * 20 + 1 + 0.5)
    assert total_gib(0, 0) == 0.5


@pytest.mark.parametrize(
    ("text", "gib"),
    [
        ("24", 24),
        ("24GB", 24),
        ("24 gib", 24),
        ("24G", 24),
        ("3.5 GiB", 3.5),
        (" .5", 0.5),
        ("512MiB", 0.5),
        ("1536mb", 1.5),
        ("none", None),
        ("NONE", None),
    ],
)
def test_sizes_are_read_as_cards_are_sold(text: str, gib: float | None) -> None:
    assert parse_gib(text) == gib


@pytest.mark.parametrize("text", ["0", "0.0GiB", "-3", "", "much", "24 TB", "3..5", "nan", "inf", "1e3", "24GiBs"])
def test_anything_else_names_the_option_and_what_is_expected(text: str) -> None:
    with pytest.raises(UserError, match=r"^--budget .*expected a size such as 24, 24GB") as error:
        parse_gib(text, "--budget")
    assert "\n" not in str(error.value)
