"""The fitted scale: by hand, against torch's cross-entropy, and where it is found."""

import math

import numpy as np
import pytest
import torch

from hardneg.scale import best_scale

BOUNDS = (20.0, 100.0)
EAST, NEAR, WIDE = [1.0, 0.0], [0.96, 0.28], [0.8, 0.6]


def vectors(*rows: list[float]) -> np.ndarray:
    return np.array(rows, np.float32)


def test_by_hand() -> None:
    """Ten questions with cosines of 1 and 0.96: nine have their answer at 1, so the softmax is to give that 0.9."""
    answers = [{0}] * 9 + [{1}]
    scale = best_scale(vectors(*[EAST] * 10), vectors(EAST, NEAR), answers, 2, BOUNDS)
    assert scale == pytest.approx(math.log(9) / 0.04, rel=1e-3)


def test_answers_do_not_compete_and_the_nearest_count() -> None:
    """Of three answers two count; the third, which is further away than what is none, would ask for the least scale."""
    chunks = vectors(EAST, EAST, NEAR, WIDE)
    assert best_scale(vectors(EAST), chunks, [[3, 0, 1]], 2, BOUNDS) == pytest.approx(BOUNDS[1], rel=1e-3)
    assert best_scale(vectors(EAST), chunks, [[3, 0, 1]], 3, BOUNDS) < 60


@pytest.mark.parametrize(("answer", "end"), [(0, 1), (1, 0)])
def test_it_has_bounds(answer: int, end: int) -> None:
    assert best_scale(vectors(EAST), vectors(EAST, WIDE), [{answer}], 2, BOUNDS) == pytest.approx(BOUNDS[end], rel=1e-3)


def test_no_other_scale_has_a_lower_cross_entropy() -> None:
    """Of random unit vectors, by torch; an answer is what looks best through noise."""
    rng = np.random.default_rng(0)
    queries, chunks = (rows / np.linalg.norm(rows, axis=1, keepdims=True) for rows in (rng.normal(size=(300, 8)),) * 2)
    queries = queries[:40]
    noisy = queries @ chunks.T + rng.gumbel(scale=1 / 30, size=(40, 300))
    answers = noisy.argmax(axis=1)
    found = best_scale(queries.astype(np.float32), chunks.astype(np.float32), [[each] for each in answers], 1, BOUNDS)

    def loss(scale: float) -> float:
        logits = torch.from_numpy(scale * queries @ chunks.T)
        return float(torch.nn.functional.cross_entropy(logits, torch.from_numpy(answers)))

    best = min(np.arange(20, 100, 0.05), key=loss)
    assert 20.5 < best < 99 and found == pytest.approx(best, abs=0.1)
