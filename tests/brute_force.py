"""What models find in the tiny corpus by plain loops over plain sentence-transformers: an independent measurement."""

from collections.abc import Set as AbstractSet
from pathlib import Path

import numpy as np
from sentence_transformers import SentenceTransformer

from tests.tiny_data import tiny_corpus


def brute_force(model: Path, split: str, k: int, left_out: AbstractSet[int] = frozenset()) -> tuple[float, float]:
    """MRR@k and DCG@k of a split's questions, in the chunks but those left out."""
    encoder = SentenceTransformer(str(model), device="cpu")
    chunks, _, queries = tiny_corpus()
    chunk_vectors = encoder.encode_document([chunk["text"] for chunk in chunks])
    reciprocal, gained = 0.0, 0.0
    for query in queries[split]:
        similarities = chunk_vectors @ encoder.encode_query(query["query"])
        searched = (chunk_id for chunk_id in range(len(chunks)) if chunk_id not in left_out)
        order = sorted(searched, key=lambda chunk_id: -similarities[chunk_id])[:k]
        ranks = [rank for rank, chunk_id in enumerate(order, 1) if chunk_id in query["ground_truth_chunk_ids"]]
        reciprocal += 1 / ranks[0] if ranks else 0
        gained += sum(1 / np.log2(rank + 1) for rank in ranks)
    return reciprocal / len(queries[split]), gained / len(queries[split])
