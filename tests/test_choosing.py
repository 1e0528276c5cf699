"""Choosing by figures written by hand: strengths, and iterations."""

import pytest

from hardneg.choosing import Tried, best_iteration, choose_strength, past_the_best, why_none
from hardneg.validation import Score


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
    assert best_iteration(scores, Score(0.5, 0.5, None, None, None), 0.01) == expected


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
    assert best_iteration([score], base, 0.01) is None
    assert why_none([score], base, 0.01) == why
