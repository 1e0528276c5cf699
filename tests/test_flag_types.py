"""Ranges of command-line values, ends included; errors and help."""

import argparse
from collections.abc import Callable

import pytest

from hardneg.running.errors import InputError
from hardneg.running.flag_types import Parser, finite, kappa, positive, positive_int, price, seed, share


@pytest.mark.parametrize(
    ("kind", "text", "value"),
    [
        (positive_int, "1", 1),
        (share, "0", 0.0),
        (share, "1", 1.0),
        (positive, "3e-5", 3e-5),
        (price, "0", 0.0),
        (seed, "0", 0),
        (finite, "-2", -2.0),
        (kappa, "-1", -1.0),
        (kappa, "1", 1.0),
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
        (positive, "0"),
        (positive, "inf"),
        (price, "-1"),
        (price, "nan"),
        (seed, "-1"),
        (seed, str(2**31)),
        (finite, "inf"),
        (kappa, "-1.1"),
        (kappa, "nan"),
    ],
)
def test_refused(kind: Callable[[str], float], text: str) -> None:
    with pytest.raises(argparse.ArgumentTypeError):
        kind(text)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--rate", "0"], "argument --rate: 0 is not a finite number above 0; see --help"),
        (["--count", "ten"], "argument --count: invalid int value: 'ten'; see --help"),
        (["--count"], "argument --count: expected one argument; see --help"),
        (["--cuont", "1"], "unrecognized arguments: --cuont 1; see --help"),
    ],
)
def test_a_refused_command_line_is_one_line_that_says_why(
    flags: list[str], message: str, capsys: pytest.CaptureFixture[str]
) -> None:
    parser = Parser()
    parser.add_argument("--rate", type=positive)
    parser.add_argument("--count", type=positive_int)
    with pytest.raises(InputError) as refused:
        parser.parse_args(flags)
    assert (str(refused.value), *capsys.readouterr()) == (message, "", "")


def test_help_is_the_docstring_and_the_defaults_that_there_are() -> None:
    parser = Parser("Line one.\n\n    x --seed 7")
    parser.add_argument("--seed", default=42, help="of the sample")
    parser.add_argument("--target", default=0.15, help="share to reach (default: %(default).0f)")
    parser.add_argument("--pause", default=0, help="seconds")
    parser.add_argument("--graded", help="a file")
    parser.add_argument("--dry-run", action="store_true", help="only look")
    shown = parser.format_help()
    assert "\nLine one.\n\n    x --seed 7\n" in shown
    for words in (
        "of the sample (default: 42)\n",
        "share to reach (default: 0)\n",
        "seconds (default: 0)\n",
        "a file\n",
        "only look\n",
    ):
        assert words in shown
