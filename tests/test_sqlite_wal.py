"""Write-ahead mode: switched on by many processes at once, none of which is turned away; errors in clear words."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hardneg.running.errors import InputError
from hardneg.running.sqlite_wal import explain_sqlite_errors, write_ahead

_OPEN = """
import sqlite3, sys, time
from hardneg.running.sqlite_wal import write_ahead
connection = sqlite3.connect(sys.argv[1])
while time.time() < float(sys.argv[2]):
    pass
write_ahead(connection)
"""


def test_processes_that_create_a_file_at_once_all_get_it(tmp_path: Path) -> None:
    """Without trying again, some rounds refuse a process here, and some do not."""
    for number in range(4):
        start = str(time.time() + 0.5)
        command = [sys.executable, "-c", _OPEN, str(tmp_path / f"{number}.sqlite"), start]
        openers = [subprocess.Popen(command) for _ in range(6)]
        assert [opener.wait(60) for opener in openers] == [0] * 6


def test_a_lock_that_another_connection_holds_is_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    waiting = sqlite3.connect(tmp_path / "x.sqlite", timeout=0)
    naps: list[float] = []

    def nap(seconds: float) -> None:
        naps.append(seconds)
        if len(naps) == 3:
            holder.execute("COMMIT")

    monkeypatch.setattr("hardneg.running.sqlite_wal.time.sleep", nap)
    write_ahead(waiting)
    assert len(naps) == 3
    assert waiting.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_lock_that_is_never_released_ends_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("hardneg.running.sqlite_wal.BUSY_SECONDS", 0.05)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        write_ahead(sqlite3.connect(tmp_path / "x.sqlite", timeout=0))


def test_another_error_is_not_waited_out(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    sqlite3.connect(tmp_path / "x.sqlite").execute("CREATE TABLE x (y)")
    naps: list[float] = []
    monkeypatch.setattr("hardneg.running.sqlite_wal.BUSY_SECONDS", 0.05)
    monkeypatch.setattr("hardneg.running.sqlite_wal.time.sleep", naps.append)
    with pytest.raises(sqlite3.OperationalError, match="readonly"):
        write_ahead(sqlite3.connect(f"file:{tmp_path / 'x.sqlite'}?mode=ro", uri=True))
    assert not naps


@pytest.mark.parametrize("mistake", [sqlite3.ProgrammingError("closed"), sqlite3.IntegrityError("CHECK failed")])
def test_the_program_s_own_mistakes_stay_what_they_are(mistake: sqlite3.Error) -> None:
    with pytest.raises(type(mistake)), explain_sqlite_errors("the store x.sqlite", "move it away"):
        raise mistake


@pytest.mark.parametrize(
    ("message", "name", "told"),
    [
        (
            "locking protocol",
            "SQLITE_PROTOCOL",
            "has no locks (NFS?), the file is not damaged; move --data-dir to a local",
        ),
        ("access permission denied", "SQLITE_PERM", "has no locks (NFS?), the file is not damaged"),
        ("locking protocol", "", "the file is not damaged"),  # Python 3.10 has no names
        ("access permission denied", "", "the file is not damaged"),
        ("disk I/O error", "SQLITE_IOERR_LOCK", "the file is not damaged"),
        ("disk I/O error", "SQLITE_IOERR_WRITE", "free some disk space"),
        (
            "database is locked",
            "SQLITE_BUSY",
            "for 60 s, or its file system has no locks (NFS?); stop that one, or move",
        ),
        ("database is locked", "", "another process has held it for 60 s, or its file system has no locks (NFS?)"),
        ("database table is locked", "SQLITE_LOCKED", "another process has held it for 60 s"),
        ("disk I/O error", "", "free some disk space"),
        ("database or disk is full", "SQLITE_FULL", "free some disk space"),
        ("database or disk is full", "", "free some disk space"),
        ("attempt to write a readonly database", "SQLITE_READONLY", "check the permissions"),
        ("attempt to write a readonly database", "", "check the permissions"),
        ("unable to open database file", "SQLITE_CANTOPEN", "check the permissions"),
        ("unable to open database file", "", "check the permissions"),
        ("database disk image is malformed", "SQLITE_CORRUPT", "move it away"),
    ],
)
def test_the_remedy_fits_the_cause(message: str, name: str, told: str) -> None:
    """Where fcntl() fails, sqlite says BUSY or PROTOCOL of ENOLCK, PERM of EPERM, IOERR_LOCK of others."""
    error = sqlite3.OperationalError(message)
    if name:
        vars(error)["sqlite_errorname"] = name  # which Python 3.10 does not know
    with pytest.raises(InputError) as explained, explain_sqlite_errors("the store x.sqlite", "move it away"):
        raise error
    assert str(explained.value).startswith(f"cannot use the store x.sqlite: {message}; ")
    assert told in str(explained.value)
    assert ("move it away" in str(explained.value)) == (told == "move it away")
