"""Retrieval metrics per question, and intervals of means and of relative gains."""

import math
from collections.abc import Hashable, Iterable, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass

import numpy as np
from scipy import stats

K = 5  # the cut-off of the success criteria
RELEVANT_GRADE = 3  # of the grades 1-4: from here on an answer counts as one
CONFIDENCE = 0.95
RESAMPLES = 10_000  # of a bootstrap
RESAMPLE_BATCH = 500  # of these held in memory at once
RESAMPLING_SEED = 42


def retrieval_metrics(ranked: np.ndarray, relevant: Sequence[AbstractSet[int]], k: int) -> dict[str, np.ndarray]:
    """MRR, DCG, precision and recall at k with binary relevance.

    DCG is the sum of 1 / log2(rank + 1) over the relevant chunks among the first k, not normalised, so it exceeds 1
    where several chunks are right. Precision divides by k even where fewer chunks were retrieved, recall by the number
    of relevant chunks; a question without any scores 0 throughout.

    >>> {name: values.tolist() for name, values in retrieval_metrics(np.array([[7, 3, 9]]), [{3, 8}], k=2).items()}
    {'MRR': [0.5], 'DCG': [0.6309297535714575], 'Precision': [0.5], 'Recall': [0.5]}

    Args:
        ranked: integer (Q, n), different chunk ids, best first; columns beyond the k-th are not looked at.
        relevant: per question, the ids of all chunks that answer it.
        k: cut-off, at least 1.

    Returns:
        per question (Q,) float64 under the keys "MRR" (reciprocal rank), "DCG", "Precision", "Recall".
    """
    rows = zip(ranked[:, :k].tolist(), relevant, strict=True)
    hits = np.array([[chunk_id in ids for chunk_id in row] for row, ids in rows], bool)
    found = hits.sum(axis=1)
    n_relevant = np.array([len(ids) for ids in relevant])
    return {
        "MRR": _reciprocal_rank(hits),
        "DCG": hits @ _discounts(hits.shape[1]),
        "Precision": found / k,
        "Recall": found / np.maximum(n_relevant, 1),
    }


def metrics_without(
    left_out: AbstractSet[int], ranked: np.ndarray, relevant: Sequence[AbstractSet[int]], k: int
) -> dict[str, np.ndarray]:
    """`retrieval_metrics` as if some chunks were not in the corpus, neither as answers nor in the way of others.

    Args:
        left_out: their ids.
        ranked: integer (Q, n), different chunk ids, best first; at least k others in each row, or all there are.
        relevant: per question, the ids of all chunks that answer it.
        k: cut-off, at least 1.

    Returns:
        the metrics of the questions that have other answers, at most Q, the same ones for every model; empty where
        nothing is left out of any answer, or no question is left.
    """
    asked = [row for row, ids in enumerate(relevant) if ids - left_out]
    if not asked or not any(ids & left_out for ids in relevant):
        return {}
    kept = [[chunk_id for chunk_id in row if chunk_id not in left_out][:k] for row in ranked[asked].tolist()]
    return retrieval_metrics(np.array(kept), [relevant[row] - left_out for row in asked], k)


def graded_metrics(ranked_grades: Sequence[Sequence[float]]) -> dict[str, np.ndarray]:
    """MRR@5 at RELEVANT_GRADE, DCG@5 and nDCG@10 with a gain of grade - 1, among the judged answers of a question.

    The ideal order of nDCG is that of the question's own judged answers. A question whose answers all have one grade
    tells nothing, as any order is ideal: it is left out of nDCG, which then has fewer rows, the same for all models.

    Args:
        ranked_grades: per question, the grades (1-4) of all its judged answers in the order a model ranks them.

    Returns:
        per question float64 under the keys "MRR@5" (Q,), "DCG@5" (Q,) and "nDCG@10" (Q minus those left out).
    """
    rows = [np.asarray(grades, float) for grades in ranked_grades]
    mrr = [_reciprocal_rank(row[None, :5] >= RELEVANT_GRADE)[0] for row in rows]
    ndcg = [_dcg(row, 10) / _dcg(-np.sort(-row), 10) for row in rows if len(set(row.tolist())) > 1]
    return {
        "MRR@5": np.array(mrr),
        "DCG@5": np.array([_dcg(row, 5) for row in rows]),
        "nDCG@10": np.array(ndcg),
    }


def ndcg_of_random_order(grades: Sequence[Sequence[float]]) -> float:
    """The nDCG@10 to expect of a random order of each question's judged answers: the floor of that metric.

    >>> ndcg_of_random_order([[4, 1]])  # half of the time 1, half of the time 1 / log2(3)
    0.8154648767857288

    Args:
        grades: per question, of all its judged answers, as for `graded_metrics`; those of one grade alone are left out.
    """
    rows = [np.asarray(of_question, float) for of_question in grades if len(set(of_question)) > 1]
    shares = [(row.mean() - 1) * _discounts(min(len(row), 10)).sum() / _dcg(-np.sort(-row), 10) for row in rows]
    return float(np.mean(shares))


def _discounts(n: int) -> np.ndarray:
    return 1 / np.log2(np.arange(n) + 2)


def _dcg(grades: np.ndarray, k: int) -> float:
    gains = grades[:k] - 1
    return float(gains @ _discounts(len(gains)))


def _reciprocal_rank(hits: np.ndarray) -> np.ndarray:
    """1 / rank of the first True of each row of a bool (Q, n); 0 where there is none."""
    return np.where(hits.any(axis=1), 1 / (hits.argmax(axis=1) + 1), 0.0) if hits.size else np.zeros(len(hits))


def finite_or_none(value: float) -> float | None:
    """A figure for JSON, which has no NaN and no infinity."""
    return float(value) if math.isfinite(value) else None


def bounds_or_none(bounds: Iterable[float]) -> list[float | None]:
    """The bounds of an interval for JSON."""
    return [finite_or_none(bound) for bound in bounds]


def mean_and_interval(values: Sequence[float] | np.ndarray) -> tuple[float, tuple[float, float]]:
    """The mean and its percentile bootstrap interval of 95%; NaN of no value, and bounds of fewer than two."""
    if len(values) < 2:
        return (float(values[0]) if len(values) else math.nan), (math.nan, math.nan)
    interval = stats.bootstrap(
        (values,),
        np.mean,
        n_resamples=RESAMPLES,
        batch=RESAMPLE_BATCH,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=RESAMPLING_SEED,
    ).confidence_interval
    return float(np.mean(values)), (float(interval.low), float(interval.high))


@dataclass(frozen=True, slots=True)
class Gain:
    """Relative gain of one mean over another with its interval, as fractions (0.15 is +15%).

    `gain` is NaN where the base mean is 0; `low` and `high` are NaN where there is no interval (one question or group),
    and `high` is infinite where the base model fails too many questions to bound the ratio.
    """

    base_mean: float
    other_mean: float
    gain: float
    low: float
    high: float


def relative_gain(base: np.ndarray, other: np.ndarray, groups: Sequence[Hashable] | None = None) -> Gain:
    """Relative gain of `other` over `base`, ratio of means minus 1, with a 95% paired percentile bootstrap interval.

    Questions are drawn with replacement, each with both models' values. With `groups`, whole groups are drawn instead
    (cluster bootstrap; Field & Welsh 2007), for questions on one topic succeed and fail together: the interval is then
    of the mean gain over all such topics, not these alone. (The gain of another sample as large scatters more widely.)

    Args:
        base: per question (Q,) values of one metric, none negative.
        other: the same questions under the other model.
        groups: per question, what it belongs to, such as its topic.
    """
    base_mean, other_mean = float(np.mean(base)), float(np.mean(other))
    if base_mean == 0:
        return Gain(base_mean, other_mean, np.nan, np.nan, np.nan)
    if groups is not None:
        base, other = _group_sums(base, groups), _group_sums(other, groups)
    low, high = np.nan, np.nan
    if len(base) > 1:
        shares = stats.bootstrap(
            (base, other),
            _share,
            n_resamples=RESAMPLES,
            batch=RESAMPLE_BATCH,
            paired=True,
            vectorized=True,
            confidence_level=CONFIDENCE,
            method="percentile",
            rng=np.random.default_rng(RESAMPLING_SEED),
        ).confidence_interval
        low, high = (share / (1 - share) - 1 if share < 1 else np.inf for share in map(float, shares))
    return Gain(base_mean, other_mean, other_mean / base_mean - 1, low, high)


def _group_sums(values: np.ndarray, groups: Sequence[Hashable]) -> np.ndarray:
    """Sum per group: the ratio of two means over drawn groups is the ratio of the sums of these."""
    place = numbered(groups)
    return np.bincount([place[group] for group in groups], weights=values)


def numbered(groups: Sequence[Hashable]) -> dict[Hashable, int]:
    """The different groups, counted from 0 in the order of their first occurrence."""
    return {group: place for place, group in enumerate(dict.fromkeys(groups))}


def _share(base: np.ndarray, other: np.ndarray, axis: int = -1) -> np.ndarray:
    """`other`'s share of the sum of both, half where both are 0.

    It rises with the ratio of the means, so percentiles of one are percentiles of the other, but stays finite in a
    resample of questions that the base model fails throughout.
    """
    base_sum, other_sum = base.sum(axis=axis), other.sum(axis=axis)
    total = base_sum + other_sum
    return np.divide(other_sum, total, out=np.full(np.shape(total), 0.5), where=total > 0)
