"""Judges: who grades a (query, chunk) pair 1-4."""

from collections import Counter
from collections.abc import Generator, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, NamedTuple, Protocol

from hardneg.corpus.artifacts import Chunk, Query
from hardneg.corpus.normalising import names_topic, normalise_topic

GRADES = (1, 2, 3, 4)
NOT_STORED = "no stored answer"  # why a pair is unjudged where no server is asked


class Pair(NamedTuple):
    """One thing to grade: does `chunk` answer `query`?"""

    query: Query
    chunk: Chunk


def as_read(chunk: Chunk) -> str:
    """A chunk as the readers of its page see it: under its title, if its text does not name the topic itself.

    "It is rare." alone does not tell which question it answers. A chunk of several topics has no title.
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


def describe_reasons(reasons: Mapping[str, int]) -> str:
    """Why pairs have no grade, the commonest reason first.

    >>> describe_reasons({"timeout": 2, "refused": 1000})
    '1,000x refused, 2x timeout'
    """
    return ", ".join(f"{count:,}x {reason}" for reason, count in Counter(reasons).most_common())


@dataclass(slots=True)
class JudgeStats:
    """Running totals of a judge, for progress bars and reports."""

    reused: int = 0  # judgments that came from the store
    asked: int = 0  # pairs answered in this run, judged or not
    requests: int = 0  # HTTP requests behind them, retries included
    unjudged: Counter[str] = field(default_factory=Counter)  # by reason
    missing: int = 0  # pairs without a stored answer, where nobody is asked for one
    cut: int = 0  # passages cut to the token budget, or to what the server's context leaves
    prompt_tokens: int = 0  # as the server reports them
    cached_tokens: int = 0  # of these, found in its prefix cache
    seconds: float = 0.0  # spent with requests under way

    @property
    def judged(self) -> int:
        """Pairs judged in this run, stored ones not counted."""
        return self.asked - self.unjudged.total()

    @property
    def rate(self) -> float | None:
        """Answers per second; None where nothing was asked, or no time has passed."""
        return self.asked / self.seconds if self.asked and self.seconds else None

    @property
    def reasons(self) -> Counter[str]:
        """Why pairs have no grade, with their numbers."""
        return self.unjudged + Counter({NOT_STORED: self.missing})


class Judge(Protocol):
    """Anything that grades pairs."""

    configuration: dict[str, Any]  # what determines its grades, as a run's records have it; "judge" is its kind
    stats: JudgeStats  # blank where it asks nobody

    def judge(self, pairs: Iterable[Pair]) -> Generator[Judgment, None, None]:
        """Yield exactly one judgment per pair, in any order, reading `pairs` lazily; close it to stop early."""
        ...


def answer_key_grade(query: Query, chunk: Chunk) -> int:
    """The grade by the data's own annotation: a known answer 4, another passage on the query's topic 2, else 1.

    A passage is on the query's topic if that is its title, case and punctuation aside. A passage on several topics has
    no title, so it gets 1.
    """
    if chunk["chunk_id"] in query["ground_truth_chunk_ids"]:
        return 4
    return 2 if normalise_topic(chunk["title"]) == normalise_topic(query["topic"]) else 1


class AnswerKeyJudge:
    """Grades by `answer_key_grade`."""

    def __init__(self) -> None:
        self.configuration = {"judge": "answer-key"}
        self.stats = JudgeStats()

    def judge(self, pairs: Iterable[Pair]) -> Generator[Judgment, None, None]:
        """See `Judge`."""
        for query, chunk in pairs:
            yield Judgment(query["query_id"], chunk["chunk_id"], float(answer_key_grade(query, chunk)))
