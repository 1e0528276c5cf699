"""Sqlite files that several processes use at once: the write-ahead mode, and errors in clear words."""

import sqlite3
import time
from collections.abc import Iterator
from contextlib import contextmanager

from hardneg.running.errors import InputError

BUSY_SECONDS = 60.0  # how long to wait for another process's transaction, which takes milliseconds
_LOCAL_DISK = "move --data-dir to a local disk"


def write_ahead(connection: sqlite3.Connection) -> None:
    """Switch the database to write-ahead mode, in which readers and a writer do not wait for each other.

    Of two processes that do this to a new file at once, sqlite refuses one without waiting: it tries again.

    Raises:
        sqlite3.Error: the file is no database, cannot be written, or is held for more than BUSY_SECONDS.
    """
    deadline = time.monotonic() + BUSY_SECONDS
    while True:
        try:
            connection.execute("PRAGMA journal_mode = WAL")
            return
        except sqlite3.OperationalError as error:
            if "locked" not in str(error) or time.monotonic() > deadline:
                raise
        time.sleep(0.01)


@contextmanager
def explain_sqlite_errors(what: str, otherwise: str) -> Iterator[None]:
    """Turn what the disk, another process or a damaged file do to a database into an `InputError` of one line.

    Args:
        what: the file and what it is, for the message.
        otherwise: the remedy where neither disk nor locks, another process nor permissions are the cause.

    Raises:
        InputError: for every `sqlite3.DatabaseError` within the block, except the program's own mistakes.
    """
    try:
        yield
    except (sqlite3.IntegrityError, sqlite3.ProgrammingError):
        raise
    except sqlite3.DatabaseError as error:
        raise InputError(f"cannot use {what}: {error}; {_remedy(error, otherwise)}") from error


def _remedy(error: sqlite3.DatabaseError, otherwise: str) -> str:
    code = getattr(error, "sqlite_errorname", "") or str(error)  # the name came with Python 3.11
    # PERM is of locks alone: permissions are READONLY or CANTOPEN. Of IOERR_LOCK and the like only the name tells.
    if code.endswith(("PROTOCOL", "_PERM", "LOCK", "locking protocol", "access permission denied")):
        return f"its file system has no locks (NFS?), the file is not damaged; {_LOCAL_DISK} and run again"
    if "FULL" in code or "full" in code or "IOERR" in code or "disk I/O" in code:
        return "free some disk space (or raise the quota) and run again; what was stored is kept"
    if "BUSY" in code or "LOCKED" in code or "locked" in code:
        return (
            f"another process has held it for {BUSY_SECONDS:.0f} s, or its file system has no locks (NFS?); stop that "
            f"one, or {_LOCAL_DISK}, and run again"
        )
    if "READONLY" in code or "CANTOPEN" in code or "readonly" in code or "unable to open" in code:
        return "check the permissions of the file and its folder, or choose another place"
    return otherwise
