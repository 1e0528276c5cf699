"""argparse types that check a flag's value, and how help is shown; which flags there are is up to the scripts."""

import argparse
import math


class Help(argparse.RawDescriptionHelpFormatter):
    """A script's docstring as it is written, and each flag's default where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        has_none = any(action.default is none for none in (None, False, argparse.SUPPRESS))
        return text if has_none or "%(default)" in text else f"{text} (default: %(default)s)"


def positive_int(text: str) -> int:
    """A whole number of at least 1."""
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not at least 1")
    return number


def finite(text: str) -> float:
    """A number that is neither infinite nor NaN."""
    number = float(text)
    if not math.isfinite(number):
        raise argparse.ArgumentTypeError(f"{text} is no finite number")
    return number


def share(text: str) -> float:
    """A number from 0 to 1."""
    number = float(text)
    if not 0 <= number <= 1:
        raise argparse.ArgumentTypeError(f"{text} is not between 0 and 1")
    return number


def positive(text: str) -> float:
    """A finite number above 0."""
    number = finite(text)
    if number <= 0:
        raise argparse.ArgumentTypeError(f"{text} is not above 0")
    return number


def price(text: str) -> float:
    """A finite amount of money, not negative."""
    number = finite(text)
    if number < 0:
        raise argparse.ArgumentTypeError(f"{text} is negative")
    return number


def seed(text: str) -> int:
    """A seed that every library takes, with room for the iterations, which add their number to it."""
    number = int(text)
    if not 0 <= number < 2**31:
        raise argparse.ArgumentTypeError(f"{number} is not between 0 and {2**31 - 1}")
    return number
