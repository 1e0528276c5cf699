"""How good a judge is apart from its agreement with others: calibration of its probabilities, and what biases it."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
from scipy.stats import spearmanr

from hardneg.corpus.artifacts import Chunk
from hardneg.judging.candidates import CandidateList
from hardneg.judging.judge import GRADES, Judgment, answer_key_grade, as_read
from hardneg.measuring.agreement import whole_grade
from hardneg.measuring.metrics import RELEVANT_GRADE, bounds_or_none, finite_or_none, mean_and_interval

RANK_EDGES = (2, 4, 11)  # the ranks 1, 2-3, 4-10 and the rest
CALIBRATION_BINS = 10


@dataclass(frozen=True, slots=True)
class JudgedPair:
    """One judgment with all that helps to understand it."""

    question: str
    qtype: str
    chunk_text: str  # as the judge read it
    grade: float | None  # expected grade, 1.0 to 4.0
    probabilities: tuple[float, ...] | None  # of the grades 1-4
    unjudged_reason: str | None
    rank: int
    cosine: float
    known_answer: bool
    answer_key_grade: int
    query_id: str
    chunk_id: int


class GradedPair(JudgedPair):
    """A pair that `has_grade`: a type for the checker alone, no object is made of it."""

    grade: float


def has_grade(row: JudgedPair) -> TypeGuard[GradedPair]:
    """Whether the judge said something usable of the pair."""
    return row.grade is not None


def judged_pairs(
    lists: Sequence[CandidateList], judgments: Sequence[Judgment], chunks: Sequence[Chunk]
) -> list[JudgedPair]:
    """One row per candidate, in the candidates' order."""
    said = {(judgment.query_id, judgment.chunk_id): judgment for judgment in judgments}
    rows = []
    for query, candidate in ((query, candidate) for query, found in lists for candidate in found):
        chunk, judgment = chunks[candidate.chunk_id], said[query["query_id"], candidate.chunk_id]
        rows.append(
            JudgedPair(
                question=query["query"],
                qtype=query["qtype"],
                chunk_text=as_read(chunk),
                grade=judgment.grade,
                probabilities=judgment.probabilities,
                unjudged_reason=judgment.unjudged_reason,
                rank=candidate.rank,
                cosine=candidate.cosine,
                known_answer=candidate.known,
                answer_key_grade=answer_key_grade(query, chunk),
                query_id=query["query_id"],
                chunk_id=candidate.chunk_id,
            )
        )
    return rows


def corrections(judged: Sequence[GradedPair]) -> dict[str, Any]:
    """Whether the judge corrects the model, which is what mining needs it for.

    Of the passages that the model ranks above a known answer: the share that the judge grades below it (equal grades
    count half), as the mean over questions.

    A judge that tells nothing has 0.5, one that grades as the model ranks 0. A judge that goes by what looks alike may
    order a question's passages well and still grade exactly the hard negatives as answers (LOG.md, "A judge that is
    misled as the model is").
    """
    of_question: dict[str, list[GradedPair]] = {}
    for row in judged:
        of_question.setdefault(row.query_id, []).append(row)
    wins = [
        [
            (answer.grade > other.grade) + (answer.grade == other.grade) / 2
            for answer in (row for row in rows if row.known_answer)
            for other in rows
            if not other.known_answer and other.rank < answer.rank
        ]
        for rows in of_question.values()
    ]
    share, bounds = mean_and_interval([float(np.mean(of_one)) for of_one in wins if of_one])
    return {
        "questions": sum(map(bool, wins)),
        "pairs": sum(map(len, wins)),
        "share": finite_or_none(share),
        "share_ci95": bounds_or_none(bounds),
    }


def biases(judged: Sequence[GradedPair]) -> dict[str, Any]:
    """What grades depend on besides the answer: being a known answer, passage length in characters, rank.

    Known answers are left out of the means by length and rank: they are better, and all ranks beyond the number of
    candidates are theirs.
    """
    known = [row.grade for row in judged if row.known_answer]
    rest = [row for row in judged if not row.known_answer]
    lengths = [len(row.chunk_text) for row in rest]
    quartiles = np.quantile(lengths, (0.25, 0.5, 0.75)).tolist() if lengths else []
    return {
        "known_answers": {
            "pairs": len(known),
            "mean_grade": mean(known),
            "mean_grade_of_rest": mean([row.grade for row in rest]),
            "share_graded_1": mean([whole_grade(grade) == GRADES[0] for grade in known]),
        },
        "length": bias_of(lengths, [row.grade for row in rest], quartiles),
        "rank": bias_of([row.rank for row in rest], [row.grade for row in rest], RANK_EDGES),
    }


def bias_of(values: Sequence[int], grades: Sequence[float], edges: Sequence[float]) -> dict[str, Any]:
    """Spearman's correlation of grade and value (None where one of them is constant), and mean grades by bin of values.

    Args:
        values: per pair.
        grades: per pair.
        edges: first values of all bins but the first.
    """
    varies = len(set(values)) > 1 and len(set(grades)) > 1
    bins = np.digitize(values, edges)
    rows = []
    for place in range(len(edges) + 1):
        inside = np.flatnonzero(bins == place).tolist()
        if inside:
            ends = (min(values[i] for i in inside), max(values[i] for i in inside))
            rows.append(
                {"from": ends[0], "to": ends[1], "pairs": len(inside), "mean_grade": mean([grades[i] for i in inside])}
            )
    return {"spearman": finite_or_none(spearmanr(values, grades).statistic) if varies else None, "by_bin": rows}


def mean(values: Sequence[float]) -> float | None:
    """The mean; None where there are no values."""
    return float(np.mean(values)) if len(values) else None


def calibration(probabilities: Sequence[tuple[float, ...] | None], relevant: Sequence[bool]) -> dict[str, Any] | None:
    """Whether P(grade >= RELEVANT_GRADE) means what it says; None where the judge gives no probabilities.

    Returns:
        "bins" of equal width with their mean prediction and the share that people find relevant, and the expected
        calibration error (Naeini et al. 2015): the mean distance of the two over all pairs.
    """
    pairs = [(sum(p[RELEVANT_GRADE - 1 :]), is_one) for p, is_one in zip(probabilities, relevant, strict=True) if p]
    if not pairs:
        return None
    predicted, observed = np.array(pairs, float).T
    places = np.minimum((predicted * CALIBRATION_BINS).astype(int), CALIBRATION_BINS - 1)
    bins = [
        {
            "from": place / CALIBRATION_BINS,
            "to": (place + 1) / CALIBRATION_BINS,
            "pairs": int((places == place).sum()),
            "mean_predicted": float(predicted[places == place].mean()),
            "observed_share": float(observed[places == place].mean()),
        }
        for place in sorted(set(places.tolist()))
    ]
    error = sum(each["pairs"] * abs(each["mean_predicted"] - each["observed_share"]) for each in bins) / len(pairs)
    return {"pairs": len(pairs), "expected_calibration_error": error, "bins": bins}
