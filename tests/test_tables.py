"""Aligned tables."""

import doctest

from hardneg import tables
from hardneg.tables import aligned


def test_worked_example_of_the_docstring() -> None:
    results = doctest.testmod(tables)
    assert results.attempted == 1
    assert results.failed == 0


def test_empty_cells_and_fractions() -> None:
    assert aligned([("", "mean"), ("train", 1234.5)]) == "            mean\n  train  1,234.5"
