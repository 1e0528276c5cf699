"""Compare ways to go on after the first iteration: one arm per run, scored on all validation questions.

    python -m tests.benchmarks.iterations --data-dir data                             # the first iteration alone
    python -m tests.benchmarks.iterations --data-dir data --second base --questions other --examples all

The second iteration mines with the first one's model and trains from it or from the base model; on the same training
questions or on as many others; on what it mined alone or on the first iteration's examples too. Graded by the answer
key, searched in the whole corpus, without averaging; the test split is never read. LOG.md keeps the figures.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

import iterative_miner as miner
from hardneg.artifacts import Chunk, Query, load_chunks, load_queries
from hardneg.encoder import CachedEncoder, load_model
from hardneg.errors import run
from hardneg.graded import open_graded
from hardneg.judge import AnswerKeyJudge
from hardneg.metrics import relative_gain
from hardneg.validation import Validator
from tests.benchmarks.arms import measure


def main(argv: Sequence[str] | None = None) -> None:
    """Train what the flags ask for and print its gains over the base model."""
    args = parse_arguments(argv)
    print(vars(args), flush=True)
    chunks = load_chunks(args.data_dir)
    drawn = miner.sample_queries(load_queries(args.data_dir, "train", len(chunks)), 2 * args.num_queries, args.seed)
    first_questions, others = drawn[: args.num_queries], drawn[args.num_queries :]
    base = load_model(args.base_model, "cpu")
    model, first = first_iteration(args, base, first_questions, chunks)
    if args.second:
        questions = first_questions if args.questions == "same" else others
        mined = mine(args, CachedEncoder(model, args.data_dir / "embeddings.sqlite"), questions, chunks)
        if args.examples == "all":
            mined = joined(first, mined)
        if args.second == "base":
            model = load_model(args.base_model, "cpu")
        train(args, model, mined, base, chunks, args.second_rate, args.seed + 1)
    report(args, base, model, chunks)


def first_iteration(
    args: argparse.Namespace, base: SentenceTransformer, questions: list[Query], chunks: list[Chunk]
) -> tuple[SentenceTransformer, miner.Mined]:
    """The first iteration's model, trained once per setting and kept in --models, and what it was trained on."""
    mined = mine(args, CachedEncoder(base, args.data_dir / "embeddings.sqlite"), questions, chunks)
    settings = [args.num_queries, args.negatives, args.max_positives, args.learning_rate, args.epochs, args.seed]
    kept = args.models / "-".join(f"{value:g}" for value in settings)
    if kept.exists():
        return load_model(str(kept), "cpu"), mined
    model = load_model(args.base_model, "cpu")
    train(args, model, mined, base, chunks, args.learning_rate, args.seed)
    model.save_pretrained(str(kept), create_model_card=False)
    return model, mined


def mine(args: argparse.Namespace, encoder: CachedEncoder, questions: list[Query], chunks: list[Chunk]) -> miner.Mined:
    """What the encoder's model ranks wrongly among its candidates for the questions."""
    index = miner.training_index(encoder, chunks, encoder.encode([chunk["text"] for chunk in chunks]))
    lists = miner.retrieve_candidates(questions, args.num_candidates, index=index)
    lists = miner.llm_judge_relevance(lists, chunks, AnswerKeyJudge())
    mined = miner.mine_hard_examples(lists, negatives=args.negatives, max_positives=args.max_positives)
    print(
        f"{len(mined.examples)} examples, {len(mined.hard_positives)} hard positives, {dict(mined.counts)}", flush=True
    )
    return mined


def joined(first: miner.Mined, second: miner.Mined) -> miner.Mined:
    """The examples of both, with what either knows to be relevant."""
    relevant = {
        query_id: first.relevant.get(query_id, set()) | second.relevant.get(query_id, set())
        for query_id in first.relevant | second.relevant
    }
    return replace(second, examples=first.examples + second.examples, relevant=relevant)


def train(
    args: argparse.Namespace,
    model: SentenceTransformer,
    mined: miner.Mined,
    base: SentenceTransformer,
    chunks: list[Chunk],
    rate: float,
    seed: int,
) -> None:
    """Fine-tune in place with the miner's recipe."""
    recipe = replace(miner.RECIPE, learning_rate=rate, epochs=args.epochs)
    encoder = CachedEncoder(base, args.data_dir / "embeddings.sqlite")
    print("epoch losses", miner.fine_tune(model, mined, chunks, recipe, seed, encoder), flush=True)


def report(
    args: argparse.Namespace, base: SentenceTransformer, model: SentenceTransformer, chunks: list[Chunk]
) -> None:
    """Print the gains over the base model with their intervals."""
    cache = args.data_dir / "embeddings.sqlite"
    validator = Validator(chunks, load_queries(args.data_dir, "val", len(chunks)), None)
    graded = [open_graded(name) for name in args.graded]
    before, after = (measure(CachedEncoder(each, cache), validator, graded) for each in (base, model))
    for name, values in after.items():
        gain = relative_gain(before[name], values)
        print(
            f"{name} {np.mean(before[name]):.4f} -> {np.mean(values):.4f}  "
            f"{gain.gain:+.1%} ({gain.low:+.1%} to {gain.high:+.1%})",
            flush=True,
        )


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--data-dir", type=Path, default=Path("data"), help="what the prepare scripts wrote")
    add("--models", type=Path, default=Path("models/iterations"), help="where first iterations' models are kept")
    add("--base-model", default="all-MiniLM-L6-v2", help="model to adapt")
    add("--graded", nargs="*", default=["bundled"], help="graded sets: JSONL files, or bundled")
    add("--num-queries", type=int, default=500, help="training questions of an iteration")
    add("--num-candidates", type=int, default=50, help="candidates per question")
    add("--second", choices=("last", "base"), help="the second iteration trains from this model")
    add("--questions", choices=("same", "other"), default="same", help="of the second iteration")
    add("--examples", choices=("new", "all"), default="new", help="of the second iteration")
    add("--second-rate", type=float, default=miner.RECIPE.learning_rate, help="learning rate of the second iteration")
    add("--negatives", type=int, default=miner.NEGATIVES_PER_EXAMPLE, help="hard negatives per example")
    add("--max-positives", type=int, default=miner.MAX_POSITIVES, help="examples per question")
    add("--learning-rate", type=float, default=miner.RECIPE.learning_rate, help="of the first iteration")
    add("--epochs", type=int, default=miner.RECIPE.epochs, help="passes over the examples")
    add("--seed", type=int, default=42, help="of samples and training order")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(main)
