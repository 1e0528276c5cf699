"""What a model must be like to be trained, and what memory that takes."""

from pathlib import Path

import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router, StaticEmbedding

from hardneg.device import passage_bytes
from hardneg.encoder import load_model
from hardneg.errors import InputError
from hardneg.recipe import activation_bytes, check_trainable


@pytest.fixture
def model(tiny_model: Path) -> SentenceTransformer:
    return load_model(str(tiny_model), "cpu")


def test_models_that_encode_otherwise_than_they_are_trained_are_refused(model: SentenceTransformer) -> None:
    model.prompts["query"] = "query: "
    model.default_prompt_name = "query"
    check_trainable(model, "tiny")
    model.truncate_dim = 16
    with pytest.raises(InputError, match=r"^tiny encodes with truncate_dim 16, .* name that$"):
        check_trainable(model, "tiny")


def test_a_model_with_a_router_is_refused(model: SentenceTransformer) -> None:
    router = SentenceTransformer(modules=[Router.for_query_document([*model], [*model])])
    with pytest.raises(InputError, match=r"^tiny has parts or lengths of its own .* name a model without$"):
        check_trainable(router, "tiny")


def test_prompts_for_something_else_are_no_prompts_for_retrieval(model: SentenceTransformer) -> None:
    model.prompts["s2p_query"] = "Find: "
    with pytest.raises(InputError, match=r"^tiny has prompts \(.*s2p_query\), none of them for .* that copy$"):
        check_trainable(model, "tiny")
    model.prompts["query"] = "Find: "
    check_trainable(model, "tiny")


def test_a_model_that_compares_otherwise_is_refused(model: SentenceTransformer) -> None:
    """Of unit vectors the order is the same."""
    model.similarity_fn_name = "dot"
    check_trainable(model, "tiny")
    not_normalised = SentenceTransformer(modules=[*model][:-1])
    check_trainable(not_normalised, "tiny")
    not_normalised.similarity_fn_name = "dot"
    with pytest.raises(InputError, match=r"^tiny compares embeddings by dot, .* of normalised embeddings$"):
        check_trainable(not_normalised, "tiny")


def test_activations_follow_the_layers_and_the_longest_passage(model: SentenceTransformer) -> None:
    """It reads up to 64 tokens."""
    as_one_word, as_many_words = "acetylcholinesterase", "gout in a toe"
    assert len(as_one_word) > len(as_many_words)

    def tokens(text: str) -> int:
        return len(model.tokenizer(text)["input_ids"])

    both = [as_one_word, as_many_words]
    most = max(map(tokens, both))
    assert activation_bytes(model, both, ["gout"]) == passage_bytes(2, 32, most)
    assert activation_bytes(model, ["gout"], both) == passage_bytes(2, 32, most)
    assert activation_bytes(model, ["gout " * 100], ["gout"]) == passage_bytes(2, 32, 64)
    model.prompts.update(query="asthma: ", document="asthma, gout: ")
    assert activation_bytes(model, ["gout"], ["gout"]) == passage_bytes(2, 32, tokens("asthma, gout: gout"))
    static = SentenceTransformer(modules=[StaticEmbedding(model.tokenizer.backend_tokenizer, embedding_dim=8)])
    assert 0 < activation_bytes(static, both, both) < activation_bytes(model, both, both)
