"""evaluate.py on those held-out questions alone that have no concept or name in common with training, however general.

    python -m tests.benchmarks.unrelated --baseline-model all-MiniLM-L6-v2 --output unrelated.json

Takes evaluate.py's flags. The split ties topics by concepts and names that few topics have; what more general ones
("Dementia") have in common could still make held-out questions easier, and here it cannot.
"""

from dataclasses import replace

import evaluate
from hardneg.corpus.artifacts import load_qa_pairs
from hardneg.corpus.normalising import normalise_question
from hardneg.corpus.topics import related_questions
from hardneg.running.script import run


def main(argv: list[str] | None = None) -> None:
    """Evaluate with the related questions left out."""
    args = evaluate.parse_arguments(argv)
    inputs = evaluate.load_inputs(args)
    related = related_questions(load_qa_pairs(args.data_dir, inputs.manifest))[args.split]
    unrelated = [query for query in inputs.queries if normalise_question(query["query"]) not in related]
    print(
        f"{len(unrelated):,} of {len(inputs.queries):,} {args.split} questions share no concept or name with training"
    )
    evaluate.evaluate_models(args, replace(inputs, queries=unrelated))


if __name__ == "__main__":
    run(main)
