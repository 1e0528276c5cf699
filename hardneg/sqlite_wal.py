"""Sqlite files that several processes use at once: the write-ahead mode, and what to do about errors."""

import sqlite3
import time

BUSY_SECONDS = 60.0  # how long to wait for another process's transaction, which takes milliseconds


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


def remedy(error: sqlite3.DatabaseError, otherwise: str) -> str:
    """What to do about an error; `otherwise` where neither disk, nor another process, nor permissions are the cause."""
    code = getattr(error, "sqlite_errorname", "") or str(error)  # the name came with Python 3.11
    if "FULL" in code or "full" in code or "IOERR" in code or "disk I/O" in code:
        return "free some disk space (or raise the quota) and run again; what was stored is kept"
    if "BUSY" in code or "LOCKED" in code or "locked" in code:
        return f"another process has held it for {BUSY_SECONDS:.0f} s; stop that one and run again"
    if "READONLY" in code or "CANTOPEN" in code or "readonly" in code or "unable to open" in code:
        return "check the permissions of the file and its folder, or choose another place"
    return otherwise
