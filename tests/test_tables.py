"""Aligned tables, and texts on one line."""

import pytest

from hardneg.running.tables import aligned, excerpt


def test_empty_cells_and_fractions() -> None:
    assert aligned([("", "mean"), ("train", 1234.5)]) == "            mean\n  train  1,234.5"


def test_lines_end_without_blanks() -> None:
    assert aligned([("a", 10), ("b", "")], indent="") == "a  10\nb"


@pytest.mark.parametrize(
    ("text", "width", "shown"),
    [
        ("Gout", 25, "Gout"),  # whole, though less than half the width
        ("What is\n gout?", 13, "What is gout?"),
        ("a b\nhttps://example.org/gout", 20, "a b https://ex [...]"),  # "a b [...]" would be less than half of it
        ("https://example.org/gout", 24, "https://example.org/gout"),
    ],
)
def test_an_excerpt_is_one_line_of_the_width(text: str, width: int, shown: str) -> None:
    assert excerpt(text, width) == shown
