"""Metrics against pytrec_eval and hand-worked values; intervals against data whose true ratio is known."""

import math
import time
import tracemalloc
from collections.abc import Callable
from itertools import permutations

import numpy as np
import pytest
import pytrec_eval

from hardneg.measuring.metrics import (
    graded_metrics,
    mean_and_interval,
    metrics_without,
    ndcg_of_random_order,
    relative_gain,
    retrieval_metrics,
)

# ---------------------------------------------------------------- binary relevance


def one_question(ranked: list[int], relevant: set[int], k: int) -> dict[str, float]:
    scores = retrieval_metrics(np.array([ranked], int), [relevant], k)
    return {key: float(values[0]) for key, values in scores.items()}


@pytest.mark.parametrize(
    ("ranked", "relevant", "k", "expected"),
    [
        # found at ranks 2 and 4 of 5, a third one not at all
        ([9, 1, 8, 2, 7], {1, 2, 3}, 5, (1 / 2, 1 / math.log2(3) + 1 / math.log2(5), 2 / 5, 2 / 3)),
        # the second one lies beyond the cut-off
        ([1, 9, 8, 2], {1, 2}, 3, (1, 1, 1 / 3, 1 / 2)),
        # every place right: DCG is not normalised
        ([1, 2, 3], {1, 2, 3}, 3, (1, 1 + 1 / math.log2(3) + 1 / 2, 1, 1)),
        # fewer than k retrieved: precision still divides by k
        ([1, 9], {1}, 5, (1, 1, 1 / 5, 1)),
        ([9, 8], {1}, 5, (0, 0, 0, 0)),
        ([9, 8], set(), 5, (0, 0, 0, 0)),
        ([], {1}, 5, (0, 0, 0, 0)),
    ],
)
def test_retrieval_metrics_are_as_worked_out_by_hand(
    ranked: list[int], relevant: set[int], k: int, expected: tuple[float, ...]
) -> None:
    scores = one_question(ranked, relevant, k)
    assert tuple(scores.values()) == pytest.approx(expected)
    assert list(scores) == ["MRR", "DCG", "Precision", "Recall"]


def random_rankings(seed: int, n_retrieved: int) -> tuple[np.ndarray, list[set[int]]]:
    """200 rankings out of 40 chunks, each question with 1-8 relevant ones."""
    rng = np.random.default_rng(seed)
    ranked = np.stack([rng.permutation(40)[:n_retrieved] for _ in range(200)])
    relevant = [set(rng.choice(40, size=rng.integers(1, 9), replace=False).tolist()) for _ in range(200)]
    return ranked, relevant


def trec_run(ranked: np.ndarray) -> dict[str, dict[str, float]]:
    return {
        f"q{row}": {f"d{chunk_id}": float(-place) for place, chunk_id in enumerate(ids)}
        for row, ids in enumerate(ranked.tolist())
    }


@pytest.mark.parametrize(("k", "n_retrieved"), [(5, 20), (10, 20), (1, 20), (5, 3)])
def test_agrees_with_pytrec_eval(k: int, n_retrieved: int) -> None:
    ranked, relevant = random_rankings(k, n_retrieved)
    ours = retrieval_metrics(ranked, relevant, k)
    qrels = {f"q{row}": {f"d{chunk_id}": 1 for chunk_id in ids} for row, ids in enumerate(relevant)}
    evaluator = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank", f"ndcg_cut.{k}", f"P.{k}", f"recall.{k}"})
    theirs = evaluator.evaluate(trec_run(ranked[:, :k]))  # its reciprocal rank knows no cut-off
    for row, ids in enumerate(relevant):
        of_row = theirs[f"q{row}"]
        ideal = sum(1 / math.log2(place + 2) for place in range(min(k, len(ids))))
        assert ours["MRR"][row] == pytest.approx(of_row["recip_rank"])
        assert ours["DCG"][row] == pytest.approx(of_row[f"ndcg_cut_{k}"] * ideal)
        assert ours["Precision"][row] == pytest.approx(of_row[f"P_{k}"])
        assert ours["Recall"][row] == pytest.approx(of_row[f"recall_{k}"])


def test_moving_a_relevant_chunk_up_never_lowers_a_metric() -> None:
    ranked, relevant = random_rankings(seed=7, n_retrieved=12)
    moved = 0
    for ids, row in zip(relevant, ranked.tolist(), strict=True):
        places = [place for place, chunk_id in enumerate(row) if chunk_id in ids and place > 0]
        if not places:
            continue
        better = row.copy()
        better[places[0] - 1 : places[0] + 1] = [row[places[0]], row[places[0] - 1]]
        before, after = one_question(row, ids, 5), one_question(better, ids, 5)
        assert all(after[key] >= before[key] for key in before)
        moved += after["DCG"] > before["DCG"]
    assert moved > 20


def test_metrics_without_some_chunks_by_hand() -> None:
    """Chunk 9 answers everything; what it gains or blocks is left out, and so is a question it alone answers.

    Of the first question 8 is left out too: it has fewer others.
    """
    ranked = np.array([[9, 8, 1, 2], [3, 9, 4, 7], [9, 5, 6, 7]])
    found = metrics_without({8, 9}, ranked, [{9, 1}, {4}, {9}], k=2)
    assert found["MRR"].tolist() == [1.0, 0.5]
    assert found["DCG"].tolist() == pytest.approx([1.0, 1 / np.log2(3)])
    assert metrics_without({9}, ranked, [{1}, {4}, {5}], k=2) == {}
    assert metrics_without({9}, ranked, [{9}, {9}, {9}], k=2) == {}


def test_order_beyond_the_cut_off_is_ignored() -> None:
    ranked, relevant = random_rankings(seed=3, n_retrieved=20)
    shuffled = ranked.copy()
    shuffled[:, 5:] = shuffled[:, 5:][:, ::-1]
    for key, values in retrieval_metrics(ranked, relevant, 5).items():
        np.testing.assert_array_equal(values, retrieval_metrics(shuffled, relevant, 5)[key])
        assert values.min() >= 0
        assert values.max() <= (1 if key != "DCG" else sum(1 / math.log2(place + 2) for place in range(5)))


# ---------------------------------------------------------------- graded relevance


def test_graded_hand_worked() -> None:
    scores = graded_metrics([[2, 4, 1, 3], [1, 1, 1, 1, 2, 4]])
    dcg = 1 + 3 / math.log2(3) + 0 + 2 / math.log2(5)
    ideal = 3 + 2 / math.log2(3) + 1 / math.log2(4)
    deep = 1 / math.log2(6) + 3 / math.log2(7)  # the sixth counts in nDCG@10 alone
    assert scores["MRR@5"].tolist() == [0.5, 0]
    assert scores["DCG@5"] == pytest.approx([dcg, 1 / math.log2(6)])
    assert scores["nDCG@10"] == pytest.approx([dcg / ideal, deep / (3 + 1 / math.log2(3))])


def test_questions_without_a_useful_answer() -> None:
    scores = graded_metrics([[1, 1], [2, 1], [1, 4]])
    assert scores["MRR@5"].tolist() == [0, 0, 0.5]  # 2 is no answer
    assert scores["DCG@5"] == pytest.approx([0, 1, 3 / math.log2(3)])
    assert scores["nDCG@10"] == pytest.approx([1, 1 / math.log2(3)])  # the first has no ideal: left out


def test_mean_grades_of_several_people() -> None:
    scores = graded_metrics([[2.5, 3.5]])
    assert scores["MRR@5"].tolist() == [0.5]
    assert scores["DCG@5"] == pytest.approx([1.5 + 2.5 / math.log2(3)])


def test_random_order_is_the_mean_of_all_orders() -> None:
    questions = [[4.0, 1.0, 2.5, 1.0, 3.0], [1.0, 2.0, 2.0]]
    orders = [[graded_metrics([order])["nDCG@10"].item() for order in permutations(grades)] for grades in questions]
    expected = np.mean([np.mean(values) for values in orders])
    assert ndcg_of_random_order([*questions, [2.0, 2.0]]) == pytest.approx(expected)
    deep = [4.0] * 3 + [1.0] * 9  # of twelve answers ten count
    drawn = np.random.default_rng(0)
    simulated = graded_metrics([drawn.permutation(deep).tolist() for _ in range(20_000)])["nDCG@10"].mean()
    assert ndcg_of_random_order([deep]) == pytest.approx(simulated, abs=0.005)


def test_graded_agrees_with_pytrec_eval() -> None:
    rng = np.random.default_rng(5)
    grades = [rng.integers(1, 5, size=rng.integers(2, 30)).tolist() for _ in range(200)]
    ours = graded_metrics(grades)
    qrels = {f"q{row}": {f"d{n}": grade - 1 for n, grade in enumerate(of_row)} for row, of_row in enumerate(grades)}
    run = trec_run(np.arange(30)[None].repeat(200, axis=0))
    run = {query: {doc: score for doc, score in docs.items() if doc in qrels[query]} for query, docs in run.items()}
    ndcg = pytrec_eval.RelevanceEvaluator(qrels, {"ndcg_cut.10"}).evaluate(run)
    with_ideal = [f"q{row}" for row, of_row in enumerate(grades) if max(of_row) > 1]
    assert ours["nDCG@10"] == pytest.approx([ndcg[query]["ndcg_cut_10"] for query in with_ideal])
    top_5 = {query: dict(list(docs.items())[:5]) for query, docs in run.items()}
    mrr = pytrec_eval.RelevanceEvaluator(qrels, {"recip_rank"}, relevance_level=2).evaluate(top_5)
    assert ours["MRR@5"] == pytest.approx([mrr[f"q{row}"]["recip_rank"] for row in range(200)])


# ---------------------------------------------------------------- relative gains


def test_gain_is_the_ratio_of_means() -> None:
    gain = relative_gain(np.array([0.2, 0.4, 0.6]), np.array([0.5, 0.5, 0.5]))
    assert (gain.base_mean, gain.other_mean) == pytest.approx((0.4, 0.5))
    assert gain.gain == pytest.approx(0.25)
    assert gain.low < 0.25 < gain.high


@pytest.mark.parametrize(
    ("base", "other", "low", "high"),
    [
        # of the resamples of two questions a quarter each has one of them alone
        ([1, 1], [1, 3], 0, 2),
        # each draw of the one that is 10 better adds 1; 98.7% of the resamples draw it up to 3 times, 93% up to twice
        ([1] * 10, [11] + [1] * 9, 0, 3),
        # a third of the resamples has neither model's only hit: no gain
        ([0.05, 0, 0, 0, 0], [0.1, 0, 0, 0, 0], 0, 1),
    ],
)
def test_interval_by_hand(base: list[float], other: list[float], low: float, high: float) -> None:
    gain = relative_gain(np.array(base, float), np.array(other, float))
    assert (gain.low, gain.gain, gain.high) == pytest.approx((low, 1, high))


def test_pairing_is_kept() -> None:
    """A model 20% better on every question has a gain of exactly that in every resample."""
    base = np.random.default_rng(0).uniform(0.1, 1, size=50)
    gain = relative_gain(base, 1.2 * base)
    assert (gain.low, gain.high) == pytest.approx((0.2, 0.2))


@pytest.mark.parametrize("groups", [None, ["a", "a", "b", "c"]])
def test_nothing_to_divide_by(groups: list[str] | None) -> None:
    gain = relative_gain(np.zeros(4), np.array([0, 0.5, 1, 0]), groups)
    assert gain.other_mean == 0.375
    assert all(math.isnan(value) for value in (gain.gain, gain.low, gain.high))


@pytest.mark.filterwarnings("error")
def test_resamples_that_the_base_fails_throughout() -> None:
    gain = relative_gain(np.array([0.0, 0, 0, 0, 1]), np.array([0.0, 1, 1, 1, 1]))
    assert gain.gain == pytest.approx(3)
    assert 0 <= gain.low < 3
    assert gain.high == math.inf


@pytest.mark.parametrize(("n", "groups"), [(1, None), (3, ["a", "a", "a"])])
def test_no_interval_from_one_unit(n: int, groups: list[str] | None) -> None:
    gain = relative_gain(np.full(n, 0.5), np.full(n, 0.6), groups)
    assert gain.gain == pytest.approx(0.2)
    assert math.isnan(gain.low)
    assert math.isnan(gain.high)


def test_the_same_figures_have_the_same_interval() -> None:
    base, other = np.random.default_rng(1).uniform(size=(2, 40))
    assert relative_gain(base, other) == relative_gain(base, other)


@pytest.fixture
def few_resamples(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("hardneg.measuring.metrics.RESAMPLES", 500)


def coverage(topic_spread: float, by_topic: bool) -> float:
    """Share of 150 simulated test sets of 40 topics x 5 questions whose interval holds the true gain of 25%."""
    rng = np.random.default_rng(11)
    topics = np.repeat(np.arange(40), 5)
    covered = 0
    for _ in range(150):
        base = rng.uniform(0.2, 1, size=200)
        effect = 0.25 + topic_spread * rng.standard_normal(40)[topics] + 0.2 * rng.standard_normal(200)
        gain = relative_gain(base, base * (1 + effect), topics.tolist() if by_topic else None)
        covered += gain.low <= 0.25 <= gain.high
    return covered / 150


def test_interval_covers_the_true_gain(few_resamples: None) -> None:
    assert 0.90 <= coverage(topic_spread=0, by_topic=False) <= 0.99


def test_topics_that_succeed_and_fail_together_need_the_cluster_bootstrap(few_resamples: None) -> None:
    assert coverage(topic_spread=0.3, by_topic=False) < 0.85
    assert 0.89 <= coverage(topic_spread=0.3, by_topic=True) <= 0.99


def test_questions_in_groups_of_one_are_plain_questions() -> None:
    base, other = np.random.default_rng(2).uniform(size=(2, 30))
    assert relative_gain(base, other, list(range(30))) == relative_gain(base, other)


@pytest.mark.parametrize("interval", [relative_gain, lambda values, _: mean_and_interval(values)])
def test_two_thousand_questions_take_little_time_and_memory(interval: Callable[..., object]) -> None:
    base, other = np.random.default_rng(0).uniform(size=(2, 2000))
    tracemalloc.start()
    started = time.process_time()
    interval(base, other)
    seconds, (_, peak) = time.process_time() - started, tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert seconds < 3
    assert peak < 100e6
