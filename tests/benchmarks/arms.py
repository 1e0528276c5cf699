"""Compare training recipes on the same candidates and grades: one arm per run, a line of JSON per strength.

    python tests/benchmarks/arms.py --data-dir data --guard FILE --num-queries 600 --negatives 2

Validation questions only (a pool of them, against the base model's candidates, as the miner chooses strengths); the
test split is never read. Arms are told apart by their flags, which are part of every line. See LOG.md for figures.
"""

import argparse
import json
import time
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import iterative_miner as miner
from hardneg.artifacts import load_chunks, load_queries
from hardneg.averaging import try_strengths
from hardneg.encoder import CachedEncoder, load_model
from hardneg.errors import run
from hardneg.judge import AnswerKeyJudge
from hardneg.validation import Validator


def main(argv: Sequence[str] | None = None) -> None:
    """Mine with the base model, train one arm, print validation and guard figures at every strength."""
    args = parse_arguments(argv)
    chunks = load_chunks(args.data_dir)
    base = load_model(args.base_model, "cpu")
    cache = args.data_dir / "embeddings.sqlite"
    encoder = CachedEncoder(base, cache)
    queries = miner.sample_queries(load_queries(args.data_dir, "train", len(chunks)), args.num_queries, args.seed)
    vectors = encoder.encode([chunk["text"] for chunk in chunks])
    index = miner.training_index(encoder, chunks, vectors)
    lists = miner.retrieve_candidates(queries, args.num_candidates, index=index)
    lists = miner.llm_judge_relevance(lists, chunks, AnswerKeyJudge())
    mined = miner.mine_hard_examples(lists, negatives=args.negatives, max_positives=args.max_positives)
    validator = Validator(chunks, load_queries(args.data_dir, "val", len(chunks)), miner.open_guard(args.guard))
    pool = validator.pool(encoder, args.pool_queries, miner.POOL_DEPTH, args.seed)
    tuned = load_model(args.base_model, "cpu")
    miner.EPOCHS, miner.LEARNING_RATE, miner.DISTILLATION_WEIGHT = args.epochs, args.learning_rate, args.distillation
    started = time.monotonic()
    losses = miner.fine_tune(tuned, mined, chunks, args.seed, encoder, args.batch_size)
    arm = {name: str(value) for name, value in vars(args).items() if name not in ("data_dir", "strengths")}
    print(
        json.dumps(
            {"arm": arm, "examples": len(mined.examples), "losses": losses, "seconds": time.monotonic() - started}
        )
    )
    base_score = pool.score(encoder)
    print("base", miner.describe(base_score, base_score), flush=True)
    for tried in try_strengths(
        base, tuned, args.strengths, lambda model: pool.score(CachedEncoder(model, cache)), lambda tried: tried[0]
    ):
        print(f"{tried.strength:g}", miner.describe(tried.score, base_score), json.dumps(asdict(tried)), flush=True)


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--data-dir", type=Path, default=Path("data"), help="what the prepare scripts wrote")
    add("--base-model", default="all-MiniLM-L6-v2", help="model to adapt")
    add("--guard", default="bundled", help="graded questions: a JSONL file, bundled or none")
    add("--num-queries", type=int, default=600, help="training questions")
    add("--num-candidates", type=int, default=50, help="candidates per question")
    add("--negatives", type=int, default=miner.NEGATIVES_PER_EXAMPLE, help="hard negatives per example")
    add("--max-positives", type=int, default=miner.MAX_POSITIVES, help="examples per question")
    add("--batch-size", type=int, default=miner.BATCH_SIZE, help="examples per step")
    add("--learning-rate", type=float, default=miner.LEARNING_RATE, help="peak learning rate")
    add("--epochs", type=int, default=miner.EPOCHS, help="passes over the examples")
    add("--distillation", type=float, default=miner.DISTILLATION_WEIGHT, help="weight of staying near the base model")
    add("--strengths", type=float, nargs="+", default=[1.0, 0.6], help="shares of the tuned weights to score")
    add("--pool-queries", type=int, default=miner.POOL_QUERIES, help="validation questions to score on")
    add("--seed", type=int, default=42, help="of samples and training order")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(main)
