"""The masked loss against sentence-transformers' own and by hand; fine-tuning a tiny model."""

import math
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.losses import MultipleNegativesRankingLoss
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from torch import Tensor, nn
from transformers import BertTokenizer, MPNetConfig, MPNetModel

from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.models import fingerprint, load_model
from hardneg.embedding.search import top_k
from hardneg.learning.recipe import Example, Recipe
from hardneg.learning.training import MaskedContrastiveLoss, Teacher, make_teacher, train
from hardneg.running.errors import InputError
from tests.tiny_data import tiny_corpus
from tests.tiny_model import build_tiny_model

RECIPE = Recipe(
    epochs=1,
    batch_size=6,
    learning_rate=5e-3,
    warmup_fraction=0.1,
    scale=20.0,
    frozen_contrast_weight=0.0,
    distillation_weight=0.0,
)
UNSCALED = replace(RECIPE, scale=1.0, frozen_contrast_weight=1.0)
QUERIES = ["How is gout treated?", "How is asthma treated?", "What are the symptoms of scurvy?"]
POSITIVES = ["Gout is treated with allopurinol.", "Inhaled steroids.", "Bleeding gums and loose teeth, for weeks."]
NEGATIVES = ["Colchicine eases the attack.", "A tight chest and cough at night.", "Vitamin C"]


@pytest.fixture
def model(tiny_model: Path) -> SentenceTransformer:
    """A fresh copy in evaluation mode: no dropout."""
    return load_model(str(tiny_model), "cpu").eval()


EAST, NORTH, WEST = [1.0, 0.0], [0.0, 1.0], [-1.0, 0.0]


def teacher_of(queries: Sequence[list[float]], chunks: dict[int, list[float]]) -> Teacher:
    """The base model's embeddings, given as numbers."""
    return Teacher(torch.tensor(queries), torch.tensor(list(chunks.values())), torch.tensor(list(chunks)))


def unheeded(labels: Tensor, dimension: int, dtype: torch.dtype = torch.float32) -> Teacher:
    """A teacher that knows these rows and chunks, for recipes that give no weight to what it adds."""
    rows, ids = int(labels[:, 0].max()) + 1, labels[:, 1:].unique()
    return Teacher(torch.zeros(rows, dimension, dtype=dtype), torch.zeros(len(ids), dimension, dtype=dtype), ids)


def features(model: SentenceTransformer, *columns: list[str]) -> list[dict[str, Tensor]]:
    return [model.preprocess(column) for column in columns]


def gradients(model: SentenceTransformer, loss: Tensor) -> dict[str, Tensor]:
    model.zero_grad()
    loss.backward()
    found = {name: weight.grad.clone() for name, weight in model.named_parameters() if weight.grad is not None}
    model.zero_grad()
    return found


def assert_same(one: dict[str, Tensor], other: dict[str, Tensor]) -> None:
    assert one.keys() == other.keys() and any(gradient.abs().max() > 1e-3 for gradient in one.values())
    for name, gradient in one.items():
        torch.testing.assert_close(gradient, other[name], rtol=1e-6, atol=1e-9, msg=name)


LABELS = torch.tensor([[0, 10, 20], [1, 11, 21], [2, 12, 22]])


@pytest.mark.parametrize("columns", [(QUERIES, POSITIVES), (QUERIES, POSITIVES, NEGATIVES)])
@pytest.mark.parametrize("mini_batch_size", [6, 3, 1])
def test_without_masks_it_is_multiple_negatives_ranking_loss(
    model: SentenceTransformer, columns: tuple[list[str], ...], mini_batch_size: int
) -> None:
    model.double()  # in single precision the order of a sum over threads shows in small gradients
    theirs = MultipleNegativesRankingLoss(model, scale=RECIPE.scale)(features(model, *columns), torch.zeros(3))
    labels = LABELS[:, : len(columns)]
    teacher = unheeded(labels, 32, torch.float64)
    ours = MaskedContrastiveLoss(model, [set(), set(), set()], mini_batch_size, RECIPE, teacher)
    loss = ours(features(model, *columns), labels)
    assert loss.item() == pytest.approx(theirs.item(), rel=1e-5)
    assert_same(gradients(model, loss), gradients(model, theirs))


@pytest.mark.parametrize("mini_batch_size", [1, 2, 5])
def test_gradient_cache_changes_nothing(model: SentenceTransformer, mini_batch_size: int) -> None:
    model.double()
    relevant = [{10, 11}, {11, 22}, {12}]
    teacher = unheeded(LABELS, 32, torch.float64)

    def loss(at_once: int) -> Tensor:
        masked = MaskedContrastiveLoss(model, relevant, at_once, RECIPE, teacher)
        return masked(features(model, QUERIES, POSITIVES, NEGATIVES), LABELS)

    whole, cached = loss(6), loss(mini_batch_size)
    assert cached.item() == pytest.approx(whole.item(), rel=1e-5)
    assert_same(gradients(model, cached), gradients(model, whole))


def hand_made(relevant: Sequence[set[int]], labels: list[list[int]], *columns: list[list[float]]) -> tuple[Tensor, ...]:
    """Loss of embeddings given as numbers, scale 1, and the gradient of each column."""
    tensors = [torch.tensor(column, requires_grad=True) for column in columns]
    recipe, teacher = replace(RECIPE, scale=1.0), unheeded(torch.tensor(labels), dimension=2)
    loss = MaskedContrastiveLoss(nn.Identity(), relevant, 8, recipe, teacher)
    value = loss.calculate_loss([[tensor] for tensor in tensors], torch.tensor(labels))
    value.backward()
    return value.detach(), *(tensor.grad for tensor in tensors if tensor.grad is not None)


def test_value_by_hand() -> None:
    # cosines with positives | negatives: row 0: 1, 0 | 0, 0; row 1: 0, 1 | 1, 1
    value, *_ = hand_made(
        [set(), set()], [[0, 1, 3], [1, 2, 4]], [EAST, NORTH], [[2.0, 0.0], NORTH], [[0.0, 3.0], NORTH]
    )
    e = torch.e
    # the second row's negatives are both NORTH: its own, and the first row's, scaled
    expected = (-torch.log(torch.tensor(e / (e + 1 + 1 + 1))) - torch.log(torch.tensor(e / (1 + e + e + e)))) / 2
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)


def test_a_masked_chunk_gets_no_gradient_from_that_query_alone() -> None:
    slanted = [[0.6, 0.8], [0.8, 0.6]]
    negatives = [[0.28, 0.96], [0.96, 0.28]]
    labels = [[0, 10, 20], [1, 11, 21]]
    # Chunk 21 answers query 0: only query 1 pushes it. Query 1 is given nothing to push by masking 21 there as well.
    _, here, _, both = hand_made([{10, 21}, {11, 21}], labels, [EAST, NORTH], slanted, negatives)
    assert both[1].abs().max() == 0 and both[0].abs().max() > 1e-3
    _, _, _, one = hand_made([{10, 21}, {11}], labels, [EAST, NORTH], slanted, negatives)
    assert one[1].abs().max() > 1e-3
    # with 21 masked for query 0, moving it changes nothing in query 0's gradient
    _, there, _, _ = hand_made([{10, 21}, {11, 21}], labels, [EAST, NORTH], slanted, [negatives[0], WEST])
    torch.testing.assert_close(here, there)


def test_the_own_positive_is_never_masked() -> None:
    # all chunks are relevant to both queries: nothing but the own positive is left, the loss is 0
    everything = {10, 11, 20, 21}
    value, *_ = hand_made([everything] * 2, [[0, 10, 20], [1, 11, 21]], [EAST, NORTH], [NORTH, EAST], [EAST, EAST])
    assert value.item() == 0


def test_the_same_chunk_twice_in_a_batch_is_no_negative() -> None:
    """Two queries with one answer between them: 7 is at both places, each query sees its own copy only."""
    shared, *_ = hand_made([{7}, {7}], [[0, 7, 8], [1, 7, 9]], [EAST, NORTH], [EAST, EAST], [NORTH, WEST])
    one = torch.tensor([[1.0, 0.0, -1.0], [0.0, 1.0, 0.0]])  # positive, both negatives
    assert shared.item() == pytest.approx(nn.functional.cross_entropy(one, torch.tensor([0, 0])).item(), rel=1e-6)


@pytest.mark.parametrize("mini_batch_size", [12, 1])  # all at once, and cached
def test_mixed_precision_ends_at_the_embeddings(
    model: SentenceTransformer, mini_batch_size: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Cosines in bfloat16 would be off by up to half a percent. It is accelerate that sees to it."""
    monkeypatch.setattr("hardneg.learning.training.has_bfloat16", lambda _: True)
    inside, of_cosines = set(), set()
    contrast = MaskedContrastiveLoss._contrast

    def noting(self: MaskedContrastiveLoss, queries: Tensor, chunks: Tensor, *rest: Tensor) -> Tensor:
        of_cosines.add((queries @ chunks.T).dtype)
        return contrast(self, queries, chunks, *rest)

    monkeypatch.setattr(MaskedContrastiveLoss, "_contrast", noting)
    linear = next(module for module in model.modules() if isinstance(module, nn.Linear))
    linear.register_forward_hook(lambda _module, _input, output: inside.add(output.dtype))
    fit(model, RECIPE, mini_batch_size)
    assert (inside, of_cosines) == ({torch.bfloat16}, {torch.float32})


def test_a_row_number_belongs_to_a_query_not_to_a_place_in_the_batch() -> None:
    # the batch holds query 2 first and query 0 second; chunk 11 answers query 2 only
    arguments = ([[2, 10], [0, 11]], [EAST, NORTH], [EAST, NORTH])
    value, *_ = hand_made([set(), set(), {10, 11}], *arguments)
    expected = (0 + torch.log(torch.tensor(1 + 1 / torch.e))) / 2
    assert value.item() == pytest.approx(expected.item(), rel=1e-6)


def test_places_of_the_teacher_s_chunks() -> None:
    teacher = teacher_of([EAST], {3: EAST, 5: NORTH, 9: WEST})
    assert teacher.places(torch.tensor([9, 3, 9])).tolist() == [2, 0, 2]


def test_distance_from_the_teacher_by_hand() -> None:
    teacher = teacher_of([EAST, NORTH], {3: EAST, 5: NORTH, 6: WEST, 9: EAST})
    queries, rows = [WEST, EAST], torch.tensor([1, 0])  # cosines with the teacher's NORTH, EAST: 0, 1
    chunks, ids = [EAST, NORTH, WEST, NORTH], torch.tensor([3, 6, 5, 9])  # with EAST, WEST, NORTH, EAST: 1, 0, 0, 0
    distance = teacher.distance(torch.tensor(queries + chunks), rows, ids)
    assert distance.item() == pytest.approx((1 + 0 + 0 + 1 + 1 + 1) / 6)


def test_contrast_with_the_teacher_s_chunks_by_hand() -> None:
    """Of query 1 alone: beside its positive 5, 3 and 9 compete; 6 and 4, which is not there, are relevant too."""
    teacher = teacher_of([EAST, EAST], {3: EAST, 5: NORTH, 6: WEST, 9: WEST})
    recipe = replace(UNSCALED, frozen_contrast_weight=2.0)
    loss = MaskedContrastiveLoss(nn.Identity(), [set(), {4, 5, 6}], 8, recipe, teacher)
    query, positive = torch.tensor([[0.6, 0.8]], requires_grad=True), torch.tensor([EAST], requires_grad=True)
    value = loss.calculate_loss([[query], [positive]], torch.tensor([[1, 5]]))
    # its cosines with the base model's 3, 5 and 9 are 0.6, 0.8 and -0.6, wherever its positive now is
    assert value.item() == pytest.approx(2 * math.log(sum(map(math.exp, (0.6, 0.8, -0.6))) / math.exp(0.8)))
    value.backward()
    assert query.grad is not None and positive.grad is not None
    assert query.grad.abs().max() > 0.1 and positive.grad.abs().max() == 0


def test_the_teacher_s_rows_are_found_by_id_whatever_the_order_of_the_batch() -> None:
    """Query 1 first; both have chunk 5 as their positive, and 9 is relevant to query 0 alone."""
    teacher = teacher_of([EAST, NORTH], {3: EAST, 5: NORTH, 9: WEST})
    loss = MaskedContrastiveLoss(nn.Identity(), [{5, 9}, {5}], 8, UNSCALED, teacher)
    value = loss.calculate_loss(
        [[torch.tensor([NORTH, EAST])], [torch.tensor([EAST, EAST])]], torch.tensor([[1, 5], [0, 5]])
    )
    # each one's own copy is all the batch leaves; then cosines 0, 1, 0 with 3, 5, 9, and 1, 0 with 3, 5
    assert value.item() == pytest.approx((math.log((math.e + 2) / math.e) + math.log(math.e + 1)) / 2)


def test_the_teacher_is_added_to_the_contrast_with_and_without_gradient_cache(model: SentenceTransformer) -> None:
    model.double()
    generator = torch.Generator().manual_seed(0)
    queries, chunks = (nn.functional.normalize(torch.randn(n, 32, generator=generator).double(), dim=1) for n in (3, 7))
    ids = torch.tensor([1, 10, 11, 12, 20, 21, 22])
    columns, relevant = (QUERIES, POSITIVES, NEGATIVES), [{10, 11}, {11, 22}, {12}]

    def loss(mini_batch_size: int, contrast: float, distance: float) -> Tensor:
        recipe = replace(RECIPE, frozen_contrast_weight=contrast, distillation_weight=distance)
        masked = MaskedContrastiveLoss(model, relevant, mini_batch_size, recipe, Teacher(queries, chunks, ids))
        return masked(features(model, *columns), LABELS)

    own, *passages = (model(column)["sentence_embedding"] for column in features(model, *columns))
    distance = 1 - (torch.cat([own, *passages]) * torch.cat([queries, chunks[1:]])).sum(dim=1).mean()
    logits = RECIPE.scale * own @ chunks.T
    logits[[0, 1], [2, 6]] = -torch.inf  # chunks 11 and 22, relevant to queries 0 and 1 beside their own
    contrast = nn.functional.cross_entropy(logits, torch.tensor([1, 2, 3]))
    whole, cached, alone = loss(6, 0.5, 2.0), loss(2, 0.5, 2.0), loss(6, 0.0, 0.0)
    assert whole.item() == pytest.approx((alone + 0.5 * contrast + 2 * distance).item())
    assert cached.item() == pytest.approx(whole.item())
    assert_same(gradients(model, cached), gradients(model, whole))


# ---------------------------------------------------------------- train


def tiny_examples() -> tuple[list[Example], list[str], dict[str, set[int]]]:
    """The training questions, each with one answer and another question's answer as its negative."""
    chunks, _, queries = tiny_corpus()
    answers = [query["ground_truth_chunk_ids"][-1] for query in queries["train"]]
    examples = [
        Example(query["query_id"], query["query"], positive, (negative,))
        for query, positive, negative in zip(queries["train"], answers, answers[3:] + answers[:3], strict=True)
    ]
    relevant = {query["query_id"]: set(query["ground_truth_chunk_ids"]) for query in queries["train"]}
    return examples, [chunk["text"] for chunk in chunks], relevant


def fit(model: SentenceTransformer, recipe: Recipe, mini_batch_size: int = 6, seed: int = 7) -> list[float]:
    """Train on the tiny examples, by contrast in the batch alone."""
    examples, texts, relevant = tiny_examples()
    rows = {example.query_id: row for row, example in enumerate(examples)}
    labels = torch.tensor([[rows[each.query_id], each.positive_id, *each.negative_ids] for each in examples])
    teacher = unheeded(labels, dimension=32)
    return train(model, examples, texts, relevant, recipe, seed=seed, mini_batch_size=mini_batch_size, teacher=teacher)


def mean_reciprocal_rank(model: SentenceTransformer) -> float:
    examples, texts, _ = tiny_examples()
    queries = model.encode([example.query for example in examples], normalize_embeddings=True)
    positions = top_k(queries, model.encode(texts, normalize_embeddings=True), len(texts))
    return sum(
        1 / (1 + row.tolist().index(example.positive_id)) for row, example in zip(positions, examples, strict=True)
    ) / len(examples)


def weights(model: SentenceTransformer) -> dict[str, Tensor]:
    return {name: tensor.clone() for name, tensor in model.state_dict().items()}


def test_training_lowers_the_loss_and_improves_the_ranking(model: SentenceTransformer) -> None:
    before = mean_reciprocal_rank(model)
    losses = fit(model, replace(RECIPE, epochs=8))
    assert len(losses) == 8
    assert losses[-1] < losses[3] < losses[0]
    assert mean_reciprocal_rank(model) > before + 0.1


def test_training_is_deterministic_for_a_seed(tiny_model: Path) -> None:
    def trained(seed: int, mini_batch_size: int = 6) -> tuple[list[float], dict[str, Tensor]]:
        model = load_model(str(tiny_model), "cpu")
        losses = fit(model, RECIPE, mini_batch_size, seed)
        return losses, weights(model)

    losses, first = trained(1)
    torch.manual_seed(99)  # the state of the world outside does not matter
    again_losses, again = trained(1)
    assert losses == again_losses and all(torch.equal(first[name], again[name]) for name in first)
    assert any(not torch.equal(first[name], tensor) for name, tensor in trained(2)[1].items())
    small_losses, _ = trained(1, mini_batch_size=4)
    assert small_losses == pytest.approx(losses, rel=1e-4)


def test_the_batch_size_is_how_many_examples_compete(tiny_model: Path) -> None:
    """At a rate of 0 the loss is that of the same model throughout."""

    def loss(batch_size: int) -> float:
        recipe = replace(RECIPE, learning_rate=0.0, batch_size=batch_size)
        return fit(load_model(str(tiny_model), "cpu"), recipe, mini_batch_size=24)[0]

    assert loss(12) > loss(6) + 0.3 > loss(2) + 0.9


@pytest.mark.parametrize(
    ("steps", "warmup_fraction", "moves"),
    [(3, 0.0, True), (3, 0.1, True), (3, 0.5, True), (4, 0.1, False), (4, 0.0, True)],
)
def test_warm_up_begins_at_a_rate_of_0_but_in_few_steps_there_is_none(
    tiny_model: Path, steps: int, warmup_fraction: float, moves: bool
) -> None:
    """Each step is an epoch. Where the first is idle, the second meets its loss."""
    recipe = replace(RECIPE, batch_size=12, epochs=steps, warmup_fraction=warmup_fraction)
    first, second, *_ = fit(load_model(str(tiny_model), "cpu"), recipe, mini_batch_size=24)
    assert (second != pytest.approx(first, rel=1e-5)) == moves


def test_a_single_step_is_no_warm_up(tiny_model: Path) -> None:
    """Else nothing would be learnt of few examples."""
    model = load_model(str(tiny_model), "cpu")
    before = weights(model)
    fit(model, replace(RECIPE, batch_size=12, warmup_fraction=0.1), mini_batch_size=24)
    assert any(not torch.equal(before[name], tensor) for name, tensor in weights(model).items())


def test_a_trained_model_is_the_same_when_it_is_loaded_again(tmp_path: Path) -> None:
    """Also where the configuration lacks what the trainer sets in it: its embeddings are in the cache already."""
    _, texts, _ = tiny_examples()
    bert = build_tiny_model(tmp_path / "bert", texts)
    tokenizer = BertTokenizer.from_pretrained(bert)
    tokenizer.save_pretrained(tmp_path / "mpnet")
    config = MPNetConfig(vocab_size=len(tokenizer), hidden_size=32, num_hidden_layers=1, num_attention_heads=4)
    MPNetModel(config).save_pretrained(tmp_path / "mpnet")
    model = load_model(str(tmp_path / "mpnet"), "cpu")
    fit(model, RECIPE)
    model.save_pretrained(str(tmp_path / "trained"))
    assert fingerprint(load_model(str(tmp_path / "trained"), "cpu")) == fingerprint(model)


def test_a_diverged_loss_is_told(tiny_model: Path) -> None:
    recipe = replace(RECIPE, learning_rate=float("inf"), epochs=2)
    with pytest.raises(InputError, match="training diverged"):
        fit(load_model(str(tiny_model), "cpu"), recipe)


def test_distillation_holds_the_model_near_the_base(tiny_model: Path, tmp_path: Path) -> None:
    examples, texts, relevant = tiny_examples()
    base = CachedEncoder(load_model(str(tiny_model), "cpu"), tmp_path)

    def distance(weight: float) -> float:
        model = load_model(str(tiny_model), "cpu")
        recipe = replace(RECIPE, epochs=4, distillation_weight=weight)
        teacher = make_teacher(base, examples, set(), texts, model.device)
        train(model, examples, texts, relevant, recipe, seed=7, mini_batch_size=6, teacher=teacher)
        moved = model.encode(texts, normalize_embeddings=True)
        return float(1 - (moved * base.encode_passages(texts)).sum(axis=1).mean())

    alone, held = distance(0.0), distance(6.0)
    assert 0 < held < 0.75 * alone


@pytest.mark.parametrize("prompts", [{}, {"query": "asthma: ", "document": "gout: "}])
def test_the_base_model_is_no_distance_from_itself(tiny_model: Path, tmp_path: Path, prompts: dict[str, str]) -> None:
    """The teacher's rows are those of the examples, also where a question has several and chunks come unsorted; and
    what is trained is what is encoded, prompts included."""
    examples, texts, relevant = tiny_examples()
    examples = [replace(examples[-1], positive_id=0), *reversed(examples)]

    def load() -> SentenceTransformer:
        model = load_model(str(tiny_model), "cpu")
        model.prompts.update(prompts)
        return model

    base = CachedEncoder(load(), tmp_path)

    def losses(weight: float) -> list[float]:
        model = load()
        recipe = replace(RECIPE, learning_rate=0.0, distillation_weight=weight)
        teacher = make_teacher(base, examples, set(), texts, model.device)
        once = examples, texts, relevant, recipe
        return train(model, *once, seed=7, mini_batch_size=6, teacher=teacher)

    # a thousandth: bfloat16
    assert losses(6.0) == pytest.approx(losses(0.0), abs=6e-3)


def test_the_contrast_takes_in_all_candidates(tiny_model: Path, tmp_path: Path) -> None:
    """One example at a rate of 0: the base model's own cross-entropy over its two chunks and three candidates."""
    (_, example, *_), texts, relevant = tiny_examples()
    assert len(relevant[example.query_id]) == 3  # so that the others of them are seen to be left out
    base = CachedEncoder(load_model(str(tiny_model), "cpu"), tmp_path)
    others = [chunk_id for chunk_id in range(len(texts)) if chunk_id not in relevant[example.query_id]]
    candidates = {*others[-3:], *relevant[example.query_id]}

    def loss(weight: float) -> float:
        model = load_model(str(tiny_model), "cpu")
        recipe = replace(RECIPE, learning_rate=0.0, frozen_contrast_weight=weight)
        teacher = make_teacher(base, [example], candidates, texts, model.device)
        once = [example], texts, relevant, recipe
        return train(model, *once, seed=7, mini_batch_size=6, teacher=teacher)[0]

    ids = [example.positive_id, *dict.fromkeys([*example.negative_ids, *others[-3:]])]
    cosines = base.encode_passages([texts[chunk_id] for chunk_id in ids]) @ base.encode_queries([example.query])[0]
    expected = nn.functional.cross_entropy(RECIPE.scale * torch.from_numpy(cosines), torch.tensor(0)).item()
    assert (loss(1.0) - loss(0.0), loss(3.0) - loss(0.0)) == pytest.approx((expected, 3 * expected), rel=0.02)


@pytest.mark.parametrize("mini_batch_size", [12, 1])  # all at once, and cached
def test_static_embeddings_are_trained_whatever_the_memory(model: SentenceTransformer, mini_batch_size: int) -> None:
    """Their texts are one flat list, which the gradient cache cannot cut."""
    static = SentenceTransformer(modules=[StaticEmbedding(model.tokenizer.backend_tokenizer, embedding_dim=32)])
    losses = fit(static, replace(RECIPE, epochs=4, learning_rate=0.05), mini_batch_size)
    assert losses[-1] < losses[0] - 0.1


def test_training_is_without_dropout(model: SentenceTransformer) -> None:
    modes: list[bool] = []
    model.register_forward_hook(lambda *_: modes.extend(module.training for module in model.modules()))
    for mini_batch_size in (99, 6):  # all at once, and cached
        fit(model, RECIPE, mini_batch_size)
    assert modes and not any(modes)


def test_training_leaves_no_files(model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    fit(model, RECIPE)
    assert list(tmp_path.iterdir()) == []
