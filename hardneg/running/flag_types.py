"""How a command line is read: values that are checked, errors, help; which flags there are is up to the scripts."""

import argparse
import math
from collections.abc import Callable
from typing import NoReturn, TypeVar

from hardneg.running.errors import InputError

T = TypeVar("T", int, float)


class Help(argparse.RawDescriptionHelpFormatter):
    """A script's docstring as it is written, and each flag's default where it has one."""

    def _get_help_string(self, action: argparse.Action) -> str:
        text = action.help or ""
        has_none = any(action.default is none for none in (None, False, argparse.SUPPRESS))
        return text if has_none or "%(default)" in text else f"{text} (default: %(default)s)"


class Parser(argparse.ArgumentParser):
    """Shows help as `Help` does, and refuses a command line as the scripts refuse any other input."""

    def __init__(self, description: str | None = None) -> None:
        super().__init__(description=description, formatter_class=Help)

    def error(self, message: str) -> NoReturn:
        """Raise InputError, where argparse would print how the script is used and exit."""
        raise InputError(f"{message}; see --help")


def checked(kind: Callable[[str], T], is_taken: Callable[[T], bool], wanted: str) -> Callable[[str], T]:
    """An argparse type: `kind` of the text, where `is_taken` holds; otherwise an error says what is `wanted`."""

    def parse(text: str) -> T:
        value = kind(text)
        if not is_taken(value):
            raise argparse.ArgumentTypeError(f"{text} is not {wanted}")
        return value

    parse.__name__ = kind.__name__  # argparse: "invalid int value: 'ten'"
    return parse


positive_int = checked(int, lambda value: value >= 1, "at least 1")
finite = checked(float, math.isfinite, "a finite number")
positive = checked(float, lambda value: 0 < value < math.inf, "a finite number above 0")
share = checked(float, lambda value: 0 <= value <= 1, "between 0 and 1")
kappa = checked(float, lambda value: -1 <= value <= 1, "between -1 and 1")
price = checked(float, lambda value: 0 <= value < math.inf, "a finite price from 0 on")
# What every library takes, with room for the iterations, which add their number to it.
seed = checked(int, lambda value: 0 <= value < 2**31, f"between 0 and {2**31 - 1}")
