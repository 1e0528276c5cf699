"""Ranges of command-line values, ends included."""

import argparse
from collections.abc import Callable

import pytest

from hardneg.flag_types import finite, positive_int, price, seed, share


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (positive_int, "1", 1),
        (share, "0", 0.0),
        (share, "1", 1.0),
        (price, "0", 0.0),
        (seed, "0", 0),
        (finite, "-2", -2.0),
    ],
)
def test_taken(kind: Callable[[str], float], text: str, value: float) -> None:
    assert kind(text) == value


@pytest.mark.parametrize(
    ("kind", "text"),
    [
        (positive_int, "0"),
        (share, "-0.1"),
        (share, "1.1"),
        (share, "nan"),
        (price, "-1"),
        (price, "nan"),
        (seed, "-1"),
        (seed, str(2**31)),
        (finite, "inf"),
    ],
)
def test_refused(kind: Callable[[str], float], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        kind(text)
