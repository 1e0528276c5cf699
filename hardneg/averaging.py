"""Averaging a fine-tuned model with the one it came from."""

from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor


def weights_of(model: "SentenceTransformer") -> dict[str, "Tensor"]:
    """A copy of a model's weights, by name."""
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def average_weights(
    model: "SentenceTransformer", base: Mapping[str, "Tensor"], tuned: Mapping[str, "Tensor"], strength: float
) -> None:
    """Set `model`'s weights to strength * tuned + (1 - strength) * base; whole numbers among them to `tuned`'s.

    Averaging with the base model keeps most of the gain in the domain and most of what the base could do
    elsewhere (LM-Cocktail, arXiv 2311.13534; WiSE-FT, arXiv 2109.01903).

    Args:
        model: of the same architecture as both; changed in place.
        base: the weights of the model before any adaptation, not `model`'s own.
        tuned: `weights_of` the fine-tuned model.
        strength: share of the tuned weights, 0 to 1; 1 / share undoes an average at that share.
    """
    for name, tensor in model.state_dict().items():  # in place, each by itself: a GPU has no room for another copy
        tensor.copy_(tuned[name])
        if tensor.is_floating_point():
            tensor.mul_(strength).add_(base[name], alpha=1 - strength)
