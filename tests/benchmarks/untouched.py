"""evaluate.py on those held-out questions alone that were in training in every earlier split: they chose nothing.

    python -m tests.benchmarks.untouched --earlier data/old data/older --baseline-model all-MiniLM-L6-v2 --output u.json

`--earlier` names what prepare_corpus.py wrote of the splits that recipes were chosen or reported on; all else are
evaluate.py's flags. With --data-dir of another seed's split, its test questions are a test of the recipe that nobody
has looked at yet, once.
"""

import argparse
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import evaluate
from hardneg.corpus.artifacts import read_manifest
from hardneg.corpus.normalising import normalise_question
from hardneg.running.files import read_pickle
from hardneg.running.script import run


def main(argv: Sequence[str] | None = None) -> None:
    """Evaluate with the questions left out that were held out before."""
    parser = argparse.ArgumentParser(allow_abbrev=False, add_help=False)
    parser.add_argument("--earlier", type=Path, nargs="+", required=True)
    own, others = parser.parse_known_args(argv)
    args = evaluate.parse_arguments(others)
    inputs = evaluate.load_inputs(args)
    seen = held_out(own.earlier)
    untouched = [query for query in inputs.queries if normalise_question(query["query"]) not in seen]
    print(f"{len(untouched):,} of {len(inputs.queries):,} {args.split} questions were never held out before")
    evaluate.evaluate_models(args, replace(inputs, queries=untouched))


def held_out(data_dirs: Sequence[Path]) -> set[str]:
    """The questions, normalised, that are validation or test in any of these splits."""
    seen = set()
    for data_dir in data_dirs:
        remedy = "let --earlier name what prepare_corpus.py wrote"
        sha256 = read_manifest(data_dir)["corpus"].get("qa_pairs_sha256")
        pairs = read_pickle(data_dir / "qa_pairs.pkl", sha256, remedy)  # other fields have changed
        seen |= {normalise_question(pair["question"]) for pair in pairs if pair["split"] != "train"}
    return seen


if __name__ == "__main__":
    run(main)
