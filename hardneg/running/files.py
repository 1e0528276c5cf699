"""Files written whole or not at all, and read with a clear error: pickles of builtins, JSON, text."""

import hashlib
import io
import json
import os
import pickle
import re
import secrets
import shutil
import sys
import tempfile
from collections.abc import Iterable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

from hardneg.running.errors import InputError, explain_os_errors

_LEFTOVER = re.compile(r"\.(.+)\.[^.]+\.(?:tmp|old)")  # how atomic_file and atomic_dir name what is not done


@contextmanager
def atomic_file(path: Path) -> Iterator[Path]:
    """Yield a temporary path beside `path`, renamed onto it when the block ends well and removed when it does not.

    A link stays one: what it points to is replaced.

    Raises:
        InputError: the place cannot be written (disk full, no permission, a folder or a device in the way).
    """
    with explain_os_errors(path, "write"):
        path = _real(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        temporary.touch(exist_ok=False)
        try:
            yield temporary
            _sync(temporary)
            temporary.replace(path)
        finally:
            temporary.unlink(missing_ok=True)


@contextmanager
def atomic_dir(path: Path) -> Iterator[Path]:
    """Yield a temporary folder beside `path` that takes its place when the block ends well.

    An older folder at `path` is replaced; a link stays one. A kill leaves no half-written folder at `path`: the old
    one, the new one, or (between two renames) none, beside hidden `.tmp` or `.old` folders that `clear_leftovers`
    deletes.

    Raises:
        InputError: the place cannot be written.
    """
    with explain_os_errors(path, "write"):
        path = Path(os.path.realpath(path))
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary = _beside(path)
        retired = temporary.with_suffix(".old")
        temporary.mkdir()
        try:
            yield temporary
            for inside in temporary.rglob("*"):
                if inside.is_file():
                    _sync(inside)  # a machine lost after the rename must not come back with half of a model
            if path.exists():
                path.rename(retired)
            temporary.rename(path)
        finally:
            if retired.exists() and not path.exists():  # stopped between the two renames
                retired.rename(path)
            shutil.rmtree(temporary, ignore_errors=True)
            shutil.rmtree(retired, ignore_errors=True)


def _beside(path: Path) -> Path:
    """A new name beside `path`, of the form that `clear_leftovers` knows."""
    return path.with_name(f".{path.name}.{secrets.token_hex(4)}.tmp")


def clear_leftovers(folder: Path, names: str) -> None:
    """Delete what killed writes left in `folder`; only for a caller who knows that nobody else writes there.

    Where a link leads elsewhere, what was written through it left its pieces there, and nobody knows who else writes
    there: they stay.

    Args:
        folder: where `atomic_file` and `atomic_dir` wrote.
        names: a pattern of the whole names of what they wrote; leftovers of others stay.

    Raises:
        InputError: the folder cannot be read.
    """
    with explain_os_errors(folder, "clear"):
        for path in list(folder.iterdir()):
            match = _LEFTOVER.fullmatch(path.name)
            if match and re.fullmatch(names, match[1]):
                _delete(path)


def _delete(path: Path) -> None:
    """Delete a file or a folder, or as much of it as can be."""
    if path.is_dir():
        shutil.rmtree(path, ignore_errors=True)
    else:
        path.unlink(missing_ok=True)


def existing_place(folder: Path) -> Path:
    """The folder, or the nearest above it that is there."""
    return next(place for place in (folder.absolute(), *folder.absolute().parents) if place.is_dir())


def free_disk(folder: Path) -> int:
    """Free bytes of the disk that holds `folder`, or would hold it; no limit where that tells no size of itself."""
    usage = shutil.disk_usage(existing_place(folder))
    return usage.free if usage.total else sys.maxsize


def check_writable(path: Path) -> None:
    """Raise InputError where no file can be written at `path`, so that this is known before the work is done."""
    with explain_os_errors(path, "write"):
        path = _real(path)
        path.parent.mkdir(parents=True, exist_ok=True)
        tempfile.TemporaryFile(dir=path.parent).close()


def _real(path: Path) -> Path:
    """The file that a path, which may be a link, stands for. Raises InputError where no file can take its place."""
    if path.is_dir():
        raise InputError(f"{path} is a folder; name a file")
    if path.exists() and not path.is_file():
        raise InputError(f"{path} is a device or a pipe, which a finished file would replace; name another")
    # A link in a circle is what it stands for, and replaced; before Python 3.13 `Path.resolve` raises for it.
    return Path(os.path.realpath(path))


def _sync(path: Path) -> None:
    """Wait until a file's content is on the disk."""
    with path.open("rb") as file:
        os.fsync(file.fileno())


def write_files(folder: Path, contents: Mapping[str, bytes]) -> None:
    """Write several files so that all of them appear, in the order given, or none.

    The last one marks that all are there: its older version goes before the first of the others is replaced.

    Args:
        folder: where to.
        contents: bytes by file name.

    Raises:
        InputError: the place cannot be written.
    """
    names = list(contents)
    marker = _real(folder / names[-1])
    with ExitStack() as stack:
        for name in reversed(names):  # a stack: what is entered last is renamed first
            temporary = stack.enter_context(atomic_file(folder / name))
            with explain_os_errors(folder / name, "write"):
                temporary.write_bytes(contents[name])
                _sync(temporary)  # here already, so that the renames below follow each other at once
        with explain_os_errors(marker, "replace"):
            marker.unlink(missing_ok=True)


def write_json(path: Path, value: Any) -> None:
    """Write indented JSON atomically. Raises InputError where the place cannot be written."""
    with atomic_file(path) as temporary:
        temporary.write_bytes(json_bytes(value))


def write_json_lines(path: Path, records: Iterable[Any]) -> int:
    """Write one line of JSON per record, whole or not at all, and return their number. Raises as `write_json`."""
    count = 0
    with atomic_file(path) as temporary, temporary.open("w", encoding="utf-8") as file:
        for record in records:
            file.write(json.dumps(record, ensure_ascii=False) + "\n")
            count += 1
    return count


def json_bytes(value: Any) -> bytes:
    """Indented JSON in UTF-8, paths as text; what UTF-8 cannot hold, as in odd file names, as JSON's own escapes."""
    text = json.dumps(value, indent=2, ensure_ascii=False, default=os.fspath)
    return (text + "\n").encode(errors="backslashreplace")


def pickle_bytes(records: list[Any]) -> bytes:
    """Builtin records as a pickle."""
    return pickle.dumps(records, protocol=pickle.HIGHEST_PROTOCOL)


class _BuiltinsUnpickler(pickle.Unpickler):
    """Refuses every global: lists, dicts, strings and numbers need none, and a global is what runs code."""

    def find_class(self, module: str, name: str) -> Any:
        raise pickle.UnpicklingError(f"it refers to {module}.{name}")


def read_pickle(path: Path, sha256: str | None, remedy: str) -> Any:
    """Read a pickle of builtin objects if it is the very file that is meant, without ever running code from it.

    Args:
        path: the pickle.
        sha256: the hex checksum that manifest.json tells of it, None where it tells of none.
        remedy: what helps where it cannot be read, for the error.

    Raises:
        InputError: the file is missing, is another or not whole, or holds anything but builtins.
    """
    payload = _read(path, remedy)
    if hashlib.sha256(payload).hexdigest() != sha256:
        raise InputError(
            f"{path} is not the file that manifest.json tells of (damaged, or just replaced); run again, or {remedy}"
        )
    try:
        return _BuiltinsUnpickler(io.BytesIO(payload)).load()
    except pickle.UnpicklingError as error:
        raise InputError(f"{path} holds more than plain lists and dicts ({error}); {remedy}") from error


def read_json(path: Path, remedy: str) -> Any:
    """Read JSON. Raises InputError with that remedy where the file is missing or no JSON."""
    content = _read(path, remedy)
    try:
        return json.loads(content)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{path} is not JSON ({error}); {remedy}") from error


def read_text(path: Path) -> str:
    """A text file in UTF-8, without the mark that some editors put first. Raises InputError where it is none."""
    try:
        with explain_os_errors(path, "read"):
            return path.read_text(encoding="utf-8-sig")
    except UnicodeDecodeError as error:
        reason = f"{error.reason} at byte {error.start}"
        raise InputError(f"{path} is not UTF-8 text ({reason}); save it as UTF-8") from error


def _read(path: Path, remedy: str) -> bytes:
    with explain_os_errors(path, "read"):
        if not path.exists():
            raise InputError(f"{path} is missing; {remedy}")
        return path.read_bytes()


def sha256_file(path: Path) -> str:
    """Hex SHA-256 of a file's bytes. Raises InputError where it cannot be read."""
    digest = hashlib.sha256()
    with explain_os_errors(path, "read"), path.open("rb") as file:
        while block := file.read(1 << 20):
            digest.update(block)
    return digest.hexdigest()
