"""Fine-tuning: contrast in the batch and with the base model's corpus, held near the base model by distillation."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.losses.gradcache import CachedLossMixin
from torch import Tensor, nn
from transformers import ProgressCallback, TrainerControl, TrainerState, TrainingArguments

from hardneg.device import has_bfloat16
from hardneg.encoder import CachedEncoder
from hardneg.errors import InputError

SCALE = 20.0  # 1 / temperature, the value all-MiniLM was trained with


@dataclass(frozen=True, slots=True)
class Example:
    """One training example: a query, a chunk that answers it, and chunks that do not, hardest first."""

    query_id: str
    query: str
    positive_id: int
    negative_ids: tuple[int, ...]


class MaskedContrastiveLoss(CachedLossMixin, nn.Module):
    """InfoNCE over the batch's positives and hard negatives, with false negatives masked by grade.

    For query i, every chunk of the batch competes with its positive except those in `relevant[i]`: what the data
    or the judge says answers query i must not be pushed away from it. Without masks this is
    MultipleNegativesRankingLoss (arXiv 1705.00652); gradients are cached (arXiv 2101.06983), so that the batch
    size is a choice of the recipe and `mini_batch_size` one of the memory.

    With a `Teacher`, the same loss of the queries against the teacher's chunks is added, and the distance of all
    embeddings from the teacher's: what training need not move stays where it was.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        relevant: Sequence[AbstractSet[int]],
        mini_batch_size: int,
        scale: float = SCALE,
        teacher: "Teacher | None" = None,
    ) -> None:
        """
        Args:
            model: the model being trained.
            relevant: per query row, the ids of all chunks that must not serve as its negatives.
            mini_batch_size: passages whose activations are held at once.
            scale: 1 / temperature of the softmax over cosines.
            teacher: the base model's embeddings; None for contrast in the batch alone.
        """
        super().__init__()
        self.model = model
        self.mini_batch_size = mini_batch_size
        self.scale = scale
        self._teacher = teacher
        self._relevant = [torch.tensor(sorted(chunk_ids), dtype=torch.long) for chunk_ids in relevant]

    def forward(self, sentence_features: Sequence[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Loss of one batch.

        Args:
            sentence_features: tokenised columns (query, positive, negative_1, ...), each of B rows.
            labels: int64 (B, 2 + n): query row, positive's chunk id, negatives' chunk ids.
        """
        features = list(sentence_features)
        if self.mini_batch_size >= labels[:, 1:].numel():  # every passage fits: no need for the second forward pass
            embeddings = [[self.model(column)["sentence_embedding"]] for column in features]
            return self.calculate_loss(embeddings, labels)
        return self.forward_cached(features, labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """See `CachedLossMixin`; `labels` as in `forward`."""
        assert labels is not None
        labels = labels.cpu()
        queries, *chunk_columns = (nn.functional.normalize(torch.cat(column), dim=1) for column in reps)
        chunks = torch.cat(chunk_columns)
        chunk_ids = labels[:, 1:].T.flatten()  # in the order of the concatenated columns
        loss = self._contrast(queries, chunks, chunk_ids, torch.arange(len(queries)), labels)
        if self._teacher is not None:
            rows, targets = labels[:, 0], self._teacher.places(labels[:, 1])
            frozen = self._contrast(queries, self._teacher.chunks, self._teacher.chunk_ids, targets, labels)
            distance = self._teacher.distance(torch.cat([queries, chunks]), rows, chunk_ids)
            loss = loss + self._teacher.contrast_weight * frozen + self._teacher.distance_weight * distance
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss

    def _contrast(self, queries: Tensor, chunks: Tensor, chunk_ids: Tensor, targets: Tensor, labels: Tensor) -> Tensor:
        """Cross-entropy of each query's cosines with all `chunks`, but for those relevant to it beside its target.

        Args:
            queries: (B, d), unit rows.
            chunks: (C, d), unit rows.
            chunk_ids: int64 (C,), theirs.
            targets: int64 (B,), the row of each query's positive in `chunks`.
            labels: as in `forward`.
        """
        relevant = torch.stack([torch.isin(chunk_ids, self._relevant[row]) for row in labels[:, 0].tolist()])
        relevant[torch.arange(len(queries)), targets] = False
        logits = self.scale * queries @ chunks.to(queries).T
        logits = logits.masked_fill(relevant.to(logits.device), -torch.inf)
        return nn.functional.cross_entropy(logits, targets.to(logits.device))


@dataclass(frozen=True)
class Teacher:
    """The base model's embeddings of the training queries and their candidates, which stay as they are.

    A query is contrasted with all of these candidates at once (as in ADORE, arXiv 2104.08051), though a batch holds a
    few of them: it learns from every judgment, and towards passages that have not moved, so that old and new embeddings
    go on fitting together.
    """

    queries: Tensor  # float32 (Q, d), unit rows, by query row
    chunks: Tensor  # float32 (C, d), unit rows
    chunk_ids: Tensor  # int64 (C,), theirs, ascending
    contrast_weight: float  # of the contrast of the batch's queries with `chunks`
    distance_weight: float  # of `distance`

    def places(self, chunk_ids: Tensor) -> Tensor:
        """The rows of `chunks` that hold these ids, int64 of the same shape."""
        return torch.searchsorted(self.chunk_ids, chunk_ids.contiguous())

    def distance(self, embeddings: Tensor, query_rows: Tensor, chunk_ids: Tensor) -> Tensor:
        """Mean of 1 - cosine between a batch's embeddings and the base model's: what need not move, should not.

        Args:
            embeddings: (B + N, d), unit rows: of B queries, then of N chunks.
            query_rows: int64 (B,).
            chunk_ids: int64 (N,).
        """
        taught = torch.cat([self.queries[query_rows], self.chunks[self.places(chunk_ids)]])
        return (1 - (embeddings * taught.to(embeddings)).sum(dim=1)).mean()


@dataclass(frozen=True, slots=True)
class Recipe:
    """Settings of one fine-tuning run."""

    epochs: int
    batch_size: int
    learning_rate: float
    warmup_fraction: float
    frozen_weight: float  # of the contrast with the base model's embeddings of the candidates
    distillation_weight: float  # of the distance from the base model's embeddings


class _EpochProgress(ProgressCallback):
    """The trainer's progress bar, which reports each epoch's mean loss instead of printing log records."""

    def __init__(self, report: Callable[[int, float], None]) -> None:
        super().__init__()
        self.losses: list[float] = []
        self._report = report

    def on_log(
        self,
        args: TrainingArguments,
        state: TrainerState,
        control: TrainerControl,
        logs: dict[str, float] | None = None,
        **kwargs: object,
    ) -> None:
        """Called after each epoch (`logging_strategy`), and once more with the totals, which are left out."""
        if logs and "loss" in logs:
            self.losses.append(float(logs["loss"]))
            self._report(len(self.losses), self.losses[-1])


class _Trainer(SentenceTransformerTrainer):
    """Writes no model card: hardneg.model_card does, and the trainer's takes its time over examples for it."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add none."""


def train(
    model: SentenceTransformer,
    examples: Sequence[Example],
    candidates: AbstractSet[int],
    chunk_texts: Sequence[str],
    relevant: Mapping[str, AbstractSet[int]],
    recipe: Recipe,
    report: Callable[[int, float], None],
    *,
    seed: int,
    mini_batch_size: int,
    base: CachedEncoder | None = None,
) -> list[float]:
    """Fine-tune `model` in place with `MaskedContrastiveLoss`.

    Args:
        model: changed in place.
        examples: all with the same number of negatives.
        candidates: ids of the chunks that the base model's contrast takes in beside those of the examples.
        chunk_texts: text of every chunk, by chunk id.
        relevant: query id -> chunk ids that must not be its negatives.
        recipe: the settings.
        report: called after each epoch with its number (from 1) and mean loss.
        seed: of the order of the examples.
        mini_batch_size: passages held at once, see `MaskedContrastiveLoss`.
        base: the base model's encoder; None to train by contrast in the batch alone.

    Returns:
        the mean loss of each epoch.

    Raises:
        InputError: the loss is no longer finite.
    """
    rows = {query_id: row for row, query_id in enumerate(dict.fromkeys(example.query_id for example in examples))}
    teacher = _teacher(base, recipe, examples, candidates, chunk_texts, model.device) if base else None
    masks = [relevant[query_id] for query_id in rows]
    loss = MaskedContrastiveLoss(model, masks, mini_batch_size, teacher=teacher)
    epochs = _EpochProgress(report)
    with without_dropout(model), TemporaryDirectory() as scratch:
        trainer = _Trainer(
            model=model,
            args=_arguments(recipe, seed, Path(scratch), model.device.type),
            train_dataset=_dataset(examples, chunk_texts, rows),
            loss=loss,
        )
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(epochs)
        trainer.train()
    if not all(map(math.isfinite, epochs.losses)):
        raise InputError(
            f"training diverged (epoch losses {epochs.losses}); lower the learning rate of RECIPE in iterative_miner.py"
        )
    return epochs.losses


def _teacher(
    base: CachedEncoder,
    recipe: Recipe,
    examples: Sequence[Example],
    candidates: AbstractSet[int],
    chunk_texts: Sequence[str],
    device: torch.device,
) -> Teacher:
    """The base model's embeddings of queries and chunks, which its encoder has in its cache."""
    queries = base.encode(list({example.query_id: example.query for example in examples}.values()))
    trained_on = {chunk_id for example in examples for chunk_id in (example.positive_id, *example.negative_ids)}
    ids = sorted(trained_on | candidates)
    chunks = base.encode([chunk_texts[chunk_id] for chunk_id in ids])
    return Teacher(
        queries=torch.from_numpy(queries).to(device),
        chunks=torch.from_numpy(chunks).to(device),
        chunk_ids=torch.tensor(ids),
        contrast_weight=recipe.frozen_weight,
        distance_weight=recipe.distillation_weight,
    )


@contextmanager
def without_dropout(model: SentenceTransformer) -> Iterator[None]:
    """Switch dropout off for a short fine-tuning: attention then runs on the fused kernels, twice as fast on a CPU."""
    # Self-attention keeps its rate in the module named `dropout` and reads `p` at every call.
    rates = {module: module.p for module in model.modules() if isinstance(module, nn.Dropout)}
    for module in rates:
        module.p = 0.0
    try:
        yield
    finally:
        for module, rate in rates.items():
            module.p = rate


def _dataset(examples: Sequence[Example], chunk_texts: Sequence[str], rows: Mapping[str, int]) -> Dataset:
    columns: dict[str, list[object]] = {
        "anchor": [example.query for example in examples],
        "positive": [chunk_texts[example.positive_id] for example in examples],
    }
    for place in range(len(examples[0].negative_ids)):
        columns[f"negative_{place + 1}"] = [chunk_texts[example.negative_ids[place]] for example in examples]
    columns["label"] = [[rows[example.query_id], example.positive_id, *example.negative_ids] for example in examples]
    return Dataset.from_dict(columns)


def _arguments(recipe: Recipe, seed: int, scratch: Path, device_type: str) -> SentenceTransformerTrainingArguments:
    return SentenceTransformerTrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_fraction,
        seed=seed,
        bf16=has_bfloat16(device_type),
        use_cpu=device_type == "cpu",
        logging_strategy="epoch",
        logging_nan_inf_filter=False,  # a diverged loss must be seen
        save_strategy="no",
        report_to="none",
    )
