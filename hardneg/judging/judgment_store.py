"""Every judgment ever paid for, in one sqlite file: asked once, kept through crashes, shared by processes and runs.

(Processes that want the same pair at the same moment all ask: each knows only what the others have stored.)

A judgment's key holds all that determines it (see `judgment_key`) except the length of the server's context: a passage
that was shortened to fit it counts as judged. Each `add` is one transaction in write-ahead mode: when it returns, the
judgments survive a kill of the process (`synchronous=NORMAL` leaves only the last moments before a power failure open).
Answers without a grade are kept in a table of their own for diagnosis and never come back as judgments, so that a later
run asks those pairs again.
"""

import hashlib
import json
import sqlite3
from collections.abc import Iterable, Iterator, Mapping
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

from hardneg.judging.judge_answers import Answer
from hardneg.running.errors import InputError, explain_os_errors
from hardneg.running.signals import held_signals
from hardneg.running.sqlite_wal import BUSY_SECONDS, explain_sqlite_errors, write_ahead

JUDGMENTS = "judgments.sqlite"  # the store in a data folder
SCHEMA_VERSION = 1

_SCHEMA = """
CREATE TABLE IF NOT EXISTS judgments (
    key TEXT PRIMARY KEY,           -- sha256 of model, whole prompt and decoding settings
    model TEXT NOT NULL,            -- as asked for
    answered_as TEXT NOT NULL,      -- as the server named itself
    prompt_sha256 TEXT NOT NULL,    -- of the prompt template, in texts
    query TEXT NOT NULL,
    passage_sha256 TEXT NOT NULL,   -- in texts
    grade REAL NOT NULL CHECK (grade BETWEEN 1 AND 4),
    p1 REAL, p2 REAL, p3 REAL, p4 REAL,
    content TEXT NOT NULL,          -- the model's words
    constrained_by TEXT NOT NULL,
    prompt_tokens INTEGER, cached_tokens INTEGER,
    created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS unjudged (
    key TEXT NOT NULL, model TEXT NOT NULL, query TEXT NOT NULL, passage_sha256 TEXT NOT NULL,
    reason TEXT NOT NULL, content TEXT NOT NULL, created_at TEXT NOT NULL
);
CREATE TABLE IF NOT EXISTS texts (sha256 TEXT PRIMARY KEY, text TEXT NOT NULL);
"""
_NAMES = "SELECT DISTINCT answered_as FROM judgments WHERE model = ?"
_EXPORT = """
SELECT j.*, prompt.text AS prompt, passage.text AS passage FROM judgments j
LEFT JOIN texts prompt ON prompt.sha256 = j.prompt_sha256
LEFT JOIN texts passage ON passage.sha256 = j.passage_sha256
ORDER BY j.created_at, j.key
"""


def sha256_text(text: str) -> str:
    """Hex SHA-256 of a text's UTF-8 bytes."""
    return hashlib.sha256(text.encode()).hexdigest()


def judgment_key(model: str, prompt: str, decoding: Mapping[str, Any]) -> str:
    """The key of one judgment: hex SHA-256 of the model, the whole prompt (question and passage in it) and decoding."""
    return sha256_text(json.dumps([model, prompt, decoding], sort_keys=True))


@dataclass(frozen=True, slots=True)
class StoredGrade:
    """What the store gives back: the expected grade, and the probabilities of grades 1-4 where there were any."""

    grade: float
    probabilities: tuple[float, float, float, float] | None


@dataclass(frozen=True, slots=True)
class Record:
    """One answer, and what it answers. With a grade it is a judgment; without one it is kept for diagnosis."""

    key: str
    model: str  # as asked for; `answer.model` is kept as `answered_as`
    prompt_template: str
    query: str
    passage: str  # as sent
    constrained_by: str
    answer: Answer


class JudgmentStore:
    """An open store; also a context manager. Use it from the thread that opened it."""

    def __init__(self, path: Path) -> None:
        """Open or create the store.

        Raises:
            InputError: the place cannot be written, or the file is damaged, no store, or of a newer version.
        """
        self.path = path
        with explain_os_errors(path, "write"):
            path.parent.mkdir(parents=True, exist_ok=True)
        with self._explain_errors(), ExitStack() as on_failure:
            self._db = sqlite3.connect(path, timeout=BUSY_SECONDS, isolation_level=None)
            on_failure.callback(self._db.close)
            self._prepare()
            on_failure.pop_all()

    def _prepare(self) -> None:
        self._db.row_factory = sqlite3.Row
        version = self._db.execute("PRAGMA user_version").fetchone()[0]
        if version > SCHEMA_VERSION:
            raise InputError(f"{self.path} was written by a newer version of this program; update, or move it away")
        if self._is_foreign():
            raise InputError(f"{self.path} is some other program's database; move it away, or take another --data-dir")
        write_ahead(self._db)
        self._db.execute("PRAGMA synchronous = NORMAL")
        if version < SCHEMA_VERSION:
            self._db.executescript(f"BEGIN IMMEDIATE; {_SCHEMA} PRAGMA user_version = {SCHEMA_VERSION}; COMMIT;")

    def _is_foreign(self) -> bool:
        """Whether there are tables, but not ours, which another process may have created a moment ago."""
        tables = {name for (name,) in self._db.execute("SELECT name FROM sqlite_master WHERE type = 'table'")}
        return bool(tables) and "judgments" not in tables

    def get(self, key: str) -> StoredGrade | None:
        """The judgment stored under `key`, if there is one. Raises InputError where the file cannot be read."""
        with self._explain_errors():
            row = self._db.execute("SELECT grade, p1, p2, p3, p4 FROM judgments WHERE key = ?", (key,)).fetchone()
        if row is None:
            return None
        grade, *probabilities = row
        return StoredGrade(grade, None if probabilities[0] is None else tuple(probabilities))

    def answered_as(self, model: str) -> set[str]:
        """How servers named themselves that were asked for this model. Raises InputError where it cannot be read."""
        with self._explain_errors():
            return {name for (name,) in self._db.execute(_NAMES, (model,)) if name}

    def add(self, records: Iterable[Record]) -> None:
        """Store records in one transaction; durable against a kill when this returns. Of one key the first stays.

        A signal to stop waits for the transaction's end: between two instructions it could leave one open.

        Raises:
            InputError: the disk is full, the place cannot be written, or another process blocks the file; then none
                of these records is stored.
        """
        records = list(records)
        now = datetime.now(timezone.utc).isoformat(timespec="milliseconds")
        judged = [record for record in records if record.answer.grade is not None]
        unjudged = [record for record in records if record.answer.grade is None]
        with held_signals(), self._explain_errors(), self._transaction():
            self._db.executemany("INSERT INTO texts VALUES (?, ?) ON CONFLICT DO NOTHING", _texts(judged))
            self._db.executemany(
                f"INSERT INTO judgments VALUES ({','.join('?' * 16)}) ON CONFLICT (key) DO NOTHING",
                (_row(record, now) for record in judged),
            )
            self._db.executemany(
                "INSERT INTO unjudged VALUES (?, ?, ?, ?, ?, ?, ?)",
                (_unjudged_row(record, now) for record in unjudged),
            )

    def __len__(self) -> int:
        """How many judgments are stored."""
        with self._explain_errors():
            return self._db.execute("SELECT count(*) FROM judgments").fetchone()[0]

    def __iter__(self) -> Iterator[dict[str, Any]]:
        """All judgments as dicts of builtins, oldest first, with `probabilities`, `prompt` and `passage` texts."""
        with self._explain_errors():
            for row in self._db.execute(_EXPORT):
                record = dict(row)
                probabilities = [record.pop(name) for name in ("p1", "p2", "p3", "p4")]
                record["probabilities"] = None if probabilities[0] is None else probabilities
                yield record

    def close(self) -> None:
        """Close the file. What was added is already safe."""
        self._db.close()

    def __enter__(self) -> "JudgmentStore":
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    @contextmanager
    def _transaction(self) -> Iterator[None]:
        try:
            self._db.execute("BEGIN IMMEDIATE")
            yield
            self._db.execute("COMMIT")
        finally:
            if self._db.in_transaction:  # not committed; a full disk may have ended it
                self._db.execute("ROLLBACK")

    def _explain_errors(self) -> AbstractContextManager[None]:
        otherwise = "it is damaged or no judgment store; move it away (with its -wal file) and run again"
        return explain_sqlite_errors(f"the judgment store {self.path}", otherwise)


def _texts(records: list[Record]) -> Iterator[tuple[str, str]]:
    distinct = {text for record in records for text in (record.prompt_template, record.passage)}
    return ((sha256_text(text), text) for text in distinct)


def _row(record: Record, now: str) -> tuple[Any, ...]:
    answer = record.answer
    return (
        record.key,
        record.model,
        answer.model,
        sha256_text(record.prompt_template),
        record.query,
        sha256_text(record.passage),
        answer.grade,
        *(answer.probabilities or (None,) * 4),
        answer.content,
        record.constrained_by,
        answer.prompt_tokens,
        answer.cached_tokens,
        now,
    )


def _unjudged_row(record: Record, now: str) -> tuple[Any, ...]:
    answer = record.answer
    passage_sha256 = sha256_text(record.passage)
    return record.key, record.model, record.query, passage_sha256, answer.reason or "", answer.content, now
