"""The folder of one adaptation run: which configuration owns it, and the models saved in it."""

import fcntl
import os
import re
import shutil
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NoReturn

from safetensors import SafetensorError

from hardneg.artifacts import atomic_dir, read_json, sha256_file, write_json
from hardneg.candidates import CandidateList, read_candidates, write_candidates
from hardneg.errors import InputError, clear_os_errors
from hardneg.model_card import model_card
from hardneg.model_files import check_file, check_whole, checksums
from hardneg.models import quiet_progress
from hardneg.validation import K

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

CANDIDATES = "candidates.jsonl"  # in an iteration's folder: what was judged, with the grades


def claim(folder: Path, configuration: Mapping[str, Any], dry: bool = False) -> None:
    """Take `folder` for this configuration, or find it taken by the same one (then the run goes on where it was).

    Args:
        folder: the output folder.
        configuration: everything that determines the result.
        dry: only check, write nothing.

    Raises:
        InputError: it holds the run of another configuration, or something else, or cannot be written.
    """
    found = check_owner(folder, configuration)
    if found and (gone := found.keys() - configuration.keys()):
        _refuse(folder, found, configuration, sorted(gone))
    if found is None and not dry:
        write_json(folder / "run.json", dict(configuration))


def check_owner(folder: Path, known: Mapping[str, Any]) -> dict[str, Any] | None:
    """The configuration of the run in `folder`, None where it is free; compares only what is `known` of the new one.

    Raises:
        InputError: it holds a run that differs from `known`, or something else.
    """
    note = folder / "run.json"
    if note.exists():
        found = read_json(note, "python iterative_miner.py")
        if not isinstance(found, dict):
            raise InputError(f"{note} tells of no run; choose another --output-dir, or delete that folder")
        if changed := [key for key in known if found.get(key) != known[key]]:
            _refuse(folder, found, known, changed)
        return found
    if folder.is_dir() and any(not path.name.startswith(".") for path in folder.iterdir()):
        raise InputError(f"{folder} is not empty and holds no run.json; choose another --output-dir")
    return None


def _refuse(folder: Path, found: Mapping[str, Any], now: Mapping[str, Any], keys: Sequence[str]) -> NoReturn:
    raise InputError(
        f"{folder} holds a run of another configuration ({'; '.join(_differences(found, now, keys))}); "
        "choose another --output-dir, or delete that folder"
    )


def _differences(found: Mapping[str, Any], now: Mapping[str, Any], keys: Sequence[str], of: str = "") -> Iterator[str]:
    """`key: this there, that now` of each setting that differs, of one in a part of the configuration as `part.key`."""
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
    with atomic_dir(folder) as temporary, quiet_progress():
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
            raise InputError(f"cannot copy {source} to {final}: {reason}; mend that and run again") from error
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
            f"{missing} is missing, on which {built_on_it} was built; bring it back, or delete what comes after it too"
        )
    for number, record in enumerate(records):
        check_whole(iteration_folder(folder, number))
        check_file(iteration_folder(folder, number) / CANDIDATES, record.get("candidates_sha256"))


@contextmanager
def alone_in(folder: Path, configuration: Mapping[str, Any]) -> Iterator[None]:
    """Keep other processes from working on a claimed folder at the same time: both would pay for the same judgments.

    Raises:
        InputError: another one is at work there, or has claimed it for another configuration since.
    """
    busy = InputError(f"another process is at work on {folder}; wait for it or stop it, or choose another --output-dir")
    with ExitStack() as stack:
        with clear_os_errors(folder, "read"):
            note = stack.enter_context((folder / "run.json").open("r+"))  # NFS locks only what may be written
        try:
            fcntl.flock(note, fcntl.LOCK_EX | fcntl.LOCK_NB)  # until it is closed, or this process is gone
        except BlockingIOError:
            raise busy from None
        except OSError:
            pass  # a file system without locks
        with clear_os_errors(folder, "read"):
            is_replaced = not os.path.samestat(os.fstat(note.fileno()), (folder / "run.json").stat())
        if is_replaced:  # another claimed the folder at the same moment: its note is in the place of the locked one
            raise busy
        check_owner(folder, configuration)
        yield


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    write_json(folder / "training.json", dict(record))
    (folder / "README.md").write_text(_card(record), encoding="utf-8")


def _card(record: Mapping[str, Any]) -> str:
    base, tuned = record["base_validation"], record["validation"]
    names = {"mrr": f"MRR@{K}", "dcg": f"DCG@{K}", "guard_ndcg": "guard nDCG@10", "guard_mrr": "guard MRR@5"}
    measures = [
        (name, f"{base[key]:.4f}", f"{tuned[key]:.4f}") for key, name in names.items() if tuned[key] is not None
    ]
    settings = dict(record["configuration"])
    if "iteration" in record:  # absent where the base model itself was kept
        settings |= {
            "iteration": record["iteration"],
            "training examples": record["counts"]["examples"],
            "share of tuned weights": strength_of(record),
        }
    return model_card(
        record["configuration"]["base_model"], settings, measures, "iteration" in record, record.get("chosen", "")
    )


def strength_of(record: Mapping[str, Any]) -> float:
    """The share of the tuned weights in an iteration's model, by its training.json."""
    return next(tried["strength"] for tried in record["strengths"] if tried["chosen"])


def finished_iterations(folder: Path) -> list[dict[str, Any]]:
    """training.json of every finished iteration in a run's folder, however many the run asks for by now."""
    records = []
    while is_finished(iteration := iteration_folder(folder, len(records))):
        records.append(read_json(iteration / "training.json", "python iterative_miner.py"))
    return records


def iteration_folder(folder: Path, number: int) -> Path:
    """Where a run keeps the model of an iteration."""
    return folder / f"iteration_{number}"


def is_finished(iteration: Path) -> bool:
    """Whether an iteration's folder is there, which it is whole or not at all."""
    return (iteration / "training.json").exists()
