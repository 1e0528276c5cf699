"""How far two graders of the same pairs agree, such as a judge and people: kappa, and AUC."""

import math
from collections.abc import Hashable, Sequence
from typing import Any

import numpy as np
from scipy.stats import mannwhitneyu

from hardneg.judging.judge import GRADES
from hardneg.measuring.metrics import (
    CONFIDENCE,
    RELEVANT_GRADE,
    RESAMPLE_BATCH,
    RESAMPLES,
    RESAMPLING_SEED,
    bounds_or_none,
    finite_or_none,
    mean_and_interval,
    numbered,
)


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
        quadratically weighted one with a 95% interval over questions, "binary_kappa" of relevant or not (theirs from
        RELEVANT_GRADE on, the judge's by its rounded grade), and "auc_within_questions", which asks for the order of
        the judge's grades alone: see `auc_within_questions`. None where undefined.
    """
    rows, columns = ([whole_grade(grade) for grade in side] for side in (theirs, judges))
    confusion = confusion_matrix(rows, columns)
    # As grades 4 and 1, so that one kappa serves; people's mean is not rounded up to an answer.
    relevant = [[GRADES[-1] if grade >= RELEVANT_GRADE else GRADES[0] for grade in side] for side in (theirs, columns)]
    order, order_ci95 = auc_within_questions(judges, [grade >= RELEVANT_GRADE for grade in theirs], questions)
    return {
        "pairs": len(rows),
        "confusion": confusion.tolist(),
        "cohen_kappa": finite_or_none(cohen_kappa(confusion)),
        "weighted_kappa": finite_or_none(weighted_kappa(confusion)),
        "weighted_kappa_ci95": bounds_or_none(weighted_kappa_interval(rows, columns, questions)),
        "binary_kappa": finite_or_none(cohen_kappa(confusion_matrix(*relevant))),
        "auc_within_questions": finite_or_none(order),
        "auc_within_questions_ci95": bounds_or_none(order_ci95),
    }


def auc_within_questions(
    scores: Sequence[float], positive: Sequence[bool], questions: Sequence[Hashable]
) -> tuple[float, tuple[float, float]]:
    """How well scores tell a question's answers from other passages: the mean over questions of `auc`.

    Grades that are all shifted or squeezed together leave it as it is, unlike kappa.

    Args:
        scores: per pair.
        positive: whether each is an answer.
        questions: which question each pair belongs to; those without both kinds are left out.

    Returns:
        the mean, and the bounds of its percentile bootstrap interval of 95% over questions; NaN of no question, and
        bounds of fewer than two.
    """
    of_question: dict[Hashable, list[tuple[float, bool]]] = {}
    for score, is_one, question in zip(scores, positive, questions, strict=True):
        of_question.setdefault(question, []).append((score, is_one))
    areas = np.array([auc(*zip(*pairs, strict=True)) for pairs in of_question.values()])
    return mean_and_interval(areas[~np.isnan(areas)])


def auc(scores: Sequence[float], positive: Sequence[bool]) -> float:
    """Area under the ROC curve: the chance that a positive outscores a negative, ties counting half.

    By the Mann-Whitney statistic. NaN where one of the classes is empty.

    Args:
        scores: a grader's (expected) grades.
        positive: whether each is one, e.g. people's grade >= RELEVANT_GRADE.
    """
    values, labels = np.asarray(scores, float), np.asarray(positive, bool)
    if labels.all() or not labels.any():
        return np.nan
    statistic = mannwhitneyu(values[labels], values[~labels], method="asymptotic").statistic
    return float(statistic / (labels.sum() * (~labels).sum()))


def confusion_matrix(first: Sequence[int], second: Sequence[int]) -> np.ndarray:
    """Counts int64 (4, 4) of pairs of grades: row is the first grader's grade - 1, column the second's."""
    counts = np.zeros((len(GRADES), len(GRADES)), np.int64)
    np.add.at(counts, (np.asarray(first, int) - 1, np.asarray(second, int) - 1), 1)
    return counts


def cohen_kappa(confusion: np.ndarray) -> float:
    """Unweighted agreement beyond chance of two graders (Cohen 1960); NaN where chance alone explains everything.

    Args:
        confusion: counts (4, 4), see `confusion_matrix`.
    """
    return float(_kappa(confusion, 1 - np.eye(len(GRADES))))


def weighted_kappa(confusion: np.ndarray) -> float:
    """Agreement beyond chance with quadratic weights (Cohen 1968): grades two apart disagree four times as much.

    Args:
        confusion: counts (4, 4), see `confusion_matrix`.
    """
    return float(_kappa(confusion, _quadratic_weights()))


def weighted_kappa_interval(
    first: Sequence[int], second: Sequence[int], groups: Sequence[Hashable]
) -> tuple[float, float]:
    """Percentile bootstrap interval of 95% of `weighted_kappa` over groups (cluster bootstrap; Field & Welsh 2007).

    Args:
        first: one grader's grades (1-4) per pair.
        second: the other's.
        groups: per pair, the question it belongs to: a grader errs on all answers to it alike.

    Returns:
        the bounds; NaN of fewer than two groups, and where no resample has a kappa.
    """
    place = numbered(groups)
    if len(place) < 2:
        return np.nan, np.nan
    counts = np.zeros((len(place), len(GRADES), len(GRADES)), np.int64)
    rows = np.array([place[group] for group in groups])
    np.add.at(counts, (rows, np.asarray(first, int) - 1, np.asarray(second, int) - 1), 1)
    rng, equal_shares = np.random.default_rng(RESAMPLING_SEED), np.full(len(place), 1 / len(place))
    batches = (rng.multinomial(len(place), equal_shares, RESAMPLE_BATCH) for _ in range(0, RESAMPLES, RESAMPLE_BATCH))
    kappas = np.concatenate([_kappa(np.tensordot(batch, counts, axes=1), _quadratic_weights()) for batch in batches])
    kappas = kappas[~np.isnan(kappas)]
    if not len(kappas):
        return np.nan, np.nan
    tail = 50 * (1 - CONFIDENCE)
    low, high = np.percentile(kappas, [tail, 100 - tail])
    return float(low), float(high)


def _quadratic_weights() -> np.ndarray:
    grades = np.arange(len(GRADES))
    return np.subtract.outer(grades, grades) ** 2


def _kappa(confusion: np.ndarray, disagreement: np.ndarray) -> np.ndarray:
    """1 - observed / expected disagreement of counts (..., 4, 4)."""
    expected = confusion.sum(axis=-1)[..., :, None] * confusion.sum(axis=-2)[..., None, :]
    with np.errstate(invalid="ignore"):
        total = confusion.sum(axis=(-2, -1))
        return 1 - total * (confusion * disagreement).sum(axis=(-2, -1)) / (expected * disagreement).sum(axis=(-2, -1))
