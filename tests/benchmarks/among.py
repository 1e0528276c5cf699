"""evaluate.py among a part of the passages: is the gain more than that of passages that training saw, or of templates?

    python -m tests.benchmarks.among held-out --baseline-model all-MiniLM-L6-v2 --output held-out.json

The part comes first, then evaluate.py's flags. Questions without an answer in the part are left out.

held-out  the passages that training could not see
seen      those of them that are answers, and beside them as many passages of the training split as held-out has others
written   all but boilerplate and templates: passages whose first 60 characters, names of the topic aside, more than 20
          have
"""

import random
import sys
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import evaluate
from hardneg.corpus.artifacts import SHARED, Chunk, QAPair, Query, load_qa_pairs
from hardneg.corpus.topics import BOILERPLATE_ROWS, boilerplate_ids
from hardneg.running.errors import InputError
from hardneg.running.script import run

BEGINNING = 60  # characters that a template is known by
SEED = 42  # of the sample that `seen` takes


def main(argv: list[str] | None = None) -> None:
    """Evaluate among the part."""
    part, *flags = (sys.argv[1:] if argv is None else argv) or [""]
    if part not in PARTS:
        raise InputError(f"{part!r} is no part of the passages; begin with one of {', '.join(PARTS)}")
    args = evaluate.parse_arguments(flags)
    inputs = evaluate.load_inputs(args)
    kept = PARTS[part](inputs, load_qa_pairs(args.data_dir, inputs.manifest))
    among = only(inputs, kept)
    asked = f"{len(among.queries):,} of {len(inputs.queries):,} questions"
    print(f"{part}: {asked} among {len(kept):,} of {len(inputs.chunks):,} chunks")
    evaluate.evaluate_models(args, among)


def only(inputs: evaluate.Inputs, kept: set[int]) -> evaluate.Inputs:
    """The inputs with these chunks alone, numbered anew."""
    places = {chunk_id: place for place, chunk_id in enumerate(sorted(kept))}
    chunks: list[Chunk] = [{**inputs.chunks[chunk_id], "chunk_id": place} for chunk_id, place in places.items()]
    queries: list[Query] = []
    for query in inputs.queries:
        answers = [places[chunk_id] for chunk_id in query["ground_truth_chunk_ids"] if chunk_id in places]
        if answers:
            queries.append({**query, "ground_truth_chunk_ids": answers})
    return replace(inputs, chunks=chunks, queries=queries)


def held_out(inputs: evaluate.Inputs, pairs: Sequence[QAPair]) -> set[int]:
    """What belongs to the validation or the test split alone."""
    return {chunk["chunk_id"] for chunk in inputs.chunks if chunk["split"] not in ("train", SHARED)}


def seen(inputs: evaluate.Inputs, pairs: Sequence[QAPair]) -> set[int]:
    """The answers that training could not see, and a seeded sample of its passages: in all as many as `held_out`."""
    unseen = held_out(inputs, pairs)
    answers = {chunk_id for query in inputs.queries for chunk_id in query["ground_truth_chunk_ids"]} & unseen
    trained = [chunk["chunk_id"] for chunk in inputs.chunks if chunk["split"] == "train"]
    return answers | set(random.Random(SEED).sample(trained, min(len(unseen - answers), len(trained))))


def written(inputs: evaluate.Inputs, pairs: Sequence[QAPair]) -> set[int]:
    """What is neither boilerplate nor a template."""
    pair_of = {pair["qa_id"]: pair for pair in pairs}
    beginnings = [beginning(chunk, pair_of[chunk["qa_ids"][0]]) for chunk in inputs.chunks]
    times = Counter(beginnings)
    return {place for place, text in enumerate(beginnings) if times[text] <= BOILERPLATE_ROWS} - boilerplate_ids(
        inputs.chunks
    )


def beginning(chunk: Chunk, pair: QAPair) -> str:
    """A chunk's first characters without its topic's names and without case."""
    text = chunk["text"].casefold()
    for name in sorted({pair["topic"], *pair["synonyms"].split("|")}, key=len, reverse=True):
        text = text.replace(name.casefold(), "") if name else text
    return " ".join(text.split())[:BEGINNING]


PARTS: dict[str, Callable[[evaluate.Inputs, Sequence[QAPair]], set[int]]] = {
    "held-out": held_out,
    "seen": seen,
    "written": written,
}


if __name__ == "__main__":
    run(main)
