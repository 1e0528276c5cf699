"""The scale of the cosines in the contrast, found by the base model's own search of the domain."""

from collections.abc import Collection, Sequence

import numpy as np
from scipy.optimize import minimize_scalar
from scipy.special import logsumexp

from hardneg.search import scores_of


def best_scale(
    query_vectors: np.ndarray,
    chunk_vectors: np.ndarray,
    answers: Sequence[Collection[int]],
    most: int,
    bounds: tuple[float, float],
) -> float:
    """The scale of the cosines at which their softmax over all chunks makes the answers likeliest.

    That is temperature scaling (arXiv 1706.04599) of the model on questions whose answers are known. It finds about
    what a model was trained at, which its files do not tell (all-MiniLM: 20, it finds 20 to 27; E5: 100; LOG.md,
    "The scale").

    Args:
        query_vectors: float32 (Q, d), unit rows.
        chunk_vectors: float32 (C, d), unit rows.
        answers: per query the positions of the chunks that answer it; they do not compete with one another.
        most: how many answers of a query count, the nearest first.
        bounds: the least and the highest scale.
    """
    places = [np.array(sorted(of_query)) for of_query in answers]
    nearest = [
        np.sort(scores[own])[::-1][:most].astype(float)
        for own, scores in zip(places, scores_of(query_vectors, chunk_vectors), strict=True)
    ]
    query_of = np.repeat(np.arange(len(nearest)), [len(own) for own in nearest])
    cosines = np.concatenate(nearest)

    def loss(scale: float) -> float:
        """Mean cross-entropy of an answer against all chunks that are none."""
        others = []
        for own, scores in zip(places, scores_of(query_vectors, chunk_vectors), strict=True):
            logits = scale * scores.astype(float)
            logits[own] = -np.inf
            others.append(logsumexp(logits))
        return float((np.logaddexp(np.array(others)[query_of], scale * cosines) - scale * cosines).mean())

    return float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.01}).x)
