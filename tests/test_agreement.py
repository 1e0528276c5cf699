"""Agreement of two graders, worked out by hand."""

import math
import tracemalloc

import numpy as np
import pytest

from hardneg.measuring.agreement import (
    agreement,
    auc,
    auc_within_questions,
    cohen_kappa,
    confusion_matrix,
    weighted_kappa,
    weighted_kappa_interval,
    whole_grade,
)


@pytest.mark.parametrize(("grade", "whole"), [(1.0, 1), (1.49, 1), (1.5, 2), (2.5, 3), (3.5, 4), (4.0, 4)])
def test_halves_are_rounded_up(grade: float, whole: int) -> None:
    assert whole_grade(grade) == whole


def test_agreement_by_hand() -> None:
    """Four of six agree; the margins are 2 1 1 2 and 1 3 1 1, so by chance 8 of 36 do: (24 - 8) / (36 - 8) = 4/7.

    Relevant or not: five of six agree, by chance (3 * 4 + 3 * 2) / 36 = 1/2 of them: 2/3.
    """
    found = agreement([1, 1, 2, 3, 4, 4], [1.4, 2, 1.5, 3, 4, 2], range(6))
    assert found["confusion"] == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1]]
    assert found["cohen_kappa"] == pytest.approx(4 / 7)
    assert found["binary_kappa"] == pytest.approx(2 / 3)
    low, high = found["weighted_kappa_ci95"]
    assert low < found["weighted_kappa"] < high
    nothing = agreement([], [], [])
    assert (nothing["pairs"], nothing["weighted_kappa"], nothing["weighted_kappa_ci95"]) == (0, None, [None, None])


def test_what_people_disagree_on_is_relevant_where_their_mean_is() -> None:
    """As in the AUC beside it: a mean of 2.5 is no answer, though the whole grade next to it is 3."""
    found = agreement([2.5, 2.5, 4, 4], [1, 2, 3, 2.5], range(4))
    assert found["confusion"] == [[0] * 4, [0] * 4, [1, 1, 0, 0], [0, 0, 2, 0]]
    assert found["binary_kappa"] == 1


def test_the_order_of_grades_within_questions_by_hand() -> None:
    """a: both answers above the one other passage; b: one of two others below, one level with it: 3/4; c has no
    answer. Shifted or squeezed together, grades keep their order; across questions none is asked for."""
    questions = ["a", "a", "a", "b", "b", "b", "c"]
    positive = [True, True, False, True, False, False, False]
    grades = [1.5, 2.0, 1.0, 4.0, 4.0, 3.0, 4.0]
    order, (low, high) = auc_within_questions(grades, positive, questions)
    assert order == pytest.approx(7 / 8) and (low, high) == (0.75, 1)
    squeezed = [2.5 + grade / 10 for grade in grades]
    assert auc_within_questions(squeezed, positive, questions) == (order, (low, high))
    found = agreement([4 if is_one else 2.5 for is_one in positive], grades, questions)
    assert found["auc_within_questions"] == order and found["auc_within_questions_ci95"] == [low, high]


def test_the_order_within_too_few_questions() -> None:
    order, bounds = auc_within_questions([1, 2], [True, False], ["a", "a"])
    assert order == 0 and all(map(math.isnan, bounds))
    assert math.isnan(auc_within_questions([1, 2], [True, False], ["a", "b"])[0])


def test_a_confusion_has_a_row_per_grade_of_the_first_and_a_column_of_the_second() -> None:
    counts = confusion_matrix([1, 1, 4, 2], [1, 2, 3, 2])
    assert counts.sum() == 4
    assert (counts[0, 0], counts[0, 1], counts[3, 2], counts[1, 1]) == (1, 1, 1, 1)
    assert confusion_matrix([], []).tolist() == [[0] * 4] * 4


def test_kappa_hand_worked() -> None:
    # 20 + 15 of 50 agree: observed 0.7, by chance 0.5 * 0.6 + 0.5 * 0.4 = 0.5
    counts = np.zeros((4, 4), int)
    counts[np.ix_([0, 3], [0, 3])] = [[20, 5], [10, 15]]
    assert cohen_kappa(counts) == pytest.approx(0.4)
    assert weighted_kappa(counts) == pytest.approx(0.4)  # two grades only: every weight is the same


def test_weighted_kappa_hand_worked() -> None:
    counts = confusion_matrix([1, 2, 3, 4], [1, 2, 3, 3])
    assert weighted_kappa(counts) == pytest.approx(1 - (1 / 4) / (32 / 16))
    assert cohen_kappa(counts) == pytest.approx((3 / 4 - 1 / 4) / (1 - 1 / 4))


def test_far_misses_weigh_more() -> None:
    people = [1, 1, 2, 2, 3, 3, 4, 4]
    near, far = confusion_matrix(people, [1, 2, 2, 2, 3, 3, 4, 4]), confusion_matrix(people, [1, 4, 2, 2, 3, 3, 4, 4])
    assert weighted_kappa(near) > weighted_kappa(far) + 0.2
    assert abs(cohen_kappa(near) - cohen_kappa(far)) < 0.02


@pytest.mark.filterwarnings("error")
def test_kappa_without_anything_to_agree_on() -> None:
    for grades in ([1] * 5, []):
        counts = confusion_matrix(grades, grades)
        assert math.isnan(cohen_kappa(counts))
        assert math.isnan(weighted_kappa(counts))
        assert all(math.isnan(bound) for bound in weighted_kappa_interval(grades, grades, range(len(grades))))


def test_the_interval_of_kappa_holds_it_and_is_wider_for_fewer_pairs() -> None:
    rng = np.random.default_rng(4)
    grades = rng.integers(1, 5, size=400)
    people = grades.tolist()
    judge = np.where(rng.uniform(size=400) < 0.5, grades, rng.integers(1, 5, size=400)).tolist()
    low, high = weighted_kappa_interval(people, judge, range(400))
    assert low < weighted_kappa(confusion_matrix(people, judge)) < high
    few_low, few_high = weighted_kappa_interval(people[:50], judge[:50], range(50))
    assert few_high - few_low > 2 * (high - low)
    assert weighted_kappa_interval([1, 2, 3, 4], [1, 2, 3, 4], range(4)) == (1, 1)


@pytest.mark.parametrize(("questions", "low"), [(2, -1), (10, 0.4)])
def test_the_interval_of_kappa_by_hand(questions: int, low: float) -> None:
    """All questions but one agree on 1 and 4; each draw of that one, which swaps them, takes 2 / questions away.

    A quarter of the resamples of two questions has it twice; 98.7% of those of ten have it up to 3 times, 93% up to
    twice.
    """
    people, judge = [1, 4] * questions, [4, 1] + [1, 4] * (questions - 1)
    bounds = weighted_kappa_interval(people, judge, np.arange(questions).repeat(2).tolist())
    assert bounds == pytest.approx((low, 1))


def test_the_interval_of_kappa_is_over_questions() -> None:
    """Ten pairs that are all alike say as much as one: the interval is that of one pair per question."""
    rng = np.random.default_rng(4)
    people, judge, questions = [*rng.integers(1, 5, size=(2, 60)), np.arange(60)]
    once = weighted_kappa_interval(people.tolist(), judge.tolist(), range(60))
    ten_times = (column.repeat(10).tolist() for column in (people, judge, questions))
    assert weighted_kappa_interval(*ten_times) == pytest.approx(once)
    assert all(math.isnan(bound) for bound in weighted_kappa_interval(people.tolist(), judge.tolist(), [0] * 60))


def test_the_interval_of_kappa_over_two_thousand_questions_takes_little_memory() -> None:
    people, judge = np.random.default_rng(4).integers(1, 5, size=(2, 2000))
    tracemalloc.start()
    weighted_kappa_interval(people, judge, range(2000))
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 100e6


@pytest.mark.parametrize(
    ("scores", "positive", "expected"),
    [
        ([1, 2, 2, 4], [False, False, True, True], 3.5 / 4),  # one tie counts half
        ([1, 2, 3], [False, False, True], 1),
        ([3, 2, 1], [False, False, True], 0),
        ([2, 2, 2], [False, True, True], 0.5),
    ],
)
def test_auc_hand_worked(scores: list[float], positive: list[bool], expected: float) -> None:
    assert auc(scores, positive) == expected


@pytest.mark.filterwarnings("error")
def test_auc_of_one_class() -> None:
    assert math.isnan(auc([1, 2], [True, True]))
    assert math.isnan(auc([1, 2], [False, False]))
