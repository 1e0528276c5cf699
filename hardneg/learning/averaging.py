"""Averaging fine-tuned models with one another, and with the one that they came from."""

import math
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import Tensor


def weights_of(model: "SentenceTransformer") -> dict[str, "Tensor"]:
    """A copy of a model's weights in the memory of the CPU, by name."""
    return {name: tensor.to("cpu", copy=True) for name, tensor in model.state_dict().items()}


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
        strength: share of the tuned weights, 0 to 1.
    """
    for name, tensor in model.state_dict().items():  # in place, each by itself: a GPU has no room for another copy
        tensor.copy_(tuned[name])
        if tensor.is_floating_point():
            tensor.mul_(strength).add_(base[name], alpha=1 - strength)


def average_with_earlier(
    model: "SentenceTransformer", base: "SentenceTransformer", mixed: "SentenceTransformer", strength: float, count: int
) -> float:
    """Set `model`'s weights to the mean over all trainings, its own and those before it (arXiv 2203.05482).

    Tensors of whole numbers stay as they are in `model`.

    Args:
        model: the newest of count + 1 trainings of `base`; changed in place.
        base: the model before any adaptation.
        mixed: the mean of the `count` trainings before, averaged with `base` at `strength`.
        strength: share of that mean, above 0.
        count: 1 or more.

    Returns:
        how many times as far from `base` as the mean the newest training alone is; 1 where nothing has moved.
    """
    newest, start, earlier = weights_of(model), weights_of(base), weights_of(mixed)
    mean = dict(newest)
    for name, tensor in newest.items():
        if tensor.is_floating_point():
            # what the earlier trainings came to, before the base model had its share in it
            trained = start[name] + (earlier[name] - start[name]) / strength
            mean[name] = (tensor + count * trained) / (count + 1)
    model.load_state_dict(mean)
    moved = distance(mean, start)
    return distance(newest, start) / moved if moved else 1.0


def distance(one: Mapping[str, "Tensor"], other: Mapping[str, "Tensor"]) -> float:
    """Root of the summed squares of the differences between the weights of two models, by name."""
    squares = ((one[name] - other[name]).double().square().sum() for name in one if one[name].is_floating_point())
    return math.sqrt(sum(float(square) for square in squares))
