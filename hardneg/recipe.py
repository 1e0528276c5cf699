"""What fine-tuning is given: examples, settings, and a model that it can train."""

import heapq
from collections.abc import Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardneg.device import passage_bytes
from hardneg.encoder import prompts_of
from hardneg.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

LONGEST = 100  # passages and queries, by characters, among which the one of most tokens is looked for
SCALE = 20.0  # 1 / temperature, the value all-MiniLM was trained with


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: a query, a chunk that answers it, and chunks that do not, hardest first."""

    query_id: str
    query: str
    positive_id: int
    negative_ids: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of one fine-tuning run."""

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_fraction: float
    frozen_contrast_weight: float  # of the contrast with the base model's embeddings of the candidates
    distillation_weight: float  # of the distance from the base model's embeddings


def weight_bytes(model: "SentenceTransformer") -> int:
    """Bytes of the model's parameters."""
    return sum(parameter.nbytes for parameter in model.parameters())


def activation_bytes(model: "SentenceTransformer", passages: Iterable[str], queries: Iterable[str]) -> int:
    """Bytes of a text's activations in training (`device.passage_bytes`), of the longest that it is given.

    Next to none without a transformer.
    """
    transformer = getattr(model[0], "auto_model", None)
    if transformer is None:
        return passage_bytes(1, 1, 1)
    config = transformer.config.get_text_config()
    of_queries, of_passages = prompts_of(model)
    texts = [of_passages + text for text in heapq.nlargest(LONGEST, passages, key=len)]
    texts += [of_queries + text for text in heapq.nlargest(LONGEST, queries, key=len)]
    tokens = max(map(len, model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]))
    return passage_bytes(config.num_hidden_layers, config.hidden_size, min(tokens, model.max_seq_length or tokens))


def check_trainable(model: "SentenceTransformer", name: str) -> None:
    """Raise InputError where a model encodes or compares otherwise than it would be trained and measured here.

    Args:
        model: the base model.
        name: what the user calls it.
    """
    from sentence_transformers.sentence_transformer.modules import Router

    if model.truncate_dim is not None:
        raise InputError(
            f"{name} encodes with truncate_dim {model.truncate_dim}, which training does not know; "
            "take truncate_dim out of a copy's config_sentence_transformers.json and name that"
        )
    lengths = (getattr(model[0], f"{role}_length", None) for role in ("query", "document"))
    if any(isinstance(module, Router) for module in model) or any(lengths):
        raise InputError(
            f"{name} has parts or lengths of its own for queries and for passages, which training does not know; "
            "name a model without"
        )
    if any(model.prompts.values()) and not any(prompts_of(model)):
        raise InputError(
            f"{name} has prompts ({', '.join(model.prompts)}), none of them for retrieval; name those to use `query` "
            "and `document` in a copy's config_sentence_transformers.json, and name that copy"
        )
    check_cosine(model, name)


def check_cosine(model: "SentenceTransformer", name: str) -> None:
    """Raise InputError where a model does not rank by the cosine, as everything here does; arguments as above."""
    from sentence_transformers.sentence_transformer.modules import Normalize

    same_order = ("cosine", "dot", "euclidean") if isinstance(model[-1], Normalize) else ("cosine",)
    if model.similarity_fn_name not in same_order:
        raise InputError(
            f"{name} compares embeddings by {model.similarity_fn_name}, training and evaluation here by the cosine; "
            "name a model of normalised embeddings"
        )
