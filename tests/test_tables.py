"""Aligned tables."""

from hardneg.tables import aligned


def test_empty_cells_and_fractions() -> None:
    assert aligned([("", "mean"), ("train", 1234.5)]) == "            mean\n  train  1,234.5"
