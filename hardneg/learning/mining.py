"""What mining finds: training examples, how they are put together, and how they add up over iterations."""

import math
from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, replace
from itertools import cycle, islice

from hardneg.corpus.artifacts import Query
from hardneg.judging.candidates import Candidate, GradedCandidate
from hardneg.learning.recipe import Example
from hardneg.running.errors import InputError
from hardneg.running.tables import aligned

FUSION_K = 60  # constant of reciprocal rank fusion, as published


@dataclass(frozen=True, slots=True)
class MiningRules:
    """What counts as an answer, and how much of a query is trained on."""

    relevant_grade: float  # expected grade from which a chunk is an answer
    irrelevant_grade: float  # expected grade up to which it is none; in between the judge is unsure
    refuted_below: float  # expected grade below which the judge refutes a known answer; from there on it is one
    clearly_below: float  # how far below the best known answer's grade a chunk in between must lie to be none
    negatives: int  # per example; a query without irrelevant candidates gives none
    max_positives: int  # examples per query; a long answer has many chunks
    max_found: int  # the same where no answer is known


@dataclass(frozen=True)
class Mined:
    """Training examples and how they came about."""

    examples: list[Example]
    spared: dict[str, set[int]]  # query id -> chunks that must not be its negatives
    candidates: set[int]  # chunks that are a candidate of any query
    hard_positives: list[tuple[Query, Candidate]]
    hard_negatives: list[tuple[Query, Candidate]]
    counts: Counter[str]


def surest(
    positives: Sequence[GradedCandidate], known: Sequence[Candidate], boilerplate: AbstractSet[int]
) -> list[GradedCandidate]:
    """The positives of a query that may be trained on, surest first.

    Where answers are known, only these count, unless the judge refutes them. What it finds besides is often wrong:
    wrong passages are so many that a judge which passes 3% of them is wrong in half of its finds. Surest is what judge
    and model agree on most, by reciprocal rank fusion (Cormack et al. 2009) of the order by grade and the model's.
    Boilerplate is trained on only where the query has no other answer, refuted or not: as the answer of hundreds of
    queries, it would come near to all of them.

    Args:
        positives: the candidates graded as answers.
        known: the query's known answers, however graded.
        boilerplate: ids of chunks that answer many queries alike.
    """
    trusted = [candidate for candidate in positives if candidate.known or not known]
    if any(candidate.chunk_id not in boilerplate for candidate in known or trusted):
        trusted = [candidate for candidate in trusted if candidate.chunk_id not in boilerplate]
    by_grade = sorted(trusted, key=lambda candidate: (-candidate.grade, candidate.rank))
    fused = [1 / (FUSION_K + place) + 1 / (FUSION_K + c.rank) for place, c in enumerate(by_grade, start=1)]
    return [by_grade[place] for place in sorted(range(len(by_grade)), key=lambda place: -fused[place])]


def irrelevant_up_to(graded: Sequence[GradedCandidate], rules: MiningRules) -> float:
    """The expected grade up to which a query's chunks are no answers: of those in between, those that the judge grades
    clearly below the best known answer.

    A judge may err most on chunks that look like answers to the model too, which are the hard negatives. Their grades
    then lie in between, but below those of the known answers (LOG.md, "A judge that is misled as the model is"). Up to
    `rules.irrelevant_grade` chunks are none whatever the known answers are graded: there the data outweighs the judge.

    Args:
        graded: the query's graded candidates.
        rules: the thresholds.
    """
    best = max((candidate.grade for candidate in graded if candidate.known), default=0.0)
    in_between = math.nextafter(rules.relevant_grade, 0.0)
    return max(rules.irrelevant_grade, min(best - rules.clearly_below, in_between))


def examples_of(
    query: Query, positives: Sequence[Candidate], irrelevant: Sequence[Candidate], negatives: int
) -> list[Example]:
    """One example per positive; each takes the next hardest negatives, so that they vary, from the first again after
    the last."""
    hardest = cycle(candidate.chunk_id for candidate in irrelevant)
    return [
        Example(query["query_id"], query["query"], positive.chunk_id, tuple(islice(hardest, negatives)))
        for positive in (positives if irrelevant else ())
    ]


def accumulate(iterations: Sequence[Mined]) -> Mined:
    """The last iteration's findings, with the distinct examples, the candidates and what is spared of all iterations.

    Examples accumulate as in the paper: what the base model gets wrong must be learnt again by every model that starts
    from it, as well as what the last model still gets wrong.
    """
    examples = list(dict.fromkeys(example for mined in iterations for example in mined.examples))
    spared: dict[str, set[int]] = {}
    for mined in iterations:
        for query_id, chunk_ids in mined.spared.items():
            spared[query_id] = spared.get(query_id, set()) | chunk_ids
    candidates = set().union(*(mined.candidates for mined in iterations))
    return replace(iterations[-1], examples=examples, spared=spared, candidates=candidates)


def check_examples(mined: Mined) -> None:
    """Raise InputError where nothing was found to train on."""
    if not mined.examples:
        raise InputError(
            "nothing to train on: no query has both an answer to trust and an irrelevant candidate; look at the grades "
            "with test_small_sample.py, or raise --num-candidates (with another --output-dir)"
        )


def describe_mining(counts: Mapping[str, int], rules: MiningRules) -> str:
    """How many candidates each rule took and skipped, by `Mined.counts`, as a table."""
    rows = [
        ("candidates", counts["candidates"]),
        (
            f"relevant (grade >= {rules.relevant_grade:g}; known answers >= {rules.refuted_below:g})",
            counts["relevant"],
        ),
        ("of these trained on, the surest", counts["trained_on"]),
        (f"irrelevant (grade <= {rules.irrelevant_grade:g}, or clearly below a known answer)", counts["irrelevant"]),
        (f"refuted (known answers < {rules.refuted_below:g}): not used", counts["refuted"]),
        ("in between: not used", counts["uncertain"]),
        ("unjudged: not used", counts["unjudged"]),
        ("queries skipped: no answer to trust", counts["queries_without_answer"]),
        ("queries skipped: nothing irrelevant", counts["queries_without_irrelevant"]),
    ]
    return aligned(rows)
