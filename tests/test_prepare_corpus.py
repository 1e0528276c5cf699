"""prepare_corpus.py from source to artifacts, on hand-written data and on the real thing."""

import json
import os
import shutil
import subprocess
import sys
import time
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

import prepare_corpus
from hardneg.corpus.artifacts import SPLITS, Chunk, QAPair, load_chunks, load_qa_pairs, read_manifest
from hardneg.corpus.topics import BOILERPLATE_ROWS
from hardneg.running.errors import InputError
from hardneg.running.files import sha256_file

ROOT = Path(__file__).parent.parent
ADVICE = "Ask your doctor before you take anything for it, and come back should it get worse."
# topic, question, answer; 12 topics, so that val and test get one each
FAQ = [
    *(("", f"What are the symptoms of illness {i} ?", f"A rash on limb {i}. {ADVICE}") for i in range(11)),
    ("Gout", "What is gout ?", "Uric  acid\ncrystals in a joint."),
    ("Gout", "What is Gout?", "A very painful joint."),
    ("gout", "How long does gout last?", "URIC ACID crystals in a joint."),
    ("Gout", "Is there a cure?", "  "),
    ("", " ?", "An answer to nothing."),
]


def write_faq(folder: Path) -> Path:
    path = folder / "faq.jsonl"
    rows = [{"topic": topic, "question": question, "answer": answer} for topic, question, answer in FAQ]
    path.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return path


def prepare(monkeypatch: pytest.MonkeyPatch, *arguments: str | Path) -> None:
    monkeypatch.setattr(sys, "argv", ["prepare_corpus.py", *map(str, arguments)])
    prepare_corpus.main()


@pytest.fixture
def prepared(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    prepare(monkeypatch, "--source", write_faq(tmp_path), "--data-dir", tmp_path / "data")
    return tmp_path / "data"


def manifest_of(data_dir: Path) -> dict[str, Any]:
    return read_manifest(data_dir)["corpus"]


def chunks_of(data_dir: Path) -> list[Chunk]:
    return load_chunks(data_dir, read_manifest(data_dir))


def pairs_of(data_dir: Path) -> list[QAPair]:
    return load_qa_pairs(data_dir, read_manifest(data_dir))


def test_identical_answers_are_one_chunk_of_all_their_rows(prepared: Path) -> None:
    chunks, pairs = chunks_of(prepared), pairs_of(prepared)
    assert len(chunks) == 13  # 11 symptoms and two different answers about gout
    assert [pair["chunk_ids"] for pair in pairs[-3:]] == [[11], [12], [11]]
    split = pairs[-1]["split"]
    assert chunks[11] == Chunk(
        chunk_id=11,
        text="Uric acid crystals in a joint.",
        title="Gout",
        qa_ids=["row11", "row13"],
        qtype="unknown",
        source="",
        url="",
        split=split,
    )
    assert pairs[-1] == QAPair(
        qa_id="row13",
        question="How long does gout last?",
        topic="gout",
        concept="",
        synonyms="",
        group="gout",
        qtype="unknown",
        split=split,
        chunk_ids=[11],
    )


def test_the_report_in_the_manifest(prepared: Path) -> None:
    corpus = manifest_of(prepared)
    assert corpus["sha256"] == sha256_file(prepared / "corpus_chunks.pkl")
    assert corpus["qa_pairs_sha256"] == sha256_file(prepared / "qa_pairs.pkl")
    assert corpus["arguments"]["chunk_chars"] == 1000
    assert corpus["arguments"]["data_dir"] == str(prepared)
    assert corpus["source_version"] == sha256_file(prepared.parent / "faq.jsonl")
    report = corpus["report"]
    assert {name: report["rows"][name] for name in ("read", "without_answer", "without_question", "used")} == {
        "read": 16,
        "without_answer": 1,
        "without_question": 1,
        "used": 14,
    }
    assert report["rows"]["without_topic"] == 0  # the wording tells it
    assert report["chunks"]["passages"] == 14
    assert report["chunks"]["duplicates_merged"] == 1
    assert report["chunks"]["different"] == 13
    assert report["chunks"]["naming_their_topic"] == 0
    assert report["chunks"]["characters"]["min"] == len("A very painful joint.")
    assert sum(counts["topics"] for counts in report["splits"].values()) == 12
    assert [report["splits"][split]["questions"] for split in ("val", "test")] == [1, 1]
    assert sum(counts["questions"] for counts in report["splits"].values()) == 13  # "what is gout" was asked twice
    assert report["leakage"] == {"questions": 0, "topics": 0, "names": 0, "concepts": 0, "chunks": 0}
    assert report["boilerplate"]["chunks"] == 0


def test_the_report_on_the_terminal(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    prepare(monkeypatch, "--source", write_faq(tmp_path), "--data-dir", tmp_path / "data")
    printed = capsys.readouterr().out
    assert "  read              16\n  without answer     1\n" in printed
    assert "  questions in several splits  0\n" in printed
    assert printed.endswith(f"Wrote 13 chunks and 14 question/answer pairs to {tmp_path / 'data'}\n")


def test_a_sample_for_jq(prepared: Path) -> None:
    assert json.loads((prepared / "corpus_sample.json").read_text()) == chunks_of(prepared)


def test_a_sample_for_jq_is_short_and_from_all_over_the_corpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_table(tmp_path / "faq.csv", 45)
    prepare(monkeypatch, "--source", source, "--data-dir", tmp_path / "data")
    sample = json.loads((tmp_path / "data" / "corpus_sample.json").read_text())
    assert [chunk["chunk_id"] for chunk in sample] == list(range(0, 45, 3))  # every second one would be 23


def test_boilerplate_is_one_chunk_of_many_splits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "faq.csv"
    n_rows = BOILERPLATE_ROWS + 20
    lines = [f"Is illness {i} inherited ?,Nobody knows." for i in range(n_rows)]
    source.write_text("question,answer\n" + "\n".join(lines) + "\n")
    prepare(monkeypatch, "--source", source, "--data-dir", tmp_path / "data")
    (chunk,) = chunks_of(tmp_path / "data")
    assert chunk["split"] == "shared"
    assert len(chunk["qa_ids"]) == n_rows
    report = manifest_of(tmp_path / "data")["report"]
    assert report["boilerplate"] == {"chunks": 1, "rows_of_the_widest": n_rows, "share_of_questions": 1.0}
    assert {split: counts["questions"] for split, counts in report["splits"].items()} == {
        "train": 32,
        "val": 4,
        "test": 4,
    }


def test_title_in_text_changes_texts_and_nothing_about_the_split(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    source = write_faq(tmp_path)
    prepare(monkeypatch, "--source", source, "--data-dir", tmp_path / "bare")
    prepare(monkeypatch, "--source", source, "--data-dir", tmp_path / "titled", "--title-in-text")
    bare, titled = chunks_of(tmp_path / "bare"), chunks_of(tmp_path / "titled")
    assert titled[0]["text"] == f"illness 0: A rash on limb 0. {ADVICE}"
    assert [chunk["text"].split(": ", 1)[1] for chunk in titled] == [chunk["text"] for chunk in bare]
    naming = [manifest_of(tmp_path / name)["report"]["chunks"]["naming_their_topic"] for name in ("bare", "titled")]
    assert naming == [0, len(titled)]
    assert [pair["split"] for pair in pairs_of(tmp_path / "titled")] == [
        pair["split"] for pair in pairs_of(tmp_path / "bare")
    ]


def test_titles_that_make_two_rows_texts_the_same_keep_them_together(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    rows = []
    for i in range(12):
        rows.append({"question_focus": f"Ill {i}", "question": f"Is {i} bad?", "answer": f"Type 2: rest number {i}."})
        rows.append({"question_focus": f"Ill {i}: Type 2", "question": f"Is {i} good?", "answer": f"rest number {i}."})
    source = tmp_path / "faq.jsonl"
    source.write_text("\n".join(map(json.dumps, rows)), encoding="utf-8")
    prepare(monkeypatch, "--source", source, "--data-dir", tmp_path / "data", "--title-in-text")
    pairs = pairs_of(tmp_path / "data")
    assert all(one["chunk_ids"] == other["chunk_ids"] for one, other in zip(pairs[::2], pairs[1::2], strict=True))
    assert all(one["split"] == other["split"] for one, other in zip(pairs[::2], pairs[1::2], strict=True))


def test_a_passage_that_few_rows_share_keeps_them_in_one_split(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "faq.csv"
    answers = [f"A rash on limb {i}. {ADVICE}" for i in range(11)] + ["Rest.", "Water.", "Air."]
    lines = [f'What helps against illness {i}?,"{answer}"' for i, answer in enumerate(answers)]
    source.write_text("question,answer\n" + "\n".join(lines) + "\n")
    prepare(monkeypatch, "--source", source, "--data-dir", tmp_path / "data", "--chunk-chars", "100")
    chunks, pairs = chunks_of(tmp_path / "data"), pairs_of(tmp_path / "data")
    assert [chunk["text"] for chunk in chunks[:3]] == ["A rash on limb 0.", ADVICE, "A rash on limb 1."]
    assert [pair["chunk_ids"] for pair in pairs[:2]] == [[0, 1], [2, 1]]
    assert chunks[1]["qa_ids"] == [f"row{i}" for i in range(11)]
    assert [pair["split"] for pair in pairs[:11]] == ["train"] * 11


def test_a_passage_of_several_topics_has_no_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One of several questions on one topic has it."""
    rows = [
        ("Is gout rare?", "Gout"),
        ("How rare is gout?", "gout"),
        ("Is scurvy bad?", "Scurvy"),
        ("Bad gout?", "Gout"),
    ]
    answers = ["It is rare.", "It is rare.", "Ask your doctor.", "Ask your doctor."]
    lines = [
        {"question": question, "answer": answer, "topic": topic}
        for (question, topic), answer in zip(rows, answers, strict=True)
    ]
    lines += [{"question": f"Question {n}?", "answer": f"Answer {n}.", "topic": f"Topic {n}"} for n in range(10)]
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare(monkeypatch, "--source", tmp_path / "faq.jsonl", "--data-dir", tmp_path / "data")
    titles = [(chunk["text"], chunk["title"]) for chunk in chunks_of(tmp_path / "data")[:3]]
    assert titles == [("It is rare.", "Gout"), ("Ask your doctor.", ""), ("Answer 0.", "Topic 0")]


def test_rows_without_a_topic_are_counted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [{"question": f"Question {number}?", "answer": f"Answer {number}."} for number in range(10)]
    lines.append({"question": "What are the treatments for gout ?", "answer": "Rest."})
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare(monkeypatch, "--source", tmp_path / "faq.jsonl", "--data-dir", tmp_path / "data")
    assert manifest_of(tmp_path / "data")["report"]["rows"]["without_topic"] == 10


def test_splits_that_tell_little_are_warned_of(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Forty topics of ten questions; then eight of them share a question, which ties them; then there are fewer."""
    lines = [
        {
            "question": f"What is item {n} of thing {topic}?",
            "answer": f"Answer {n} on {topic}.",
            "topic": f"Thing {topic}",
        }
        for topic in range(40)
        for n in range(10)
    ]
    flags = ["--data-dir", str(tmp_path / "data"), "--val-fraction", "0.2", "--test-fraction", "0.2"]
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare(monkeypatch, "--source", tmp_path / "faq.jsonl", *flags)
    assert "Warning" not in capsys.readouterr().out
    for line in lines[0:80:10]:
        line["question"] = "What is it?"
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare(monkeypatch, "--source", tmp_path / "faq.jsonl", *flags)
    (warning,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Warning")]
    assert warning.startswith("Warning: 80 of 400 rows form one group, which is never divided")
    assert "such as 'what is it', which 8 rows ask" in warning
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines[80:300]))
    prepare(monkeypatch, "--source", tmp_path / "faq.jsonl", "--data-dir", tmp_path / "data")
    first, second = [line for line in capsys.readouterr().out.splitlines() if line.startswith("Warning")]
    assert first.startswith("Warning: 20 val questions are few to choose a model by; raise --val-fraction")
    assert second.startswith("Warning: 20 test questions are few to measure a model by; raise --test-fraction")


def test_answers_with_html_tags_are_told(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    lines = [{"question": f"Is {number} < 5?", "answer": f"{number}<5 and a<b and c>{number}."} for number in range(10)]
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare(monkeypatch, "--source", tmp_path / "faq.jsonl", "--data-dir", tmp_path / "data")
    assert "Note: HTML tags" not in capsys.readouterr().out
    lines.append({"question": "How?", "answer": '<p class="first">Press</p><p>Enter</p>'})
    (tmp_path / "faq.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    prepare(monkeypatch, "--source", tmp_path / "faq.jsonl", "--data-dir", tmp_path / "data")
    printed = capsys.readouterr().out
    assert "with html tags" in printed and "Note: HTML tags are chunked, embedded and judged like words" in printed
    assert manifest_of(tmp_path / "data")["report"]["rows"]["with_html_tags"] == 1


def write_table(path: Path, count: int) -> Path:
    """So many questions of no known topic, each with an answer of its own."""
    lines = [f"Is illness {i} bad?,It lasts {i + 2} days.\n" for i in range(count)]
    path.write_text("question,answer\n" + "".join(lines))
    return path


def test_validation_and_test_get_their_fractions_by_the_seed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_table(tmp_path / "faq.csv", 40)
    splits = {}
    for seed in ("42", "1"):
        fractions = ("--val-fraction", "0.2", "--test-fraction", "0.3", "--seed", seed)
        prepare(monkeypatch, "--source", source, "--data-dir", tmp_path / seed, *fractions)
        splits[seed] = [pair["split"] for pair in pairs_of(tmp_path / seed)]
        assert Counter(splits[seed]) == {"train": 20, "val": 8, "test": 12}
    assert splits["42"] != splits["1"]


def test_columns_are_those_that_the_flags_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = tmp_path / "faq.csv"
    lines = [f"Is illness {i} bad?,It lasts {i + 2} days.,Illness {i}\n" for i in range(12)]
    source.write_text("title,reply,subject\n" + "".join(lines))
    named = ("--question-column", "title", "--answer-column", "reply", "--topic-column", "subject")
    prepare(monkeypatch, "--source", source, "--data-dir", tmp_path / "data", *named)
    chunks, pairs = chunks_of(tmp_path / "data"), pairs_of(tmp_path / "data")
    assert (pairs[5]["question"], pairs[5]["topic"]) == ("Is illness 5 bad?", "Illness 5")
    assert (chunks[5]["text"], chunks[5]["title"]) == ("It lasts 7 days.", "Illness 5")


def test_an_answer_of_no_known_topic_has_no_title(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its question, which counts as its topic, is none."""
    source = write_table(tmp_path / "faq.csv", 12)
    prepare(monkeypatch, "--source", source, "--data-dir", tmp_path / "data", "--title-in-text")
    chunk = chunks_of(tmp_path / "data")[0]
    assert (chunk["text"], chunk["title"]) == ("It lasts 2 days.", "")


def test_splits_that_leak_are_a_programming_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As where rows are dealt in turn, whatever their topic."""
    monkeypatch.setattr(
        prepare_corpus, "assign_splits", lambda groups, *_: [SPLITS[row % 3] for row in range(len(groups))]
    )
    with pytest.raises(AssertionError, match="the splits leak"):
        prepare(monkeypatch, "--source", write_faq(tmp_path), "--data-dir", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_an_answer_that_says_a_passage_twice_has_it_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_table(tmp_path / "faq.csv", 12)
    with source.open("a") as file:
        file.write(f'Is it over?,"{ADVICE} {ADVICE}"\n')
    prepare(monkeypatch, "--source", source, "--data-dir", tmp_path / "data", "--chunk-chars", "100")
    (chunk,) = (chunk for chunk in chunks_of(tmp_path / "data") if chunk["text"] == ADVICE)
    assert chunk["qa_ids"] == ["row12"]
    assert pairs_of(tmp_path / "data")[12]["chunk_ids"] == [chunk["chunk_id"]]


def test_max_topics_is_a_seeded_subset(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    source = write_faq(tmp_path)
    topics = {}
    for name, extra in {"a": [], "b": [], "other seed": ["--seed", "7"]}.items():
        prepare(monkeypatch, "--source", source, "--data-dir", tmp_path / name, "--max-topics", "4", *extra)
        topics[name] = {pair["topic"].casefold() for pair in pairs_of(tmp_path / name)}
        assert len(topics[name]) == 4
    assert topics["a"] == topics["b"] != topics["other seed"]


def test_the_same_arguments_give_the_same_bytes(tmp_path: Path) -> None:
    """Also in processes whose sets iterate in different orders."""
    contents = []
    for hash_seed in ("1", "2"):
        shutil.rmtree(tmp_path / "data", ignore_errors=True)
        subprocess.run(
            [sys.executable, "prepare_corpus.py", "--source", "sample", "--data-dir", str(tmp_path / "data")],
            env={**os.environ, "PYTHONHASHSEED": hash_seed},
            cwd=ROOT,
            check=True,
            capture_output=True,
        )
        contents.append({path.name: path.read_bytes() for path in (tmp_path / "data").iterdir()})
    assert contents[0] == contents[1]
    assert contents[0].keys() == {"corpus_chunks.pkl", "qa_pairs.pkl", "corpus_sample.json", "manifest.json"}


def test_no_answers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "faq.csv").write_text("question,answer\nWhy?,\nHow?,  \n")
    with pytest.raises(InputError, match=r"faq.csv has 2 rows and not one answered question; check the answer column"):
        prepare(monkeypatch, "--source", tmp_path / "faq.csv", "--data-dir", tmp_path / "data")
    assert not (tmp_path / "data").exists()


def test_bad_input_ends_with_one_line_and_status_2(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "prepare_corpus.py", "--source", "no such source"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 2
    assert done.stderr.startswith("error: unknown source 'no such source'; give a hub data set id")
    assert done.stderr.count("\n") == 1


def test_a_file_in_place_of_the_data_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "data").write_text("mine")
    with pytest.raises(InputError, match="a file stands where a folder is needed"):
        prepare(monkeypatch, "--source", write_faq(tmp_path), "--data-dir", tmp_path / "data")
    assert (tmp_path / "data").read_text() == "mine"


@pytest.mark.parametrize(
    "arguments",
    [
        ["--chunk-chars", "99"],
        ["--max-topics", "2"],
        ["--seed", "-1"],
        ["--val-fraction", "0"],
        ["--test-fraction", "-0.1"],
        ["--val-fraction", "0.5", "--test-fraction", "0.5"],
    ],
)
def test_impossible_arguments(arguments: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(InputError, match=arguments[0]):
        prepare(monkeypatch, *arguments)


@pytest.mark.skipif("HARDNEG_DATA" not in os.environ, reason="HARDNEG_DATA names no folder with medquad.parquet")
def test_all_of_medquad_in_time_and_memory_without_leaks(tmp_path: Path) -> None:
    source = Path(os.environ["HARDNEG_DATA"]) / "medquad.parquet"
    begun = time.monotonic()
    command = [sys.executable, "prepare_corpus.py", "--source", str(source), "--data-dir", str(tmp_path)]
    process = subprocess.Popen(command, cwd=ROOT, stdout=subprocess.DEVNULL)
    _, status, usage = os.wait4(process.pid, 0)
    assert status == 0
    assert time.monotonic() - begun < 60
    assert usage.ru_maxrss * 1024 < 1.5e9  # bytes
    chunks, pairs = chunks_of(tmp_path), pairs_of(tmp_path)
    assert len(pairs) == 16_407
    assert 24_000 < len(chunks) < 28_000

    split_of = {pair["qa_id"]: pair["split"] for pair in pairs}
    splits: dict[tuple[str, str], set[str]] = defaultdict(set)
    for pair in pairs:  # counted anew, not with the functions that made the split
        splits["question", pair["question"].lower().replace("?", "").strip()].add(pair["split"])
        splits["topic", pair["topic"].lower()].add(pair["split"])
    for chunk in chunks:
        if len(chunk["qa_ids"]) <= 20:
            splits["chunk", chunk["text"].lower()] |= {split_of[qa_id] for qa_id in chunk["qa_ids"]}
    assert not [key for key, found in splits.items() if len(found) > 1]
    n_questions = {
        split: sum(key[0] == "question" and found == {split} for key, found in splits.items())
        for split in ("train", "val", "test")
    }
    assert n_questions == {"train": pytest.approx(11_477, abs=20), "val": 1434, "test": 1434}
