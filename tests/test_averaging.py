"""Averaging models' weights, exactly."""

from pathlib import Path

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from hardneg.embedding.models import load_model
from hardneg.learning.averaging import average_weights, average_with_earlier, distance, weights_of

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


@pytest.mark.parametrize("strength", [0.0, 0.5, 1.0])
def test_exact_average(base: SentenceTransformer, tuned: SentenceTransformer, strength: float) -> None:
    before, after = weights_of(base), weights_of(tuned)
    assert not torch.equal(before[WEIGHT], after[WEIGHT])
    for _ in range(2):  # the second time it has other weights than `after`
        average_weights(tuned, base.state_dict(), after, strength)
        for name, tensor in tuned.state_dict().items():
            # halves and wholes lose nothing in floating point
            assert torch.equal(tensor, strength * after[name] + (1 - strength) * before[name]), name
    assert all(torch.equal(tensor, before[name]) for name, tensor in base.state_dict().items())  # the base is untouched


def test_a_tied_weight_is_averaged_once(base: SentenceTransformer, tuned: SentenceTransformer) -> None:
    for model in (base, tuned):
        embeddings = model[0].auto_model.embeddings
        embeddings.tied = embeddings.word_embeddings  # as T5 ties its encoder's embeddings to the shared ones
    before, after = weights_of(base), weights_of(tuned)
    average_weights(tuned, before, after, 0.5)
    assert torch.equal(tuned.state_dict()[WEIGHT], 0.5 * after[WEIGHT] + 0.5 * before[WEIGHT])


def test_whole_numbers_are_the_tuned_models(base: SentenceTransformer, tuned: SentenceTransformer) -> None:
    base[0].register_buffer("counter", torch.tensor([4]))
    tuned[0].register_buffer("counter", torch.tensor([8]))
    average_weights(tuned, weights_of(base), weights_of(tuned), 0.5)
    assert tuned[0].counter.tolist() == [8]


def test_an_averaged_model_can_go_on_training(base: SentenceTransformer, tuned: SentenceTransformer) -> None:
    average_weights(tuned, weights_of(base), weights_of(tuned), 0.5)
    assert all(parameter.requires_grad and parameter.is_leaf for parameter in tuned.parameters())


def test_the_mean_of_three_trainings(base: SentenceTransformer, tiny_model: Path) -> None:
    """The first two, which add 1 and 3, come averaged with one another, and then with the base at a fifth."""
    newest, mixed = (load_model(str(tiny_model), "cpu") for _ in range(2))
    with torch.no_grad():
        for model, added in ((newest, 8.0), (mixed, 0.2 * 2)):
            for parameter in model.parameters():
                parameter.add_(added)
    for number, model in enumerate((base, mixed, newest)):
        model[0].register_buffer("counter", torch.tensor([number]))
    assert average_with_earlier(newest, base, mixed, strength=0.2, count=2) == pytest.approx(8 / 4)
    for parameter, before in zip(newest.parameters(), base.parameters(), strict=True):
        torch.testing.assert_close(parameter, before + 4)
    assert newest[0].counter.tolist() == [2]


def test_the_mean_of_trainings_that_moved_nothing(base: SentenceTransformer, tiny_model: Path) -> None:
    model = load_model(str(tiny_model), "cpu")
    assert average_with_earlier(model, base, model, strength=0.5, count=1) == 1.0


def test_the_distance_between_models(base: SentenceTransformer, tuned: SentenceTransformer) -> None:
    base[0].register_buffer("counter", torch.tensor([4]))
    tuned[0].register_buffer("counter", torch.tensor([8]))
    before, after = (
        np.concatenate([parameter.detach().numpy().ravel() for parameter in model.parameters()])
        for model in (base, tuned)
    )
    assert distance(weights_of(tuned), weights_of(base)) == pytest.approx(np.linalg.norm(after - before))


def test_the_distance_between_models_of_half_precision() -> None:
    """The square of 300 is beyond it."""
    far, near = ({"w": torch.tensor([value, 0.0], dtype=torch.float16)} for value in (400.0, 100.0))
    assert distance(far, near) == 300
