"""Scores on validation and guard questions, and what is chosen by them: by hand, and pools against the whole corpus."""

import math
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from hardneg.corpus.artifacts import Chunk, Query
from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.models import load_model
from hardneg.embedding.search import top_k
from hardneg.learning.validation import (
    Score,
    Tried,
    Validator,
    best_iteration,
    choose_strength,
    describe_score,
    lowest_change,
    past_the_best,
    relative_change,
    why_none,
)
from hardneg.measuring.graded import GradedAnswer, GradedQuestion, GradedSet
from tests.records import make_chunk, make_query
from tests.tiny_data import tiny_corpus


def test_changes_are_relative_and_anything_is_above_a_base_of_0() -> None:
    assert relative_change(0.6, 0.5) == pytest.approx(0.2)
    assert relative_change(0.4, 0.5) == pytest.approx(-0.2)
    assert relative_change(0.0, 0.0) == 0
    assert relative_change(0.5, 0.0) == 1  # else no model could beat a base model that fails throughout


def test_a_gain_is_the_mean_of_those_in_mrr_and_dcg() -> None:
    base = Score(0.5, 0.8, 0.7, None, 0.0)
    assert Score(0.6, 1.2, 0.63, None, -0.2).gain_over(base) == pytest.approx((0.2 + 0.5) / 2)


def test_harmless_is_what_rules_the_loss_out() -> None:
    assert Score(0.6, 1.2, 0.7, 0.6, -0.02).is_harmless(0.02)
    assert not Score(0.6, 1.2, 0.7, 0.6, -0.021).is_harmless(0.02)  # whatever its estimate
    assert Score(0.6, 1.2, None, None, None).is_harmless(0.0)  # there is no guard


def test_the_fewer_the_questions_the_worse_a_change_may_be() -> None:
    base = np.full(400, 0.8)
    # half of the questions fall by 0.2, half rise by 0.16: the mean falls by 2.5%, with a standard deviation of 0.18
    other = base + np.tile([-0.2, 0.16], 200)
    for count in (400, 40):  # the fewer questions, the worse it may be
        expected = -0.025 - 1.96 * 0.18 / math.sqrt(count) / 0.8  # normal approximation
        assert lowest_change(base[:count], other[:count]) == pytest.approx(expected, rel=0.05)
    assert lowest_change(base, base) == 0
    assert lowest_change(base[:1], base[:1]) == -1  # one question rules nothing out
    assert lowest_change(np.zeros(3), np.zeros(3)) == 0


def test_a_score_is_one_line_with_its_changes_where_there_is_a_base() -> None:
    base, score = Score(0.5, 0.8, 0.7, 0.4, 0.0), Score(0.6, 0.72, 0.7, 0.5, -0.012)
    domain = "MRR@5 0.6000 (+20.0%)  DCG@5 0.7200 (-10.0%)"
    guard = "guard nDCG@10 0.7000 (+0.0%, 95% CI from -1.2%)  guard MRR@5 0.5000 (+25.0%)"
    assert describe_score(score, base) == f"{domain}  {guard}"
    assert describe_score(Score(0.6, 0.72, None, None, None), base) == domain
    assert describe_score(score) == "MRR@5 0.6000  DCG@5 0.7200  guard nDCG@10 0.7000  guard MRR@5 0.5000"


class Table:
    """An encoder that looks vectors up, passages t0, t1, ... apart from questions; only what `Validator` uses."""

    def __init__(self, vectors: dict[str, list[float]]) -> None:
        self.vectors = vectors
        self.encoded: list[str] = []

    def encode_passages(self, texts: Sequence[str], progress: Callable[[int], object] | None = None) -> np.ndarray:
        assert all(text.startswith("t") for text in texts)
        return self._look_up(texts)

    def encode_queries(self, texts: Sequence[str], progress: Callable[[int], object] | None = None) -> np.ndarray:
        assert not any(text.startswith("t") for text in texts)
        return self._look_up(texts)

    def _look_up(self, texts: Sequence[str]) -> np.ndarray:
        self.encoded.extend(texts)
        return np.array([self.vectors[text] for text in texts], np.float32)


def passages(count: int) -> list[Chunk]:
    """Chunks t0, t1, ..."""
    return [make_chunk(number, f"t{number}") for number in range(count)]


def asking(text: str, *answers: int) -> Query:
    return make_query(text, *answers, query=text)


def angles(count: int) -> dict[str, list[float]]:
    """Chunks t0, t1, ... at growing angles to the question "q"."""
    return {f"t{n}": [math.cos(n / 10), math.sin(n / 10)] for n in range(count)} | {"q": [1.0, 0.0], "r": [0.0, 1.0]}


def test_mrr_and_dcg_by_hand() -> None:
    chunks = passages(10)
    # q: answers at ranks 2, 4 and 6; r sees the chunks in the opposite order: its answer t9 is first
    table: Any = Table(angles(10))
    score = Validator(chunks, [asking("q", 1, 3, 5), asking("r", 9)], None, table).score(table)
    assert score.mrr == pytest.approx((1 / 2 + 1) / 2)
    assert score.dcg == pytest.approx((1 / math.log2(3) + 1 / math.log2(5) + 1) / 2)
    assert score.guard_ndcg is score.guard_mrr is score.guard_low is None


def test_fewer_chunks_than_the_cut_off() -> None:
    chunks = passages(2)
    table: Any = Table(angles(2))
    score = Validator(chunks, [asking("q", 1)], None, table).score(table)
    assert (score.mrr, score.dcg) == pytest.approx((0.5, 1 / math.log2(3)))


def test_the_guard_by_hand() -> None:
    answers = tuple(GradedAnswer("", f"t{n}", (grade,)) for n, grade in enumerate((1, 4, 2)))
    guard = GradedSet("guard", (GradedQuestion("g", "q", answers), GradedQuestion("h", "r", answers)))
    base: Any = Table(angles(10))
    worse: Any = Table(angles(10) | {"t1": [0.0, -1.0]})  # the good answer is last for both
    validator = Validator([make_chunk(5, "t5")], [asking("q", 5)], guard, base)
    ideal = 3 + 1 / math.log2(3)
    first, second = (3 / math.log2(3) + 1 / 2) / ideal, (1 + 3 / math.log2(3)) / ideal  # nDCG of g and of h
    score = validator.score(base)
    assert score.guard_ndcg == pytest.approx((first + second) / 2)
    assert (score.guard_mrr, score.guard_low) == (0.5, 0.0)
    fallen = [(1 / math.log2(3) + 3 / 2) / ideal, (1 + 3 / 2) / ideal]
    changes = [fallen[0] / first - 1, fallen[1] / second - 1]
    assert validator.score(worse).guard_low == pytest.approx(min(changes))  # a quarter of the draws are twice the worse


def test_a_pool_is_the_top_of_the_list_and_the_answers() -> None:
    chunks = passages(10)
    table: Any = Table(angles(10))
    validator = Validator(chunks, [asking("q", 7)], None, table)
    assert validator.score(table).mrr == 0
    pool = validator.pool(n_queries=200, depth=3, seed=0)
    table.encoded.clear()
    score = pool.score(table)
    assert table.encoded == ["t0", "t1", "t2", "t7", "q"]
    assert score.mrr == pytest.approx(1 / 4)  # now the fourth of four


def test_a_pool_takes_a_seeded_sample_and_the_guard_along() -> None:
    chunks = passages(10)
    table: Any = Table(angles(10) | {f"q{n}": [1.0, 0.0] for n in range(30)})
    answers = tuple(GradedAnswer("", f"t{n}", (4 - n,)) for n in range(2))
    guard = GradedSet("guard", (GradedQuestion("g", "q", answers),))
    validator = Validator(chunks, [asking(f"q{n}", 0) for n in range(30)], guard, table)

    def asked(seed: int) -> list[str]:
        pool = validator.pool(n_queries=5, depth=1, seed=seed)
        table.encoded.clear()
        assert pool.score(table).guard_ndcg == 1.0
        return [text for text in table.encoded if text.startswith("q") and text != "q"]

    assert len(asked(1)) == len(set(asked(1))) == 5
    assert asked(1) == asked(1) != asked(2)


def test_a_pool_ranks_like_the_corpus_where_it_holds_all_of_the_top(tiny_model: Path, tmp_path: Path) -> None:
    chunks, _, queries = tiny_corpus()
    encoder = CachedEncoder(load_model(str(tiny_model), "cpu"), tmp_path)
    validator = Validator(chunks, queries["val"], None, encoder)
    whole = validator.score(encoder)
    assert validator.pool(200, len(chunks), seed=0).score(encoder) == whole
    vectors = encoder.encode_passages([chunk["text"] for chunk in chunks])
    ranked = top_k(encoder.encode_queries([query["query"] for query in queries["val"]]), vectors, 5)
    hits = [
        [1 / rank for rank, place in enumerate(row, 1) if place in query["ground_truth_chunk_ids"]]
        for row, query in zip(ranked.tolist(), queries["val"], strict=True)
    ]
    assert whole.mrr == pytest.approx(sum(max(hit, default=0.0) for hit in hits) / len(hits))


def test_the_base_model_s_scale_is_that_of_the_pool_s_questions_among_all_chunks() -> None:
    """Ten questions with cosines of 1, 0.96 and 0.96: nine have their answer at 1, one at 0.96, and one chunk answers
    nobody; chunk ids are no positions here."""
    table: Any = Table({"t0": [1.0, 0.0], "t1": [0.96, 0.28], "t2": [0.96, -0.28]})
    table.vectors |= {f"q{n}": [1.0, 0.0] for n in range(10)}
    queries = [asking(f"q{n}", 11 if n else 12) for n in range(10)]
    validator = Validator([make_chunk(10 + n, f"t{n - 1}") for n in (1, 2, 3)], queries, None, table)
    # with x = exp(-0.04 * scale) the losses are nine times log(1 + 2x) and log(2 + 1/x): least in all at x = 1/18
    assert validator.base_scale(200, 0, 2, (20.0, 100.0)) == pytest.approx(math.log(18) / 0.04, rel=1e-3)
    table.encoded.clear()
    validator.base_scale(3, 5, 2, (20.0, 100.0))
    asked = [text for text in table.encoded if text.startswith("q")]
    pool = validator.pool(3, 1, 5)
    table.encoded.clear()
    pool.score(table)
    assert len(asked) == 3 and asked == [text for text in table.encoded if text.startswith("q")]


# ---------------------------------------------------------------- the best that the guard passes


def tried(strength: float, gain: float, guard_low: float) -> Tried:
    """One strength tried, with this gain and this lower end of the guard's interval."""
    return Tried(strength, Score(0.0, 0.0, 0.0, None, guard_low), gain)


@pytest.mark.parametrize(
    ("table", "tolerance", "expected"),
    [
        ([(1.0, 0.3, -0.05), (0.6, 0.2, -0.005), (0.4, 0.1, 0.01)], 0.01, 0.6),  # the best of the harmless
        ([(1.0, 0.3, -0.05), (0.6, 0.2, -0.005), (0.4, 0.1, 0.01)], 0.0, 0.4),
        ([(1.0, 0.3, -0.05), (0.6, 0.2, -0.005), (0.4, 0.1, 0.01)], 0.1, 1.0),
        ([(1.0, 0.1, 0.0), (0.6, 0.3, 0.0)], 0.01, 0.6),  # not the strongest, the best
        ([(1.0, 0.3, -0.25), (0.6, 0.2, -0.125)], 0.125, 0.6),  # the tolerance itself is tolerated
        ([(1.0, 0.9, -0.05), (0.6, 0.5, -0.03), (0.4, 0.1, -0.02)], 0.01, 0.4),  # none harmless: the least harm
        ([(1.0, -0.2, 0.0), (0.4, -0.1, 0.0)], 0.01, 0.4),  # none gains: the least loss
    ],
)
def test_choose_strength(table: list[tuple[float, float, float]], tolerance: float, expected: float) -> None:
    assert choose_strength([tried(*row) for row in table], tolerance).strength == expected


@pytest.mark.parametrize(
    ("table", "enough"),
    [
        ([(0.8, 0.2, 0.0)], False),
        ([(0.8, 0.2, 0.0), (0.7, 0.3, 0.0)], False),  # it still rises
        ([(0.8, 0.2, 0.0), (0.7, 0.2, 0.0)], False),  # nor falls yet
        ([(0.8, 0.2, 0.0), (0.7, 0.1, 0.0)], True),
        ([(0.8, 0.2, -0.02), (0.7, 0.1, 0.0)], False),  # what gained more was not harmless
        ([(0.8, 0.2, -0.02), (0.7, 0.1, 0.0), (0.6, 0.05, 0.0)], True),
        ([(0.8, 0.2, 0.0), (0.7, 0.1, -0.02)], True),
    ],
)
def test_weaker_than_the_best_is_not_tried(table: list[tuple[float, float, float]], enough: bool) -> None:
    assert past_the_best([tried(*row) for row in table], 0.01) is enough


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        ([(0.6, 0.0), (0.7, -0.01)], 1),  # the tolerance itself is tolerated
        ([(0.6, 0.0), (0.7, -0.011)], 0),
        ([(0.6, 0.0), (0.6, 0.0)], 0),  # of equals the first
        ([(0.5, 0.0), (0.4, 0.1)], None),  # none gains
        ([(0.9, -0.2)], None),
        ([(0.9, None)], 0),  # no guard
    ],
)
def test_the_best_iteration(table: list[tuple[float, float | None]], expected: int | None) -> None:
    scores = [Score(mrr, 0.5, None, 1 - mrr, low) for mrr, low in table]  # the guard's MRR@5 decides nothing
    assert best_iteration(scores, [Score(0.5, 0.5, None, None, None)] * len(scores), 0.01) == expected


def test_each_iteration_is_held_against_the_base_model_as_it_was_measured_then() -> None:
    """The second was measured in another precision, in which the base model has less, and so has it."""
    scores, bases = ([Score(mrr, mrr, None, None, None) for mrr in of] for of in ((0.819, 0.817), (0.658, 0.654)))
    assert best_iteration(scores, bases, 0.01) == 1
    assert best_iteration(scores, bases[:1] * 2, 0.01) == 0
    assert why_none(bases, scores, 0.01) == "no iteration gained on validation"


def test_progress_covers_all_that_is_embedded(tiny_model: Path, tmp_path: Path) -> None:
    chunks, _, queries = tiny_corpus()
    encoder = CachedEncoder(load_model(str(tiny_model), "cpu"), tmp_path)
    answers = tuple(GradedAnswer("", f"answer {n}", (n,)) for n in (1, 4))
    validator = Validator(chunks, queries["val"], GradedSet("guard", (GradedQuestion("g", "q", answers),)), encoder)
    for _ in ("embedded", "from the cache"):
        counts: list[int] = []
        validator.score(encoder, counts.append)
        assert sum(counts) == validator.n_passages == len(chunks) + 2


NOT_RULED_OUT = "for no iteration that gained on validation could the guard rule out a loss of more than 1.0%"


@pytest.mark.parametrize(
    ("mrr", "guard_ndcg", "guard_low", "why"),
    [
        (0.5, 0.8, 0.0, "no iteration gained on validation"),
        (0.4, 0.9, 0.1, "no iteration gained on validation"),
        (0.9, 0.7, -0.2, NOT_RULED_OUT),
        (0.9, 0.8, -0.02, f"{NOT_RULED_OUT}; what it measured is less than that, so a guard with more questions might"),
    ],
)
def test_why_no_iteration_is_chosen(mrr: float, guard_ndcg: float, guard_low: float, why: str) -> None:
    score, base = Score(mrr, 0.5, guard_ndcg, 0.6, guard_low), Score(0.5, 0.5, 0.8, 0.6, None)
    assert best_iteration([score], [base], 0.01) is None
    assert why_none([score], [base], 0.01) == why
