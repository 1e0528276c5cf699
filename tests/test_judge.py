"""What a judge reads, and the answer-key judge on the tiny corpus."""

from collections import Counter

import pytest

from hardneg.corpus.artifacts import Query
from hardneg.judging.judge import AnswerKeyJudge, JudgeStats, Judgment, Pair, answer_key_grade, as_read
from tests.records import make_chunk
from tests.tiny_data import tiny_corpus


def test_grades_by_hand() -> None:
    chunks, _, queries = tiny_corpus()
    gout = next(query for query in queries["train"] if query["query_id"] == "q-gout-treatment")
    judge = AnswerKeyJudge()
    judged = list(judge.judge(Pair(gout, chunks[chunk_id]) for chunk_id in (5, 6, 4, 7, 0)))
    # both treatment chunks, gout's symptoms, another condition's symptoms, asthma's boilerplate
    assert judged == [
        Judgment("q-gout-treatment", chunk_id, grade)
        for chunk_id, grade in ((5, 4.0), (6, 4.0), (4, 2.0), (7, 1.0), (0, 1.0))
    ]
    assert judge.stats == JudgeStats() and not judge.stats.reasons  # nobody was asked


def test_topics_are_compared_case_folded() -> None:
    chunks, _, queries = tiny_corpus()
    query = Query(**{**queries["train"][2], "topic": "GOUT"})
    assert answer_key_grade(query, chunks[6]) == 2


def test_one_judgment_per_pair_read_lazily() -> None:
    chunks, _, queries = tiny_corpus()
    read: list[int] = []

    def pairs() -> object:
        for chunk in chunks:
            read.append(chunk["chunk_id"])
            yield Pair(queries["train"][0], chunk)

    judgments = AnswerKeyJudge().judge(pairs())  # type: ignore[arg-type]
    first = next(judgments)
    assert read == [0] and first.chunk_id == 0
    rest = list(judgments)
    assert [judgment.chunk_id for judgment in rest] == list(range(1, len(chunks)))
    # asthma's symptoms: one answer; boilerplate and two treatment chunks on asthma
    assert Counter(judgment.grade for judgment in [first, *rest]) == {4.0: 1, 2.0: 3, 1.0: 26}
    assert all(judgment.probabilities is None and judgment.unjudged_reason is None for judgment in rest)


@pytest.mark.parametrize(
    ("text", "title", "expected"),
    [
        ("It is rare.", "Gout", "Gout: It is rare."),
        ("Gout is rare.", "Gout", "Gout is rare."),
        ("Gout: It is rare.", "Gout", "Gout: It is rare."),  # --title-in-text
        ("It is rare.", "", "It is rare."),  # of several topics
    ],
)
def test_a_passage_that_does_not_name_its_topic_is_read_under_its_title(text: str, title: str, expected: str) -> None:
    assert as_read(make_chunk(text=text, title=title)) == expected
