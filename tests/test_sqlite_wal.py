"""Write-ahead mode: switched on by many processes at once, none of which is turned away."""

import sqlite3
import subprocess
import sys
import time
from pathlib import Path

import pytest

from hardneg.sqlite_wal import write_ahead

_OPEN = """
import sqlite3, sys, time
from hardneg.sqlite_wal import write_ahead
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

    monkeypatch.setattr("hardneg.sqlite_wal.time.sleep", nap)
    write_ahead(waiting)
    assert len(naps) == 3
    assert waiting.execute("PRAGMA journal_mode").fetchone() == ("wal",)


def test_a_lock_that_is_never_released_ends_in_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    holder = sqlite3.connect(tmp_path / "x.sqlite", isolation_level=None)
    holder.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("hardneg.sqlite_wal.BUSY_SECONDS", 0.05)
    with pytest.raises(sqlite3.OperationalError, match="locked"):
        write_ahead(sqlite3.connect(tmp_path / "x.sqlite", timeout=0))
