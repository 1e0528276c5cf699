"""Compare training recipes on the same candidates and grades: one arm per run, one line per strength.

    python -m tests.benchmarks.arms --data-dir data --graded bundled FILE --distillation 1
    python -m tests.benchmarks.arms --loss triplet --batch-size 8 --strengths 1

Graded by the answer key, scored on validation questions (a pool of them, as the miner compares strengths) and on
graded sets; the test split is never read. LOG.md keeps the figures.
"""

import argparse
import random
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from functools import partial
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

import iterative_miner as miner
from hardneg.corpus.artifacts import Chunk, Query, load_chunks, load_queries, read_manifest
from hardneg.corpus.chunking import split_sentences
from hardneg.corpus.normalising import names_topic, normalise_topic
from hardneg.corpus.topics import boilerplate_ids
from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.models import load_model
from hardneg.judging.candidates import Candidate, CandidateList, Index, training_index
from hardneg.judging.judge import AnswerKeyJudge
from hardneg.learning.averaging import average_weights, weights_of
from hardneg.learning.mining import Mined, check_examples
from hardneg.learning.validation import Validator
from hardneg.measuring.graded import GradedSet, open_graded, score_graded
from hardneg.measuring.metrics import relative_gain
from hardneg.running.errors import InputError
from hardneg.running.script import run
from test_small_sample import sample_over_types
from tests.benchmarks.losses import LOSSES, train_with
from tests.benchmarks.paraphrased import WORDINGS, paraphrase

View = Callable[[Query, int, random.Random], str]  # another question with the same answer, of a query and its positive
TRAINED_WORDINGS, HELD_OUT_WORDINGS = slice(0, 2), slice(2, 3)  # of each type's three
UNUSED = None  # a grade as if nobody had judged: neither a positive nor a negative


def main(argv: Sequence[str] | None = None) -> None:
    """Mine with the base model, train one arm, print validation and graded figures at every strength."""
    args = parse_arguments(argv)
    print({name: value for name, value in vars(args).items() if name != "graded"})
    manifest = read_manifest(args.data_dir)
    chunks = load_chunks(args.data_dir, manifest)
    base, tuned = load_model(args.base_model, "cpu"), load_model(args.base_model, "cpu")
    encoder = CachedEncoder(base, args.data_dir)
    lists = candidates(args, encoder, chunks, load_queries(args.data_dir, manifest, "train"))
    queries = load_queries(args.data_dir, manifest, "val")
    in_held_out_words = [reworded(query, HELD_OUT_WORDINGS) for query in queries if query["qtype"] in WORDINGS]
    apart = [query for query in queries if is_any_of(query, args.apart, chunks)]
    pools = {
        name: Validator(chunks, asked, None, encoder).pool(args.pool_queries, args.pool_depth, args.seed)
        for name, asked in (("", queries), ("reworded ", in_held_out_words), ("apart ", apart))
        if asked
    }
    for model in (base, tuned):  # the candidates are the same for every length
        model.max_seq_length = args.max_seq_length or model.max_seq_length
    encoder = CachedEncoder(base, args.data_dir)
    graded = [open_graded(name) for name in args.graded]
    before = measure(encoder, pools, graded)
    print("base", {name: round(float(values.mean()), 4) for name, values in before.items()}, flush=True)

    train_arm(args, tuned, encoder, lists, chunks, Validator(chunks, queries, None, encoder))
    base_weights, tuned_weights = base.state_dict(), weights_of(tuned)
    for strength in args.strengths:
        average_weights(tuned, base_weights, tuned_weights, strength)
        after = measure(CachedEncoder(tuned, args.data_dir), pools, graded)
        gains = {name: relative_gain(before[name], values) for name, values in after.items()}
        changes = [f"{name} {gain.gain:+.1%} ({gain.low:+.1%} to {gain.high:+.1%})" for name, gain in gains.items()]
        print(f"strength {strength:g}: {'  '.join(changes)}", flush=True)


def candidates(
    args: argparse.Namespace, encoder: CachedEncoder, chunks: list[Chunk], queries: list[Query]
) -> list[CandidateList]:
    """The base model's candidates for a sample of the training questions, graded."""
    index = training_index(encoder, chunks, encoder.encode_passages([chunk["text"] for chunk in chunks]))
    if args.left_out:
        queries = [query for query in queries if not is_any_of(query, args.apart, chunks)]
    queries = missed(queries, index) if args.missed else queries
    sample = sample_over_types if args.over_types else partial(miner.sample_queries, number=0)
    queries = sample(queries, args.num_queries, seed=args.seed)
    lists = miner.retrieve_candidates(queries, args.num_candidates, index=index)
    lists = miner.llm_judge_relevance(lists, chunks, AnswerKeyJudge())
    if args.margin:
        lists = [within_margin(item, args.margin) for item in lists]
    if args.same_page:
        lists = same_page(lists, chunks, args.negatives * args.max_positives, args.seed)
    return [hardest_positives(item, args.max_positives) for item in lists] if args.hardest else lists


def is_any_of(query: Query, names: Sequence[str], chunks: Sequence[Chunk]) -> bool:
    """Whether the query's type, or the source of one of its answers, is among `names`."""
    sources = {chunks[chunk_id]["source"] for chunk_id in query["ground_truth_chunk_ids"]}
    return not sources.union([query["qtype"]]).isdisjoint(names)


def missed(queries: Sequence[Query], index: Index) -> list[Query]:
    """The questions that have no right chunk at rank 1."""
    found = miner.retrieve_candidates(queries, 1, index=index)
    return [item.query for item in found if not item.candidates[0].known]


def within_margin(item: CandidateList, margin: float) -> CandidateList:
    """Only what is clearly further from the question than its nearest answer stays a negative.

    Candidates of a cosine above margin * the answer's are neither positives nor negatives: the positive-aware margin
    of NV-Retriever (arXiv 2407.15831), there 0.95.
    """
    best = max((candidate.cosine for candidate in item.candidates if candidate.known), default=0.0)
    return item._replace(
        candidates=tuple(
            candidate if candidate.known or candidate.cosine <= margin * best else replace(candidate, grade=UNUSED)
            for candidate in item.candidates
        ),
    )


def same_page(lists: Sequence[CandidateList], chunks: Sequence[Chunk], at_least: int, seed: int) -> list[CandidateList]:
    """The answers, and in random order what stands on their topic's page besides: negatives that nobody searched.

    Where the page has fewer than `at_least`, random passages of the training split fill up.
    """
    rng = random.Random(seed)
    trained = [chunk for chunk in chunks if chunk["split"] == "train"]
    pages: dict[str, list[int]] = {}
    for chunk in trained:
        pages.setdefault(normalise_topic(chunk["title"]), []).append(chunk["chunk_id"])
    found = []
    for item in lists:
        answers = [candidate for candidate in item.candidates if candidate.known]
        page = pages.get(normalise_topic(item.query["topic"]), [])
        others = rng.sample(page, len(page)) + [chunk["chunk_id"] for chunk in rng.sample(trained, at_least)]
        others = [
            chunk_id for chunk_id in dict.fromkeys(others) if chunk_id not in item.query["ground_truth_chunk_ids"]
        ]
        wrong = [Candidate(chunk_id, rank, 0.0, False, 1.0) for rank, chunk_id in enumerate(others[:at_least], start=1)]
        found.append(item._replace(candidates=(*answers, *wrong)))
    return found


def without_name(chunks: Sequence[Chunk]) -> frozenset[int]:
    """The chunks that do not name their topic."""
    return frozenset(chunk["chunk_id"] for chunk in chunks if not names_topic(chunk["text"], chunk["title"]))


def hardest_positives(item: CandidateList, count: int) -> CandidateList:
    """Only the `count` positives that rank lowest are left; the others are neither positives nor negatives."""
    positives = [candidate for candidate in item.candidates if (candidate.grade or 0) >= miner.MINING.relevant_grade]
    dropped = {candidate.chunk_id for candidate in positives[:-count]}
    return item._replace(
        candidates=tuple(
            replace(candidate, known=False, grade=UNUSED) if candidate.chunk_id in dropped else candidate
            for candidate in item.candidates
        ),
    )


def with_views(
    mined: Mined, lists: Sequence[CandidateList], share: float, seed: int, view_of: View, added: bool = False
) -> Mined:
    """The same examples, but a share of the questions asked otherwise, instead or in addition."""
    rng = random.Random(seed)
    asked = {item.query["query_id"]: item.query for item in lists}
    examples, spared = [], dict(mined.spared)
    for number, example in enumerate(mined.examples):
        asked_otherwise = rng.random() < share
        if added or not asked_otherwise:
            examples.append(example)
        if asked_otherwise:
            spared[f"view {number}"] = mined.spared[example.query_id]
            view = view_of(asked[example.query_id], example.positive_id, rng)
            examples.append(replace(example, query_id=f"view {number}", query=view))
    return replace(mined, examples=examples, spared=spared)


def keywords_or_sentence(chunks: Sequence[Chunk]) -> View:
    """Views that need no writing: topic and type, or a sentence of the answer."""

    def view(query: Query, positive_id: int, rng: random.Random) -> str:
        sentences = list(split_sentences(chunks[positive_id]["text"]))
        return rng.choice([f"{query['topic']} {query['qtype']}".lower(), rng.choice(sentences)])

    return view


def in_other_words(query: Query, positive_id: int, rng: random.Random) -> str:
    """The question in one of the two wordings of its type that training may see; the third is kept for scoring."""
    return reworded(query, TRAINED_WORDINGS)["query"]


def reworded(query: Query, among: slice) -> Query:
    """The query in other words, or as it is where its type has none."""
    return paraphrase(query, among) if query["qtype"] in WORDINGS else query


def train_arm(
    args: argparse.Namespace,
    model: SentenceTransformer,
    base: CachedEncoder,
    lists: list[CandidateList],
    chunks: list[Chunk],
    validator: Validator,
) -> None:
    """Fine-tune `model` in place as the flags say."""
    rules = replace(miner.MINING, negatives=args.negatives, max_positives=args.max_positives)
    avoided = boilerplate_ids(chunks) | (without_name(chunks) if args.named else frozenset())
    mined = miner.mine_hard_examples(lists, avoided, rules)
    check_examples(mined)
    view_of = in_other_words if args.rewordings else keywords_or_sentence(chunks)
    mined = with_views(mined, lists, args.views or args.rewordings, args.seed, view_of, args.added)
    started = time.monotonic()
    recipe = replace(
        miner.RECIPE,
        epochs=args.epochs,
        batch_size=args.batch_size,
        learning_rate=args.learning_rate,
        scale=args.scale,
        frozen_contrast_weight=args.frozen,
        distillation_weight=args.distillation,
    )
    if args.loss == "contrast":
        recipe = miner.with_scale(recipe, validator, args.seed)
        print(miner.fine_tune(model, mined, chunks, recipe, args.seed, base))
    else:
        train_with(args.loss, model, mined.examples, lists, chunks, recipe, args.seed)
    print(f"{len(mined.examples)} examples, {time.monotonic() - started:.0f} s", flush=True)


def measure(
    encoder: CachedEncoder, pools: Mapping[str, Validator], graded: Sequence[GradedSet]
) -> dict[str, np.ndarray]:
    """Values per question of the validation pools and of every graded set."""
    values: dict[str, np.ndarray] = {}
    for name, pool in pools.items():
        metrics = pool.metrics(encoder)
        values |= {f"{name}MRR@5": metrics["MRR"], f"{name}DCG@5": metrics["DCG"]}
    for each in graded:
        found = score_graded(encoder, each)
        values |= {f"{each.name} {name}": found[name] for name in ("nDCG@10", "MRR@5")}
    return values


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--data-dir", type=Path, default=Path("data"), help="what the prepare scripts wrote")
    add("--base-model", default="all-MiniLM-L6-v2", help="model to adapt")
    add("--graded", nargs="*", default=["bundled"], help="graded sets: JSONL files, or bundled")
    add("--num-queries", type=int, default=500, help="training questions")
    add("--num-candidates", type=int, default=50, help="candidates per question")
    add("--loss", choices=("contrast", *LOSSES), default="contrast", help="contrast is the miner's")
    add("--negatives", type=int, default=miner.MINING.negatives, help="hard negatives per example")
    add("--max-positives", type=int, default=miner.MINING.max_positives, help="examples per question")
    add(
        "--missed", action="store_true", help="train on questions alone whose answer the base model does not rank first"
    )
    add("--over-types", action="store_true", help="take the question types in turns, so that rare ones train as much")
    add(
        "--apart", metavar="NAME", nargs="+", default=[], help="question types or sources of answers to score apart too"
    )
    add("--left-out", action="store_true", help="train on no question of --apart")
    add("--margin", type=float, help="drop negatives of a cosine above this share of the answer's, as 0.95")
    add("--same-page", action="store_true", help="negatives from the answers' own pages instead of retrieved ones")
    add(
        "--named",
        action="store_true",
        help="train on answers that do not name their topic only where there is no other",
    )
    add("--hardest", action="store_true", help="train on the positives that rank lowest, not highest")
    add("--views", type=float, default=0, help="share of the examples asked by keywords or a sentence, 0 to 1")
    add("--rewordings", type=float, default=0, help="share of the examples whose question is asked in other words")
    add("--added", action="store_true", help="train on those of --views or --rewordings beside the others, not instead")
    add_recipe_arguments(parser)
    add("--max-seq-length", type=int, help="tokens read of a text: fewer for quick comparisons")
    add("--strengths", type=float, nargs="+", default=[1.0, 0.8], help="shares of the tuned weights to score")
    add("--pool-queries", type=int, default=300, help="validation questions to score on")
    add("--pool-depth", type=int, default=5, help="the base model's candidates per validation question in the pool")
    add("--seed", type=int, default=42, help="of samples and training order")
    args = parser.parse_args(argv)
    check_arguments(args)
    return args


def add_recipe_arguments(parser: argparse.ArgumentParser) -> None:
    """What differs from iterative_miner.py's RECIPE."""
    add = parser.add_argument
    add("--batch-size", type=int, default=miner.RECIPE.batch_size, help="examples per step")
    add("--learning-rate", type=float, default=miner.RECIPE.learning_rate, help="peak learning rate")
    add("--epochs", type=int, default=miner.RECIPE.epochs, help="passes over the examples")
    add("--scale", type=float, default=miner.RECIPE.scale, help="of the cosines in the contrast; fitted if not given")
    add(
        "--frozen",
        type=float,
        default=miner.RECIPE.frozen_contrast_weight,
        help="weight of the contrast with the base model's passages",
    )
    add(
        "--distillation",
        type=float,
        default=miner.RECIPE.distillation_weight,
        help="weight of the distance from the base model",
    )


def check_arguments(args: argparse.Namespace) -> None:
    """Raise InputError where flags do not go together."""
    if args.views and args.rewordings:
        raise InputError("--views and --rewordings: an example is asked otherwise by one of them")
    if args.left_out and not args.apart:
        raise InputError("--left-out is about the questions of --apart; name their types or sources")
    if args.added and not (args.views or args.rewordings):
        raise InputError("--added is about the examples of --views or --rewordings; give one of them")
    usual = (miner.RECIPE.scale, miner.RECIPE.frozen_contrast_weight, miner.RECIPE.distillation_weight)
    of_mining = args.views or args.rewordings or args.hardest or args.margin
    if args.loss != "contrast" and (of_mining or (args.scale, args.frozen, args.distillation) != usual):
        raise InputError(
            f"--loss {args.loss} goes without --views, --rewordings, --hardest, --margin, --scale, --frozen and "
            "--distillation: they belong to contrast"
        )


if __name__ == "__main__":
    run(main)
