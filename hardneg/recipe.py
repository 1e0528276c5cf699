"""What fine-tuning is given: examples, settings, and a model that it can train."""

from dataclasses import dataclass
from typing import TYPE_CHECKING

from hardneg.device import passage_bytes
from hardneg.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

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


def activations(model: "SentenceTransformer") -> int:
    """Bytes of one passage's activations in training (`device.passage_bytes`); next to none without a transformer."""
    transformers = [module.auto_model for module in model.modules() if hasattr(module, "auto_model")]
    if not transformers:
        return passage_bytes(1, 1)
    config = transformers[0].config.get_text_config()
    return passage_bytes(config.num_hidden_layers, config.hidden_size)


def check_trainable(model: "SentenceTransformer", name: str) -> None:
    """Raise InputError where a model encodes by settings that the training here would not follow.

    Args:
        model: the base model.
        name: what the user calls it.
    """
    for setting in ("truncate_dim", "default_prompt_name"):
        value = getattr(model, setting)
        if value is not None:
            raise InputError(
                f"{name} encodes with {setting} {value}, which training does not know; "
                f"take {setting} out of a copy's config_sentence_transformers.json and name that"
            )
    prompts = [name for name, prompt in model.prompts.items() if prompt]
    if prompts:
        raise InputError(
            f"{name} puts a prompt before some texts ({', '.join(prompts)}), which training and evaluation do not; "
            "empty prompts in a copy's config_sentence_transformers.json and name that"
        )
