"""The losses that others train with, for the arms: on the miner's own candidates and grades."""

import tempfile
from collections.abc import Sequence

from datasets import Dataset
from sentence_transformers import SentenceTransformer, SentenceTransformerTrainer, SentenceTransformerTrainingArguments
from sentence_transformers.sentence_transformer import losses
from torch import nn

from hardneg.corpus.artifacts import Chunk
from hardneg.judging.candidates import CandidateList
from hardneg.learning.recipe import Example, Recipe
from hardneg.learning.training import column_prompts

TRIPLET_MARGIN = 0.1  # of cosines, as published
COSINE_PER_GRADE = 0.1  # what MarginMSE takes a grade's difference to be worth in cosine
STUDENT_TEMPERATURE = 0.05  # of the softmax over cosines, as all-MiniLM was trained
TEACHER_TEMPERATURE = 0.5  # of the softmax over grades
LIST_LENGTH = 8  # passages per query


def train_with(
    name: str,
    model: SentenceTransformer,
    examples: Sequence[Example],
    lists: Sequence[CandidateList],
    chunks: Sequence[Chunk],
    recipe: Recipe,
    seed: int,
) -> None:
    """Fine-tune `model` in place with the loss called `name`, one of LOSSES; the recipe's distillation is left out."""
    dataset, loss = LOSSES[name](model, examples, lists, chunks)
    hook = model.register_forward_pre_hook(_without_dropout)
    with tempfile.TemporaryDirectory() as scratch:
        arguments = SentenceTransformerTrainingArguments(
            output_dir=scratch,
            num_train_epochs=recipe.epochs,
            per_device_train_batch_size=recipe.batch_size,
            learning_rate=recipe.learning_rate,
            warmup_steps=recipe.warmup_fraction,
            seed=seed,
            use_cpu=True,
            prompts=column_prompts(model, dataset),
            save_strategy="no",
            report_to="none",
        )
        SentenceTransformerTrainer(model=model, args=arguments, train_dataset=dataset, loss=loss).train()
    hook.remove()


def _without_dropout(model: nn.Module, _: object) -> None:
    """As `MaskedContrastiveLoss` trains."""
    model.eval()


def triplet(
    model: SentenceTransformer, examples: Sequence[Example], lists: Sequence[CandidateList], chunks: Sequence[Chunk]
) -> tuple[Dataset, nn.Module]:
    """Cosine triplets of a positive and its hardest negative: the recipe published for this job."""
    cosine = losses.TripletDistanceMetric.COSINE
    return Dataset.from_dict(_triplets(examples, chunks)), losses.TripletLoss(model, cosine, TRIPLET_MARGIN)


def margin_mse(
    model: SentenceTransformer, examples: Sequence[Example], lists: Sequence[CandidateList], chunks: Sequence[Chunk]
) -> tuple[Dataset, nn.Module]:
    """The same triplets, with the difference of their grades as the margin to reach (arXiv 2010.02666)."""
    grades = _grades(lists)
    margins = [
        COSINE_PER_GRADE * (grades[each.query_id, each.positive_id] - grades[each.query_id, each.negative_ids[0]])
        for each in examples
    ]
    return Dataset.from_dict(_triplets(examples, chunks) | {"label": margins}), losses.MarginMSELoss(model)


def listwise(
    model: SentenceTransformer, examples: Sequence[Example], lists: Sequence[CandidateList], chunks: Sequence[Chunk]
) -> tuple[Dataset, nn.Module]:
    """KL divergence between softmaxes over a query's passages: of their grades, and of the model's cosines.

    A query's list is its examples' positives and its best-ranked other candidates, LIST_LENGTH in all.
    """
    positives: dict[str, list[int]] = {}
    for each in examples:
        positives.setdefault(each.query_id, []).append(each.positive_id)
    columns = ("anchor", "label", *(f"passage_{i}" for i in range(LIST_LENGTH)))
    rows: dict[str, list[object]] = {name: [] for name in columns}
    for item in lists:
        wanted = positives.get(item.query["query_id"], [])
        graded = sorted(item.candidates, key=lambda candidate: (candidate.chunk_id not in wanted, candidate.rank))
        graded = [candidate for candidate in graded if candidate.grade is not None][:LIST_LENGTH]
        if not wanted or len(graded) < LIST_LENGTH:
            continue
        rows["anchor"].append(item.query["query"])
        rows["label"].append([candidate.grade for candidate in graded])
        for place, candidate in enumerate(graded):
            rows[f"passage_{place}"].append(chunks[candidate.chunk_id]["text"])
    label = rows.pop("label")
    loss = losses.DistillKLDivLoss(
        model, student_temperature=STUDENT_TEMPERATURE, teacher_temperature=TEACHER_TEMPERATURE
    )
    return Dataset.from_dict(rows | {"label": label}), loss


def _triplets(examples: Sequence[Example], chunks: Sequence[Chunk]) -> dict[str, list]:
    return {
        "anchor": [example.query for example in examples],
        "positive": [chunks[example.positive_id]["text"] for example in examples],
        "negative": [chunks[example.negative_ids[0]]["text"] for example in examples],
    }


def _grades(lists: Sequence[CandidateList]) -> dict[tuple[str, int], float]:
    return {
        (item.query["query_id"], candidate.chunk_id): candidate.grade
        for item in lists
        for candidate in item.candidates
        if candidate.grade is not None
    }


LOSSES = {"triplet": triplet, "margin-mse": margin_mse, "listwise": listwise}
