"""Compare training recipes on the same candidates and grades: one arm per run, one line per strength.

    python -m tests.benchmarks.arms --data-dir data --graded bundled FILE --distillation 1

Graded by the answer key, scored on validation questions (a pool of them, as the miner compares strengths) and on
graded sets; the test split is never read. LOG.md keeps the figures.
"""

import argparse
import time
from collections.abc import Sequence
from pathlib import Path

import iterative_miner as miner
from hardneg.artifacts import load_chunks, load_queries
from hardneg.averaging import average_weights
from hardneg.encoder import CachedEncoder, load_model
from hardneg.errors import run
from hardneg.graded import GradedSet, graded_path, load_graded, score_graded
from hardneg.judge import AnswerKeyJudge
from hardneg.validation import Validator


def main(argv: Sequence[str] | None = None) -> None:
    """Mine with the base model, train one arm, print validation and graded figures at every strength."""
    args = parse_arguments(argv)
    print({name: value for name, value in vars(args).items() if name != "graded"})
    cache = args.data_dir / "embeddings.sqlite"
    chunks = load_chunks(args.data_dir)
    base, tuned = load_model(args.base_model, "cpu"), load_model(args.base_model, "cpu")
    encoder = CachedEncoder(base, cache)
    queries = miner.sample_queries(load_queries(args.data_dir, "train", len(chunks)), args.num_queries, args.seed)
    index = miner.training_index(encoder, chunks, encoder.encode([chunk["text"] for chunk in chunks]))
    lists = miner.retrieve_candidates(queries, args.num_candidates, index=index)
    lists = miner.llm_judge_relevance(lists, chunks, AnswerKeyJudge())
    mined = miner.mine_hard_examples(lists, negatives=args.negatives, max_positives=args.max_positives)
    pool = Validator(chunks, load_queries(args.data_dir, "val", len(chunks)), None).pool(
        encoder, args.pool_queries, args.pool_depth, args.seed
    )
    for model in (base, tuned):  # the candidates are the same for every length
        model.max_seq_length = args.max_seq_length or model.max_seq_length
    encoder = CachedEncoder(base, cache)
    graded = [load_graded(graded_path(name)) for name in args.graded]
    before = measure(encoder, pool, graded)
    print("base", {name: round(value, 4) for name, value in before.items()}, flush=True)

    miner.EPOCHS, miner.LEARNING_RATE, miner.DISTILLATION_WEIGHT = args.epochs, args.learning_rate, args.distillation
    started = time.monotonic()
    losses = miner.fine_tune(tuned, mined, chunks, args.seed, encoder, args.batch_size)
    print(f"{len(mined.examples)} examples, losses {losses}, {time.monotonic() - started:.0f} s", flush=True)
    weights = {name: tensor.clone() for name, tensor in tuned.state_dict().items()}
    for strength in args.strengths:
        tuned.load_state_dict(weights)
        average_weights(base, tuned, strength)
        after = measure(CachedEncoder(tuned, cache), pool, graded)
        changes = "  ".join(f"{name} {value / before[name] - 1:+.1%}" for name, value in after.items())
        print(f"strength {strength:g}: {changes}", flush=True)


def measure(encoder: CachedEncoder, pool: Validator, graded: Sequence[GradedSet]) -> dict[str, float]:
    """Means on the validation pool and on every graded set."""
    score = pool.score(encoder)
    figures = {"MRR@5": score.mrr, "DCG@5": score.dcg}
    for each in graded:
        found = score_graded(encoder, each)
        figures |= {f"{each.name} {name}": float(found[name].mean()) for name in ("nDCG@10", "MRR@5")}
    return figures


def parse_arguments(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(formatter_class=argparse.ArgumentDefaultsHelpFormatter)
    add = parser.add_argument
    add("--data-dir", type=Path, default=Path("data"), help="what the prepare scripts wrote")
    add("--base-model", default="all-MiniLM-L6-v2", help="model to adapt")
    add("--graded", nargs="*", default=["bundled"], help="graded sets: JSONL files, or bundled")
    add("--num-queries", type=int, default=500, help="training questions")
    add("--num-candidates", type=int, default=50, help="candidates per question")
    add("--negatives", type=int, default=miner.NEGATIVES_PER_EXAMPLE, help="hard negatives per example")
    add("--max-positives", type=int, default=miner.MAX_POSITIVES, help="examples per question")
    add("--batch-size", type=int, default=miner.BATCH_SIZE, help="examples per step")
    add("--learning-rate", type=float, default=miner.LEARNING_RATE, help="peak learning rate")
    add("--epochs", type=int, default=miner.EPOCHS, help="passes over the examples")
    add("--distillation", type=float, default=miner.DISTILLATION_WEIGHT, help="weight of staying near the base model")
    add("--max-seq-length", type=int, help="tokens read of a text: fewer for quick comparisons")
    add("--strengths", type=float, nargs="+", default=[1.0, 0.6], help="shares of the tuned weights to score")
    add("--pool-queries", type=int, default=150, help="validation questions to score on")
    add("--pool-depth", type=int, default=8, help="the base model's candidates per validation question in the pool")
    add("--seed", type=int, default=42, help="of samples and training order")
    return parser.parse_args(argv)


if __name__ == "__main__":
    run(main)
