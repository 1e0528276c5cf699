"""The folder of one adaptation run: which configuration owns it, and the models saved in it."""

import shutil
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NoReturn

from safetensors import SafetensorError
from sentence_transformers import SentenceTransformer

from hardneg.artifacts import atomic_dir, read_json, write_json
from hardneg.candidates import CandidateList, write_candidates
from hardneg.encoder import quiet_progress
from hardneg.errors import InputError
from hardneg.model_card import model_card


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
    """The configuration of the run in `folder`, None where it is free; asks only after what is `known` of the new one.

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
    differences = "; ".join(f"{key}: {found.get(key)} there, {now.get(key)} now" for key in keys)
    raise InputError(
        f"{folder} holds a run of another configuration ({differences}); "
        "choose another --output-dir, or delete that folder"
    )


def save_model(
    model: SentenceTransformer, folder: Path, record: Mapping[str, Any], lists: Iterable[CandidateList]
) -> None:
    """Write model, model card, training.json and the graded candidates as one folder, whole or not at all."""
    with atomic_dir(folder) as temporary, quiet_progress():
        try:
            model.save(str(temporary), create_model_card=False)
        except SafetensorError as error:  # what a full disk looks like from inside safetensors
            raise InputError(f"cannot write {folder}: {error}; free some disk space and run again") from error
        write_candidates(temporary / "candidates.jsonl", lists)
        _write_record(temporary, record)


def copy_as_final(source: Path, final: Path, record: Mapping[str, Any]) -> None:
    """Make `final` a copy of a saved iteration, with `record` as its training.json."""
    with atomic_dir(final) as temporary:
        shutil.copytree(source, temporary, dirs_exist_ok=True, ignore=shutil.ignore_patterns("candidates.jsonl"))
        _write_record(temporary, record)


def _write_record(folder: Path, record: Mapping[str, Any]) -> None:
    write_json(folder / "training.json", dict(record))
    (folder / "README.md").write_text(_card(record), encoding="utf-8")


def _card(record: Mapping[str, Any]) -> str:
    base, tuned = record["base_validation"], record["validation"]
    names = {"mrr": "MRR@5", "dcg": "DCG@5", "guard_ndcg": "guard nDCG@10", "guard_mrr": "guard MRR@5"}
    measures = [
        (name, f"{base[key]:.4f}", f"{tuned[key]:.4f}") for key, name in names.items() if tuned[key] is not None
    ]
    settings = dict(record["configuration"])
    if "iteration" in record:  # absent where the base model itself was kept
        chosen = next(tried for tried in record["strengths"] if tried["chosen"])
        settings |= {
            "iteration": record["iteration"],
            "training examples": record["counts"]["examples"],
            "share of tuned weights": chosen["strength"],
        }
    return model_card(
        record["configuration"]["base_model"], settings, measures, "iteration" in record, record.get("chosen", "")
    )


def finished_iterations(folder: Path) -> list[dict[str, Any]]:
    """training.json of every finished iteration in a run's folder, however many the run asks for by now."""
    records = []
    while (file := folder / f"iteration_{len(records)}" / "training.json").exists():
        records.append(read_json(file, "python iterative_miner.py"))
    return records


def training_record(model_name: str) -> Any:
    """The training.json in a model's folder or the one above; empty where there is none."""
    folder = Path(model_name)
    places = (folder, folder.parent) if folder.is_dir() else ()
    file = next((place / "training.json" for place in places if (place / "training.json").exists()), None)
    return read_json(file, "python iterative_miner.py") if file else {}


def find_key(value: Any, key: str) -> str | None:
    """The first text under `key` anywhere in nested JSON objects."""
    if not isinstance(value, dict):
        return None
    if isinstance(value.get(key), str):
        return value[key]
    return next((found for inner in value.values() if (found := find_key(inner, key)) is not None), None)
