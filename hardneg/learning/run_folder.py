"""The folder of one adaptation run: which configuration owns it, and the models saved in it."""

import fcntl
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path
from tempfile import TemporaryFile
from typing import IO, TYPE_CHECKING, Any

from safetensors import SafetensorError

from hardneg.embedding.model_files import check_file, check_whole, checksums, training_record
from hardneg.judging.candidates import CandidateList, read_candidates, write_candidates
from hardneg.learning.model_card import model_card
from hardneg.running.errors import InputError, explain_os_errors
from hardneg.running.files import (
    atomic_dir,
    clear_leftovers,
    existing_place,
    free_disk,
    read_json,
    sha256_file,
    write_json,
)

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CANDIDATES = "candidates.jsonl"  # in an iteration's folder: what was judged, with the grades
NOTE = "run.json"  # in a run's folder: its configuration
LOCK = ".lock"  # what the process that works there holds locked; a file that nothing replaces
_WRITTEN = rf"iteration_\d+|final|{re.escape(NOTE)}"  # what only the process that holds the lock writes


@contextmanager
def claimed(folder: Path, configuration: Mapping[str, Any]) -> Iterator[None]:
    """Hold `folder` for a run of this configuration, new or continued, and keep other processes out meanwhile.

    What killed processes left half-written there, each time a whole model perhaps, is deleted. So the folder must
    not be shared by machines that do not see each other's locks.

    Args:
        folder: the output folder.
        configuration: everything that determines the result.

    Raises:
        InputError: it holds the run of another configuration or something else, cannot be written or locked, or another
            process is at work there (both would pay for the same judgments).
    """
    check_owner(folder, configuration)  # a folder of something else is left as it is
    with _locked(folder):
        clear_leftovers(folder, _WRITTEN)
        check_owner(folder, configuration)
        if run_of(folder) is None:
            write_json(folder / NOTE, dict(configuration))
        yield


def check_owner(folder: Path, configuration: Mapping[str, Any], in_part: bool = False) -> None:
    """Raise InputError unless `folder` is free or holds a run of this configuration.

    Args:
        folder: the output folder.
        configuration: what determines the result.
        in_part: compare only what `configuration` has; the rest is not known yet.
    """
    found = run_of(folder)
    if found is None:
        if _things_in(folder) - {NOTE}:
            raise InputError(f"{folder} is not empty and holds no {NOTE}; choose another --output-dir")
        return
    compared = configuration.keys() if in_part else configuration.keys() | found.keys()
    changed = sorted(key for key in compared if found.get(key) != configuration.get(key))
    if changed:
        differences = "; ".join(_differences(found, configuration, changed))
        raise InputError(
            f"{folder} holds a run of another configuration ({differences}); "
            "choose another --output-dir, or delete that folder"
        )


def check_apart(folder: Path, places: Mapping[str, Path | None]) -> None:
    """Raise InputError if a file would be written into a run's folder before the run has claimed it: training would
    then refuse the folder.

    Args:
        folder: the output folder.
        places: files and folders that are written to, by flag; None for a flag that is not given.
    """
    if run_of(folder) is not None:
        return
    for flag, path in places.items():
        if path is not None and folder.resolve() in (path.resolve(), *path.resolve().parents):
            raise InputError(
                f"{flag} {path} is in --output-dir {folder}, which training would then refuse as not empty; name a "
                "place outside it"
            )


def run_of(folder: Path) -> dict[str, Any] | None:
    """The configuration of the run in `folder`; None where there is none, or nothing has come of it yet.

    Raises:
        InputError: its note cannot be read.
    """
    found = _note_in(folder)
    return None if _things_in(folder) == {NOTE} else found


def _note_in(folder: Path) -> dict[str, Any] | None:
    if not (folder / NOTE).exists():
        return None
    remedy = "copy the folder again, choose another --output-dir, or delete that folder: what was judged is stored"
    found = read_json(folder / NOTE, remedy)
    if not isinstance(found, dict):
        raise InputError(f"{folder / NOTE} tells of no run; {remedy}")
    return found


def check_disk(folder: Path, models: int, size: int) -> None:
    """Raise InputError where the disk of a run's folder has no room for so many models of `size` bytes."""
    free, needed = free_disk(folder), models * size
    if free < needed:
        raise InputError(
            f"the disk of {folder} has {free / 2**30:.1f} GiB free, and the models of this run need up to "
            f"{needed / 2**30:.1f} GiB; free some, or choose an --output-dir on another disk"
        )


def check_idle(folder: Path) -> None:
    """Raise InputError where another process is at work on `folder`, or its file system has no locks; makes nothing."""
    if (folder / LOCK).exists():
        with _locked(folder):
            return
    with explain_os_errors(folder, "write"), TemporaryFile("a", dir=existing_place(folder)) as probe:
        _lock(probe, folder)


def _things_in(folder: Path) -> set[str]:
    """Names in the folder, without hidden ones, such as those of what was being written when a process was killed."""
    return {path.name for path in folder.iterdir() if not path.name.startswith(".")} if folder.is_dir() else set()


@contextmanager
def _locked(folder: Path) -> Iterator[None]:
    """Lock the folder, or raise InputError where another process has, or its file system knows no locks."""
    with explain_os_errors(folder, "write"):
        folder.mkdir(parents=True, exist_ok=True)
        lock = (folder / LOCK).open("a")
    with lock:
        _lock(lock, folder)
        yield


def _lock(file: IO[str], folder: Path) -> None:
    """Lock a file of the folder until it is closed, or this process is gone. Raises InputError as `_locked` does."""
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        raise InputError(
            f"another process is at work on {folder}; wait for it or stop it, or choose another --output-dir"
        ) from None
    except OSError as error:
        raise InputError(
            f"the file system of {folder} has no locks ({error.strerror}); choose an --output-dir on a local disk"
        ) from None


def _differences(found: Mapping[str, Any], now: Mapping[str, Any], keys: Sequence[str], of: str = "") -> Iterator[str]:
    """`key: this there, that now` for each setting that differs, `part.key` for one in a part of the configuration."""
    for key in keys:
        there, here = found.get(key), now.get(key)
        if isinstance(there, dict) and isinstance(here, dict):
            changed = [inner for inner in {**there, **here} if there.get(inner) != here.get(inner)]
            yield from _differences(there, here, changed, f"{of}{key}.")
        else:
            yield f"{of}{key}: {there} there, {here} now"


def save_model(
    model: "SentenceTransformer", folder: Path, record: Mapping[str, Any], lists: Sequence[CandidateList] = ()
) -> None:
    """Write model, model card, training.json and any graded candidates as one folder, whole or not at all."""
    with atomic_dir(folder) as temporary:
        try:
            model.save(str(temporary), create_model_card=False)
        except SafetensorError as error:  # what a full disk looks like from inside safetensors
            raise InputError(f"cannot write {folder}: {error}; free some disk space and run again") from error
        record = {**record, "files_sha256": checksums(temporary)}
        if lists:
            write_candidates(temporary / CANDIDATES, lists)
            record["candidates_sha256"] = sha256_file(temporary / CANDIDATES)
        _write_record(temporary, record)


def copy_as_final(source: Path, final: Path, record: Mapping[str, Any]) -> None:
    """Make `final` a copy of a saved iteration, with `record` as its training.json."""
    with atomic_dir(final) as temporary:
        try:
            shutil.copytree(source, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns(CANDIDATES))
        except shutil.Error as error:
            _, _, reason = error.args[0][0]
            raise InputError(f"cannot copy {source} to {final}: {reason}; fix that and run again") from error
        _write_record(temporary, {key: value for key, value in record.items() if key != "candidates_sha256"})


def graded_candidates(folder: Path) -> list[CandidateList]:
    """The graded candidates of a finished iteration."""
    return read_candidates(folder / CANDIDATES)


def check_finished(folder: Path) -> None:
    """Raise InputError where a finished iteration in a run's folder, model or candidates, is not as it was saved, or
    one before it is missing."""
    records = finished_iterations(folder)
    numbers = (re.fullmatch(r"iteration_(\d+)", path.name) for path in folder.glob("iteration_*") if is_finished(path))
    last = max((int(number[1]) for number in numbers if number), default=-1)
    if last >= len(records):
        missing, built_on_it = iteration_folder(folder, len(records)), iteration_folder(folder, last)
        raise InputError(
            f"{missing} is missing, and {built_on_it} was built on it; restore it, or delete the later iterations too"
        )
    for number, record in enumerate(records):
        check_whole(iteration_folder(folder, number))
        check_file(iteration_folder(folder, number) / CANDIDATES, record.get("candidates_sha256"))


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    write_json(folder / "training.json", dict(record))
    (folder / "README.md").write_bytes(model_card(record).encode(errors="backslashreplace"))  # a path may be no UTF-8


def finished_iterations(folder: Path) -> list[dict[str, Any]]:
    """training.json of every finished iteration in a run's folder, however many the run asks for by now."""
    records: list[dict[str, Any]] = []
    while is_finished(iteration := iteration_folder(folder, len(records))):
        records.append(training_record(iteration))
    return records


def iteration_folder(folder: Path, number: int) -> Path:
    """Where a run keeps the model of an iteration."""
    return folder / f"iteration_{number}"


def is_finished(iteration: Path) -> bool:
    """Whether an iteration was saved: its folder appears whole or not at all."""
    return (iteration / "training.json").exists()
