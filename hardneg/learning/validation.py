"""How good a model is on the validation questions, how much it has forgotten on the guard's, and which is the best."""

import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from hardneg.corpus.artifacts import Chunk, Query
from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.search import top_k
from hardneg.learning.scale import best_scale
from hardneg.measuring.graded import GradedSet, score_graded
from hardneg.measuring.metrics import K, relative_gain, retrieval_metrics

# What the fields of a Score are called where they are shown.
FIGURES = {"mrr": f"MRR@{K}", "dcg": f"DCG@{K}", "guard_ndcg": "guard nDCG@10", "guard_mrr": "guard MRR@5"}


def relative_change(value: float, base: float) -> float:
    """Change of `value` against `base`, e.g. 0.15; 1 for anything above a base of 0."""
    return value / base - 1 if base else float(value > 0)


@dataclass(frozen=True, slots=True)
class Score:
    """Means over validation questions (MRR and DCG at K) and guard questions (nDCG@10, MRR@5; None without a guard)."""

    mrr: float
    dcg: float
    guard_ndcg: float | None
    guard_mrr: float | None
    guard_low: float | None  # lower end of the 95% interval of guard_ndcg's relative change against the base model

    def gain_over(self, base: "Score") -> float:
        """Mean of the relative MRR and DCG gains over `base`, e.g. 0.15."""
        return (relative_change(self.mrr, base.mrr) + relative_change(self.dcg, base.dcg)) / 2

    def is_harmless(self, tolerance: float) -> bool:
        """Whether the guard's 95% interval rules out a relative loss above `tolerance`; True without a guard.

        A test of non-inferiority (Piaggio et al. 2012). A small guard has a wide interval, so the fewer questions, the
        less change is allowed: seeing no loss is not the same as ruling one out. The 95% hold for each model by
        itself; the best of several that are tried may have lost a little more. The guard's MRR@5 is printed beside
        nDCG@10 but decides nothing: it sees one answer per question, so its interval is four times as wide (LOG.md,
        "Contrast with passages that stay where they are").
        """
        return self.guard_low is None or self.guard_low >= -tolerance


def lowest_change(base: np.ndarray, other: np.ndarray) -> float:
    """Lower end of the 95% interval of the relative change of a mean, e.g. -0.02; arrays as in `relative_gain`.

    -1, which is all of it, where the interval is unknown, as of one question; 0 where the base has nothing to lose.
    """
    gain = relative_gain(base, other)
    return 0.0 if gain.base_mean == 0 else float(np.nan_to_num(gain.low, nan=-1.0))


def describe_score(score: Score, base: Score | None = None) -> str:
    """One line of validation figures, with their change against the base model's where these are given."""
    words = []
    for field, name in FIGURES.items():
        value = getattr(score, field)
        if value is None:
            continue
        change = f"{relative_change(value, getattr(base, field)):+.1%}" if base else ""
        if base and field == "guard_ndcg":
            change += f", 95% CI from {score.guard_low:+.1%}"
        words.append(f"{name} {value:.4f}" + (f" ({change})" if change else ""))
    return "  ".join(words)


class Validator:
    """Scores models on validation questions and the guard's, and fits the scale; never sees a test question."""

    def __init__(
        self, chunks: Sequence[Chunk], queries: Sequence[Query], guard: GradedSet | None, base: CachedEncoder
    ) -> None:
        """
        Args:
            chunks: what the questions are searched in.
            queries: validation questions.
            guard: graded questions from outside the domain's templates; None for no guard.
            base: the base model's encoder; how much is forgotten is measured against it.
        """
        self._chunks = list(chunks)
        self._chunk_ids = np.array([chunk["chunk_id"] for chunk in chunks], np.int64)
        self._queries = list(queries)
        self._guard = guard
        self._base = base

    @property
    def n_passages(self) -> int:
        """How many passages `score` embeds, the guard's answers included."""
        return len(self._chunks) + (self._guard.n_answers if self._guard else 0)

    def score(self, encoder: CachedEncoder, progress: Callable[[int], object] | None = None) -> Score:
        """Score a model against all the chunks of this validator (taken from the encoder's cache where there)."""
        metrics = self.metrics(encoder, progress)
        mrr, dcg = float(metrics["MRR"].mean()), float(metrics["DCG"].mean())
        if self._guard is None:
            return Score(mrr, dcg, None, None, None)
        guard = score_graded(encoder, self._guard, progress)
        low = lowest_change(self._base_guard["nDCG@10"], guard["nDCG@10"])
        return Score(mrr, dcg, float(guard["nDCG@10"].mean()), float(guard["MRR@5"].mean()), low)

    @cached_property
    def _base_guard(self) -> dict[str, np.ndarray]:
        assert self._guard is not None
        return score_graded(self._base, self._guard)

    @cached_property
    def base_score(self) -> Score:
        """The base model's."""
        return self.score(self._base)

    def metrics(self, encoder: CachedEncoder, progress: Callable[[int], object] | None = None) -> dict[str, np.ndarray]:
        """`retrieval_metrics` at K of every validation question."""
        vectors = encoder.encode_passages([chunk["text"] for chunk in self._chunks], progress)
        query_vectors = encoder.encode_queries([query["query"] for query in self._queries])
        positions = top_k(query_vectors, vectors, K)
        relevant = [set(query["ground_truth_chunk_ids"]) for query in self._queries]
        return retrieval_metrics(self._chunk_ids[positions], relevant, K)

    def pool(self, n_queries: int, depth: int, seed: int) -> "Validator":
        """A smaller validator for comparing models: a seeded sample of the questions, and only the chunks that the base
        model ranks in their top `depth` or that answer them.

        The figures compare models, they are no result: where `depth` is K or more, the base model's are as on all
        chunks, and another model's too high, as the passages that it alone would rank wrongly high are missing.
        """
        queries = self._sample(n_queries, seed)
        vectors = self._base.encode_passages([chunk["text"] for chunk in self._chunks])
        positions = top_k(self._base.encode_queries([query["query"] for query in queries]), vectors, depth)
        wanted = {chunk_id for query in queries for chunk_id in query["ground_truth_chunk_ids"]}
        wanted.update(self._chunk_ids[positions].ravel().tolist())
        chunks = [chunk for chunk in self._chunks if chunk["chunk_id"] in wanted]
        return Validator(chunks, queries, self._guard, self._base)

    def base_scale(self, n_queries: int, seed: int, max_answers: int, bounds: tuple[float, float]) -> float:
        """`best_scale` of the base model among all chunks; arguments as there, and as in `pool`."""
        queries = self._sample(n_queries, seed)
        return best_scale(
            self._base.encode_queries([query["query"] for query in queries]),
            self._base.encode_passages([chunk["text"] for chunk in self._chunks]),
            [np.flatnonzero(np.isin(self._chunk_ids, query["ground_truth_chunk_ids"])) for query in queries],
            max_answers,
            bounds,
        )

    def _sample(self, n_queries: int, seed: int) -> list[Query]:
        return random.Random(seed).sample(self._queries, min(n_queries, len(self._queries)))


# ---------------------------------------------------------------- the best that the guard passes


@dataclass(frozen=True, slots=True)
class Tried:
    """One strength tried: its scores on the validation pool and the guard, and the gain over the base model."""

    strength: float  # share of the tuned weights
    score: Score
    gain: float


def choose_strength(tried: Sequence[Tried], tolerance: float) -> Tried:
    """The strength that gains most in the domain among those that the guard passes.

    Args:
        tried: the strengths, measured.
        tolerance: relative loss that the guard must rule out; if it does so for no strength, the one with the
            highest lower end of the interval is chosen.
    """
    harmless = [each for each in tried if each.score.is_harmless(tolerance)]
    if harmless:
        return max(harmless, key=lambda each: each.gain)

    def guard_low(each: Tried) -> float:
        assert each.score.guard_low is not None  # without a guard each would be harmless
        return each.score.guard_low

    return max(tried, key=guard_low)


def past_the_best(tried: Sequence[Tried], tolerance: float) -> bool:
    """Whether the last strength gains less than an earlier harmless one: weaker ones are assumed to gain even less."""
    *before, last = tried
    return any(each.score.is_harmless(tolerance) and each.gain > last.gain for each in before)


def best_iteration(scores: Sequence[Score], bases: Sequence[Score], tolerance: float) -> int | None:
    """The iteration that gains most on validation among those that the guard passes; None where none gains.

    Args:
        scores: one per iteration.
        bases: the base model's, as it was measured with each: a run that goes on elsewhere may have another precision.
        tolerance: relative loss that the guard must rule out.
    """
    measured = zip(scores, bases, strict=True)
    gains = [score.gain_over(base) if score.is_harmless(tolerance) else 0.0 for score, base in measured]
    best = max(range(len(gains)), key=gains.__getitem__)
    return best if gains[best] > 0 else None


def why_none(scores: Sequence[Score], bases: Sequence[Score], tolerance: float) -> str:
    """Why `best_iteration` is None; arguments as there."""
    gained = [(score, base) for score, base in zip(scores, bases, strict=True) if score.gain_over(base) > 0]
    if not gained:
        return "no iteration gained on validation"
    reason = f"for no iteration that gained on validation could the guard rule out a loss of more than {tolerance:.1%}"
    guards = [(score.guard_ndcg, base.guard_ndcg) for score, base in gained]  # there is one: else each were harmless
    if any(relative_change(ndcg, before) >= -tolerance for ndcg, before in guards if ndcg is not None and before):
        reason += "; what it measured is less than that, so a guard with more questions might"
    return reason
