"""Human-graded sets: what the reader accepts and refuses, and how a real encoder's rankings are scored."""

import json
import math
import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from sentence_transformers import SentenceTransformer

from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.models import load_model
from hardneg.measuring.graded import BUNDLED_GRADED, graded_pairs, load_graded, open_graded, open_guard, score_graded
from hardneg.running.errors import InputError
from tests.tiny_data import tiny_corpus


def row(question_id: Any = "1", of_answer: str = "a", grade: Any = 3, **changes: Any) -> dict[str, Any]:
    return {
        "question_id": question_id,
        "question": f"Question {question_id}?",
        "answer_title": "",
        "answer": f"Answer {of_answer}.",
        "grade": grade,
    } | changes


def write(path: Path, rows: list[Any]) -> Path:
    path.write_text("".join(json.dumps(entry) + "\n" for entry in rows), encoding="utf-8")
    return path


def test_reads_questions_in_order(tmp_path: Path) -> None:
    rows = [row("1", "a", 4), row("2", "b", 1), row("1", "c", 2, answer_title="On c"), row("2", "a", 1)]
    graded = load_graded(write(tmp_path / "set.jsonl", rows))
    assert graded.name == "set.jsonl"
    assert [(q.question_id, q.question) for q in graded.questions] == [("1", "Question 1?"), ("2", "Question 2?")]
    assert [(a.title, a.text, a.grade) for a in graded.questions[0].answers] == [
        ("", "Answer a.", 4),
        ("On c", "Answer c.", 2),
    ]
    assert (graded.n_answers, graded.n_of_one_grade) == (4, 1)


def test_an_answer_judged_twice_is_one_answer(tmp_path: Path) -> None:
    graded = load_graded(write(tmp_path / "set.jsonl", [row(grade=2), row(of_answer="b", grade=1), row(grade=3)]))
    first, second = graded.questions[0].answers
    assert (first.grades, first.grade, second.grades) == ((2, 3), 2.5, (1,))


def test_windows_line_ends_byte_order_mark_and_blank_lines(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(row()).encode() + b"\r\n\r\n" + json.dumps(row("2")).encode())
    assert len(load_graded(path).questions) == 2


def test_a_line_separator_in_an_answer_ends_no_line(tmp_path: Path) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(row(answer="Rest.\u2028Fluids.\x85"), ensure_ascii=False), encoding="utf-8")
    assert load_graded(path).questions[0].answers[0].text == "Rest.\u2028Fluids.\x85"


def test_numbers_may_be_ids_and_grades_have_a_point(tmp_path: Path) -> None:
    as_text = load_graded(write(tmp_path / "set.jsonl", [row("7", "a", 3), row("7", "b", 1)]))
    graded = load_graded(write(tmp_path / "set.jsonl", [row("7", "a", 3.0), row("7", "b", 1) | {"question_id": 7}]))
    assert graded == as_text and graded.sha256 == as_text.sha256


def test_a_guard_has_twenty_questions_that_tell(tmp_path: Path) -> None:
    rows = [row(f"{n}", answer, grade) for n in range(20) for answer, grade in (("a", 4), ("b", 1))]
    rows += [row(f"same {n}") for n in range(5)]
    guard = open_guard(str(write(tmp_path / "set.jsonl", rows)))
    assert guard is not None and len(guard.questions) == 25
    with pytest.raises(InputError, match=r"--guard .*set\.jsonl: 19 question\(s\) with answers of different grades"):
        open_guard(str(write(tmp_path / "set.jsonl", rows[2:])))
    assert open_guard("none") is None


def test_a_set_needs_a_question_with_answers_of_different_grades(tmp_path: Path) -> None:
    same, mixed = [row("1", "a", 2), row("1", "b", 2)], [row("2", "a", 2), row("2", "b", 3)]
    assert len(open_graded(str(write(tmp_path / "set.jsonl", same + mixed))).questions) == 2
    with pytest.raises(InputError, match=r"set\.jsonl: no question in it has answers of different grades; name"):
        open_graded(str(write(tmp_path / "set.jsonl", same)))


def test_answers_of_one_mean_grade_do_not_tell(tmp_path: Path) -> None:
    """People gave the first 1 and 3, the second 2."""
    graded = load_graded(write(tmp_path / "set.jsonl", [row("1", "a", 1), row("1", "a", 3), row("1", "b", 2)]))
    assert graded.n_of_one_grade == 1


def test_pairs_of_a_set_are_numbered_through(tmp_path: Path) -> None:
    rows = [row("1", "a", 4), row("2", "a", 1), row("1", "b", 2, answer_title="On b")]
    found = graded_pairs(load_graded(write(tmp_path / "set.jsonl", rows)))
    assert [(p.query["query_id"], p.query["query"], p.chunk["text"], p.chunk["title"]) for p in found] == [
        ("1", "Question 1?", "Answer a.", ""),
        ("1", "Question 1?", "Answer b.", "On b"),
        ("2", "Question 2?", "Answer a.", ""),
    ]
    assert [(p.chunk["chunk_id"], p.chunk["source"]) for p in found] == [(n, "set.jsonl") for n in range(3)]


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("{not json", "line 2 is not JSON"),
        ("[" * 100_000, "line 2 is not JSON"),  # deeper than the parser goes
        ("[1, 2]", "line 2 lacks question_id, question, answer_title, answer, grade"),
        (json.dumps({key: value for key, value in row().items() if key != "grade"}), "line 2 lacks grade"),
        (json.dumps(row(grade=0)), "line 2: grade is 0; it must be 1, 2, 3 or 4"),
        (json.dumps(row(grade=5)), "line 2: grade is 5"),
        (json.dumps(row(grade=2.5)), "line 2: grade is 2.5"),
        (json.dumps(row(grade="3")), "line 2: grade is '3'"),
        (json.dumps(row(grade=True)), "line 2: grade is True"),
        (json.dumps(row(grade=None)), "line 2: grade is None"),
        (json.dumps(row(answer="  ")), "line 2: answer is '  '; it must be text"),
        (json.dumps(row(question=7)), "line 2: question is 7"),
        (json.dumps(row(question=" ")), "line 2: question is ' '"),
        (json.dumps(row(answer_title=None)), "line 2: answer_title is None"),
        (json.dumps(row(answer="Cut \ud83d")), "line 2: answer holds half of a surrogate pair"),
        (json.dumps(row(question="\ud800 Cut")), "line 2: question holds half of a surrogate pair"),
        (json.dumps(row(answer_title="\udfff")), "line 2: answer_title holds half of a surrogate pair"),
        (json.dumps(row(question_id=None)), "line 2: question_id is None"),
        (json.dumps(row(question_id=True)), "line 2: question_id is True"),
        (json.dumps(row(question="Another one?")), "line 2: question_id 1 has another question above"),
    ],
)
def test_malformed_lines(tmp_path: Path, line: str, message: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_text(json.dumps(row()) + "\n" + line + "\n", encoding="utf-8")
    with pytest.raises(InputError) as error:
        load_graded(path)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("content", "message"),
    [(b"", "holds no graded answers"), (b"\n\n", "holds no graded answers"), (b"\xff\xfe\x00", "is not UTF-8 text")],
)
def test_files_without_lines(tmp_path: Path, content: bytes, message: str) -> None:
    path = tmp_path / "set.jsonl"
    path.write_bytes(content)
    with pytest.raises(InputError, match=message):
        load_graded(path)


def test_unreadable_files(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"cannot read .*none\.jsonl: No such file"):
        load_graded(tmp_path / "none.jsonl")
    with pytest.raises(InputError, match="cannot read"):
        load_graded(tmp_path)


def test_answers_are_ranked_by_cosine(tmp_path: Path, tiny_model: Path) -> None:
    """The question's own words are the nearest text there is: what grade stands there decides the score."""
    asked = "How is gout treated?"
    rows = [
        row("1", "a", 1, question=asked, answer="Bleeding gums and loose teeth."),
        row("1", "b", 4, question=asked, answer=asked),
        row("2", "a", 4, question=asked + " Please", answer="Bleeding gums and loose teeth."),
        row("2", "b", 1, question=asked + " Please", answer=asked),
        row("3", "a", 1, question="Whooping cough?", answer="Salts and fluids."),
    ]
    graded = load_graded(write(tmp_path / "set.jsonl", rows))
    scores = score_graded(CachedEncoder(load_model(str(tiny_model), "cpu"), tmp_path), graded)
    assert scores["MRR@5"].tolist() == [1, 0.5, 0]
    assert scores["DCG@5"] == pytest.approx([3, 3 / math.log2(3), 0])
    assert scores["nDCG@10"] == pytest.approx([1, 1 / math.log2(3)])


def test_questions_and_answers_are_encoded_each_behind_its_prompt(tmp_path: Path, model: SentenceTransformer) -> None:
    model.prompts |= {"query": "asthma: ", "document": "gout: "}
    chunks, _, queries = tiny_corpus()
    asked, texts = [query["query"] for query in queries["train"]], [chunk["text"] for chunk in chunks]
    grades = [1 + place % 4 for place in range(len(texts))]
    rows = [
        row(question, "", grade, question=question, answer=text)
        for question in asked
        for text, grade in zip(texts, grades, strict=True)
    ]
    questions, passages = (
        model.encode([prompt + text for text in group], prompt="", normalize_embeddings=True)
        for prompt, group in (("asthma: ", asked), ("gout: ", texts))
    )
    expected = [
        sum((grades[place] - 1) / math.log2(rank + 1) for rank, place in enumerate(order[:5], start=1))
        for order in np.argsort(-questions @ passages.T).tolist()
    ]
    graded = load_graded(write(tmp_path / "set.jsonl", rows))
    assert score_graded(CachedEncoder(model, tmp_path), graded)["DCG@5"] == pytest.approx(expected)


def test_a_set_is_known_by_what_rankings_are_scored_by(tmp_path: Path) -> None:
    def sha256(*rows: dict[str, Any]) -> str:
        return load_graded(write(tmp_path / "set.jsonl", list(rows))).sha256

    rows = [row("1", "a", 4), row("1", "b", 1)]
    otherwise = {"question_id": "9", "answer_title": "On a", "answer_id": "a1"}
    assert sha256(*(entry | otherwise for entry in rows)) == sha256(*rows)
    different = [rows[::-1], [rows[0] | {"grade": 3}, rows[1]], [rows[0], rows[1] | {"answer": "Another."}]]
    different += [rows[:1], [entry | {"question": "Another?"} for entry in rows]]
    assert len({sha256(*rows), *(sha256(*others) for others in different)}) == 6


def test_every_question_of_the_bundled_set_has_answers_of_different_grades() -> None:
    graded = load_graded(BUNDLED_GRADED)
    assert len(graded.questions) == 240
    assert graded.n_of_one_grade == 0
    assert {grade for q in graded.questions for a in q.answers for grade in a.grades} == {1, 2, 3, 4}


@pytest.mark.skipif("HARDNEG_DATA" not in os.environ, reason="HARDNEG_DATA names no folder with liveqa_dev.jsonl")
def test_merging_the_answers_of_liveqa_loses_no_grade() -> None:
    """80 of its 1,251 lines judge an answer again with another grade; nothing is lost in merging them."""
    graded = load_graded(Path(os.environ["HARDNEG_DATA"]) / "liveqa_dev.jsonl")
    assert (len(graded.questions), graded.n_answers, graded.n_of_one_grade) == (51, 1162, 4)
    assert sum(len(answer.grades) for question in graded.questions for answer in question.answers) == 1251


def write_nanobeir(folder: Path) -> Path:
    """A data set in NanoBEIR's layout, of one split with two questions."""
    subsets: dict[str, list[dict[str, Any]]] = {
        "corpus": [{"_id": f"d{n}", "text": f"Passage {n}."} for n in range(30)],
        "queries": [{"_id": "q1", "text": "Which?"}, {"_id": "q2", "text": "Why?"}],
        "qrels": [{"query-id": "q1", "corpus-id": f"d{n}"} for n in (3, 29)] + [{"query-id": "q2", "corpus-id": "d0"}],
        "bm25": [{"query-id": q, "corpus-ids": [f"d{n}" for n in range(25)]} for q in ("q1", "q2")],
    }
    configs = []
    for name, rows in subsets.items():
        (folder / f"{name}.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
        configs.append(f"- config_name: {name}\n  data_files:\n  - split: Nano\n    path: {name}.jsonl\n")
    (folder / "README.md").write_text(f"---\nconfigs:\n{''.join(configs)}---\n")
    return folder


def test_nanobeir_is_read_as_graded_questions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A relevant passage that BM25 missed (d29) is there; of its ranking the first 20 are, relevant ones once."""
    monkeypatch.setattr("hardneg.measuring.graded.NANOBEIR", str(write_nanobeir(tmp_path)))
    monkeypatch.setattr("hardneg.measuring.graded.NANOBEIR_SPLITS", ("Nano",))
    monkeypatch.setattr("datasets.config.HF_DATASETS_CACHE", tmp_path / "cache")
    found = open_graded("nanobeir")
    first, second = found.questions
    assert (first.question_id, first.question) == ("Nano q1", "Which?")
    assert {answer.text for answer in first.answers if answer.grade == 4} == {"Passage 3.", "Passage 29."}
    wrong = {f"Passage {n}." for n in range(20) if n != 3}
    assert {answer.text for answer in first.answers if answer.grade == 1} == wrong
    assert [answer.text for answer in first.answers[-2:]] == ["Passage 29.", "Passage 3."]  # last: ties favour nobody
    assert len(second.answers) == 20 and found.sha256 != open_graded("bundled").sha256


def test_nanobeir_without_a_hub_names_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardneg.measuring.graded.NANOBEIR", "nobody/nothing")
    with pytest.raises(InputError, match=r"cannot load nobody/nothing from the data hub .* or bundled"):
        open_graded("nanobeir")
