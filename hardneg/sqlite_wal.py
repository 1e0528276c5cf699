"""Sqlite's write-ahead mode, for files that several processes use at once."""

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
