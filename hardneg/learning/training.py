"""Fine-tuning: contrast in the batch and with the base model's candidates, held near the base model by distillation."""

import math
from collections.abc import Iterator, Mapping, Sequence
from collections.abc import Set as AbstractSet
from contextlib import contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import torch
from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.base.losses.gradcache import CachedLossMixin, has_static_embedding_input
from torch import Tensor, nn
from transformers import ProgressCallback

from hardneg.embedding.device import has_bfloat16
from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.models import prompts_of
from hardneg.learning.recipe import FEW_STEPS, Example, Recipe
from hardneg.running.errors import InputError


class MaskedContrastiveLoss(CachedLossMixin, nn.Module):
    """InfoNCE over the batch's positives and hard negatives, with false negatives masked by grade.

    For query i, every chunk of the batch competes with its positive except those in `spared[i]`: what the data
    or the judge says answers query i must not be pushed away from it. Without masks this is
    MultipleNegativesRankingLoss (arXiv 1705.00652); gradients are cached (arXiv 2101.06983), so that the batch
    size is a choice of the recipe and `mini_batch_size` one of the memory.

    The same loss of the queries against the teacher's chunks is added, and the distance of all embeddings from the
    teacher's: what training need not move stays where it was.
    """

    def __init__(
        self,
        model: SentenceTransformer,
        spared: Sequence[AbstractSet[int]],
        mini_batch_size: int,
        recipe: Recipe,
        teacher: "Teacher",
    ) -> None:
        """
        Args:
            model: the model being trained.
            spared: per query row, the ids of all chunks that must not serve as its negatives.
            mini_batch_size: passages whose activations are held at once.
            recipe: for its scale, which must be set, and for the weights of what the teacher adds.
            teacher: the base model's embeddings.
        """
        super().__init__()
        self.model = model
        self.mini_batch_size = mini_batch_size
        self._recipe = recipe
        self._teacher = teacher
        self._spared = [torch.tensor(sorted(chunk_ids), dtype=torch.long) for chunk_ids in spared]

    def forward(self, sentence_features: Sequence[dict[str, Tensor]], labels: Tensor) -> Tensor:
        """Loss of one batch.

        Args:
            sentence_features: tokenised columns (query, positive, negative_1, ...), each of B rows.
            labels: int64 (B, 2 + n): query row, positive's chunk id, negatives' chunk ids.
        """
        # No dropout, though the trainer calls train(): on a CPU attention is twice as fast (LOG.md, "Dropout").
        self.model.eval()
        features = list(sentence_features)
        is_whole = self.mini_batch_size >= labels[:, 1:].numel()  # every passage fits: no need for the second pass
        if is_whole or has_static_embedding_input(self.model):  # whose batches cannot be cut, nor need it
            embeddings = [[self.model(column)["sentence_embedding"]] for column in features]
            return self.calculate_loss(embeddings, labels)
        return self.forward_cached(features, labels)

    def calculate_loss(
        self, reps: list[list[Tensor]], labels: Tensor | None = None, *, with_backward: bool = False
    ) -> Tensor:
        """See `CachedLossMixin`; `labels` as in `forward`."""
        assert labels is not None
        labels = labels.cpu()
        query_rows, chunk_ids = labels[:, 0], labels[:, 1:].T.flatten()  # in the order of the concatenated columns
        queries, *chunk_columns = (nn.functional.normalize(torch.cat(column), dim=1) for column in reps)
        chunks = torch.cat(chunk_columns)
        loss = self._contrast(queries, chunks, torch.arange(len(queries)), self._spared_of(query_rows, chunk_ids))
        loss = loss + self._recipe.frozen_contrast_weight * self._frozen_contrast(queries, query_rows, labels[:, 1])
        distance = self._teacher.distance(torch.cat([queries, chunks]), query_rows, chunk_ids)
        loss = loss + self._recipe.distillation_weight * distance
        if with_backward:
            loss.backward()
            loss = loss.detach()
        return loss

    def _frozen_contrast(self, queries: Tensor, query_rows: Tensor, positive_ids: Tensor) -> Tensor:
        """`_contrast` with all of the teacher's chunks."""
        spared = self._spared_of(query_rows, self._teacher.chunk_ids)
        return self._contrast(queries, self._teacher.chunks, self._teacher.places(positive_ids), spared)

    def _spared_of(self, query_rows: Tensor, chunk_ids: Tensor) -> Tensor:
        """bool (B, C): which of these chunks must not compete for each query."""
        return torch.stack([torch.isin(chunk_ids, self._spared[row]) for row in query_rows.tolist()])

    def _contrast(self, queries: Tensor, chunks: Tensor, targets: Tensor, spared: Tensor) -> Tensor:
        """Cross-entropy of each query's cosines with all `chunks` but those spared for it beside its target.

        Args:
            queries: (B, d), unit rows.
            chunks: (C, d), unit rows, on the queries' device.
            targets: int64 (B,), the row of each query's positive in `chunks`.
            spared: bool (B, C), chunks left out of a query's competition; overwritten.
        """
        spared[torch.arange(len(queries)), targets] = False
        logits = self._recipe.scale * queries @ chunks.T
        logits = logits.masked_fill(spared.to(logits.device), -torch.inf)
        return nn.functional.cross_entropy(logits, targets.to(logits.device))


@dataclass(frozen=True)
class Teacher:
    """The base model's embeddings of the training queries and their candidates, on the device of the model in training.

    They stay as they are while queries are trained against them, as ADORE's index does (arXiv 2104.08051), so a query
    can be contrasted with all candidates of all queries at once, and the model goes on fitting its old embeddings.
    """

    queries: Tensor  # float32 (Q, d), unit rows, by query row
    chunks: Tensor  # float32 (C, d), unit rows
    chunk_ids: Tensor  # int64 (C,), theirs, ascending, on the CPU

    def places(self, chunk_ids: Tensor) -> Tensor:
        """The rows of `chunks` that hold these ids (int64, on the CPU, all of them the teacher's), in their order."""
        return torch.searchsorted(self.chunk_ids, chunk_ids.contiguous())

    def distance(self, embeddings: Tensor, query_rows: Tensor, chunk_ids: Tensor) -> Tensor:
        """Mean of 1 - cosine between a batch's embeddings and the base model's: what need not move, should not.

        Args:
            embeddings: (B + N, d), unit rows: of B queries, then of N chunks.
            query_rows: int64 (B,).
            chunk_ids: int64 (N,), all of them the teacher's.
        """
        taught = torch.cat([self.queries[query_rows], self.chunks[self.places(chunk_ids)]])
        return (1 - (embeddings * taught).sum(dim=1)).mean()


def make_teacher(
    base: CachedEncoder,
    examples: Sequence[Example],
    candidates: AbstractSet[int],
    chunk_texts: Sequence[str],
    device: torch.device,
) -> Teacher:
    """The teacher of these examples, whose embeddings the base model's encoder has in its cache.

    Args:
        base: the base model's encoder.
        examples: what is trained on.
        candidates: ids of further chunks that the queries are contrasted with.
        chunk_texts: text of every chunk, by chunk id.
        device: where the model is trained.
    """
    trained_on = {chunk_id for example in examples for chunk_id in (example.positive_id, *example.negative_ids)}
    ids = sorted(trained_on | candidates)
    return Teacher(
        queries=torch.from_numpy(base.encode_queries(list(_queries(examples).values()))).to(device),
        chunks=torch.from_numpy(base.encode_passages([chunk_texts[chunk_id] for chunk_id in ids])).to(device),
        chunk_ids=torch.tensor(ids),
    )


class _Progress(ProgressCallback):
    """The trainer's bar, without its log records."""

    def on_log(self, *args: object, **kwargs: object) -> None:
        """Print nothing; the records are in the trainer's state."""


class _Trainer(SentenceTransformerTrainer):
    """Writes no model card: hardneg.learning.model_card does, and the trainer's takes its time over examples."""

    def add_model_card_callback(self, default_args_dict: dict[str, Any]) -> None:
        """Add none."""


def train(
    model: SentenceTransformer,
    examples: Sequence[Example],
    chunk_texts: Sequence[str],
    spared: Mapping[str, AbstractSet[int]],
    recipe: Recipe,
    *,
    seed: int,
    mini_batch_size: int,
    teacher: Teacher,
) -> list[float]:
    """Fine-tune `model` in place with `MaskedContrastiveLoss`.

    Args:
        model: changed in place.
        examples: all with the same number of negatives.
        chunk_texts: text of every chunk, by chunk id.
        spared: query id -> chunk ids that must not be its negatives.
        recipe: the settings; its scale must be set (`iterative_miner.with_scale`).
        seed: of the order of the examples.
        mini_batch_size: passages held at once, see `MaskedContrastiveLoss`.
        teacher: `make_teacher` of the same examples.

    Returns:
        the mean loss of each epoch.

    Raises:
        InputError: the loss is no longer finite.
    """
    rows = {query_id: row for row, query_id in enumerate(_queries(examples))}
    masks = [spared[query_id] for query_id in rows]
    loss = MaskedContrastiveLoss(model, masks, mini_batch_size, recipe, teacher)
    dataset = _dataset(examples, chunk_texts, rows)
    if recipe.epochs * math.ceil(len(examples) / recipe.batch_size) <= FEW_STEPS:
        recipe = replace(recipe, warmup_fraction=0.0)  # LOG.md, "Without warm-up"
    with same_configuration(model), TemporaryDirectory() as scratch:
        trainer = _Trainer(
            model=model,
            args=_arguments(recipe, seed, Path(scratch), model.device.type, column_prompts(model, dataset)),
            train_dataset=dataset,
            loss=loss,
        )
        trainer.remove_callback(ProgressCallback)
        trainer.add_callback(_Progress())
        trainer.train()
    losses = [float(record["loss"]) for record in trainer.state.log_history if "loss" in record]  # one per epoch
    if not all(map(math.isfinite, losses)):
        raise InputError(f"training diverged (epoch losses {losses}); lower --learning-rate")
    return losses


def _queries(examples: Sequence[Example]) -> dict[str, str]:
    """Query id -> query, in the order of the query rows."""
    return {example.query_id: example.query for example in examples}


@contextmanager
def same_configuration(model: SentenceTransformer) -> Iterator[None]:
    """Undo what the trainer writes into the transformer's configuration.

    It sets `use_cache` also where there is no such field: loaded again, the model would have another fingerprint, and
    all would be embedded again.
    """
    fields = vars(model.config) if model.config is not None else {}
    before = dict(fields)
    try:
        yield
    finally:
        fields.clear()
        fields.update(before)


def _dataset(examples: Sequence[Example], chunk_texts: Sequence[str], rows: Mapping[str, int]) -> Dataset:
    columns: dict[str, list[object]] = {
        "anchor": [example.query for example in examples],
        "positive": [chunk_texts[example.positive_id] for example in examples],
    }
    for place in range(len(examples[0].negative_ids)):
        columns[f"negative_{place + 1}"] = [chunk_texts[example.negative_ids[place]] for example in examples]
    columns["label"] = [[rows[example.query_id], example.positive_id, *example.negative_ids] for example in examples]
    return Dataset.from_dict(columns)


def column_prompts(model: SentenceTransformer, dataset: Dataset) -> dict[str, str] | None:
    """What the model wants before the texts of each column: queries in "anchor", passages in all others but "label".

    None where it wants nothing.
    """
    of_queries, of_passages = prompts_of(model)
    if not (of_queries or of_passages):
        return None
    passages = [name for name in dataset.column_names if name not in ("anchor", "label")]
    return {"anchor": of_queries} | dict.fromkeys(passages, of_passages)


def _arguments(
    recipe: Recipe, seed: int, scratch: Path, device_type: str, prompts: dict[str, str] | None
) -> SentenceTransformerTrainingArguments:
    return SentenceTransformerTrainingArguments(
        output_dir=str(scratch),
        num_train_epochs=recipe.epochs,
        per_device_train_batch_size=recipe.batch_size,
        learning_rate=recipe.learning_rate,
        warmup_steps=recipe.warmup_fraction,  # below 1 it is a share of all steps
        seed=seed,
        bf16=has_bfloat16(device_type),
        use_cpu=device_type == "cpu",
        prompts=prompts,
        logging_strategy="epoch",
        logging_nan_inf_filter=False,  # a diverged loss must be seen
        save_strategy="no",
        report_to="none",
    )
