"""What a model must be like to be trained, and what memory that takes."""

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router, StaticEmbedding

from hardneg.device import passage_bytes
from hardneg.encoder import load_model
from hardneg.errors import InputError
from hardneg.recipe import activations, check_trainable


@pytest.fixture
def model(tiny_model: Path) -> SentenceTransformer:
    return load_model(str(tiny_model), "cpu")


@pytest.mark.parametrize(("setting", "value"), [("truncate_dim", 16), ("default_prompt_name", "query")])
def test_models_that_encode_otherwise_than_they_are_trained_are_refused(
    model: SentenceTransformer, setting: str, value: object
) -> None:
    check_trainable(model, "tiny")
    model.prompts["query"] = "query: "
    setattr(model, setting, value)
    with pytest.raises(InputError, match=f"^tiny encodes with {setting} {value}, .* name that$"):
        check_trainable(model, "tiny")


def test_a_model_with_prompts_is_refused(model: SentenceTransformer) -> None:
    model.prompts = {"query": "query: ", "document": ""}
    with pytest.raises(InputError, match=r"^tiny puts a prompt before some texts \(query\), .* name that$"):
        check_trainable(model, "tiny")


def test_activations_follow_the_layers(model: SentenceTransformer) -> None:
    assert activations(model) == passage_bytes(2, 32)
    assert activations(SentenceTransformer(modules=[Router.for_query_document([*model], [*model])])) == passage_bytes(
        2, 32
    )
    static = SentenceTransformer(modules=[StaticEmbedding(model.tokenizer.backend_tokenizer, embedding_dim=8)])
    assert 0 < activations(static) < activations(model)
