"""What fine-tuning is given: examples and settings."""

from dataclasses import dataclass

# So few steps go without a warm-up: the rate of its first step is 0, and too many examples would teach nothing.
FEW_STEPS = 3


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
    scale: float | None  # of the cosines in the contrast, 1 / temperature of its softmax; None: fitted to the model
    frozen_contrast_weight: float  # of the contrast with the base model's embeddings of the candidates
    distillation_weight: float  # of the distance from the base model's embeddings
