"""BM25 on held-out questions: what a search by words finds, without any embedding model.

    python -m tests.benchmarks.bm25 --split test

Takes the same questions, passages and metrics as evaluate.py. BM25 as in Lucene, with the parameters of the library
(k1 1.5, b 0.75) and English stop words left out.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np

from hardneg.artifacts import SPLITS, Chunk, Query, load_chunks, load_queries
from hardneg.metrics import retrieval_metrics
from hardneg.script import run

K = 5


def bm25_metrics(chunks: Sequence[Chunk], queries: Sequence[Query]) -> dict[str, np.ndarray]:
    """`retrieval_metrics` at K of every question, by BM25 over all the chunks; ties in the library's order."""
    index = bm25s.BM25()
    index.index(
        bm25s.tokenize([chunk["text"] for chunk in chunks], stopwords="en", show_progress=False), show_progress=False
    )
    asked = bm25s.tokenize([query["query"] for query in queries], stopwords="en", show_progress=False)
    positions, _ = index.retrieve(asked, k=min(K, len(chunks)), show_progress=False)
    ranked = np.array([chunk["chunk_id"] for chunk in chunks])[positions]
    return retrieval_metrics(ranked, [set(query["ground_truth_chunk_ids"]) for query in queries], K)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the means."""
    parser = argparse.ArgumentParser(description="BM25 on held-out questions.")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="what the prepare scripts wrote")
    parser.add_argument("--split", choices=SPLITS[1:], default="test", help="whose questions")
    args = parser.parse_args(argv)
    chunks = load_chunks(args.data_dir)
    queries = load_queries(args.data_dir, args.split)
    metrics = bm25_metrics(chunks, queries)
    means = "  ".join(f"{name}@{K} {values.mean():.4f}" for name, values in metrics.items())
    print(f"BM25, {len(queries):,} {args.split} questions among {len(chunks):,} chunks: {means}")


if __name__ == "__main__":
    run(main)
