"""evaluate.py on held-out questions that call their topic by another name.

    python -m tests.benchmarks.synonyms --baseline-model all-MiniLM-L6-v2 --output synonyms.json

Takes evaluate.py's flags. People do not know the name that a page goes by. Here each question whose topic has, by the
source, a name of its own in other words is asked by that name ("What is (are) Bowel incontinence ?"); the rest is left
out.
"""

from collections.abc import Iterable
from dataclasses import replace

import evaluate
from hardneg.corpus.artifacts import QAPair, Query, load_qa_pairs
from hardneg.corpus.normalising import normalise_topic
from hardneg.running.script import run


def main(argv: list[str] | None = None) -> None:
    """Evaluate on the questions by another name."""
    args = evaluate.parse_arguments(argv)
    inputs = evaluate.load_inputs(args)
    names = names_of_one_topic(load_qa_pairs(args.data_dir, inputs.manifest))
    asked = [by_another_name(query, names[normalise_topic(query["topic"])]) for query in inputs.queries]
    found = [query for query in asked if query is not None]
    print(f"{len(found):,} of {len(inputs.queries):,} {args.split} questions asked by another name")
    evaluate.evaluate_models(args, replace(inputs, queries=found))


def names_of_one_topic(pairs: Iterable[QAPair]) -> dict[str, set[str]]:
    """The other names of each normalised topic that are not another topic's too."""
    names: dict[str, set[str]] = {}
    topics: dict[str, set[str]] = {}
    for pair in pairs:
        topic = normalise_topic(pair["topic"])
        names.setdefault(topic, set()).update(pair["synonyms"].split("|"))
        for name in (pair["topic"], *pair["synonyms"].split("|")):
            topics.setdefault(normalise_topic(name), set()).add(topic)
    return {topic: {name for name in of if len(topics[normalise_topic(name)]) == 1} for topic, of in names.items()}


def by_another_name(query: Query, names: Iterable[str]) -> Query | None:
    """The query with the name that has least in common with its topic in the topic's place.

    None where every name has all the words of the topic, or the query does not hold the topic.
    """
    topic = set(normalise_topic(query["topic"]).split())
    shared = {name: topic & set(normalise_topic(name).split()) for name in names if normalise_topic(name)}
    others = sorted((name for name in shared if shared[name] < topic), key=lambda name: (len(shared[name]), name))
    if not others or query["topic"] not in query["query"]:
        return None
    return {**query, "query": query["query"].replace(query["topic"], others[0])}


if __name__ == "__main__":
    run(main)
