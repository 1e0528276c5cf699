"""What the stages pass on: read only where it is whole, and belongs together."""

import pickle
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from hardneg.corpus.artifacts import load_chunks, load_qa_pairs, load_queries, read_manifest, spread
from hardneg.running.errors import InputError
from hardneg.running.files import sha256_file, write_json
from tests.tiny_data import write_pickle

ROOT = Path(__file__).parent.parent


@pytest.mark.parametrize(
    ("records", "message"),
    [
        ([], "holds no list of records"),
        ({"chunk_id": 0}, "holds no list of records"),
        (["text"], "record 0 has str, not the fields"),
        ([{"chunk_id": 0, "text": "x"}], r"record 0 has \['chunk_id', 'text'\], not the fields"),
    ],
)
def test_records_of_another_kind(tmp_path: Path, records: object, message: str) -> None:
    path = tmp_path / "corpus_chunks.pkl"
    path.write_bytes(pickle.dumps(records))
    with pytest.raises(InputError, match=message):
        load_chunks(tmp_path, {"corpus": {"sha256": sha256_file(path)}})


def test_loading_a_data_folder(tiny_data_dir: Path) -> None:
    manifest = read_manifest(tiny_data_dir)
    assert (len(load_chunks(tiny_data_dir, manifest)), len(load_qa_pairs(tiny_data_dir, manifest))) == (30, 24)
    assert [len(load_queries(tiny_data_dir, manifest, split)) for split in ("train", "val", "test")] == [12, 6, 6]


@pytest.mark.parametrize("load", [load_chunks, load_qa_pairs, partial(load_queries, split="val")])
def test_a_file_that_the_manifest_does_not_know(tiny_data_dir: Path, load: Callable[..., list[Any]]) -> None:
    name = {load_chunks: "corpus_chunks", load_qa_pairs: "qa_pairs"}.get(load, "val_queries")
    maker = "queries" if name == "val_queries" else "corpus"
    manifest = read_manifest(tiny_data_dir)
    write_pickle(tiny_data_dir / f"{name}.pkl", load(tiny_data_dir, manifest)[1:])
    with pytest.raises(
        InputError, match=rf"{name}\.pkl is not the file .* or run `python prepare_{maker}.py --data-dir"
    ):
        load(tiny_data_dir, manifest)


@pytest.mark.parametrize("load", [load_chunks, load_qa_pairs])
def test_a_manifest_without_checksums(tiny_data_dir: Path, load: Callable[..., list[Any]]) -> None:
    write_json(tiny_data_dir / "manifest.json", {"corpus": {}})
    with pytest.raises(InputError, match=r"is not the file that .* tells of .* or run `python prepare_corpus.py"):
        load(tiny_data_dir, read_manifest(tiny_data_dir))


@pytest.mark.parametrize("manifest", [[], {"corpus": None}, {"corpus": "x"}, {"queries": {"sha256": "x"}}])
def test_a_manifest_of_another_shape(tiny_data_dir: Path, manifest: object) -> None:
    write_json(tiny_data_dir / "manifest.json", manifest)
    with pytest.raises(InputError, match=r"manifest\.json is no manifest of a prepared corpus"):
        read_manifest(tiny_data_dir)


@pytest.mark.parametrize("name", ["manifest.json", "corpus_chunks.pkl", "train_queries.pkl"])
def test_the_remedy_is_for_the_folder_that_is_read(tiny_data_dir: Path, name: str) -> None:
    """Without --data-dir it would replace the data in ./data, and without the flags make another corpus."""
    folder = tiny_data_dir.rename(tiny_data_dir.with_name("my data"))
    (folder / name).unlink()
    maker, flags = "corpus", " with the --source and other flags of this corpus"
    if name == "train_queries.pkl":
        maker, flags = "queries", ""
    with pytest.raises(InputError) as raised:
        manifest = read_manifest(folder)
        load_chunks(folder, manifest)
        load_queries(folder, manifest, "train")
    remedy = f"run `python prepare_{maker}.py --data-dir '{folder}'`{flags}"
    assert str(raised.value) == f"{folder / name} is missing; {remedy}"


def test_queries_of_another_corpus(tiny_data_dir: Path) -> None:
    write_json(tiny_data_dir / "manifest.json", {"corpus": read_manifest(tiny_data_dir)["corpus"]})
    with pytest.raises(InputError, match=r"is older than the corpus; run `python prepare_queries.py --data-dir"):
        load_queries(tiny_data_dir, read_manifest(tiny_data_dir), "train")


@pytest.mark.parametrize(
    ("count", "shown"), [(0, []), (3, [0, 1, 2]), (5, [0, 1, 2, 3, 4]), (9, [0, 2, 4, 6, 8]), (14, [0, 3, 6, 9, 12])]
)
def test_a_sample_to_look_at_is_from_all_over(count: int, shown: list[int]) -> None:
    assert list(spread(range(count), 5)) == shown
