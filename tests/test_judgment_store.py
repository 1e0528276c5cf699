"""The judgment store: durable, shared, and clear about trouble."""

import json
import re
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Callable
from itertools import count
from pathlib import Path
from types import FrameType
from typing import Any

import pytest

from hardneg.judging.judge_answers import Answer
from hardneg.judging.judgment_store import JudgmentStore, Record, StoredGrade, judgment_key, sha256_text
from hardneg.running.errors import InputError
from hardneg.running.files import write_json_lines


def make_record(number: int, grade: float | None = 3.25, has_probabilities: bool = True) -> Record:
    answer = Answer(
        content="4" if grade else "Score: 4",
        model="m-2",
        grade=grade,
        probabilities=(0.0, 0.25, 0.25, 0.5) if grade and has_probabilities else None,
        reason=None if grade else "not a grade",
        prompt_tokens=120,
    )
    return Record(
        key=judgment_key("m", f"prompt {number}", {"temperature": 0}),
        model="m",
        prompt_template="Q {query} P {passage}",
        query=f"question {number}",
        passage="the passage\nwith “quotes”",
        constrained_by="choice",
        answer=answer,
    )


def first_of(store: JudgmentStore) -> dict[str, Any]:
    return next(iter(store))


def test_what_was_added_is_found_again_after_opening_anew(tmp_path: Path) -> None:
    path = tmp_path / "new" / "data" / "judgments.sqlite"
    first, second = make_record(1), make_record(2, grade=2.0, has_probabilities=False)
    with JudgmentStore(path) as store:
        store.add([first, second])
    with JudgmentStore(path) as store:
        assert store.get(first.key) == StoredGrade(3.25, (0.0, 0.25, 0.25, 0.5))
        assert store.get(second.key) == StoredGrade(2.0, None)
        assert store.get("missing") is None
        assert len(store) == 2
        assert [store.answered_as(model) for model in ("m", "m-2", "n")] == [{"m-2"}, set(), set()]


def test_the_first_judgment_of_a_key_stays(tmp_path: Path) -> None:
    with JudgmentStore(tmp_path / "j.sqlite") as store:
        store.add([make_record(1, grade=3.0)])
        store.add([make_record(1, grade=1.0)])
        assert len(store) == 1 and store.get(make_record(1).key).grade == 3.0  # type: ignore[union-attr]


def test_unjudged_answers_are_kept_but_never_come_back(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with JudgmentStore(path) as store:
        store.add([make_record(1, grade=None)])
        assert len(store) == 0 and store.get(make_record(1).key) is None and list(store) == []
    columns = "key, model, query, passage_sha256, reason, content"
    rows = sqlite3.connect(path).execute(f"SELECT {columns} FROM unjudged").fetchall()
    passage = sha256_text("the passage\nwith “quotes”")
    assert rows == [(make_record(1).key, "m", "question 1", passage, "not a grade", "Score: 4")]


def test_records_of_both_kinds_may_come_from_a_generator(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with JudgmentStore(path) as store:
        store.add(make_record(number, grade) for number, grade in enumerate((None, 2.0, None)))
        assert len(store) == 1
    assert sqlite3.connect(path).execute("SELECT count(*) FROM unjudged").fetchone() == (2,)


def test_the_key_tells_apart_model_prompt_and_decoding() -> None:
    keys = {
        judgment_key(model, prompt, {"temperature": temperature})
        for model in ("a", "b")
        for prompt in ("c", "d")
        for temperature in (0, 1)
    }
    assert len(keys) == 8
    assert judgment_key("a", "c", {"x": 1, "y": 2}) == judgment_key("a", "c", {"y": 2, "x": 1})


def test_the_key_does_not_change_between_versions() -> None:
    """Changing this throws away every judgment ever paid for."""
    expected = "261977d99f125e3cb3ef9e077ebf19904d1c94b414b78c123c9638d09060747f"
    assert judgment_key("m", "a prompt", {"temperature": 0, "seed": 0}) == expected


@pytest.mark.parametrize("grade", [0.5, 4.5])
def test_a_grade_outside_1_to_4_is_refused_and_nothing_of_its_batch_is_stored(tmp_path: Path, grade: float) -> None:
    with JudgmentStore(tmp_path / "j.sqlite") as store:
        with pytest.raises(sqlite3.IntegrityError, match="CHECK"):
            store.add([make_record(1), make_record(2, grade=grade)])
        assert len(store) == 0


def test_export_is_one_readable_line_per_judgment(tmp_path: Path) -> None:
    with JudgmentStore(tmp_path / "j.sqlite") as store:
        store.add([make_record(number) for number in range(3)])
        assert write_json_lines(tmp_path / "out.jsonl", store) == 3
    lines = [json.loads(line) for line in (tmp_path / "out.jsonl").read_text(encoding="utf-8").splitlines()]
    assert {line["query"] for line in lines} == {f"question {n}" for n in range(3)}
    assert lines[0]["passage"] == "the passage\nwith “quotes”" and lines[0]["prompt"] == "Q {query} P {passage}"
    assert lines[0]["probabilities"] == [0.0, 0.25, 0.25, 0.5] and lines[0]["grade"] == 3.25
    names = ("model", "answered_as", "content", "constrained_by", "prompt_tokens", "cached_tokens")
    assert [lines[0][name] for name in names] == ["m", "m-2", "4", "choice", 120, None]
    assert re.fullmatch(r"20\d\d-\d\d-\d\dT\d\d:\d\d:\d\d\.\d{3}\+00:00", lines[0]["created_at"])


def test_the_oldest_come_first_in_the_export_and_those_of_one_batch_by_key(tmp_path: Path) -> None:
    batches = [[make_record(number) for number in numbers] for numbers in (range(5), range(5, 10))]
    with JudgmentStore(tmp_path / "j.sqlite") as store:
        for batch in batches:
            store.add(batch)
            time.sleep(0.002)  # times are kept in milliseconds
        exported = [judgment["key"] for judgment in store]
    assert exported == [key for batch in batches for key in sorted(record.key for record in batch)]
    assert exported != sorted(exported)


_WRITER = """
import sys
from pathlib import Path
from tests.test_judgment_store import JudgmentStore, make_record
with JudgmentStore(Path(sys.argv[1])) as store:
    for number in range(int(sys.argv[2]), int(sys.argv[3])):
        store.add([make_record(number)])
"""


def test_two_processes_write_at_once(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    ranges = [("0", "400"), ("200", "600")]  # half of them the same
    writers = [subprocess.Popen([sys.executable, "-c", _WRITER, str(path), *limits]) for limits in ranges]
    assert [writer.wait(60) for writer in writers] == [0, 0]
    with JudgmentStore(path) as store:
        assert len(store) == 600


def test_a_full_disk_is_clear_and_loses_nothing_stored(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with JudgmentStore(path) as store:
        store._db.execute(f"PRAGMA max_page_count = {store._db.execute('PRAGMA page_count').fetchone()[0] + 20}")
        stored = 0
        with pytest.raises(InputError, match="free some disk space"):
            for stored in range(1000):
                store.add([make_record(stored)])
        assert 0 < stored == len(store)
    with JudgmentStore(path) as store:
        store.add([make_record(stored)])
        assert len(store) == stored + 1


_LIMITED = """
import resource, sys
from pathlib import Path
from hardneg.running.script import run
from tests.test_judgment_store import JudgmentStore, make_record
def main():
    with JudgmentStore(Path(sys.argv[1])) as store:
        resource.setrlimit(resource.RLIMIT_FSIZE, (200_000, resource.RLIM_INFINITY))
        for number in range(10_000):
            store.add([make_record(number)])
            print(number, flush=True)
run(main)
"""


def test_a_write_that_fails_ends_the_program_clearly_and_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    ended = subprocess.run([sys.executable, "-c", _LIMITED, str(path)], capture_output=True, text=True, check=False)
    assert ended.returncode == 2 and ended.stderr.startswith("error: ") and ended.stderr.count("\n") == 1
    assert "free some disk space" in ended.stderr and str(path) in ended.stderr
    with JudgmentStore(path) as store:
        assert len(store) == len(ended.stdout.split()) > 10


@pytest.mark.parametrize("content", [b"not a database at all" * 100, b"SQLite format 3\0" + b"\xff" * 5000])
def test_a_damaged_file_is_clear_and_left_alone(content: bytes, tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    path.write_bytes(content)
    with pytest.raises(InputError, match="damaged or no judgment store; move it away"):
        JudgmentStore(path)
    assert path.read_bytes() == content


def test_a_store_cut_short_is_clear(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with JudgmentStore(path) as store:
        store.add([make_record(number) for number in range(500)])
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    with pytest.raises(InputError, match="move it away"), JudgmentStore(path) as store:
        list(store)


@pytest.mark.parametrize("read", [lambda store: store.get("x"), lambda store: store.answered_as("m"), len, first_of])
def test_a_store_with_damaged_pages_is_clear(tmp_path: Path, read: Callable[[JudgmentStore], object]) -> None:
    path = tmp_path / "j.sqlite"
    with JudgmentStore(path) as store:
        store.add([make_record(number) for number in range(500)])
    whole = path.read_bytes()
    path.write_bytes(whole[:4096] + b"\xff" * (len(whole) - 4096))  # the first page tells of the tables
    with JudgmentStore(path) as store, pytest.raises(InputError, match="damaged or no judgment store; move it away"):
        read(store)


def test_a_store_is_opened_and_read_while_another_process_writes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "j.sqlite"
    with JudgmentStore(path) as store:
        store.add([make_record(1)])
        waits, syncs = (store._db.execute(f"PRAGMA {name}").fetchone()[0] for name in ("busy_timeout", "synchronous"))
    assert (waits, syncs) == (60_000, 1)  # a minute in milliseconds, and NORMAL
    writer = sqlite3.connect(path, isolation_level=None)
    writer.execute("BEGIN EXCLUSIVE")
    monkeypatch.setattr("hardneg.judging.judgment_store.BUSY_SECONDS", 0)
    with JudgmentStore(path) as store:
        assert len(store) == 1
        with pytest.raises(InputError, match="another process has held it"):
            store.add([make_record(2)])
    writer.execute("ROLLBACK")


def test_a_store_that_another_process_has_just_created_is_no_other_programs(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    with JudgmentStore(path) as store:
        store.add([make_record(1)])
    creating = sqlite3.connect(path)
    creating.execute("PRAGMA user_version = 0")  # as it was read before the other had committed
    creating.close()
    with JudgmentStore(path) as store:
        assert len(store) == 1


@pytest.mark.parametrize("version", [0, 1])
def test_another_programs_database_is_left_alone(tmp_path: Path, version: int) -> None:
    path = tmp_path / "other.sqlite"
    other = sqlite3.connect(path)
    other.execute("CREATE TABLE theirs (x)")
    other.execute(f"PRAGMA user_version = {version}")
    other.close()
    before = path.read_bytes()
    with pytest.raises(InputError, match="some other program's database"):
        JudgmentStore(path)
    assert path.read_bytes() == before


def test_a_newer_store_is_left_alone(tmp_path: Path) -> None:
    path = tmp_path / "j.sqlite"
    JudgmentStore(path).close()
    newer = sqlite3.connect(path)
    newer.execute("PRAGMA user_version = 99")
    newer.close()
    with pytest.raises(InputError, match="newer version"):
        JudgmentStore(path)


def test_a_file_where_a_folder_is_needed(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("x")
    with pytest.raises(InputError, match=r"cannot write .*j\.sqlite: .*; a file stands where a folder is needed"):
        JudgmentStore(tmp_path / "data" / "j.sqlite")


def test_a_folder_in_the_way(tmp_path: Path) -> None:
    (tmp_path / "j.sqlite").mkdir()
    with pytest.raises(InputError, match="choose another place"):
        JudgmentStore(tmp_path / "j.sqlite")


def add_and_be_stopped(store: JudgmentStore, record: Record, instruction: int) -> BaseException | None:
    """Add a record, with a SIGTERM before the given one of the bytecode instructions; the exception it ends with."""
    left = instruction

    def trace(frame: FrameType, event: str, arg: object) -> Any:
        nonlocal left
        if not frame.f_code.co_filename.endswith(
            ("hardneg/judging/judgment_store.py", "hardneg/running/script.py", "contextlib.py")
        ):
            return None
        frame.f_trace_opcodes = True
        left -= event == "opcode"
        if left == 0:
            sys.settrace(None)
            signal.raise_signal(signal.SIGTERM)
        return trace

    def stop(signum: int, frame: object) -> None:
        raise KeyboardInterrupt

    before, tracing = signal.signal(signal.SIGTERM, stop), sys.gettrace()
    sys.settrace(trace)
    try:
        store.add([record])
    except KeyboardInterrupt as stopped:
        return stopped
    finally:
        sys.settrace(tracing)
        signal.signal(signal.SIGTERM, before)
    return None


def test_a_signal_at_any_instant_leaves_the_store_fit_for_use(tmp_path: Path) -> None:
    """While its exception passes, as `LLMJudge` stores on its way out what has been answered."""
    with JudgmentStore(tmp_path / "j.sqlite") as store:
        for instruction in count(1):
            record = make_record(instruction)
            stopped = add_and_be_stopped(store, record, instruction)
            store.add([record])
            assert len(store) == instruction
            if stopped is None:  # it was done before
                break
    assert instruction > 100
