"""Map every question to all chunks that answer it, and write the train, val and test queries.

    python prepare_queries.py

Reads what prepare_corpus.py wrote to --data-dir; writes {train,val,test}_queries.pkl and queries_sample.json there and
notes them in manifest.json. Next: test_small_sample.py, then iterative_miner.py.
"""

import argparse
import hashlib
from collections import Counter
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from hardneg.corpus.artifacts import SPLITS, Chunk, QAPair, Query, load_chunks, load_qa_pairs, read_manifest, spread
from hardneg.corpus.normalising import normalise_question
from hardneg.running import flag_types
from hardneg.running.files import json_bytes, pickle_bytes, write_files, write_json
from hardneg.running.script import run
from hardneg.running.tables import aligned

SAMPLE_QUERIES = 5  # of each split, in queries_sample.json


def main(argv: list[str] | None = None) -> None:
    """Read the pairs, make the queries, write and report them."""
    args = parse_arguments(argv)
    manifest = read_manifest(args.data_dir)
    chunks, pairs = load_chunks(args.data_dir, manifest), load_qa_pairs(args.data_dir, manifest)
    queries = build_queries(pairs)
    report = {split: count_queries(queries[split]) for split in SPLITS}
    write_queries(args.data_dir, manifest, queries, chunks, report)
    print_report(report)
    print(f"\nWrote {sum(map(len, queries.values())):,} queries to {args.data_dir}")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = flag_types.Parser(__doc__)
    parser.add_argument("--data-dir", type=Path, default=Path("data"), help="folder prepare_corpus.py wrote to")
    return parser.parse_args(argv)


def build_queries(pairs: Sequence[QAPair]) -> dict[str, list[Query]]:
    """Make one query per different question, in the order of the source, with the chunks of all its rows."""
    queries: dict[str, list[Query]] = {split: [] for split in SPLITS}
    rows_of: dict[str, list[QAPair]] = {}
    for pair in pairs:
        rows_of.setdefault(normalise_question(pair["question"]), []).append(pair)
    for question, rows in rows_of.items():
        first = rows[0]
        if any(row["split"] != first["split"] for row in rows):
            raise AssertionError(f"the question {question!r} is in several splits, which prepare_corpus.py rules out")
        queries[first["split"]].append(
            Query(
                query_id="q" + hashlib.sha256(question.encode()).hexdigest()[:12],
                query=first["question"],
                ground_truth_chunk_ids=sorted({chunk_id for row in rows for chunk_id in row["chunk_ids"]}),
                qtype=first["qtype"],
                topic=first["topic"],
                group=first["group"],
            )
        )
    return queries


def count_queries(queries: Sequence[Query]) -> dict[str, Any]:
    """Queries by type and the spread of the number of chunks that answer one."""
    answers = [len(query["ground_truth_chunk_ids"]) for query in queries]
    quantiles = np.quantile(answers, (0, 0.5, 0.95, 1)).astype(int).tolist()
    return {
        "queries": len(queries),
        "chunks_per_query": {
            **dict(zip(("min", "50%", "95%", "max"), quantiles, strict=True)),
            "mean": round(sum(answers) / len(answers), 2),
        },
        "queries_by_type": dict(Counter(query["qtype"] for query in queries).most_common()),
    }


def write_queries(
    data_dir: Path,
    manifest: dict[str, Any],
    queries: dict[str, list[Query]],
    chunks: Sequence[Chunk],
    report: dict[str, Any],
) -> None:
    """Write all files, last the manifest, which is the corpus's too and stays: what it does not tell of is not read."""
    files = {f"{split}_queries.pkl": pickle_bytes(queries[split]) for split in SPLITS}
    checksums = {name: hashlib.sha256(payload).hexdigest() for name, payload in files.items()}
    sample = {
        split: [with_answers(query, chunks) for query in spread(queries[split], SAMPLE_QUERIES)] for split in SPLITS
    }
    write_files(data_dir, {**files, "queries_sample.json": json_bytes(sample)})
    write_json(data_dir / "manifest.json", {**manifest, "queries": {"sha256": checksums, "report": report}})


def with_answers(query: Query, chunks: Sequence[Chunk]) -> dict[str, Any]:
    """The query with the texts of the chunks that answer it, for reading."""
    return {**query, "ground_truth_texts": [chunks[chunk_id]["text"] for chunk_id in query["ground_truth_chunk_ids"]]}


def print_report(report: dict[str, dict[str, Any]]) -> None:
    """Queries by type and split, and how many chunks answer one."""
    print("QUERIES BY TYPE")
    types = dict.fromkeys(name for split in SPLITS for name in report[split]["queries_by_type"])
    by_type = [(name, *(report[split]["queries_by_type"].get(name, 0) for split in SPLITS)) for name in types]
    print(aligned([("", *SPLITS), *by_type, ("all", *(report[split]["queries"] for split in SPLITS))]))
    print("\nCHUNKS PER QUERY")
    spreads = [(split, *report[split]["chunks_per_query"].values()) for split in SPLITS]
    print(aligned([("", *report["train"]["chunks_per_query"]), *spreads]))


if __name__ == "__main__":
    run(main)
