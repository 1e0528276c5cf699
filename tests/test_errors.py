"""One clear line and exit status 2 on bad input; programming errors keep their traceback."""

import errno
import subprocess
import sys
from pathlib import Path

import pytest

from hardneg.errors import InputError, clear_os_errors


def run_main(body: str) -> subprocess.CompletedProcess[str]:
    script = f"from hardneg.errors import InputError, run\ndef main():\n    print('begun')\n    {body}\nrun(main)"
    return subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, cwd=Path(__file__).parent.parent, check=False
    )


def test_success_is_status_0() -> None:
    done = run_main("pass")
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\n", "")


def test_bad_input_is_one_line_and_status_2() -> None:
    done = run_main("raise InputError('faq.csv is empty; export it again')")
    assert (done.returncode, done.stdout, done.stderr) == (2, "begun\n", "error: faq.csv is empty; export it again\n")


def test_ctrl_c_is_status_130_without_traceback() -> None:
    done = run_main("raise KeyboardInterrupt")
    assert done.returncode == 130
    assert "stopped" in done.stderr
    assert "Traceback" not in done.stderr


def test_programming_errors_keep_their_traceback() -> None:
    done = run_main("raise KeyError('oops')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "KeyError: 'oops'" in done.stderr


def test_missing_file_names_path_cause_and_remedy(tmp_path: Path) -> None:
    told = pytest.raises(InputError, match=r"cannot read .*gone: No such file or directory; check the path")
    with told, clear_os_errors(tmp_path / "gone", "read"):
        (tmp_path / "gone").read_bytes()


def test_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    told = pytest.raises(InputError, match="a file stands where a folder is needed")
    with told, clear_os_errors(tmp_path / "data", "write"):
        (tmp_path / "data" / "x").write_text("")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_full_disk() -> None:
    told = pytest.raises(InputError, match="No space left on device; free some disk space")
    with told as raised, clear_os_errors("/dev/full", "write"), Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.ENOSPC


def test_other_errors_pass_through() -> None:
    with pytest.raises(KeyError), clear_os_errors("x", "read"):
        raise KeyError("x")
