"""What a model was trained on, and whether its folder is whole; that one is not, tests/test_run_folder.py tells."""

from pathlib import Path
from typing import Any

import pytest

from hardneg.embedding.model_files import check_whole, checksums, corpora_of, foreign_training
from hardneg.running.errors import InputError
from hardneg.running.files import write_json


def test_a_model_that_tells_of_no_files_is_taken_as_it_is(tiny_model: Path, tmp_path: Path) -> None:
    check_whole(tiny_model)
    (tmp_path / "training.json").write_text("[]")
    check_whole(tmp_path)


def test_a_file_that_is_changed_on_purpose(tmp_path: Path) -> None:
    """As the setting of prompts in a copy of a model, which messages ask for."""
    for name in ("config.json", "tokenizer.json"):
        (tmp_path / name).write_text("{}")
    record: dict[str, Any] = {"iteration": 0, "files_sha256": checksums(tmp_path)}
    write_json(tmp_path / "training.json", record)
    check_whole(tmp_path)
    (tmp_path / "config.json").write_text('{"changed": true}')
    with pytest.raises(InputError, match=r"what was judged is stored$"):  # in a run's own folder nobody changes any
        check_whole(tmp_path)
    edited = (
        r"config\.json is not the file .*; if you changed it on purpose, take its line out of files_sha256 in .*json$"
    )
    with pytest.raises(InputError, match=edited):
        check_whole(tmp_path, may_be_edited=True)
    del record["files_sha256"]["config.json"]
    write_json(tmp_path / "training.json", record)
    check_whole(tmp_path, may_be_edited=True)
    (tmp_path / "tokenizer.json").unlink()
    with pytest.raises(InputError, match=r"tokenizer\.json is not the file"):
        check_whole(tmp_path, may_be_edited=True)


def test_the_corpora_that_a_model_was_trained_on() -> None:
    trained = {"iteration": 1, "configuration": {"corpus_sha256": "b"}}
    assert corpora_of(trained) == ["b"]
    assert corpora_of(trained | {"base_trained_on": ["a"]}) == ["a", "b"]
    assert corpora_of(trained | {"base_trained_on": ["b"]}) == ["b"]
    unchanged = {"configuration": {"corpus_sha256": "b"}, "base_trained_on": ["a"]}  # the base model, where none gained
    assert corpora_of(unchanged) == ["a"] and corpora_of({}) == []


def test_a_warning_for_each_corpus_but_the_one_here(tmp_path: Path) -> None:
    record = {"iteration": 0, "configuration": {"corpus_sha256": "b" * 64}, "base_trained_on": ["a" * 64]}
    write_json(tmp_path / "training.json", record)
    (warning,) = foreign_training(str(tmp_path), "b" * 64)
    assert warning.startswith(f"Warning: {tmp_path} was trained on another corpus (aaaaaaaaaaaa, here bbbbbbbbbbbb)")
    assert len(foreign_training(str(tmp_path), "c" * 64)) == 2 and foreign_training("some/model", "b") == []
