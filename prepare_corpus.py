"""Read question/answer pairs, cut the answers into chunks, and split them by topic into train, val and test.

    python prepare_corpus.py                                  # MedQuAD from the data hub
    python prepare_corpus.py --source sample                  # the bundled sample: needs no network
    python prepare_corpus.py --source MedQuAD/                # a git checkout of MedQuAD's XML
    python prepare_corpus.py --source faq.csv --question-column ask --answer-column reply

Writes corpus_chunks.pkl, qa_pairs.pkl, corpus_sample.json and manifest.json to --data-dir. Next: prepare_queries.py.
"""

import argparse
import hashlib
import random
import re
from collections import Counter
from collections.abc import Iterator, Sequence
from importlib.metadata import version
from pathlib import Path
from platform import python_version
from typing import Any

import numpy as np

from hardneg.corpus.artifacts import SHARED, SPLITS, Chunk, QAPair, spread
from hardneg.corpus.chunking import split_text
from hardneg.corpus.normalising import names_topic, normalise, normalise_question, normalise_topic
from hardneg.corpus.sources import FORMS, Row, read_rows, source_version
from hardneg.corpus.topics import (
    BOILERPLATE_ROWS,
    assign_splits,
    count_boilerplate,
    describe_commonest,
    group_rows,
    leakage,
    related_questions,
    topic_of,
)
from hardneg.running import flag_types
from hardneg.running.errors import InputError
from hardneg.running.files import json_bytes, pickle_bytes, write_files
from hardneg.running.script import run
from hardneg.running.tables import aligned

LARGE_GROUP = 0.1  # share of the rows; MedQuAD's largest has 6%
FEW_QUESTIONS = 30  # of a split
MIN_CHUNK_CHARS = 100  # below this a passage is no longer an answer
SAMPLE_CHUNKS = 20  # in corpus_sample.json
HTML_TAG = re.compile(
    r"</?(?:a|b|br|code|div|em|font|h[1-6]|hr|i|img|li|ol|p|pre|section|span|strong|su[bp]|table|t[dhr]|tbody|thead|u|ul)"
    r"(?:\s+[\w-]+\s*=[^<>]*)?\s*/?>",
    re.IGNORECASE,
)


def main(argv: list[str] | None = None) -> None:
    """Read the source, cut, group and split it, write and report the corpus."""
    args = parse_arguments(argv)
    columns = {"question": args.question_column, "answer": args.answer_column, "topic": args.topic_column}
    source = source_version(args.source)
    rows = read_rows(args.source, {field: name for field, name in columns.items() if name}, tell=print)
    kept = choose_topics(answered_rows(rows, args.source), args.max_topics, args.seed)
    passages = [split_text(row.answer, args.chunk_chars) for row in kept]
    texts = [titled(row, found) for row, found in zip(kept, passages, strict=True)] if args.title_in_text else passages

    groups = group_rows(kept, passages, texts)
    questions = [normalise_question(row.question) for row in kept]
    splits = assign_splits(groups, questions, args.val_fraction, args.test_fraction, args.seed)
    chunks, pairs = build_corpus(kept, texts, groups, splits)

    report = {
        "rows": count_rows(rows, kept),
        "chunks": count_chunks(chunks, passages),
        "splits": count_splits(pairs),
        "leakage": leakage(chunks, pairs),
        "related_questions": {split: len(related) for split, related in related_questions(pairs).items()},
        "boilerplate": count_boilerplate(chunks, pairs),
    }
    if any(report["leakage"].values()):
        raise AssertionError(f"the splits leak, which their construction rules out: {report['leakage']}")
    write_corpus(args, source, chunks, pairs, report)
    print_report(report)
    for warning in split_warnings(pairs, report["splits"]):
        print(warning)
    print(f"\nWrote {len(chunks):,} chunks and {len(pairs):,} question/answer pairs to {args.data_dir}")


def parse_arguments(argv: list[str] | None) -> argparse.Namespace:
    """The command line."""
    parser = flag_types.Parser(__doc__)
    add = parser.add_argument
    add("--source", default="lavita/MedQuAD", help=FORMS)
    add("--question-column", metavar="NAME", help="column of the questions, where its name is not a usual one")
    add("--answer-column", metavar="NAME", help="column of the answers, where its name is not a usual one")
    add("--topic-column", metavar="NAME", help="column of the topics; splits never part a topic")
    add(
        "--chunk-chars",
        type=flag_types.checked(int, lambda chars: chars >= MIN_CHUNK_CHARS, f"at least {MIN_CHUNK_CHARS}"),
        default=1000,
        help="longest passage, in characters (without its title)",
    )
    add("--title-in-text", action="store_true", help="begin every chunk's text with its topic: 'Gout: ...'")
    add(
        "--max-topics",
        type=flag_types.checked(int, lambda topics: topics >= len(SPLITS), f"at least {len(SPLITS)}, one per split"),
        metavar="N",
        help="keep only a seeded random N of the topics",
    )
    fraction = flag_types.checked(float, lambda value: 0 < value < 1, "above 0 and below 1")
    add("--val-fraction", type=fraction, default=0.1, help="share of the questions for validation, 0 to 1")
    add("--test-fraction", type=fraction, default=0.1, help="share of the questions for testing, 0 to 1")
    add("--seed", type=flag_types.seed, default=42, help="seed of every random choice")
    add("--data-dir", type=Path, default=Path("data"), help="folder to write to")
    args = parser.parse_args(argv)
    if args.val_fraction + args.test_fraction >= 1:
        raise InputError(
            f"--val-fraction {args.val_fraction} and --test-fraction {args.test_fraction} leave nothing to train on; "
            "lower them"
        )
    return args


def answered_rows(rows: Sequence[Row], source: str) -> list[Row]:
    """The rows that have both a question and an answer. Raises InputError where there is none."""
    answered = [row for row in rows if row.answer and normalise_question(row.question)]
    if not answered:
        raise InputError(f"{source} has {len(rows)} rows and not one answered question; check the answer column")
    return answered


def choose_topics(rows: list[Row], max_topics: int | None, seed: int) -> list[Row]:
    """The rows of a seeded random `max_topics` topics, all rows where there are no more than that."""
    topics = sorted({normalise_topic(topic_of(row)) for row in rows})
    if max_topics is None or len(topics) <= max_topics:
        return rows
    chosen = set(random.Random(seed).sample(topics, max_topics))
    return [row for row in rows if normalise_topic(topic_of(row)) in chosen]


def titled(row: Row, passages: Sequence[str]) -> list[str]:
    """A row's passages, each with the topic before it where that is known."""
    return [f"{row.topic}: {passage}" if row.topic else passage for passage in passages]


def build_corpus(
    rows: Sequence[Row], texts: Sequence[Sequence[str]], groups: Sequence[str], splits: Sequence[str]
) -> tuple[list[Chunk], list[QAPair]]:
    """Make chunks, each different text once with everything it answers, and the pairs that point to them."""
    chunks: list[Chunk] = []
    pairs: list[QAPair] = []
    id_of: dict[str, int] = {}
    for row, of_row, group, split in zip(rows, texts, groups, splits, strict=True):
        chunk_ids = []
        for text in of_row:
            chunk_id = id_of.setdefault(normalise(text), len(chunks))
            if chunk_id == len(chunks):
                chunks.append(
                    Chunk(
                        chunk_id=chunk_id,
                        text=text,
                        title=row.topic,
                        qa_ids=[],
                        qtype=row.qtype,
                        source=row.source,
                        url=row.url,
                        split=split,
                    )
                )
            chunk = chunks[chunk_id]
            if normalise_topic(chunk["title"]) != normalise_topic(row.topic):
                chunk["title"] = ""  # of several topics, or of a row without one
            if chunk["split"] != split:
                chunk["split"] = SHARED
            if chunk_id not in chunk_ids:
                chunk_ids.append(chunk_id)
                chunk["qa_ids"].append(row.qa_id)
        pairs.append(
            QAPair(
                qa_id=row.qa_id,
                question=row.question,
                topic=topic_of(row),
                concept=row.concept,
                synonyms=row.synonyms,
                group=group,
                qtype=row.qtype,
                split=split,
                chunk_ids=chunk_ids,
            )
        )
    return chunks, pairs


def count_rows(rows: Sequence[Row], kept: Sequence[Row]) -> dict[str, Any]:
    """Rows by what became of them, with a checksum of questions and answers."""
    digest = hashlib.sha256("\0".join(text for row in rows for text in (row.question, row.answer)).encode())
    return {
        "read": len(rows),
        "without_answer": sum(not row.answer for row in rows),
        "without_question": sum(bool(row.answer) and not normalise_question(row.question) for row in rows),
        "used": len(kept),
        "without_topic": sum(not row.topic for row in kept),
        "with_html_tags": sum(HTML_TAG.search(row.answer) is not None for row in kept),
        "sha256": digest.hexdigest(),
    }


def count_chunks(chunks: Sequence[Chunk], passages: Sequence[Sequence[str]]) -> dict[str, Any]:
    """Passages, those merged as identical, those that name their topic, and their lengths in characters."""
    lengths = [len(chunk["text"]) for chunk in chunks]
    n_passages = sum(map(len, passages))
    quantiles = np.quantile(lengths, (0, 0.05, 0.25, 0.5, 0.75, 0.95, 1)).astype(int).tolist()
    return {
        "passages": n_passages,
        "duplicates_merged": n_passages - len(chunks),
        "different": len(chunks),
        "naming_their_topic": sum(names_topic(chunk["text"], chunk["title"]) for chunk in chunks),
        "characters": dict(zip(("min", "5%", "25%", "50%", "75%", "95%", "max"), quantiles, strict=True)),
    }


def count_splits(pairs: Sequence[QAPair]) -> dict[str, dict[str, Any]]:
    """Topics, groups, rows and questions of each split."""
    counts = {}
    for split in SPLITS:
        inside = [pair for pair in pairs if pair["split"] == split]
        sizes = Counter(pair["group"] for pair in inside)
        counts[split] = {
            "topics": len({normalise_topic(pair["topic"]) for pair in inside}),
            "groups": len(sizes),
            "rows": len(inside),
            "rows_of_the_largest_group": max(sizes.values()),
            "questions": len({normalise_question(pair["question"]) for pair in inside}),
        }
    return counts


def split_warnings(pairs: Sequence[QAPair], splits: dict[str, dict[str, Any]]) -> Iterator[str]:
    """A line for each thing that keeps the splits from telling much: a group of most rows, too few questions."""
    (group, rows), *_ = Counter(pair["group"] for pair in pairs).most_common(1)
    if rows > LARGE_GROUP * len(pairs):
        commonest = describe_commonest(
            [normalise_question(pair["question"]) for pair in pairs if pair["group"] == group]
        )
        cause = f", such as {commonest}" if commonest else ""
        yield (
            f"Warning: {rows:,} of {len(pairs):,} rows form one group, which is never divided: their topics share "
            f"names, answers or questions{cause}; name the topic in such questions and answers"
        )
    for split, purpose in (("val", "choose"), ("test", "measure")):
        if splits[split]["questions"] < FEW_QUESTIONS:
            yield (
                f"Warning: {splits[split]['questions']} {split} questions are few to {purpose} a model by; raise "
                f"--{split}-fraction, or give more data"
            )


def write_corpus(
    args: argparse.Namespace,
    source: str | None,
    chunks: list[Chunk],
    pairs: list[QAPair],
    report: dict[str, dict[str, Any]],
) -> None:
    """Write all files or none; a new manifest, so that queries of an older corpus are known to be stale.

    Args:
        args: the flags.
        source: its `source_version`.
        chunks: the corpus.
        pairs: the questions behind it.
        report: what the manifest tells of both.
    """
    corpus, qa_pairs = pickle_bytes(chunks), pickle_bytes(pairs)
    manifest = {
        "corpus": {
            "sha256": hashlib.sha256(corpus).hexdigest(),
            "qa_pairs_sha256": hashlib.sha256(qa_pairs).hexdigest(),
            "arguments": vars(args),
            "source_version": source,
            "versions": {"python": python_version(), **{name: version(name) for name in ("datasets", "pyarrow")}},
            "report": report,
        }
    }
    write_files(
        args.data_dir,
        {
            "corpus_chunks.pkl": corpus,
            "qa_pairs.pkl": qa_pairs,
            "corpus_sample.json": json_bytes(spread(chunks, SAMPLE_CHUNKS)),
            "manifest.json": json_bytes(manifest),
        },
    )


def print_report(report: dict[str, dict[str, Any]]) -> None:
    """The manifest's report in readable form."""
    rows, chunks, splits = report["rows"], report["chunks"], report["splits"]
    print("ROWS")
    print(aligned((name.replace("_", " "), rows[name]) for name in rows if name != "sha256"))
    if rows["with_html_tags"]:
        print("Note: HTML tags are chunked, embedded and judged like words; remove them from the source first")
    print("\nCHUNKS")
    print(aligned((name.replace("_", " "), chunks[name]) for name in chunks if name != "characters"))
    print("\nCHARACTERS PER CHUNK")
    print(aligned([chunks["characters"].keys(), chunks["characters"].values()]))
    print("\nSPLITS (by topic)")
    columns = list(splits["train"])
    by_split = [(split, *(splits[split][name] for name in columns)) for split in SPLITS]
    print(aligned([("", *(name.replace("_", " ") for name in columns)), *by_split]))
    print("\nLEAKAGE BETWEEN SPLITS")
    widespread = report["boilerplate"]
    print(aligned((f"{name} in several splits", count) for name, count in report["leakage"].items()))
    print(
        f"  not counted: {widespread['chunks']} boilerplate chunks (in over {BOILERPLATE_ROWS} rows each), "
        f"which {widespread['share_of_questions']:.1%} of the questions have among their answers"
    )
    related = " and ".join(f"{count:,} {split}" for split, count in report["related_questions"].items())
    print(f"  not counted: general concepts and names, which {related} questions have in common with training")


if __name__ == "__main__":
    run(main)
