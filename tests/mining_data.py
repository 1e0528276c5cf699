"""Graded candidates written by hand, for the tests of mining."""

from dataclasses import replace
from typing import Any

import iterative_miner as miner
from hardneg.corpus.artifacts import Query
from hardneg.judging.candidates import Candidate, CandidateList
from hardneg.learning.mining import Mined


def graded(query: Query, *grades: float | None, ranks: list[int] | None = None) -> CandidateList:
    """Candidates 100, 101, ... at ranks 1, 2, ..., with these grades."""
    known = set(query["ground_truth_chunk_ids"])
    places = ranks or list(range(1, len(grades) + 1))
    return CandidateList(
        query,
        tuple(
            Candidate(100 + number, rank, 1 - rank / 1000, 100 + number in known, grade)
            for number, (rank, grade) in enumerate(zip(places, grades, strict=True))
        ),
    )


def mine(lists: list[CandidateList], **changed: Any) -> Mined:
    """By the default rules but for one negative per example, up to two found answers, and what is given."""
    rules = replace(miner.MINING, **{"negatives": 1, "max_found": 2, **changed})
    return miner.mine_hard_examples(lists, frozenset(), rules)
