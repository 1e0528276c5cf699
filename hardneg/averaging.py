"""Averaging a fine-tuned model with the one it came from, and measuring the strengths to do so at."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardneg.validation import Score

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer


@dataclass(frozen=True, slots=True)
class Averaged:
    """One strength tried: its validation and guard scores, and the gain over the base model."""

    strength: float  # share of the tuned weights
    score: Score
    gain: float


def average_weights(base: "SentenceTransformer", tuned: "SentenceTransformer", strength: float) -> None:
    """Set `tuned`'s weights to strength * tuned + (1 - strength) * base, in place.

    Averaging with the base model keeps most of the gain in the domain and most of what the base could do
    elsewhere (LM-Cocktail, arXiv 2311.13534; WiSE-FT, arXiv 2109.01903).
    """
    import torch

    base_state = base.state_dict()
    tensors = {id(tensor): (name, tensor) for name, tensor in tuned.state_dict(keep_vars=True).items()}  # tied: once
    with torch.no_grad():
        for name, tensor in tensors.values():
            if tensor.is_floating_point():
                tensor.mul_(strength).add_(base_state[name].to(tensor.device), alpha=1.0 - strength)


def try_strengths(
    base: "SentenceTransformer",
    tuned: "SentenceTransformer",
    strengths: Sequence[float],
    base_score: Score,
    score: Callable[["SentenceTransformer"], Score],
) -> Iterator[Averaged]:
    """Average at one strength after the other and score it; `tuned` has its own weights again whenever one is yielded.

    Args:
        base: the model before any adaptation.
        tuned: the fine-tuned model.
        strengths: shares of the tuned weights to try, 0 to 1.
        base_score: the base model's.
        score: measures a model on validation and guard questions.
    """
    weights = {name: tensor.clone() for name, tensor in tuned.state_dict().items()}
    for strength in strengths:
        average_weights(base, tuned, strength)
        found = score(tuned)
        tuned.load_state_dict(weights)
        yield Averaged(strength, found, found.gain_over(base_score))
