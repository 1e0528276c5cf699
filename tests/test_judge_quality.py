"""Agreement, calibration and biases of a judge, worked out by hand."""

import math

import pytest

from hardneg import judge_quality


@pytest.mark.parametrize(("grade", "whole"), [(1.0, 1), (1.49, 1), (1.5, 2), (2.5, 3), (3.5, 4), (4.0, 4)])
def test_halves_are_rounded_up(grade: float, whole: int) -> None:
    assert judge_quality.whole_grade(grade) == whole


def test_agreement_by_hand() -> None:
    """Four of six agree; the margins are 2 1 1 2 and 1 3 1 1, so by chance 8 of 36 do: (24 - 8) / (36 - 8) = 4/7.

    Relevant or not: five of six agree, by chance (3 * 4 + 3 * 2) / 36 = 1/2 of them: 2/3.
    """
    found = judge_quality.agreement([1, 1, 2, 3, 4, 4], [1.4, 2, 1.5, 3, 4, 2], range(6))
    assert found["confusion"] == [[1, 1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 1, 0, 1]]
    assert found["cohen_kappa"] == pytest.approx(4 / 7)
    assert found["binary_kappa"] == pytest.approx(2 / 3)
    low, high = found["weighted_kappa_ci95"]
    assert low < found["weighted_kappa"] < high
    nothing = judge_quality.agreement([], [], [])
    assert (nothing["pairs"], nothing["weighted_kappa"], nothing["weighted_kappa_ci95"]) == (0, None, [None, None])


def test_what_people_disagree_on_is_relevant_where_their_mean_is() -> None:
    """As in the AUC beside it: a mean of 2.5 is no answer, though the whole grade next to it is 3."""
    found = judge_quality.agreement([2.5, 2.5, 4, 4], [1, 2, 3, 2.5], range(4))
    assert found["confusion"] == [[0] * 4, [0] * 4, [1, 1, 0, 0], [0, 0, 2, 0]]
    assert found["binary_kappa"] == 1


def test_the_order_of_grades_within_questions_by_hand() -> None:
    """a: both answers above the one other passage; b: one of two others below, one level with it: 3/4; c has no
    answer. Shifted or squeezed together, grades keep their order; across questions none is asked for."""
    questions = ["a", "a", "a", "b", "b", "b", "c"]
    positive = [True, True, False, True, False, False, False]
    grades = [1.5, 2.0, 1.0, 4.0, 4.0, 3.0, 4.0]
    order, (low, high) = judge_quality.auc_within_questions(grades, positive, questions)
    assert (order, low, high) == (pytest.approx(7 / 8), 0.75, 1)
    squeezed = [2.5 + grade / 10 for grade in grades]
    assert judge_quality.auc_within_questions(squeezed, positive, questions) == (order, (low, high))
    found = judge_quality.agreement([4 if is_one else 2.5 for is_one in positive], grades, questions)
    assert found["auc_within_questions"] == order and found["auc_within_questions_ci95"] == [low, high]


def test_the_order_within_too_few_questions() -> None:
    order, bounds = judge_quality.auc_within_questions([1, 2], [True, False], ["a", "a"])
    assert order == 0 and all(map(math.isnan, bounds))
    assert math.isnan(judge_quality.auc_within_questions([1, 2], [True, False], ["a", "b"])[0])


def test_calibration_by_hand() -> None:
    probabilities = [(0.5, 0.25, 0.25, 0.0), (0.5, 0.25, 0.125, 0.125), (0.0, 0.0, 0.0, 1.0), None]
    found = judge_quality.calibration(probabilities, [True, False, True, True])
    assert found is not None
    low = {"from": 0.2, "to": 0.3, "pairs": 2, "mean_predicted": 0.25, "observed_share": 0.5}
    high = {"from": 0.9, "to": 1.0, "pairs": 1, "mean_predicted": 1.0, "observed_share": 1.0}
    assert (found["pairs"], found["bins"]) == (3, [low, high])
    assert found["expected_calibration_error"] == pytest.approx((2 * 0.25 + 0) / 3)
    assert judge_quality.calibration([None, None], [True, False]) is None


def pair(grade: float, rank: int = 1, length: int = 10, known: bool = False) -> judge_quality.JudgedPair:
    return judge_quality.JudgedPair("?", "", "x" * length, grade, None, None, rank, 0.5, known, 1, "q", 0)


@pytest.mark.filterwarnings("error")
def test_biases_by_hand() -> None:
    rest = [
        pair(1, rank=1, length=10),
        pair(1.5, rank=2, length=20),
        pair(2, rank=3, length=30),
        pair(3, rank=4, length=40),
        pair(3.5, rank=10, length=50),
        pair(4, rank=11, length=60),
    ]
    known = [pair(grade, rank=99, known=True) for grade in (1.2, 3.8, 3, 4)]
    found = judge_quality.biases([*rest, *known])
    expected = {"pairs": 4, "mean_grade": 3.0, "mean_grade_of_rest": 2.5, "share_graded_1": 0.25}
    assert found["known_answers"] == expected
    assert found["length"]["spearman"] == found["rank"]["spearman"] == pytest.approx(1)
    assert [each["mean_grade"] for each in found["length"]["by_bin"]] == [1.25, 2, 3, 3.75]
    assert found["rank"]["by_bin"] == [
        {"from": 1, "to": 1, "pairs": 1, "mean_grade": 1.0},
        {"from": 2, "to": 3, "pairs": 2, "mean_grade": 1.75},
        {"from": 4, "to": 10, "pairs": 2, "mean_grade": 3.25},
        {"from": 11, "to": 11, "pairs": 1, "mean_grade": 4.0},
    ]
    for constant in ([pair(2), pair(3)], [pair(3), pair(3, rank=2)]):
        assert judge_quality.biases(constant)["rank"]["spearman"] is None
    assert judge_quality.biases([])["length"] == {"spearman": None, "by_bin": []}
