"""What a saved model's training.json tells of it, and whether its folder is whole."""

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hardneg.running.errors import InputError
from hardneg.running.files import read_json, sha256_file

# for a saved model that is damaged; running again is not enough, as it would be found damaged again
COPY_OR_DELETE = (
    "copy the folder again, or delete it (and later iterations) and run iterative_miner.py again: what was judged "
    "is stored"
)


def training_record(folder: Path) -> dict[str, Any]:
    """The training.json in a model's folder; empty where there is none, or another program's.

    Raises:
        InputError: it is damaged.
    """
    path = folder / "training.json"
    record = read_json(path, COPY_OR_DELETE) if path.exists() else {}
    is_ours = isinstance(record, dict) and all(
        isinstance(record.get(key, {}), dict) for key in ("configuration", "files_sha256")
    )
    return record if is_ours else {}


def corpora_of(record: Mapping[str, Any]) -> list[str]:
    """The checksums of all corpora that a model was trained on, by its training.json: its base model's, and its own."""
    own = record.get("configuration", {}).get("corpus_sha256") if "iteration" in record else None
    return list(dict.fromkeys([*record.get("base_trained_on", []), *([own] if own else [])]))


def foreign_training(name: str, corpus_sha256: str) -> list[str]:
    """A warning for each corpus but this one that a model was trained on: another split of the same questions, say.

    Args:
        name: of the model, a folder where it was trained here.
        corpus_sha256: of the corpus whose held-out questions it is to be measured with.
    """
    return [
        f"Warning: {name} was trained on another corpus ({other[:12]}, here {corpus_sha256[:12]}): its training "
        "questions may be among the validation and test questions here"
        for other in corpora_of(training_record(Path(name)))
        if other != corpus_sha256
    ]


def strength_of(record: Mapping[str, Any]) -> float:
    """The share of the tuned weights in an iteration's model, by its training.json."""
    return next(tried["strength"] for tried in record["strengths"] if tried["chosen"])


def checksums(folder: Path) -> dict[str, str]:
    """SHA-256 of every file below a folder, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {str(path.relative_to(folder)): sha256_file(path) for path in files}


def check_whole(folder: Path, may_be_edited: bool = False) -> None:
    """Raise InputError where a model's folder, copied from elsewhere perhaps, lacks a file that was saved with it.

    A model without its tokenizer, say, is loaded all the same, and gives other embeddings.

    Args:
        folder: the model's.
        may_be_edited: it may be a copy that somebody changed: tell how to say so.
    """
    remedy = COPY_OR_DELETE
    if may_be_edited:
        remedy += f"; if you changed it on purpose, take its line out of files_sha256 in {folder / 'training.json'}"
    for name, digest in training_record(folder).get("files_sha256", {}).items():
        check_file(folder / name, digest, remedy)


def check_file(path: Path, digest: str | None, remedy: str = COPY_OR_DELETE) -> None:
    """Raise InputError, with that remedy, where a file is missing, or not the one of this SHA-256."""
    if not path.exists() or sha256_file(path) != digest:
        raise InputError(f"{path} is not the file that was saved with this model; {remedy}")
