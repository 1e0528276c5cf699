"""prepare_queries.py: every question once, with all its answers."""

import json
import sys
from itertools import count
from pathlib import Path
from typing import Any

import pytest

import prepare_corpus
import prepare_queries
from hardneg.corpus.artifacts import QAPair, Query, load_chunks, load_qa_pairs, load_queries, read_manifest
from hardneg.running.errors import InputError
from hardneg.running.files import sha256_file
from tests.records import make_qa_pair, make_query
from tests.tiny_data import write_pickle

SPLITS = ("train", "val", "test")


def pair(qa_id: str, question: str, topic: str, split: str, chunk_ids: list[int]) -> QAPair:
    fields = {"group": f"group of {topic}", "qtype": "causes", "chunk_ids": chunk_ids}
    return make_qa_pair(qa_id, question, topic, split, **fields)


def prepare(monkeypatch: pytest.MonkeyPatch, data_dir: Path, *more: str) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare_queries.py", "--data-dir", str(data_dir), *more])
    prepare_queries.main()


@pytest.fixture(scope="module")
def sample_corpus(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The bundled sample, prepared once. Read only."""
    data_dir = tmp_path_factory.mktemp("data")
    with pytest.MonkeyPatch.context() as monkeypatch:
        monkeypatch.setattr(sys, "argv", ["prepare_corpus.py", "--source", "sample", "--data-dir", str(data_dir)])
        prepare_corpus.main()
    return data_dir


@pytest.fixture
def data_dir(sample_corpus: Path, tmp_path: Path) -> Path:
    """Each test's own copy of the sample corpus."""
    for path in sample_corpus.iterdir():
        (tmp_path / path.name).write_bytes(path.read_bytes())
    return tmp_path


def test_a_question_asked_in_several_rows_has_all_their_chunks() -> None:
    queries = prepare_queries.build_queries(
        [
            pair("a", "What causes gout ?", "Gout", "val", [7, 2]),
            pair("b", "What causes flu?", "Flu", "train", [4]),
            pair("c", "What  causes GOUT", "gout disease", "val", [2, 9]),
        ]
    )
    assert queries == {
        "train": [
            Query(
                query_id=queries["train"][0]["query_id"],
                query="What causes flu?",
                ground_truth_chunk_ids=[4],
                qtype="causes",
                topic="Flu",
                group="group of Flu",
            )
        ],
        "val": [
            Query(
                query_id="qe47751ec95c4",  # printf 'what causes gout' | sha256sum
                query="What causes gout ?",
                ground_truth_chunk_ids=[2, 7, 9],
                qtype="causes",
                topic="Gout",
                group="group of Gout",
            )
        ],
        "test": [],
    }


def test_query_ids_depend_on_the_question_alone() -> None:
    first = prepare_queries.build_queries([pair("a", "What causes gout?", "Gout", "val", [1])])["val"]
    other = prepare_queries.build_queries(
        [pair("z", "Is it flu?", "x", "test", [3]), pair("b", "what causes gout ?", "y", "test", [2])]
    )["test"]
    assert first[0]["query_id"] == other[1]["query_id"] != other[0]["query_id"]


def test_a_question_in_two_splits_is_a_programming_error() -> None:
    with pytest.raises(AssertionError, match="in several splits"):
        prepare_queries.build_queries([pair("a", "Why?", "x", "val", [1]), pair("b", "why", "x", "test", [2])])


def test_from_the_sample_to_queries_that_load(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, data_dir)
    manifest = read_manifest(data_dir)
    chunks = load_chunks(data_dir, manifest)
    queries = {split: load_queries(data_dir, manifest, split) for split in SPLITS}
    everything = [query for split in SPLITS for query in queries[split]]
    pairs = load_qa_pairs(data_dir, manifest)
    assert len({query["query_id"] for query in everything}) == len(everything) == len({p["question"] for p in pairs})
    for split in SPLITS:
        for query in queries[split]:
            for chunk_id in query["ground_truth_chunk_ids"]:
                assert chunks[chunk_id]["split"] in (split, "shared")
                assert chunks[chunk_id]["title"] == query["topic"]

    assert manifest["queries"]["sha256"]["val_queries.pkl"] == sha256_file(data_dir / "val_queries.pkl")
    assert manifest["queries"]["report"]["val"]["queries"] == len(queries["val"])
    assert sum(manifest["queries"]["report"]["val"]["queries_by_type"].values()) == len(queries["val"])

    sample = json.loads((data_dir / "queries_sample.json").read_text(encoding="utf-8"))
    assert [len(sample[split]) for split in SPLITS] == [5, 5, 5]
    first = sample["test"][0]
    assert first["ground_truth_texts"] == [chunks[chunk_id]["text"] for chunk_id in first["ground_truth_chunk_ids"]]


def test_running_it_again_changes_nothing(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, data_dir)
    before = {path.name: path.read_bytes() for path in data_dir.iterdir()}
    prepare(monkeypatch, data_dir)
    assert {path.name: path.read_bytes() for path in data_dir.iterdir()} == before


def test_the_report_s_columns_add_up(
    data_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(monkeypatch, data_dir)
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == "QUERIES BY TYPE"
    assert lines[1].split() == ["train", "val", "test"]
    counts = [[int(cell.replace(",", "")) for cell in line.split()[-3:]] for line in lines[2 : lines.index("")]]
    assert [sum(column) for column in zip(*counts[:-1], strict=True)] == counts[-1]
    assert "CHUNKS PER QUERY" in lines


def test_queries_are_counted_by_type_and_their_answers_by_quantile() -> None:
    queries = [
        make_query(str(i), *range(n), qtype=qtype)
        for i, (n, qtype) in enumerate([(1, "causes"), (1, "outlook"), (1, "causes"), (5, "causes")])
    ]
    assert prepare_queries.count_queries(queries) == {
        "queries": 4,
        "chunks_per_query": {"min": 1, "50%": 1, "95%": 4, "max": 5, "mean": 2.0},
        "queries_by_type": {"causes": 3, "outlook": 1},
    }


def test_a_new_corpus_makes_the_queries_stale(data_dir: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    prepare(monkeypatch, data_dir)
    prepare_corpus.main(["--source", "sample", "--data-dir", str(data_dir), "--seed", "1"])
    with pytest.raises(InputError, match=r"is older than the corpus; run `python prepare_queries.py --data-dir"):
        load_queries(data_dir, read_manifest(data_dir), "train")
    prepare(monkeypatch, data_dir)
    assert load_queries(data_dir, read_manifest(data_dir), "train")


@pytest.mark.parametrize("moment", ["build_queries", "write_json"])
def test_a_corpus_that_is_replaced_meanwhile_is_never_used_with_these_queries(
    data_dir: Path, moment: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The manifest names the corpus that they were made of, which is gone."""
    step = getattr(prepare_queries, moment)

    def replaced(*given: Any) -> Any:
        prepare_corpus.main(["--source", "sample", "--data-dir", str(data_dir), "--seed", "1"])
        return step(*given)

    monkeypatch.setattr(prepare_queries, moment, replaced)
    prepare(monkeypatch, data_dir)
    manifest = read_manifest(data_dir)
    assert load_queries(data_dir, manifest, "train")
    with pytest.raises(
        InputError, match=r"corpus_chunks\.pkl is not the file that .*, or run `python prepare_corpus.py"
    ):
        load_chunks(data_dir, manifest)


@pytest.mark.parametrize("stop_at", range(1, 6))
def test_stopped_while_writing_it_can_run_again(data_dir: Path, stop_at: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """At each rename in turn; what is half there is not taken for whole, whether or not there were other queries."""
    rename, build = Path.replace, prepare_queries.build_queries
    fewer = {split: queries[1:] for split, queries in build(load_qa_pairs(data_dir, read_manifest(data_dir))).items()}

    def stop(patch: pytest.MonkeyPatch) -> None:
        renames = count(1)

        def stopping(path: Path, target: Path) -> Path:
            if next(renames) == stop_at:
                raise KeyboardInterrupt
            return rename(path, target)

        patch.setattr(Path, "replace", stopping)
        with pytest.raises(KeyboardInterrupt):
            prepare(patch, data_dir)

    with monkeypatch.context() as patch:
        stop(patch)
    with pytest.raises(
        InputError, match=r"train_queries.pkl is not made yet, or .*; run `python prepare_queries.py --data-dir"
    ):
        load_queries(data_dir, read_manifest(data_dir), "train")

    with monkeypatch.context() as patch:
        patch.setattr(prepare_queries, "build_queries", lambda _: fewer)
        prepare(patch, data_dir)
    with monkeypatch.context() as patch:
        stop(patch)
    for place, split in enumerate(SPLITS, start=1):
        if place < stop_at:
            with pytest.raises(InputError, match=r"run again, or run `python prepare_queries.py --data-dir"):
                load_queries(data_dir, read_manifest(data_dir), split)
        else:
            assert load_queries(data_dir, read_manifest(data_dir), split) == fewer[split]
    prepare(monkeypatch, data_dir)
    assert len(load_queries(data_dir, read_manifest(data_dir), "train")) == len(fewer["train"]) + 1


def test_without_a_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=r"manifest.json is missing; run `python prepare_corpus.py --data-dir"):
        prepare(monkeypatch, tmp_path)


@pytest.mark.parametrize("name", ["corpus_chunks.pkl", "qa_pairs.pkl"])
def test_files_that_do_not_belong_together(data_dir: Path, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    load = load_chunks if name.startswith("corpus") else load_qa_pairs
    write_pickle(data_dir / name, load(data_dir, read_manifest(data_dir))[:50])
    with pytest.raises(
        InputError, match=rf"{name} is not the file that .*, or run `python prepare_corpus.py --data-dir"
    ):
        prepare(monkeypatch, data_dir)
    assert not (data_dir / "train_queries.pkl").exists()
    (data_dir / name).unlink()
    with pytest.raises(InputError, match=rf"{name} is missing; run `python prepare_corpus.py --data-dir"):
        prepare(monkeypatch, data_dir)
