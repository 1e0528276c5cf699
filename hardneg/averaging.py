"""Averaging a fine-tuned model with the one it came from, and measuring every strength of it."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import torch
from sentence_transformers import SentenceTransformer

from hardneg.validation import Score


@dataclass(frozen=True, slots=True)
class Averaged:
    """One strength tried: its validation and guard scores, and their change against the base model."""

    strength: float  # share of the tuned weights
    score: Score
    gain: float
    guard_change: float


def average_weights(base: SentenceTransformer, tuned: SentenceTransformer, strength: float) -> None:
    """Set `tuned`'s weights to strength * tuned + (1 - strength) * base, in place.

    Averaging with the base model keeps most of the gain in the domain and most of what the base could do
    elsewhere (LM-Cocktail, arXiv 2311.13534; WiSE-FT, arXiv 2109.01903).
    """
    base_state = base.state_dict()
    tensors = {id(tensor): (name, tensor) for name, tensor in tuned.state_dict(keep_vars=True).items()}  # tied: once
    with torch.no_grad():
        for name, tensor in tensors.values():
            if tensor.is_floating_point():
                tensor.mul_(strength).add_(base_state[name].to(tensor.device), alpha=1.0 - strength)


def try_strengths(
    base: SentenceTransformer,
    tuned: SentenceTransformer,
    strengths: Sequence[float],
    score: Callable[[SentenceTransformer], Score],
    choose: Callable[[Sequence[Averaged]], Averaged],
) -> Iterator[Averaged]:
    """Average at each strength, score it, and leave `tuned`, in place, at the one that `choose` picks.

    Args:
        base: the model before any adaptation.
        tuned: the fine-tuned model.
        strengths: shares of the tuned weights to try, 0 to 1.
        score: measures a model on validation and guard questions.
        choose: picks one of all that were tried; called when the last one has been scored.

    Yields:
        each strength as it is measured; the choice takes effect when the iterator is used up.
    """
    weights = {name: tensor.clone() for name, tensor in tuned.state_dict().items()}
    base_score = score(base)
    tried = []
    for strength in strengths:
        tuned.load_state_dict(weights)
        average_weights(base, tuned, strength)
        averaged = score(tuned)
        tried.append(Averaged(strength, averaged, averaged.gain_over(base_score), averaged.guard_change(base_score)))
        yield tried[-1]
    tuned.load_state_dict(weights)
    average_weights(base, tuned, choose(tried).strength)
