"""Pairs and judges for the tests of the LLM judge."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

from hardneg.judging.endpoints import RetryPolicy
from hardneg.judging.judge import Judgment, Pair
from hardneg.judging.judgment_store import JudgmentStore
from hardneg.judging.llm_judge import LLMJudge
from tests.llm_stub import MODEL, LLMStub, true_grade, true_probabilities
from tests.records import make_chunk, make_query

PROMPT = "Grade 1-4.\nQuestion: {query}\nPassage: {passage}"
FAST = RetryPolicy(timeout=10.0, attempts=4, first_pause=0.01, throttle_pause=0.01, longest_pause=0.1, patience=5.0)
NO_YEAR = "Mon, 01 Jan 20260000000 00:00:00 GMT"  # a Retry-After of no use


def make_pair(number: int, text: str | None = None) -> Pair:
    """Pair `number`: question number // 10, and a passage of its own unless `text` is given."""
    query = make_query(f"q{number // 10}", query=f"What helps against condition {number // 10}?")
    return Pair(query, make_chunk(number, text or f"Passage {number} is about rest and fluids."))


def make_pairs(count: int, start: int = 0) -> Iterator[Pair]:
    """Pairs `start` to `start + count - 1`."""
    return (make_pair(number) for number in range(start, start + count))


def make_judge(stub: LLMStub | list[str], store: JudgmentStore | Path, **options: Any) -> LLMJudge:
    """A judge with little patience."""
    endpoints = stub if isinstance(stub, list) else [stub.url]
    store = JudgmentStore(store / "judgments.sqlite") if isinstance(store, Path) else store
    settings: dict[str, Any] = {"concurrency": 8, "policy": FAST} | options
    return LLMJudge(endpoints, MODEL, PROMPT, store, **settings)


def right_grade(judge: LLMJudge, pair: Pair) -> float:
    """What the stub really thinks of a pair."""
    request = judge.request(pair)
    return true_grade(judge.template.render(request.query, request.passage))


def likeliest_grade(judge: LLMJudge, pair: Pair) -> int:
    """What the stub writes of a pair."""
    request = judge.request(pair)
    probabilities = true_probabilities(judge.template.render(request.query, request.passage))
    return 1 + probabilities.index(max(probabilities))


def answers_of(server: LLMStub) -> list[int]:
    """How often each pair was answered; probes left out."""
    return [times for prompt, times in server.stats()["answered"].items() if "Passage: Passage" in prompt]


def assert_right(judge: LLMJudge, judgments: list[Judgment], pairs: list[Pair], unjudged: int = 0) -> None:
    """One judgment per pair, each the stub's true grade, on the list and in the store, but for `unjudged` of them."""
    by_id = {judgment.chunk_id: judgment for judgment in judgments}
    assert len(judgments) == len(by_id) == len(pairs)
    missing = 0
    for pair in pairs:
        judgment = by_id[pair.chunk["chunk_id"]]
        stored = judge.store.get(judge.request(pair).key)
        if judgment.grade is None:
            missing += 1
            assert stored is None and judgment.unjudged_reason
        else:
            assert judgment.query_id == pair.query["query_id"] and judgment.unjudged_reason is None
            assert abs(judgment.grade - right_grade(judge, pair)) < 1e-9
            assert stored is not None and stored.grade == judgment.grade
            assert stored.probabilities == judgment.probabilities
    assert missing == unjudged
    assert len(judge.store) == len({judge.request(pair).key for pair in pairs}) - unjudged
