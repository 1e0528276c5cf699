"""The scale of the cosines in the contrast, fitted to a model's cosines with known answers."""

from collections.abc import Sequence

import numpy as np
from scipy.optimize import minimize_scalar

from hardneg.embedding.search import scores_of


def best_scale(
    query_vectors: np.ndarray,
    chunk_vectors: np.ndarray,
    answers: Sequence[np.ndarray],
    max_answers: int,
    bounds: tuple[float, float],
) -> float:
    """The scale of the cosines at which their softmax over all chunks makes the answers likeliest.

    That is temperature scaling (arXiv 1706.04599) of the model. It finds about what a model was trained at, which its
    files do not tell (LOG.md, "The scale", "The scale by validation questions").

    Args:
        query_vectors: float32 (Q, d), unit rows.
        chunk_vectors: float32 (C, d), unit rows.
        answers: per query int64 (A,), the positions of the chunks that answer it. They do not compete with one another.
        max_answers: how many of a query's answers count, the nearest; each counts as much as any other query's.
        bounds: between which the scale is looked for, of at most 100 or so.
    """

    def loss(scale: float) -> float:
        """Mean cross-entropy of an answer against all chunks that are none."""
        losses = []
        for own, scores in zip(answers, scores_of(query_vectors, chunk_vectors), strict=True):
            odds = np.exp(scale * scores.astype(float))  # far from float64's limit of e ** 709
            nearest = np.sort(odds[own])[::-1][:max_answers]
            odds[own] = 0
            losses.append(np.log1p(odds.sum() / nearest))
        return float(np.concatenate(losses).mean())

    return float(minimize_scalar(loss, bounds=bounds, method="bounded", options={"xatol": 0.01}).x)
