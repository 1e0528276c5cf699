"""Averaging two models' weights, exactly; every strength is measured."""

from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from torch import Tensor

from hardneg.averaging import average_weights, try_strengths
from hardneg.encoder import load_model
from hardneg.validation import Score

WEIGHT = "0.model.embeddings.word_embeddings.weight"


@pytest.fixture
def base(tiny_model: Path) -> SentenceTransformer:
    return load_model(str(tiny_model), "cpu")


@pytest.fixture
def tuned(tiny_model: Path) -> SentenceTransformer:
    """The same model with other weights."""
    model = load_model(str(tiny_model), "cpu")
    generator = torch.Generator().manual_seed(0)
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=generator))
    return model


def weights(model: SentenceTransformer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_exact_average(base: SentenceTransformer, tuned: SentenceTransformer, strength: float) -> None:
    before, after = weights(base), weights(tuned)
    assert not torch.equal(before[WEIGHT], after[WEIGHT])
    average_weights(base, tuned, strength)
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())  # the base is untouched
    for name, tensor in tuned.state_dict().items():
        # halves and wholes lose nothing in floating point
        assert torch.equal(tensor, strength * after[name] + (1 - strength) * before[name]), name


def test_a_tied_weight_is_averaged_once(base: SentenceTransformer, tuned: SentenceTransformer) -> None:
    for model in (base, tuned):
        embeddings = model[0].auto_model.embeddings
        embeddings.tied = embeddings.word_embeddings  # as T5 ties its encoder's embeddings to the shared ones
    before, after = weights(base), weights(tuned)
    average_weights(base, tuned, 0.5)
    assert torch.equal(weights(tuned)[WEIGHT], 0.5 * after[WEIGHT] + 0.5 * before[WEIGHT])


def test_whole_numbers_are_left_alone(base: SentenceTransformer, tuned: SentenceTransformer) -> None:
    base[0].register_buffer("counter", torch.tensor([4]))
    tuned[0].register_buffer("counter", torch.tensor([8]))
    average_weights(base, tuned, 0.5)
    assert tuned[0].counter.tolist() == [8]


def test_an_averaged_model_can_go_on_training(base: SentenceTransformer, tuned: SentenceTransformer) -> None:
    average_weights(base, tuned, 0.5)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in tuned.parameters())


def test_each_strength_is_measured_from_the_tuned_weights_which_stay(
    base: SentenceTransformer, tuned: SentenceTransformer
) -> None:
    before, after = weights(base), weights(tuned)
    distance = (after[WEIGHT] - before[WEIGHT]).norm().item()

    def score(model: SentenceTransformer) -> Score:
        """By how far the model is from the base."""
        moved = (model.state_dict()[WEIGHT] - before[WEIGHT]).norm().item()
        return Score(1 + moved, 2 + 2 * moved, 1 - moved / 100, None, -moved)

    tried = []
    for averaged in try_strengths(base, tuned, (1.0, 0.5, 0.25), score(base), score):
        tried.append(averaged.strength)
        assert all(torch.equal(tensor, after[name]) for name, tensor in tuned.state_dict().items())
        assert averaged.score.mrr == pytest.approx(1 + averaged.strength * distance, rel=1e-4)
        assert averaged.gain == pytest.approx(averaged.strength * distance, rel=1e-4)  # both figures grow by this share
        assert averaged.score.guard_low == pytest.approx(-averaged.strength * distance, rel=1e-4)
    assert tried == [1.0, 0.5, 0.25]
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())
