"""Exact search against brute force."""

import numpy as np
import pytest

from hardneg.embedding import search
from hardneg.embedding.search import best_places, rank_of, scores_of, top_k


@pytest.mark.parametrize("k", [1, 7, 50, 80])
def test_top_k_equals_brute_force(k: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SCORES_AT_ONCE", 50 * 8)
    generator = np.random.default_rng(k)
    # few different values: many ties, also at the k-th place
    chunks = generator.integers(0, 2, (50, 3)).astype(np.float32)
    queries = generator.integers(0, 2, (3 * 8 + 5, 3)).astype(np.float32)
    positions = top_k(queries, chunks, k)
    assert positions.shape == (len(queries), min(k, 50)) and positions.dtype == np.int64
    scores = queries @ chunks.T
    expected = np.array([sorted(range(50), key=lambda place: (-row[place], place))[:k] for row in scores])
    np.testing.assert_array_equal(positions, expected)


@pytest.mark.parametrize(("held", "queries_of_blocks"), [(50 * 4, [4, 4, 2]), (50 * 5 - 1, [4, 4, 2]), (7, [1] * 10)])
def test_memory_does_not_grow_with_the_corpus(
    held: int, queries_of_blocks: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(search, "SCORES_AT_ONCE", held)
    rows = list(scores_of(np.ones((10, 3), np.float32), np.ones((50, 3), np.float32)))
    bases = (row.base for row in rows)  # a row is a view of the block that it was reckoned in
    blocks = {id(block): block.shape for block in bases if block is not None}
    assert list(blocks.values()) == [(queries, 50) for queries in queries_of_blocks]


def test_ties_at_the_last_place_go_to_the_lower_position() -> None:
    assert best_places(np.array([0.5, 0.9, 0.5, 0.5, 1.0], np.float32), 3).tolist() == [4, 1, 0]
    assert best_places(np.array([0.5, 0.5], np.float32), 2).tolist() == [0, 1]


def test_ranks_follow_the_places() -> None:
    scores = np.array([0.5, 0.9, 0.5, 0.5, 1.0], np.float32)
    places = best_places(scores, 5)
    assert [rank_of(place, scores) for place in places.tolist()] == [1, 2, 3, 4, 5]
