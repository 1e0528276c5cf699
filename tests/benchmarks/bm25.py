"""BM25 on held-out questions: what a search by words finds, alone and together with an embedding model.

    python -m tests.benchmarks.bm25 --split test --models all-MiniLM-L6-v2 models/medical-specialized/final

Takes the same questions, passages and metrics as evaluate.py. BM25 as in Lucene, with the parameters of the library
(k1 1.5, b 0.75) and English stop words left out. Together: reciprocal rank fusion (Cormack et al. 2009) of the first
100 of each.
"""

import argparse
from collections.abc import Sequence
from pathlib import Path

import bm25s
import numpy as np

from hardneg.corpus.artifacts import SPLITS, Chunk, Query, load_chunks, load_queries, read_manifest
from hardneg.embedding.device import claim_device
from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.models import load_model
from hardneg.embedding.search import top_k
from hardneg.learning.mining import FUSION_K
from hardneg.measuring.metrics import retrieval_metrics
from hardneg.running.script import run

K = 5
DEPTH = 100


def bm25_ranking(chunks: Sequence[Chunk], queries: Sequence[Query]) -> np.ndarray:
    """The chunks of each query that BM25 ranks first, int64 (Q, min(DEPTH, C)); ties in the library's order."""
    index = bm25s.BM25()
    index.index(
        bm25s.tokenize([chunk["text"] for chunk in chunks], stopwords="en", show_progress=False), show_progress=False
    )
    asked = bm25s.tokenize([query["query"] for query in queries], stopwords="en", show_progress=False)
    positions, _ = index.retrieve(asked, k=min(DEPTH, len(chunks)), show_progress=False)
    return np.asarray(positions, np.int64)


def fused(first: np.ndarray, second: np.ndarray, k: int = K) -> np.ndarray:
    """The k best of two rankings (Q, n) by reciprocal rank fusion; ties to the lower chunk."""
    best = []
    for rows in zip(first.tolist(), second.tolist(), strict=True):
        scores: dict[int, float] = {}
        for row in rows:
            for rank, chunk_id in enumerate(row, start=1):
                scores[chunk_id] = scores.get(chunk_id, 0.0) + 1 / (FUSION_K + rank)
        best.append(sorted(scores, key=lambda chunk_id: (-scores[chunk_id], chunk_id))[:k])
    return np.array(best)


def main(argv: Sequence[str] | None = None) -> None:
    """Print the means."""
    parser = argparse.ArgumentParser(description="BM25 on held-out questions, alone and with embedding models.")
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="what the prepare scripts wrote")
    parser.add_argument("--split", choices=SPLITS[1:], default="test", help="whose questions")
    parser.add_argument("--models", nargs="*", default=[], help="embedding models to search together with")
    args = parser.parse_args(argv)
    manifest = read_manifest(args.data_dir)
    chunks, queries = load_chunks(args.data_dir, manifest), load_queries(args.data_dir, manifest, args.split)
    by_words = bm25_ranking(chunks, queries)
    rankings = {"BM25": by_words}
    device = claim_device("auto") if args.models else ""
    for name in args.models:
        encoder = CachedEncoder(load_model(name, device), args.data_dir)
        vectors = encoder.encode_passages([chunk["text"] for chunk in chunks])
        asked = encoder.encode_queries([query["query"] for query in queries])
        rankings[name] = top_k(asked, vectors, DEPTH)
        rankings[f"BM25 and {name}"] = fused(by_words, rankings[name])
    print(f"{len(queries):,} {args.split} questions among {len(chunks):,} chunks")
    answers = [set(query["ground_truth_chunk_ids"]) for query in queries]
    for name, ranked in rankings.items():
        found = retrieval_metrics(ranked, answers, K).items()
        print(f"  {name}: " + "  ".join(f"{metric}@{K} {values.mean():.4f}" for metric, values in found))


if __name__ == "__main__":
    run(main)
