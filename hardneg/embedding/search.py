"""Exact search: every query against every chunk, by the cosine."""

from collections.abc import Iterator

import numpy as np

SCORES_AT_ONCE = 2**25  # held in memory: 128 MiB, whatever the size of the corpus


def scores_of(query_vectors: np.ndarray, chunk_vectors: np.ndarray) -> Iterator[np.ndarray]:
    """Each query's cosines with all chunks: float32 (C,), Q times.

    Args:
        query_vectors: float32 (Q, d), unit rows.
        chunk_vectors: float32 (C, d), unit rows.
    """
    at_once = max(1, SCORES_AT_ONCE // max(1, len(chunk_vectors)))  # queries
    for start in range(0, len(query_vectors), at_once):
        yield from query_vectors[start : start + at_once] @ chunk_vectors.T


def top_k(query_vectors: np.ndarray, chunk_vectors: np.ndarray, k: int) -> np.ndarray:
    """The k most similar chunks of each query; arguments as in `scores_of`.

    Returns:
        positions int64 (Q, min(k, C)), best first; ties go to the lower position.
    """
    k = min(k, len(chunk_vectors))
    positions = np.empty((len(query_vectors), k), np.int64)
    for row, scores in zip(positions, scores_of(query_vectors, chunk_vectors), strict=True):
        row[:] = best_places(scores, k)
    return positions


def best_places(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k <= C highest of C scores, best first; equal scores by position, also at the k-th place."""
    threshold = np.partition(scores, -k)[-k]
    contenders = np.flatnonzero(scores >= threshold)
    return contenders[np.argsort(-scores[contenders], kind="stable")[:k]]


def rank_of(place: int, scores: np.ndarray) -> int:
    """The rank, from 1, of the chunk at `place` among C scores; ties as in `best_places`."""
    return 1 + int((scores > scores[place]).sum()) + int((scores[:place] == scores[place]).sum())
