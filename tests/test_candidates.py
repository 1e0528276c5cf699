"""Retrieval of candidates against brute force: ranks, ties, known answers; grades put back in place."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardneg.corpus.artifacts import SHARED, Query
from hardneg.embedding import search
from hardneg.judging.candidates import (
    Candidate,
    CandidateList,
    Index,
    candidate_pairs,
    rank_candidates,
    read_candidates,
    training_index,
    with_grades,
    write_candidates,
)
from hardneg.judging.judge import Judgment
from hardneg.running.errors import InputError
from tests.records import make_chunk, make_query

# Cosines with the query [1, 0]: chunks 2 and 5 0.6, chunk 4 1.0, chunk 7 0.8, chunk 9 0.6, chunk 11 0
NOBODY: Any = None  # encodes: vectors are given
INDEX = Index(
    NOBODY,
    np.array([2, 4, 5, 7, 9, 11], np.int64),
    np.array([[0.6, 0.8], [1, 0], [0.6, -0.8], [0.8, 0.6], [0.6, 0.8], [0, 1]], np.float32),
)
EAST = np.array([[1, 0]], np.float32)


def found(query: Query, k: int) -> list[tuple[int, int, bool]]:
    [item] = rank_candidates([query], EAST, INDEX, k, known_answers=True)
    assert item.query is query
    return [(candidate.chunk_id, candidate.rank, candidate.known) for candidate in item.candidates]


def test_top_k_in_order_with_ties_to_the_lower_id() -> None:
    assert found(make_query("q"), 4) == [(4, 1, False), (7, 2, False), (2, 3, False), (5, 4, False)]


def test_known_answers_come_along_at_their_rank_among_all_chunks() -> None:
    expected = [(4, 1, False), (7, 2, True), (9, 5, True), (11, 6, True)]
    assert found(make_query("q", 11, 9, 7), 2) == expected
    assert found(make_query("q", 2, 7), 1) == [(4, 1, False), (7, 2, True), (2, 3, True)]  # by rank, not by id


def test_a_known_answer_that_is_not_searched_stays_out() -> None:
    assert found(make_query("q", 3, 4, 100), 1) == [(4, 1, True)]


def test_a_known_answer_named_twice_is_one_candidate() -> None:
    assert found(make_query("q", 11, 11), 1) == [(4, 1, False), (11, 6, True)]


def test_as_if_no_answer_were_known() -> None:
    [item] = rank_candidates([make_query("q", 4, 11)], EAST, INDEX, 2, known_answers=False)
    assert [(c.chunk_id, c.rank, c.known) for c in item.candidates] == [(4, 1, False), (7, 2, False)]


def test_fewer_chunks_than_k() -> None:
    assert [chunk_id for chunk_id, *_ in found(make_query("q", 11), 50)] == [4, 7, 2, 5, 9, 11]


def test_against_brute_force_over_several_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(search, "SCORES_AT_ONCE", 60 * 8)
    generator = np.random.default_rng(0)
    # few different directions, so that there are ties, and more queries than fit in a block
    chunks = np.eye(8, dtype=np.float32)[generator.integers(0, 8, 60)]
    vectors = np.eye(8, dtype=np.float32)[generator.integers(0, 8, 3 * 8 + 3)]
    ids = np.sort(generator.choice(1000, 60, replace=False))
    queries = [make_query(f"q{n}", int(ids[n % 60]), 2000) for n in range(len(vectors))]
    for item, vector in zip(
        rank_candidates(queries, vectors, Index(NOBODY, ids, chunks), 5, True), vectors, strict=True
    ):
        order = sorted(range(60), key=lambda place: (-float(chunks[place] @ vector), ids[place]))
        rank = {int(ids[place]): 1 + position for position, place in enumerate(order)}
        known = item.query["ground_truth_chunk_ids"][0]
        wanted = sorted({int(ids[place]) for place in order[:5]} | {known}, key=rank.__getitem__)
        assert [(c.chunk_id, c.rank, c.known) for c in item.candidates] == [(i, rank[i], i == known) for i in wanted]


def test_no_queries() -> None:
    assert rank_candidates([], np.empty((0, 2), np.float32), INDEX, 3, known_answers=True) == []


def test_grades_go_to_their_pair_and_leave_the_rest_as_it_was() -> None:
    lists = rank_candidates([make_query("a"), make_query("b", 11)], np.repeat(EAST, 2, 0), INDEX, 1, True)
    judgments = [Judgment("b", 11, 3.5), Judgment("b", 4, None, unjudged_reason="refused"), Judgment("a", 11, 1.0)]
    first, second = with_grades(lists, iter(judgments))
    assert [candidate.grade for candidate in first.candidates] == [None]
    assert [(c.chunk_id, c.rank, c.known, c.grade) for c in second.candidates] == [
        (4, 1, False, None),
        (11, 6, True, 3.5),
    ]
    assert lists[1].candidates[1].grade is None


def test_training_sees_its_own_chunks_and_those_of_several_splits_alone() -> None:
    chunks = [make_chunk(n, split=split) for n, split in enumerate(("val", "train", "test", SHARED, "train"))]
    index = training_index(NOBODY, chunks, np.arange(10, dtype=np.float32).reshape(5, 2))
    assert index.chunk_ids.tolist() == [1, 3, 4] and index.chunk_ids.dtype == np.int64
    assert index.vectors.tolist() == [[2, 3], [6, 7], [8, 9]]


def test_pairs_are_judged_query_by_query_in_the_candidates_order() -> None:
    chunks = [make_chunk(n, f"Passage {n}.") for n in range(3)]
    first, second = Candidate(2, 1, 0.5, False), Candidate(0, 2, 0.4, True)
    lists = [CandidateList(make_query("a"), (first, second)), CandidateList(make_query("b"), (first,))]
    pairs = [(pair.query["query_id"], pair.chunk["text"]) for pair in candidate_pairs(lists, chunks)]
    assert pairs == [("a", "Passage 2."), ("a", "Passage 0."), ("b", "Passage 2.")]


def test_written_as_one_json_line_per_query(tmp_path: Path) -> None:
    lists = [CandidateList(make_query("ä", 3), (Candidate(3, 2, 0.5, True, 4.0),)), CandidateList(make_query("b"), ())]
    write_candidates(tmp_path / "candidates.jsonl", lists)
    assert read_candidates(tmp_path / "candidates.jsonl") == lists
    first, second = (tmp_path / "candidates.jsonl").read_text(encoding="utf-8").splitlines()
    assert json.loads(first) == {
        "query": dict(make_query("ä", 3)),
        "candidates": [{"chunk_id": 3, "rank": 2, "cosine": 0.5, "known": True, "grade": 4.0}],
    }
    assert json.loads(second)["candidates"] == []
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="cannot write"):
        write_candidates(tmp_path / "file" / "candidates.jsonl", lists)


def test_a_line_separator_in_a_question_ends_no_line(tmp_path: Path) -> None:
    lists = [CandidateList(make_query("gout\u2028flu"), ())]
    write_candidates(tmp_path / "candidates.jsonl", lists)
    assert read_candidates(tmp_path / "candidates.jsonl") == lists
