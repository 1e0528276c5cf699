"""Which share of the tuned weights, and which iteration, is the best that the guard passes."""

from collections.abc import Sequence
from dataclasses import dataclass

from hardneg.validation import Score, relative_change


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
    assert all(each.score.guard_low is not None for each in tried)  # without a guard each would be harmless
    return max(tried, key=lambda each: each.score.guard_low)


def past_the_best(tried: Sequence[Tried], tolerance: float) -> bool:
    """Whether the last strength gains less than an earlier harmless one: weaker ones are assumed to gain even less."""
    *before, last = tried
    return any(each.score.is_harmless(tolerance) and each.gain > last.gain for each in before)


def best_iteration(scores: Sequence[Score], base: Score, tolerance: float) -> int | None:
    """The iteration that gains most on validation among those that the guard passes; None where none gains.

    Args:
        scores: one per iteration.
        base: the base model's.
        tolerance: relative loss that the guard must rule out.
    """
    gains = [score.gain_over(base) if score.is_harmless(tolerance) else 0.0 for score in scores]
    best = max(range(len(gains)), key=gains.__getitem__)
    return best if gains[best] > 0 else None


def why_none(scores: Sequence[Score], base: Score, tolerance: float) -> str:
    """Why `best_iteration` is None; arguments as there."""
    gained = [score for score in scores if score.gain_over(base) > 0]
    if not gained:
        return "no iteration gained on validation"
    reason = f"for no iteration that gained on validation could the guard rule out a loss of more than {tolerance:.1%}"
    if any(relative_change(score.guard_ndcg, base.guard_ndcg) >= -tolerance for score in gained):
        reason += "; what it measured is less than that, so a guard with more questions might"
    return reason
