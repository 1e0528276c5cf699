"""Errors of the operating system become one line that names path, cause and remedy."""

import errno
from pathlib import Path

import pytest

from hardneg.running.errors import InputError, explain_os_errors


def test_missing_file_names_path_cause_and_remedy(tmp_path: Path) -> None:
    told = pytest.raises(InputError, match=r"cannot read .*gone: No such file or directory; check the path")
    with told, explain_os_errors(tmp_path / "gone", "read"):
        (tmp_path / "gone").read_bytes()


def test_file_in_place_of_a_folder(tmp_path: Path) -> None:
    (tmp_path / "data").write_text("")
    told = pytest.raises(InputError, match="a file stands where a folder is needed")
    with told, explain_os_errors(tmp_path / "data", "write"):
        (tmp_path / "data" / "x").write_text("")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_full_disk() -> None:
    told = pytest.raises(InputError, match="No space left on device; free some disk space")
    with told as raised, explain_os_errors("/dev/full", "write"), Path("/dev/full").open("wb", buffering=0) as full:
        full.write(b"x")
    assert isinstance(raised.value.__cause__, OSError)
    assert raised.value.__cause__.errno == errno.ENOSPC


def test_other_errors_pass_through() -> None:
    with pytest.raises(KeyError), explain_os_errors("x", "read"):
        raise KeyError("x")
