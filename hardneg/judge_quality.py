"""How good a judge is: agreement with other grades, calibration of its probabilities, and what biases it."""

import math
from collections.abc import Hashable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy.stats import bootstrap, spearmanr

from hardneg.artifacts import Chunk
from hardneg.candidates import CandidateList
from hardneg.judge import GRADES, Judgment, answer_key_grade, as_read
from hardneg.metrics import (
    CONFIDENCE,
    RELEVANT_GRADE,
    RESAMPLES,
    auc,
    cohen_kappa,
    confusion_matrix,
    finite_or_none,
    weighted_kappa,
    weighted_kappa_interval,
)

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


def judged_pairs(
    lists: Sequence[CandidateList], judgments: Sequence[Judgment], chunks: Sequence[Chunk]
) -> list[JudgedPair]:
    """One row per candidate, in the candidates' order."""
    said = {(judgment.query_id, judgment.chunk_id): judgment for judgment in judgments}
    rows = []
    for query, candidate in ((item.query, candidate) for item in lists for candidate in item.candidates):
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


def whole_grade(grade: float) -> int:
    """An expected grade rounded to a whole one, halves up."""
    return math.floor(grade + 0.5)


def agreement(theirs: Sequence[float], judges: Sequence[float], questions: Sequence[Hashable]) -> dict[str, Any]:
    """How far the judge agrees with other grades of the same pairs.

    Args:
        theirs: a key's or people's (mean) grades, 1.0 to 4.0, per pair.
        judges: the judge's (expected) grades.
        questions: which question each pair belongs to.

    Returns:
        "confusion" of the grades, rounded (rows theirs 1-4, columns the judge's), Cohen's kappa, the
        quadratically weighted one with a 95 % interval over questions, "binary_kappa" of relevant or not (theirs from
        RELEVANT_GRADE on, the judge's by its rounded grade), and "auc_within_questions", which asks for the order of
        the judge's grades alone: see `auc_within_questions`. None where undefined.
    """
    rows, columns = ([whole_grade(grade) for grade in side] for side in (theirs, judges))
    confusion = confusion_matrix(rows, columns)
    relevant = [[GRADES[-1] if grade >= RELEVANT_GRADE else GRADES[0] for grade in side] for side in (theirs, columns)]
    order, order_ci95 = auc_within_questions(judges, [grade >= RELEVANT_GRADE for grade in theirs], questions)
    return {
        "pairs": len(rows),
        "confusion": confusion.tolist(),
        "cohen_kappa": finite_or_none(cohen_kappa(confusion)),
        "weighted_kappa": finite_or_none(weighted_kappa(confusion)),
        "weighted_kappa_ci95": [finite_or_none(bound) for bound in weighted_kappa_interval(rows, columns, questions)],
        "binary_kappa": finite_or_none(cohen_kappa(confusion_matrix(*relevant))),
        "auc_within_questions": finite_or_none(order),
        "auc_within_questions_ci95": [finite_or_none(bound) for bound in order_ci95],
    }


def auc_within_questions(
    scores: Sequence[float], positive: Sequence[bool], questions: Sequence[Hashable]
) -> tuple[float, tuple[float, float]]:
    """How well scores tell a question's answers from other passages: the mean over questions of `metrics.auc`.

    Grades that are all shifted or squeezed together leave it as it is, unlike kappa.

    Args:
        scores: per pair.
        positive: whether each is an answer.
        questions: which question each pair belongs to; those without both kinds are left out.

    Returns:
        the mean, and the bounds of its percentile bootstrap interval of 95 % over questions; NaN of no question, and
        bounds of fewer than two.
    """
    of_question: dict[Hashable, list[tuple[float, bool]]] = {}
    for score, is_one, question in zip(scores, positive, questions, strict=True):
        of_question.setdefault(question, []).append((score, is_one))
    areas = np.array([auc(*zip(*pairs, strict=True)) for pairs in of_question.values()])
    areas = areas[~np.isnan(areas)]
    if len(areas) < 2:
        return (areas[0] if len(areas) else math.nan), (math.nan, math.nan)
    interval = bootstrap(
        (areas,), np.mean, n_resamples=RESAMPLES, confidence_level=CONFIDENCE, method="percentile", rng=0
    ).confidence_interval
    return areas.mean(), (interval.low, interval.high)


def biases(judged: Sequence[JudgedPair]) -> dict[str, Any]:
    """What grades depend on besides the answer: being a known answer, passage length in characters, rank.

    Known answers are left out of the means by length and rank: they are better, and all ranks beyond the number of
    candidates are theirs.
    """
    known = [row.grade for row in judged if row.known_answer]
    rest = [row for row in judged if not row.known_answer]
    lengths = [len(row.chunk_text) for row in rest]
    quartiles = np.quantile(lengths, (0.25, 0.5, 0.75)) if lengths else ()
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
        inside = np.flatnonzero(bins == place)
        if len(inside):
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
