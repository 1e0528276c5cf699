"""Files: safe to read, whole or absent when written."""

import hashlib
import json
import os
import pickle
import random
import shutil
import signal
import stat
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from hardneg.running import files
from hardneg.running.errors import InputError
from hardneg.running.files import (
    atomic_dir,
    atomic_file,
    check_writable,
    clear_leftovers,
    json_bytes,
    pickle_bytes,
    read_json,
    read_pickle,
    read_text,
    sha256_file,
    write_files,
    write_json,
    write_json_lines,
)

ROOT = Path(__file__).parent.parent
REMEDY = "make it again"


class Bomb:
    """Unpickling this with the standard unpickler would create a file."""

    def __init__(self, target: Path) -> None:
        self.target = target

    def __reduce__(self) -> tuple[object, tuple[str]]:
        return os.mkdir, (str(self.target),)


def test_pickle_round_trip(tmp_path: Path) -> None:
    records = [{"id": 1, "text": "naïve", "ids": [1, 2], "grade": None, "share": 0.5}]
    write_files(tmp_path / "deep", {"records.pkl": pickle_bytes(records)})
    path = tmp_path / "deep" / "records.pkl"
    assert read_pickle(path, sha256_file(path), REMEDY) == records


def test_a_pickle_that_would_run_code_is_refused_and_runs_nothing(tmp_path: Path) -> None:
    target = tmp_path / "made-by-the-pickle"
    bomb = tmp_path / "bomb.pkl"
    bomb.write_bytes(pickle.dumps([Bomb(target)]))
    with pytest.raises(InputError, match=r"bomb.pkl holds more than .*refers to posix.mkdir\); make it again$"):
        read_pickle(bomb, sha256_file(bomb), REMEDY)
    assert not target.exists()


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
def test_every_cut_of_a_pickle_is_refused(tmp_path: Path, protocol: int) -> None:
    path = tmp_path / "cut.pkl"
    whole = pickle.dumps([{"text": "gout", "ids": [1, 2, 300], "share": 0.5}], protocol=protocol)
    path.write_bytes(whole)
    sha256 = sha256_file(path)
    for length in range(len(whole)):
        path.write_bytes(whole[:length])
        with pytest.raises(
            InputError, match=r"cut\.pkl is not the file that .* tells of .*; run again, or make it again$"
        ):
            read_pickle(path, sha256, REMEDY)


def test_another_file_s_pickle_is_not_even_opened(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nor is one that the manifest tells nothing of."""
    path = tmp_path / "other.pkl"
    path.write_bytes(pickle_bytes([1]))
    monkeypatch.setattr(files, "_BuiltinsUnpickler", None)
    for sha256 in ("abc", None):
        with pytest.raises(InputError, match=r"other\.pkl is not the file that manifest\.json tells of"):
            read_pickle(path, sha256, REMEDY)


def test_missing_and_unreadable_files_name_the_remedy(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"gone\.pkl is missing; make it again$"):
        read_pickle(tmp_path / "gone.pkl", "abc", REMEDY)
    (tmp_path / "folder.pkl").mkdir()
    with pytest.raises(InputError, match=r"folder\.pkl: Is a directory"):
        read_pickle(tmp_path / "folder.pkl", "abc", REMEDY)
    with pytest.raises(InputError, match=r"gone\.json is missing; make it again$"):
        read_json(tmp_path / "gone.json", REMEDY)
    (tmp_path / "cut.json").write_text('{"a": ')
    with pytest.raises(InputError, match=r"cut\.json is not JSON \(.*\); make it again$"):
        read_json(tmp_path / "cut.json", REMEDY)


def test_a_device_is_not_replaced(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    for write in (check_writable, lambda path: write_json(path, {})):
        with pytest.raises(InputError, match=r"pipe is a device or a pipe, which a finished file would replace"):
            write(tmp_path / "pipe")
    assert stat.S_ISFIFO((tmp_path / "pipe").stat().st_mode)


def test_a_link_stays_one(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "link.json").symlink_to(tmp_path / "elsewhere" / "real.json")
    write_json(tmp_path / "link.json", [1])
    assert (tmp_path / "link.json").is_symlink()
    assert read_json(tmp_path / "elsewhere" / "real.json", REMEDY) == [1]
    write_files(tmp_path, {"a.json": b"[2]", "link.json": b"[3]"})
    assert (tmp_path / "link.json").is_symlink() and read_json(tmp_path / "link.json", REMEDY) == [3]
    (tmp_path / "circle").symlink_to(tmp_path / "circle")
    write_json(tmp_path / "circle", [4])
    assert read_json(tmp_path / "circle", REMEDY) == [4]


def test_a_link_to_a_folder_stays_one(tmp_path: Path) -> None:
    run, disk = tmp_path / "run", tmp_path / "disk"
    run.mkdir()
    (run / "final").symlink_to(disk / "model")
    for content in ("old", "new"):
        with atomic_dir(run / "final") as temporary:
            (temporary / content).touch()
        assert (run / "final").is_symlink() and [path.name for path in (disk / "model").iterdir()] == [content]
    assert list(run.iterdir()) == [run / "final"] and list(disk.iterdir()) == [disk / "model"]


def test_permissions_are_those_of_any_new_file(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_json(tmp_path / "x.json", [])
        with atomic_dir(tmp_path / "folder"):
            pass
    finally:
        os.umask(before)
    assert stat.S_IMODE((tmp_path / "x.json").stat().st_mode) == 0o640
    assert stat.S_IMODE((tmp_path / "folder").stat().st_mode) == 0o750


def test_an_interrupted_write_leaves_the_older_file_and_nothing_else(tmp_path: Path) -> None:
    path = tmp_path / "results.json"
    write_json(path, {"run": 1})
    with pytest.raises(KeyboardInterrupt), atomic_file(path) as temporary:
        temporary.write_text('{"run": ')
        raise KeyboardInterrupt
    assert read_json(path, REMEDY) == {"run": 1}
    assert list(tmp_path.iterdir()) == [path]


def test_a_folder_is_replaced_whole(tmp_path: Path) -> None:
    model = tmp_path / "final"
    for content in ("old", "new"):
        with atomic_dir(model) as temporary:
            (temporary / "inside").mkdir()
            (temporary / "inside" / f"{content}.txt").write_text(content)
    assert [path.name for path in model.rglob("*.txt")] == ["new.txt"]
    with pytest.raises(KeyboardInterrupt), atomic_dir(model) as temporary:
        (temporary / "half.txt").write_text("half")
        raise KeyboardInterrupt
    assert [path.name for path in model.rglob("*.txt")] == ["new.txt"]
    assert list(tmp_path.iterdir()) == [model]


def test_a_stop_between_the_two_renames_puts_the_old_folder_back(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = tmp_path / "final"
    model.mkdir()
    (model / "old.txt").touch()
    rename = Path.rename

    def stop(self: Path, target: Path) -> Path:
        if self.suffix == ".tmp":
            raise KeyboardInterrupt
        return rename(self, target)

    monkeypatch.setattr(Path, "rename", stop)
    with pytest.raises(KeyboardInterrupt), atomic_dir(model) as temporary:
        (temporary / "new.txt").touch()
    assert [path.name for path in model.iterdir()] == ["old.txt"]
    assert list(tmp_path.iterdir()) == [model]


@pytest.mark.parametrize(
    ("killing", "kept"),
    [
        ("Path.rename = lambda *_: kill()", "old"),
        ("rename = Path.rename; Path.rename = lambda *paths: (rename(*paths), kill())", None),  # between two renames
        ("shutil.rmtree = lambda *_, **__: kill()", "new"),
    ],
)
def test_what_a_killed_write_of_a_folder_left_is_deleted(tmp_path: Path, killing: str, kept: str | None) -> None:
    model = tmp_path / "final"
    with atomic_dir(model) as temporary:
        (temporary / "weights").write_text("old")
    script = (
        "import os, shutil, signal\nfrom hardneg.running.files import atomic_dir\n"
        f"kill = lambda: os.kill(os.getpid(), signal.SIGKILL)\n{killing}\n"
        "with atomic_dir(folder / 'final') as temporary: (temporary / 'weights').write_text('new')"
    )
    assert python(script, tmp_path).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 2
    clear_leftovers(tmp_path, "final")
    assert {path: path.read_text() for path in tmp_path.rglob("*") if path.is_file()} == (
        {model / "weights": kept} if kept else {}
    )


def test_what_a_killed_write_of_a_file_left_is_deleted(tmp_path: Path) -> None:
    script = "import os, signal\nfrom hardneg.running.files import atomic_file\n"
    script += "with atomic_file(folder / 'run.json'):\n    os.kill(os.getpid(), signal.SIGKILL)"
    assert python(script, tmp_path).returncode == -signal.SIGKILL
    assert len(list(tmp_path.iterdir())) == 1
    clear_leftovers(tmp_path, r"run\.json")
    assert not list(tmp_path.iterdir())


def test_what_is_no_leftover_of_these_names_stays(tmp_path: Path) -> None:
    names = [
        "final",
        "final.x1.tmp",
        "xfinal.x1.tmp",
        "a.final.x1.tmp",
        ".final.x1_tmp",
        ".final.x1.tmp.gz",
        ".final.x1",
        ".final.tmp",
        ".finale.x1.tmp",
        ".other.x1.tmp",
    ]
    for name in names:
        (tmp_path / name).mkdir()
    clear_leftovers(tmp_path, r"final|iteration_\d+")
    assert {path.name for path in tmp_path.iterdir()} == set(names)


def test_a_folder_that_cannot_be_cleared(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot clear .*gone: No such file"):
        clear_leftovers(tmp_path / "gone", "final")


def test_a_file_in_place_of_the_folder(tmp_path: Path) -> None:
    (tmp_path / "data").touch()
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        write_json(tmp_path / "data" / "x.pkl", [1])
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        write_files(tmp_path / "data", {"x.pkl": b"1"})
    with (
        pytest.raises(InputError, match=r"cannot write .*final: .*; a file stands where a folder is needed"),
        atomic_dir(tmp_path / "data" / "final"),
    ):
        pass


def test_a_folder_in_place_of_the_file(tmp_path: Path) -> None:
    (tmp_path / "x.pkl").mkdir()
    with pytest.raises(InputError, match=r"x\.pkl is a folder; name a file"):
        write_json(tmp_path / "x.pkl", [1])
    assert [path.name for path in tmp_path.iterdir()] == ["x.pkl"]


def test_no_permission() -> None:
    me = os.geteuid()
    with tempfile.TemporaryDirectory() as folder:  # everyone may enter /tmp, and not what pytest makes for root
        Path(folder).chmod(0o555)
        try:
            if me == 0:
                os.seteuid(65534)  # nobody: root may write anywhere
            for write in (check_writable, lambda path: write_json(path, [1])):
                with pytest.raises(InputError, match=r"cannot write .*x\.pkl: Permission denied; check the perm"):
                    write(Path(folder, "x.pkl"))
        finally:
            os.seteuid(me)
        assert not list(Path(folder).iterdir())


def test_whether_a_file_can_be_written_is_told_without_one(tmp_path: Path) -> None:
    check_writable(tmp_path / "new" / "data" / "x.json")
    assert not list((tmp_path / "new" / "data").iterdir())
    with pytest.raises(InputError, match=r"data is a folder; name a file"):
        check_writable(tmp_path / "new" / "data")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*x\.json: .*; a file stands where a folder is needed"):
        check_writable(tmp_path / "file" / "x.json")


def test_several_files_at_once(tmp_path: Path) -> None:
    write_files(tmp_path / "data", {"a.pkl": b"1", "manifest.json": json_bytes({"name": "é"})})
    assert (tmp_path / "data" / "a.pkl").read_bytes() == b"1"
    assert (tmp_path / "data" / "manifest.json").read_text(encoding="utf-8") == '{\n  "name": "é"\n}\n'
    assert len(list((tmp_path / "data").iterdir())) == 2


def test_a_write_past_the_file_size_limit_changes_nothing(tmp_path: Path) -> None:
    write_files(tmp_path, {"a.pkl": b"old", "manifest.json": b"old"})
    done = python(
        "import resource; resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))\n"
        "run(lambda: write_files(folder, {'a.pkl': b'new', 'b.pkl': b'x' * 2000, 'manifest.json': b'new'}))",
        tmp_path,
    )
    assert done.returncode == 2
    assert done.stderr.startswith(f"error: cannot write {tmp_path / 'b.pkl'}: File too large")
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == {"a.pkl": b"old", "manifest.json": b"old"}


def can_mount() -> bool:
    unshare = shutil.which("unshare")
    return unshare is not None and subprocess.run([unshare, "-rm", "true"], capture_output=True).returncode == 0


def with_disk(folder: Path, options: str) -> list[str]:
    """Prefix of a command that sees a memory disk mounted at `folder`."""
    return ["unshare", "-rm", "sh", "-c", f'mount -t tmpfs -o {options} none "{folder}" && exec "$@"', "sh"]


@pytest.mark.skipif(not can_mount(), reason="needs user namespaces to mount a disk")
def test_a_read_only_disk(tmp_path: Path) -> None:
    done = python("run(lambda: write_files(folder, {'a.pkl': b'x'}))", tmp_path, prefix=with_disk(tmp_path, "ro"))
    assert done.returncode == 2
    assert "Read-only file system; the file system is read-only; choose another place" in done.stderr


@pytest.mark.skipif(not can_mount(), reason="needs user namespaces to mount a disk")
def test_a_full_disk_changes_nothing(tmp_path: Path) -> None:
    script = (
        "write_files(folder, {'a.pkl': b'old', 'manifest.json': b'old'})\n"
        "try:\n    write_files(folder, {'a.pkl': b'new', 'b.pkl': b'x' * 200_000, 'manifest.json': b'new'})\n"
        "except Exception as error:\n    print(error)\n"
        "print({path.name: path.read_bytes() for path in folder.iterdir()})"
    )
    done = python(script, tmp_path, prefix=with_disk(tmp_path, "size=64k"))
    error, left = done.stdout.splitlines()
    assert error == (
        f"cannot write {tmp_path / 'b.pkl'}: No space left on device; "
        "free some disk space and run again; nothing half-written was left behind"
    )
    assert left in (
        "{'a.pkl': b'old', 'manifest.json': b'old'}",
        "{'manifest.json': b'old', 'a.pkl': b'old'}",
    )


def test_a_kill_at_any_moment_leaves_old_files_new_files_or_no_marker(tmp_path: Path) -> None:
    """The marker `manifest.json` must never stand beside files of another write than its own."""
    script = (
        "for run_number in range(1_000_000):\n"
        "    payload = str(run_number).encode() * 200_000\n"
        "    write_files(folder, {'a.pkl': payload, 'b.pkl': payload, 'manifest.json': str(run_number).encode()})"
    )
    rng = random.Random(3)
    complete = 0
    for attempt in range(15):
        folder = tmp_path / str(attempt)
        process = subprocess.Popen([sys.executable, "-c", preamble(folder) + script], cwd=ROOT)
        deadline = time.monotonic() + 20
        while not (folder / "manifest.json").exists() and time.monotonic() < deadline:
            time.sleep(0.005)
        time.sleep(rng.uniform(0, 0.05))
        process.kill()
        process.wait()
        if (folder / "manifest.json").exists():
            expected = (folder / "manifest.json").read_bytes() * 200_000
            assert (folder / "a.pkl").read_bytes() == expected
            assert (folder / "b.pkl").read_bytes() == expected
            complete += 1
    assert complete, "no attempt was killed with all files in place: the test proves nothing"


def preamble(folder: Path) -> str:
    return (
        "from pathlib import Path\n"
        "from hardneg.running.files import write_files\n"
        "from hardneg.running.script import run\n"
        f"folder = Path({str(folder)!r})\n"
    )


def python(script: str, folder: Path, prefix: list[str] | None = None) -> subprocess.CompletedProcess[str]:
    command = [*(prefix or []), sys.executable, "-c", preamble(folder) + script]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)


def test_a_name_that_is_no_text_is_written_as_json_can_say_it(tmp_path: Path) -> None:
    name = os.fsdecode(b"caf\xe9")
    write_json(tmp_path / "found.json", {"path": name, "é": "é"})
    assert json.loads((tmp_path / "found.json").read_bytes()) == {"path": name, "é": "é"}


def test_paths_are_written_as_text() -> None:
    assert json.loads(json_bytes({"data": Path("data", "x.pkl")})) == {"data": "data/x.pkl"}


@pytest.mark.parametrize("read", [read_json, lambda path, remedy: read_pickle(path, "abc", remedy)])
def test_a_path_longer_than_a_name_may_be(tmp_path: Path, read: Callable[[Path, str], Any]) -> None:
    with pytest.raises(InputError, match=r"cannot read .*File name too long"):
        read(tmp_path / ("x" * 300), REMEDY)


def test_json_nested_too_deeply(tmp_path: Path) -> None:
    (tmp_path / "deep.json").write_text("[" * 100_000)
    with pytest.raises(InputError, match=r"deep\.json is not JSON"):
        read_json(tmp_path / "deep.json", REMEDY)


def test_sha256_of_a_file(tmp_path: Path) -> None:
    (tmp_path / "abc").write_bytes(b"abc")
    assert sha256_file(tmp_path / "abc") == "ba7816bf8f01cfea414140de5dae2223b00361a396177a9cb410ff61f20015ad"
    (tmp_path / "long").write_bytes(b"abc" * 2**20)  # read piece by piece
    assert sha256_file(tmp_path / "long") == hashlib.sha256(b"abc" * 2**20).hexdigest()
    with pytest.raises(InputError, match=r"cannot read .*none: No such file"):
        sha256_file(tmp_path / "none")


def test_a_text_is_read_without_the_mark_that_editors_put_first(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_bytes("\ufeffÜ {query} {passage}".encode())
    assert read_text(tmp_path / "prompt.txt") == "Ü {query} {passage}"
    with pytest.raises(InputError, match=r"cannot read .*none\.txt: No such file"):
        read_text(tmp_path / "none.txt")


def test_a_text_that_is_not_utf_8_is_refused_with_the_place(tmp_path: Path) -> None:
    (tmp_path / "prompt.txt").write_bytes("Größe".encode("latin-1"))
    with pytest.raises(InputError, match=r"prompt.txt is not UTF-8 text \(.* at byte 2\); save it as UTF-8"):
        read_text(tmp_path / "prompt.txt")


def test_json_lines_are_counted_and_whole_or_not_there(tmp_path: Path) -> None:
    path = tmp_path / "lines.jsonl"
    assert write_json_lines(path, ({"Größe": number} for number in range(3))) == 3
    assert path.read_text(encoding="utf-8") == '{"Größe": 0}\n{"Größe": 1}\n{"Größe": 2}\n'
    with pytest.raises(ZeroDivisionError):
        write_json_lines(path, (1 // number for number in (1, 0)))
    assert len(path.read_text(encoding="utf-8").splitlines()) == 3 and list(tmp_path.iterdir()) == [path]
