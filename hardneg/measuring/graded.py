"""Questions with answers that people graded 1-4: reading them, and ranking them with a model."""

import hashlib
import json
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from hardneg.corpus.artifacts import Chunk, Query
from hardneg.embedding.encoder import CachedEncoder
from hardneg.judging.judge import GRADES, Pair
from hardneg.measuring.metrics import graded_metrics
from hardneg.running.errors import InputError
from hardneg.running.files import read_text
from hardneg.running.hub import load_hub_dataset

BUNDLED_GRADED = Path(__file__).parents[1] / "sample" / "consumer_questions.jsonl"
MIN_GUARD = 20  # questions of a guard: with fewer its interval says next to nothing
NANOBEIR = "sentence-transformers/NanoBEIR-en"
NANOBEIR_SPLITS = ("NanoMSMARCO", "NanoNQ", "NanoFiQA2018", "NanoQuoraRetrieval")  # what people ask; 50 questions each
NANOBEIR_DEPTH = 20  # passages per question that BM25 ranks first
FIELDS = ("question_id", "question", "answer_title", "answer", "grade")


class GradedAnswer(NamedTuple):
    """One answer and what people said of it; more than one grade where it was judged more than once."""

    title: str
    text: str
    grades: tuple[int, ...]

    @property
    def grade(self) -> float:
        """Mean grade, 1.0 to 4.0."""
        return sum(self.grades) / len(self.grades)


class GradedQuestion(NamedTuple):
    """A question and all its judged answers, each text once."""

    question_id: str
    question: str
    answers: tuple[GradedAnswer, ...]


@dataclass(frozen=True, slots=True)
class GradedSet:
    """Graded questions, and the name they go by."""

    name: str
    questions: tuple[GradedQuestion, ...]

    @property
    def n_answers(self) -> int:
        """Different (question, answer) pairs."""
        return sum(len(question.answers) for question in self.questions)

    @property
    def sha256(self) -> str:
        """Of what rankings are scored by, whatever file it came from: questions, answers and grades."""
        content = [
            (question.question, [(answer.text, answer.grades) for answer in question.answers])
            for question in self.questions
        ]
        return hashlib.sha256(json.dumps(content).encode()).hexdigest()

    @property
    def n_of_one_grade(self) -> int:
        """Questions whose answers all have the same grade: nDCG leaves them out."""
        return sum(len({answer.grade for answer in question.answers}) == 1 for question in self.questions)


def open_graded(name: str) -> GradedSet:
    """A graded set by its name: `bundled`, `nanobeir` (from the data hub) or the path of a JSONL file.

    Raises:
        InputError: it cannot be had, is malformed, or has no question with answers of different grades.
    """
    if name == "nanobeir":
        return GradedSet(name, tuple(question for split in NANOBEIR_SPLITS for question in _nanobeir_questions(split)))
    graded = load_graded(BUNDLED_GRADED if name == "bundled" else Path(name))
    if graded.n_of_one_grade == len(graded.questions):
        raise InputError(f"{name}: no question in it has answers of different grades; name another set")
    return graded


def open_guard(name: str) -> GradedSet | None:
    """The graded questions that must not get worse; raises InputError where there are too few to tell."""
    if name == "none":
        return None
    guard = open_graded(name)
    telling = len(guard.questions) - guard.n_of_one_grade
    if telling < MIN_GUARD:
        raise InputError(
            f"--guard {name}: {telling} question(s) with answers of different grades, too few to tell what is "
            f"forgotten; give {MIN_GUARD} or more, better 200, or take bundled or none"
        )
    return guard


def load_graded(path: Path) -> GradedSet:
    """Read JSON lines with the fields FIELDS, one judged answer per line; further fields may be there.

    The same answer text given several times for one question (judged more than once) becomes one answer with all its
    grades, so that it does not take two ranks.

    Raises:
        InputError: the file is missing, unreadable or empty, or a line is malformed; the message names the line.
    """
    questions: dict[str, str] = {}
    answers: dict[str, dict[str, GradedAnswer]] = {}
    for number, line in enumerate(read_text(path).split("\n"), start=1):
        if not line.strip():
            continue
        row = _parse_line(line, f"{path} line {number}")
        question_id, text = str(row["question_id"]), row["answer"]
        if questions.setdefault(question_id, row["question"]) != row["question"]:
            raise InputError(
                f"{path} line {number}: question_id {question_id} has another question above; give each its own id"
            )
        of_question = answers.setdefault(question_id, {})
        seen = of_question[text].grades if text in of_question else ()
        of_question[text] = GradedAnswer(row["answer_title"], text, (*seen, row["grade"]))
    if not questions:
        raise InputError(f"{path} holds no graded answers; it needs JSON lines with the fields {', '.join(FIELDS)}")
    return GradedSet(
        path.name,
        tuple(GradedQuestion(key, text, tuple(answers[key].values())) for key, text in questions.items()),
    )


def _parse_line(line: str, place: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise InputError(f"{place} is not JSON ({error}); each line must be one object") from error
    missing = [field for field in FIELDS if field not in row] if isinstance(row, dict) else list(FIELDS)
    if missing:
        raise InputError(f"{place} lacks {', '.join(missing)}; each line needs {', '.join(FIELDS)}")
    for field in ("question", "answer", "answer_title"):
        if not isinstance(row[field], str) or (field != "answer_title" and not row[field].strip()):
            raise InputError(f"{place}: {field} is {row[field]!r}; it must be text")
        if not row[field].isascii() and any("\ud800" <= character <= "\udfff" for character in row[field]):
            raise InputError(f"{place}: {field} holds half of a surrogate pair, as a cut emoji leaves it; fix it")
    if isinstance(row["question_id"], bool) or not isinstance(row["question_id"], str | int):
        raise InputError(f"{place}: question_id is {row['question_id']!r}; it must be text or a whole number")
    if isinstance(row["grade"], bool) or row["grade"] not in GRADES:
        raise InputError(f"{place}: grade is {row['grade']!r}; it must be 1, 2, 3 or 4")
    return {**row, "grade": int(row["grade"])}


@cache
def _nanobeir_questions(split: str) -> tuple[GradedQuestion, ...]:
    """One of NanoBEIR's sets: each question with BM25's first NANOBEIR_DEPTH passages, which the data set brings along,
    and its relevant ones; its judgments are binary, so grades are 1 and 4."""
    remedy = "name a JSONL file of graded questions, or bundled"
    corpus, queries, qrels, bm25 = (
        load_hub_dataset(NANOBEIR, remedy, subset, split) for subset in ("corpus", "queries", "qrels", "bm25")
    )
    text_of = dict(zip(corpus["_id"], corpus["text"], strict=True))
    ranked = dict(zip(bm25["query-id"], bm25["corpus-ids"], strict=True))
    relevant: dict[str, set[str]] = {}
    for query_id, ids in zip(qrels["query-id"], qrels["corpus-id"], strict=True):
        relevant.setdefault(query_id, set()).update([ids] if isinstance(ids, str) else ids)
    questions = []
    for query_id, text in zip(queries["_id"], queries["text"], strict=True):
        right = relevant.get(query_id, set())
        others = [passage_id for passage_id in ranked.get(query_id, [])[:NANOBEIR_DEPTH] if passage_id not in right]
        grades = dict.fromkeys(others, GRADES[0]) | dict.fromkeys(sorted(right), GRADES[-1])
        answers = (GradedAnswer("", text_of[passage_id], (grade,)) for passage_id, grade in grades.items())
        questions.append(GradedQuestion(f"{split} {query_id}", text, tuple(answers)))
    return tuple(questions)


def score_graded(
    encoder: CachedEncoder, graded: GradedSet, progress: Callable[[int], object] | None = None
) -> dict[str, np.ndarray]:
    """Rank each question's own judged answers by cosine, ties in the file's order, and score the rankings.

    Args:
        encoder: the model's.
        graded: the questions.
        progress: called with the number of answers embedded since the last call.

    Returns:
        per question "MRR@5", "DCG@5" and "nDCG@10"; see `metrics.graded_metrics`.
    """
    queries = encoder.encode_queries([question.question for question in graded.questions])
    texts = [answer.text for question in graded.questions for answer in question.answers]
    answers = encoder.encode_passages(texts, progress)
    bounds = np.cumsum([len(question.answers) for question in graded.questions])[:-1]
    ranked_grades = []
    for question, query, vectors in zip(graded.questions, queries, np.split(answers, bounds), strict=True):
        order = np.argsort(-(vectors @ query), kind="stable")
        ranked_grades.append([question.answers[position].grade for position in order])
    return graded_metrics(ranked_grades)


def graded_pairs(graded: GradedSet) -> list[Pair]:
    """The graded set as pairs, one question's answers together; chunk ids count them."""
    pairs: list[Pair] = []
    for question in graded.questions:
        query = Query(
            query_id=question.question_id,
            query=question.question,
            ground_truth_chunk_ids=[],
            qtype="",
            topic="",
            group="",
        )
        for answer in question.answers:
            chunk = Chunk(
                chunk_id=len(pairs),
                text=answer.text,
                title=answer.title,
                qa_ids=[],
                qtype="",
                source=graded.name,
                url="",
                split="",
            )
            pairs.append(Pair(query, chunk))
    return pairs
