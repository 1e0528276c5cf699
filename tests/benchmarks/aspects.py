"""What was gained: the right topic, or the right aspect of it?

    python -m tests.benchmarks.aspects --baseline-model all-MiniLM-L6-v2 --data-dir data --split val

Besides the MRR@5 of the answers it prints that of any passage on the question's topic, how
often the first passage is of the question's type (symptoms, treatment, ...), and the MRR@5 and DCG@5 of a search that
is told the question's type and looks at passages of that type alone, which needs no training.
"""

import argparse
from collections import defaultdict
from collections.abc import Callable, Hashable, Sequence
from pathlib import Path

import numpy as np

from hardneg.corpus.artifacts import (
    SPLITS,
    Chunk,
    QAPair,
    Query,
    load_chunks,
    load_qa_pairs,
    load_queries,
    read_manifest,
)
from hardneg.corpus.normalising import normalise_topic
from hardneg.embedding.device import claim_device
from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.models import load_model
from hardneg.embedding.search import top_k
from hardneg.measuring.metrics import relative_gain, retrieval_metrics
from hardneg.running.script import run

K = 5


def main(argv: list[str] | None = None) -> None:
    """Measure both models and print every figure with its change."""
    args = parse_arguments(argv)
    manifest = read_manifest(args.data_dir)
    chunks, pairs = load_chunks(args.data_dir, manifest), load_qa_pairs(args.data_dir, manifest)
    queries = load_queries(args.data_dir, manifest, args.split)
    models, device = (args.baseline_model, args.specialized_model), claim_device(args.device)
    found = []
    for name in models:
        encoder = CachedEncoder(load_model(name, device), args.data_dir)
        vectors = encoder.encode_passages([chunk["text"] for chunk in chunks])
        asked = encoder.encode_queries([query["query"] for query in queries])
        found.append(aspects(queries, asked, chunks, vectors, pairs))
    base, adapted = found
    print(f"{len(queries):,} {args.split} questions, {models}")
    for name in base:
        print(f"  {name:<40} {said(base[name], adapted[name])}")
    for metric in ("MRR", "DCG"):
        among, plain = f"{metric}@{K}, told the type", f"{metric}@{K}"
        print(f"  {metric}@{K}: base told the type, adapted not {said(base[among], adapted[plain])}")


def parse_arguments(argv: Sequence[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = argparse.ArgumentParser(
        description="Which part of the gain is the topic, which its aspect.",
        formatter_class=argparse.ArgumentDefaultsHelpFormatter,
    )
    add = parser.add_argument
    add("--baseline-model", default="all-MiniLM-L6-v2", help="the model before")
    add("--specialized-model", default="models/medical-specialized/final", help="the model after")
    add("--data-dir", type=Path, default=Path("data"), help="what the prepare scripts wrote")
    add("--split", choices=SPLITS[1:], default="test", help="whose questions")
    add("--device", default="auto", help="auto, cpu, cuda or cuda:N")
    return parser.parse_args(argv)


def said(before: np.ndarray, after: np.ndarray) -> str:
    """Two means and the change with its interval."""
    gain = relative_gain(before, after)
    return f"{gain.base_mean:.4f} {gain.other_mean:.4f} {gain.gain:+.1%} ({gain.low:+.1%} to {gain.high:+.1%})"


def aspects(
    queries: Sequence[Query],
    query_vectors: np.ndarray,
    chunks: Sequence[Chunk],
    chunk_vectors: np.ndarray,
    pairs: Sequence[QAPair],
) -> dict[str, np.ndarray]:
    """Per question (Q,) float64 by the name of each figure; vectors are float32 (Q, d) and (C, d) with unit rows."""
    pair_of = {pair["qa_id"]: pair for pair in pairs}
    of_topic = _places(chunks, lambda qa_id: normalise_topic(pair_of[qa_id]["topic"]))
    of_type = _places(chunks, lambda qa_id: pair_of[qa_id]["qtype"])
    ranked = top_k(query_vectors, chunk_vectors, K)
    answers = [set(query["ground_truth_chunk_ids"]) for query in queries]
    plain = retrieval_metrics(ranked, answers, K)
    topics = [of_topic[normalise_topic(query["topic"])] for query in queries]
    told = _told_the_type(queries, query_vectors, chunk_vectors, of_type)
    return {
        f"MRR@{K}": plain["MRR"],
        f"DCG@{K}": plain["DCG"],
        f"MRR@{K} of any passage on the topic": retrieval_metrics(ranked, topics, K)["MRR"],
        "first passage of the question's type": np.array(
            [float(row[0] in of_type[query["qtype"]]) for query, row in zip(queries, ranked.tolist(), strict=True)]
        ),
        f"MRR@{K}, told the type": told["MRR"],
        f"DCG@{K}, told the type": told["DCG"],
    }


def _places(chunks: Sequence[Chunk], label: Callable[[str], Hashable]) -> dict[Hashable, set[int]]:
    """Label of a question/answer pair -> the chunks that are part of an answer with it."""
    places: dict[Hashable, set[int]] = defaultdict(set)
    for chunk in chunks:
        for qa_id in chunk["qa_ids"]:
            places[label(qa_id)].add(chunk["chunk_id"])
    return places


def _told_the_type(
    queries: Sequence[Query], query_vectors: np.ndarray, chunk_vectors: np.ndarray, of_type: dict[Hashable, set[int]]
) -> dict[str, np.ndarray]:
    """`retrieval_metrics` of a search among the passages of each question's own type."""
    values = {name: np.zeros(len(queries)) for name in ("MRR", "DCG")}
    for qtype in dict.fromkeys(query["qtype"] for query in queries):
        rows = [row for row, query in enumerate(queries) if query["qtype"] == qtype]
        ids = np.array(sorted(of_type[qtype]))
        ranked = top_k(query_vectors[rows], chunk_vectors[ids], K)
        found = retrieval_metrics(ids[ranked], [set(queries[row]["ground_truth_chunk_ids"]) for row in rows], K)
        for name, of_rows in values.items():
            of_rows[rows] = found[name]
    return values


if __name__ == "__main__":
    run(main)
