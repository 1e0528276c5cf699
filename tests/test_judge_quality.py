"""Corrections, calibration and biases of a judge, worked out by hand."""

from functools import partial

import pytest

from hardneg.judging.candidates import Candidate, CandidateList
from hardneg.judging.judge import Judgment
from hardneg.measuring import judge_quality
from hardneg.measuring.judge_quality import GradedPair, JudgedPair, has_grade
from tests.records import make_chunk, make_query


def test_calibration_by_hand() -> None:
    probabilities = [(0.5, 0.25, 0.25, 0.0), (0.5, 0.25, 0.125, 0.125), (0.0, 0.0, 0.0, 1.0), None]
    found = judge_quality.calibration(probabilities, [True, False, True, True])
    assert found is not None
    low = {"from": 0.2, "to": 0.3, "pairs": 2, "mean_predicted": 0.25, "observed_share": 0.5}
    high = {"from": 0.9, "to": 1.0, "pairs": 1, "mean_predicted": 1.0, "observed_share": 1.0}
    assert (found["pairs"], found["bins"]) == (3, [low, high])
    assert found["expected_calibration_error"] == pytest.approx((2 * 0.25 + 0) / 3)
    assert judge_quality.calibration([None, None], [True, False]) is None


def pair(grade: float, rank: int = 1, length: int = 10, known: bool = False, query_id: str = "q") -> GradedPair:
    row = JudgedPair("?", "", "x" * length, grade, None, None, rank, 0.5, known, 1, query_id, 0)
    assert has_grade(row)
    return row


def test_a_row_per_candidate_with_all_that_is_known_of_it() -> None:
    """The two judgments come in another order; chunk 1 is on the question's topic, which its text does not name."""
    chunks = [make_chunk(0, "Rest."), make_chunk(1, "It is rare.", title="Gout")]
    query = make_query("q", 0, topic="gout", qtype="cause")
    lists = [CandidateList(query, (Candidate(1, 1, 0.75, False), Candidate(0, 2, 0.5, True)))]
    judgments = [Judgment("q", 0, None, unjudged_reason="refused"), Judgment("q", 1, 1.5, (0.5, 0.5, 0.0, 0.0))]
    first, second = judge_quality.judged_pairs(lists, judgments, chunks)
    assert first == JudgedPair(
        question="q?",
        qtype="cause",
        chunk_text="Gout: It is rare.",
        grade=1.5,
        probabilities=(0.5, 0.5, 0.0, 0.0),
        unjudged_reason=None,
        rank=1,
        cosine=0.75,
        known_answer=False,
        answer_key_grade=2,
        query_id="q",
        chunk_id=1,
    )
    assert (second.chunk_text, second.unjudged_reason, second.rank, second.cosine) == ("Rest.", "refused", 2, 0.5)
    assert (second.known_answer, second.answer_key_grade, second.chunk_id) == (True, 4, 0)
    assert [has_grade(row) for row in (first, second)] == [True, False]


def test_corrections_by_hand() -> None:
    """a: of the two passages above the first answer one is graded below it and one level with it, of those above the
    second none and two below: (0.5 + 1 + 0 + 0) / 4; b: the one passage is graded below; c ranks its answer first."""
    a, b, c = (partial(pair, query_id=query_id) for query_id in "abc")
    rows = [
        *(a(2, 1), a(3, 2), a(3, 3, known=True), a(1.5, 40, known=True), a(1, 50)),
        *(b(2, 1), b(4, 2, known=True)),
        *(c(1, 1, known=True), c(4, 2)),
    ]
    found = judge_quality.corrections(rows)
    assert (found["questions"], found["pairs"], found["share"]) == (2, 5, pytest.approx((0.375 + 1) / 2))
    assert found["share_ci95"] == [0.375, 1]
    nothing = {"questions": 0, "pairs": 0, "share": None, "share_ci95": [None, None]}
    assert judge_quality.corrections([c(1, 1, known=True), c(4, 2)]) == nothing


@pytest.mark.filterwarnings("error")
def test_biases_by_hand() -> None:
    rest = [
        pair(1, rank=1, length=10),
        pair(1.5, rank=2, length=20),
        pair(2, rank=3, length=30),
        pair(3, rank=4, length=40),
        pair(3.5, rank=10, length=50),
        pair(4, rank=11, length=60),
    ]
    known = [pair(grade, rank=99, known=True) for grade in (1.2, 3.8, 3, 4)]
    found = judge_quality.biases([*rest, *known])
    expected = {"pairs": 4, "mean_grade": 3.0, "mean_grade_of_rest": 2.5, "share_graded_1": 0.25}
    assert found["known_answers"] == expected
    assert found["length"]["spearman"] == found["rank"]["spearman"] == pytest.approx(1)
    assert [each["mean_grade"] for each in found["length"]["by_bin"]] == [1.25, 2, 3, 3.75]
    assert found["rank"]["by_bin"] == [
        {"from": 1, "to": 1, "pairs": 1, "mean_grade": 1.0},
        {"from": 2, "to": 3, "pairs": 2, "mean_grade": 1.75},
        {"from": 4, "to": 10, "pairs": 2, "mean_grade": 3.25},
        {"from": 11, "to": 11, "pairs": 1, "mean_grade": 4.0},
    ]
    for constant in ([pair(2), pair(3)], [pair(3), pair(3, rank=2)]):
        assert judge_quality.biases(constant)["rank"]["spearman"] is None
    assert judge_quality.biases([])["length"] == {"spearman": None, "by_bin": []}
