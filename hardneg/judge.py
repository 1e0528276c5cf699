"""Judges: who grades a (query, chunk) pair 1-4."""

from collections.abc import Generator, Iterable
from dataclasses import dataclass
from typing import NamedTuple, Protocol

from hardneg.artifacts import Chunk, Query
from hardneg.topics import names_topic, normalise_topic

GRADES = (1, 2, 3, 4)


class Pair(NamedTuple):
    """One thing to grade: does `chunk` answer `query`?"""

    query: Query
    chunk: Chunk


def as_read(chunk: Chunk) -> str:
    """A chunk as its page's readers have it: under the title, where it does not name its topic itself.

    Whether "It is rare." answers a question, its text alone does not tell. A chunk of several topics has no title.
    """
    title, text = chunk["title"], chunk["text"]
    return text if not title or names_topic(text, title) else f"{title}: {text}"


@dataclass(frozen=True, slots=True)
class Judgment:
    """What a judge said of one pair; `grade` is None where it said nothing usable (unjudged)."""

    query_id: str
    chunk_id: int
    grade: float | None  # expected grade, 1.0 to 4.0
    probabilities: tuple[float, float, float, float] | None = None  # of grades 1-4, where the judge gives them
    unjudged_reason: str | None = None


class Judge(Protocol):
    """Anything that grades pairs."""

    name: str  # what kind of judge a run's records call it

    def judge(self, pairs: Iterable[Pair]) -> Generator[Judgment, None, None]:
        """Yield exactly one judgment per pair, in any order, reading `pairs` lazily; close it to stop early."""
        ...


class AnswerKeyJudge:
    """Grades from the data's own annotation: a known answer 4, another passage on the query's topic 2, else 1."""

    name = "answer-key"

    def judge(self, pairs: Iterable[Pair]) -> Generator[Judgment, None, None]:
        """See `Judge`. A passage is on the query's topic where its title is that, but for case and punctuation."""
        for query, chunk in pairs:
            if chunk["chunk_id"] in query["ground_truth_chunk_ids"]:
                grade = 4.0
            else:
                grade = 2.0 if normalise_topic(chunk["title"]) == normalise_topic(query["topic"]) else 1.0
            yield Judgment(query["query_id"], chunk["chunk_id"], grade)
