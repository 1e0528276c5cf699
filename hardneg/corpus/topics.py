"""Splits by topic, so that nothing about a held-out topic is trained on, and measures what leaks all the same."""

import hashlib
from collections import Counter, defaultdict
from collections.abc import Hashable, Iterable, Iterator, Mapping, Sequence
from statistics import median
from typing import Any

import numpy as np
from scipy.sparse import coo_array
from scipy.sparse.csgraph import connected_components

from hardneg.corpus.artifacts import SHARED, SPLITS, Chunk, QAPair
from hardneg.corpus.normalising import normalise, normalise_question, normalise_topic
from hardneg.corpus.sources import Row
from hardneg.running.errors import InputError
from hardneg.running.tables import excerpt

# A passage in more rows than this does not tie their topics together. Where they are in several splits, it is
# boilerplate.
BOILERPLATE_ROWS = 20
QUESTION_WIDTH = 80  # characters of a question in a message
# What more topics than this have does not tie them together. Single concepts of more are mostly broader terms
# ("Dementia"), and would chain a third of MedQuAD into one group. Names are narrower: siblings share theirs
# ("Noonan syndrome 1" to 6), and only one of a large family ("hereditary ataxia") would chain other data.
MOST_TOPICS = {"annotation": 20, "concept": 5, "name": 20}


def topic_of(row: Row) -> str:
    """The row's topic; a question of no known topic is its own."""
    return row.topic or row.question


def group_rows(rows: Sequence[Row], passages: Sequence[Sequence[str]], texts: Sequence[Sequence[str]]) -> list[str]:
    """Group rows that must not be parted: of one topic, name, question, passage or concept, also in a chain.

    Args:
        rows: the answered rows.
        passages: the passages of each row's answer, without titles.
        texts: the same as the corpus will have them.

    Returns:
        The group of every row, named after its alphabetically first topic.
    """
    members: dict[tuple[str, str], list[int]] = defaultdict(list)
    ties = ties_of([(topic_of(row), row.concept, row.synonyms) for row in rows])
    for position, (row, of_row, as_chunks) in enumerate(zip(rows, passages, texts, strict=True)):
        members["topic", normalise_topic(topic_of(row))].append(position)
        for tie in ties[position]:
            members[tie].append(position)
        members["question", normalise_question(row.question)].append(position)
        answer = dict.fromkeys(map(normalise, of_row))
        # Counted apart: with titles, one passage is another chunk under each.
        for kind, found in (("passage", answer), ("chunk", dict.fromkeys(map(normalise, as_chunks)))):
            for text in found:
                members[kind, text].append(position)
        members["answer", "\0".join(answer)].append(position)
    edges = [(tied[0], other) for tied in tied_rows(members, rows) for other in tied]
    first, second = np.array(edges).T
    graph = coo_array((np.ones(len(edges)), (first, second)), shape=(len(rows), len(rows)))
    numbers = connected_components(graph, directed=False)[1].tolist()
    topics = [normalise_topic(topic_of(row)) for row in rows]
    names: dict[int, str] = {}
    for number, topic in zip(numbers, topics, strict=True):
        names[number] = min(names.get(number, topic), topic)
    return [names[number] for number in numbers]


def tied_rows(members: Mapping[tuple[str, str], list[int]], rows: Sequence[Row]) -> Iterator[list[int]]:
    """The rows that each key ties, but for passages and chunks that more than BOILERPLATE_ROWS rows have.

    Of a whole answer only the rows that have a topic count: those without may ask one thing in many wordings. (In
    MedQuAD many an answer is nothing but boilerplate.)
    """
    for (kind, _), tied in members.items():
        counted = sum(bool(rows[row].topic) for row in tied) if kind == "answer" else len(tied)
        if kind not in ("passage", "chunk", "answer") or counted <= BOILERPLATE_ROWS:
            yield tied


def ties_of(labels: Sequence[tuple[str, str, str]]) -> list[list[tuple[str, str]]]:
    """What ties each row to others: its whole annotation, every concept in it and every name, unless too general.

    Args:
        labels: topic, annotation ("C0018099|C0003868", "" for none) and other names of the topic ("Podagra|Gouty
            arthritis", "" for none) of each row.

    Returns:
        ("annotation", "concept" or "name", its value) per row, without those that more than MOST_TOPICS topics have.
    """
    keys = [_keys(*label) for label in labels]
    topics: dict[tuple[str, str], set[str]] = defaultdict(set)
    for (topic, _, _), of_row in zip(labels, keys, strict=True):
        for key in of_row:
            topics[key].add(normalise_topic(topic))
    return [[key for key in of_row if len(topics[key]) <= MOST_TOPICS[key[0]]] for of_row in keys]


def _keys(topic: str, annotation: str, synonyms: str) -> list[tuple[str, str]]:
    """All that may tie a topic to another: its annotation, the concepts in that, its name and its synonyms."""
    concepts = sorted({concept.strip() for concept in annotation.split("|")} - {""})
    whole = [("annotation", "|".join(concepts))] if concepts else []
    names = sorted({normalise_topic(name) for name in (topic, *synonyms.split("|"))} - {""})
    return whole + [("concept", concept) for concept in concepts] + [("name", name) for name in names]


def assign_splits(
    groups: Sequence[str], questions: Sequence[str], val_fraction: float, test_fraction: float, seed: int
) -> list[str]:
    """Deal whole groups to test and val until each has its fraction of the questions; train gets the others.

    The groups come in a seeded random order that depends on their names only, so that most keep their split when
    others change (with another passage length, say). One that would overshoot a split's fraction, or dominate it (fill
    a quarter, being larger than the median group), is left to the next split; where none fits, the split gets
    the smallest group left.

    Args:
        groups: name of the group per row.
        questions: normalised question per row; questions, not rows, are counted.
        val_fraction: share of the questions for val, 0 to 1.
        test_fraction: share of the questions for test, 0 to 1.
        seed: of the order.

    Returns:
        "train", "val" or "test" per row.

    Raises:
        InputError: there are fewer groups than splits, or a split is left without any.
    """
    sizes = Counter(group for group, _ in set(zip(groups, questions, strict=True)))
    if len(sizes) < len(SPLITS):
        commonest = describe_commonest(questions)
        of_many = f", or name the topic in questions such as {commonest}" if commonest else ""
        raise InputError(
            f"the data forms only {len(sizes)} group(s) of rows that share a topic, name, concept, question or "
            "passage, too few for train, val and test; give more data, or leave out (or rename) a topic column that "
            f"holds categories{of_many}"
        )
    total = sum(sizes.values())
    room = {"test": round(test_fraction * total), "val": round(val_fraction * total)}
    largest = {split: max(room[split] / 4, median(sizes.values())) for split in room}
    order = sorted(sizes, key=lambda group: hashlib.sha256(f"{seed} {group}".encode()).digest())
    split_of = {}
    for group in order:
        fitting = (split for split in room if sizes[group] <= min(room[split], largest[split]))
        split_of[group] = next(fitting, "train")
        if split_of[group] in room:
            room[split_of[group]] -= sizes[group]
    for split in room:
        left = [group for group in order if split_of[group] == "train"]
        if left and split not in split_of.values():
            split_of[min(left, key=sizes.__getitem__)] = split
    if set(split_of.values()) < set(SPLITS):
        raise InputError(
            f"validation and test leave no training data of the {len(sizes)} groups of rows; lower --val-fraction or "
            "--test-fraction"
        )
    return [split_of[group] for group in groups]


def describe_commonest(questions: Sequence[str]) -> str:
    """In words, the question that most rows ask: it may be what ties them. Empty where each row asks another.

    >>> describe_commonest(["what is it", "what is gout", "what is it"])
    "'what is it', which 2 rows ask"
    """
    (question, rows), *_ = Counter(questions).most_common(1)
    return f"{excerpt(question, QUESTION_WIDTH)!r}, which {rows} rows ask" if rows > 1 else ""


def leakage(chunks: Sequence[Chunk], pairs: Sequence[QAPair]) -> dict[str, int]:
    """Count the questions, topics, names, concepts and chunks that lie in several splits.

    Names and concepts too general to tie topics and boilerplate chunks are not counted.
    """
    ties = ties_of([(pair["topic"], pair["concept"], pair["synonyms"]) for pair in pairs])
    tied = [(key, pair["split"]) for pair, keys in zip(pairs, ties, strict=True) for key in keys]
    split_of = {pair["qa_id"]: pair["split"] for pair in pairs}
    return {
        "questions": _in_several((normalise_question(pair["question"]), pair["split"]) for pair in pairs),
        "topics": _in_several((normalise_topic(pair["topic"]), pair["split"]) for pair in pairs),
        "names": _in_several((key, split) for key, split in tied if key[0] == "name"),
        "concepts": _in_several((key, split) for key, split in tied if key[0] != "name"),
        "chunks": _in_several(
            (normalise(chunk["text"]), split_of[qa_id])
            for chunk in chunks
            if not is_boilerplate(chunk)
            for qa_id in chunk["qa_ids"]
        ),
    }


def related_questions(pairs: Sequence[QAPair]) -> dict[str, set[str]]:
    """The val and test questions, normalised, that have a name or concept in common with a training question: what they
    still share is too general to tie topics."""
    labels: dict[tuple[str, str], set[tuple[str, str]]] = defaultdict(set)
    for pair in pairs:
        keys = _keys(pair["topic"], pair["concept"], pair["synonyms"])
        labels[pair["split"], normalise_question(pair["question"])].update(keys)
    trained = set().union(*(found for (split, _), found in labels.items() if split == "train"))
    return {
        held_out: {question for (split, question), found in labels.items() if split == held_out and found & trained}
        for held_out in SPLITS[1:]
    }


def _in_several(keys_and_splits: Iterable[tuple[Hashable, str]]) -> int:
    splits: dict[Hashable, set[str]] = defaultdict(set)
    for key, split in keys_and_splits:
        splits[key].add(split)
    return sum(len(found) > 1 for found in splits.values())


def is_boilerplate(chunk: Chunk) -> bool:
    """Whether a chunk answers more than BOILERPLATE_ROWS rows that are not all in one split.

    Rows that ask one thing, repeated or in many wordings, are in one split: their answer is no boilerplate.
    """
    return len(chunk["qa_ids"]) > BOILERPLATE_ROWS and chunk["split"] == SHARED


def boilerplate_ids(chunks: Iterable[Chunk]) -> frozenset[int]:
    """The ids of the boilerplate chunks."""
    return frozenset(chunk["chunk_id"] for chunk in chunks if is_boilerplate(chunk))


def count_boilerplate(chunks: Sequence[Chunk], pairs: Sequence[QAPair]) -> dict[str, Any]:
    """Count the boilerplate chunks, and the share of questions they touch."""
    widespread = [chunk for chunk in chunks if is_boilerplate(chunk)]
    touched = {qa_id for chunk in widespread for qa_id in chunk["qa_ids"]}
    question_of: Mapping[str, str] = {pair["qa_id"]: normalise_question(pair["question"]) for pair in pairs}
    share = len({question_of[qa_id] for qa_id in touched}) / len(set(question_of.values()))
    return {
        "chunks": len(widespread),
        "rows_of_the_widest": max((len(chunk["qa_ids"]) for chunk in widespread), default=0),
        "share_of_questions": round(share, 4),
    }
