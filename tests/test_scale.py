"""The fitted scale: by hand, and against torch's cross-entropy."""

import math

import numpy as np
import pytest
import torch

from hardneg.learning.scale import best_scale

BOUNDS = (20.0, 100.0)
EAST, NEAR, WIDE = [1.0, 0.0], [0.96, 0.28], [0.8, 0.6]


def vectors(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def places(*of_queries: list[int]) -> list[np.ndarray]:
    return [np.array(of_query) for of_query in of_queries]


def test_by_hand() -> None:
    """Ten questions with cosines of 1 and 0.96: nine have their answer at 1, so the softmax is to give that 0.9."""
    answers = places(*[[0]] * 9, [1])
    scale = best_scale(vectors(*[EAST] * 10), vectors(EAST, NEAR), answers, 2, BOUNDS)
    assert scale == pytest.approx(math.log(9) / 0.04, rel=1e-3)


@pytest.mark.parametrize(("answer", "end"), [(0, 1), (1, 0)])
def test_it_has_bounds(answer: int, end: int) -> None:
    scale = best_scale(vectors(EAST), vectors(EAST, WIDE), places([answer]), 2, BOUNDS)
    assert scale == pytest.approx(BOUNDS[end], rel=1e-3)


def test_answers_do_not_compete_with_one_another() -> None:
    """Or the lowest scale would be best, for the sake of the second."""
    scale = best_scale(vectors(EAST), vectors(EAST, NEAR, WIDE), places([0, 1]), 2, BOUNDS)
    assert scale == pytest.approx(BOUNDS[1], rel=1e-3)


@pytest.mark.parametrize(("max_answers", "end"), [(2, 1), (3, 0)])
def test_the_nearest_answers_count(max_answers: int, end: int) -> None:
    """The third nearest, which comes first, is further away than what is none and wants the lowest scale."""
    chunks = vectors(WIDE, EAST, NEAR, EAST)
    scale = best_scale(vectors(EAST), chunks, places([0, 1, 3]), max_answers, BOUNDS)
    assert scale == pytest.approx(BOUNDS[end], rel=1e-3)


def test_no_other_scale_has_a_lower_cross_entropy() -> None:
    """Of random unit vectors and one to three answers, which look best through noise: by torch, with masks."""
    rng = np.random.default_rng(0)
    queries, chunks = (rng.normal(size=(count, 8)) for count in (40, 300))
    queries, chunks = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (queries, chunks))
    noisy = queries @ chunks.T + rng.gumbel(scale=1 / 30, size=(40, 300))
    answers = [np.argsort(-row)[: rng.integers(1, 4)] for row in noisy]
    found = best_scale(queries.astype(np.float32), chunks.astype(np.float32), answers, 3, BOUNDS)

    def loss(scale: float) -> float:
        losses = []
        for own, cosines in zip(answers, queries @ chunks.T, strict=True):
            for answer in own:
                logits = scale * cosines
                logits[[other for other in own if other != answer]] = -np.inf
                losses.append(torch.nn.functional.cross_entropy(torch.from_numpy(logits), torch.tensor(answer)).item())
        return sum(losses) / len(losses)

    best = min(np.arange(20, 100, 0.5), key=loss)
    assert 21 < best < 99 and found == pytest.approx(best, abs=0.5)
    assert loss(found) <= loss(best) + 1e-6
