"""Errors that are not the program's fault: `script.run` ends a script with one line about them."""

import errno
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PROXY_URL_REMEDY = "a proxy's URL is not valid: write # / @ in its password as %23 %2F %40"
LONGEST_WORDS = 200  # characters of another program's message that are worth showing


class InputError(Exception):
    """The caller's input, configuration or environment is wrong; the message names value, cause and remedy."""

    status = 2  # that a script ends with


class Unavailable(InputError):
    """No server answers: the same command may succeed later."""

    status = 75  # EX_TEMPFAIL of sysexits.h


def one_line(words: object) -> str:
    """The beginning of another program's message, as much of it as is worth showing, on one line."""
    return " ".join(str(words).split())[:LONGEST_WORDS]


@contextmanager
def explain_memory_errors(doing: str) -> Iterator[None]:
    """Turn torch's error that the GPU's memory does not suffice into an `InputError`.

    Args:
        doing: what was attempted, e.g. "embedding".

    Raises:
        InputError: for every `torch.OutOfMemoryError` raised inside the block.
    """
    import torch

    try:
        yield
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"out of GPU memory while {doing}; restart vLLM with a lower --gpu-memory-utilization, or pass --device cpu"
        ) from error


@contextmanager
def explain_os_errors(path: Path | str, doing: str) -> Iterator[None]:
    """Turn an `OSError` met while reading or writing `path` into an `InputError` that names cause and remedy.

    Args:
        path: the file or folder, for the message.
        doing: what was attempted, e.g. "write" or "read".

    Raises:
        InputError: for every `OSError` raised inside the block.
    """
    remedies = {
        errno.ENOSPC: "free some disk space and run again; nothing half-written was left behind",
        errno.EDQUOT: "free some of your disk quota and run again; nothing half-written was left behind",
        errno.EACCES: "check the permissions, or choose another place",
        errno.EPERM: "check the permissions, or choose another place",
        errno.EROFS: "the file system is read-only; choose another place",
        errno.ENOTDIR: "a file stands where a folder is needed; move it or choose another place",
        errno.EISDIR: "a folder stands where a file is needed; move it or choose another place",
        errno.EEXIST: "a file stands where a folder is needed; move it or choose another place",
        errno.ENOENT: "check the path",
    }
    try:
        yield
    except OSError as error:
        remedy = remedies.get(error.errno or 0, "check the path and the disk")
        raise InputError(f"cannot {doing} {path}: {error.strerror or error}; {remedy}") from error
