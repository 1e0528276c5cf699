"""Candidates of a query: what a model retrieved, where it ranked it, and how it was graded."""

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import NamedTuple, TypeGuard

import numpy as np

from hardneg.corpus.artifacts import SHARED, Chunk, Query
from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.search import best_places, rank_of, scores_of
from hardneg.judging.judge import Judgment, Pair
from hardneg.running.errors import explain_os_errors
from hardneg.running.files import write_json_lines


@dataclass(frozen=True, slots=True)
class Candidate:
    """One retrieved chunk; `rank` counts from 1 over all chunks searched, `grade` is None while unjudged."""

    chunk_id: int
    rank: int
    cosine: float
    known: bool  # one of the query's known answers
    grade: float | None = None


class GradedCandidate(Candidate):
    """A candidate that `is_graded`: a type for the checker alone, no object is made of it."""

    grade: float


def is_graded(candidate: Candidate) -> TypeGuard[GradedCandidate]:
    """Whether the judge gave the candidate a grade."""
    return candidate.grade is not None


class CandidateList(NamedTuple):
    """A query's candidates, best ranked first."""

    query: Query
    candidates: tuple[Candidate, ...]


@dataclass(frozen=True)
class Index:
    """The chunks that may be retrieved for training questions, embedded by the current model."""

    encoder: CachedEncoder
    chunk_ids: np.ndarray  # int64 (C,), ascending
    vectors: np.ndarray  # float32 (C, d), unit rows


def training_index(encoder: CachedEncoder, chunks: Sequence[Chunk], vectors: np.ndarray) -> Index:
    """The chunks that training may see: all but those that answer only validation or only test questions.

    Nothing of a held-out topic is trained on, not even as a negative, but for the few boilerplate passages that
    answer questions of several splits.
    """
    ids = np.array([chunk["chunk_id"] for chunk in chunks if chunk["split"] in ("train", SHARED)], np.int64)
    return Index(encoder, ids, vectors[ids])


def rank_candidates(
    queries: Sequence[Query], query_vectors: np.ndarray, index: Index, k: int, known_answers: bool
) -> list[CandidateList]:
    """Each query's top-k chunks by cosine, and its known answers wherever they rank; exact, ties to the lower id.

    Args:
        queries: Q queries.
        query_vectors: float32 (Q, d), unit rows.
        index: the chunks searched.
        k: how many to retrieve.
        known_answers: False treats the queries as if no answer to them were known.
    """
    lists = []
    position = {int(chunk_id): place for place, chunk_id in enumerate(index.chunk_ids)}
    for query, scores in zip(queries, scores_of(query_vectors, index.vectors), strict=True):
        best = best_places(scores, min(k, len(scores))).tolist()
        ranks = {place: rank for rank, place in enumerate(best, start=1)}
        answers = query["ground_truth_chunk_ids"] if known_answers else []
        known = {position[chunk_id] for chunk_id in answers if chunk_id in position}
        ranks |= {place: rank_of(place, scores) for place in known - ranks.keys()}
        found = (
            Candidate(int(index.chunk_ids[place]), ranks[place], float(scores[place]), place in known)
            for place in sorted(ranks, key=ranks.__getitem__)
        )
        lists.append(CandidateList(query, tuple(found)))
    return lists


def with_grades(lists: Iterable[CandidateList], judgments: Iterable[Judgment]) -> list[CandidateList]:
    """The same candidates with the grades they were given."""
    grades = {(judgment.query_id, judgment.chunk_id): judgment.grade for judgment in judgments}
    return [
        CandidateList(
            query, tuple(replace(each, grade=grades.get((query["query_id"], each.chunk_id))) for each in found)
        )
        for query, found in lists
    ]


def candidate_pairs(lists: Iterable[CandidateList], chunks: Sequence[Chunk]) -> Iterator[Pair]:
    """What is to be judged, query by query."""
    return (Pair(query, chunks[candidate.chunk_id]) for query, found in lists for candidate in found)


def read_candidates(path: Path) -> list[CandidateList]:
    """What `write_candidates` wrote. Raises InputError where it cannot be read."""
    with explain_os_errors(path, "read"), path.open(encoding="utf-8") as file:
        records = [json.loads(line) for line in file]
    return [
        CandidateList(record["query"], tuple(Candidate(**candidate) for candidate in record["candidates"]))
        for record in records
    ]


def write_candidates(path: Path, lists: Iterable[CandidateList]) -> None:
    """One JSON line per query, for jq. Raises InputError where it cannot be written."""
    write_json_lines(
        path,
        ({"query": query, "candidates": [asdict(candidate) for candidate in found]} for query, found in lists),
    )
