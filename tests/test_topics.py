"""Topic groups, the split, and what leaks."""

import pytest

from hardneg.corpus.sources import Row
from hardneg.corpus.topics import (
    BOILERPLATE_ROWS,
    MOST_TOPICS,
    assign_splits,
    boilerplate_ids,
    count_boilerplate,
    group_rows,
    leakage,
    related_questions,
)
from hardneg.running.errors import InputError
from tests.records import make_chunk, make_qa_pair


def row(question: str, topic: str = "", concept: str = "", synonyms: str = "") -> Row:
    return Row(question, question, "", topic, qtype="", source="", url="", concept=concept, synonyms=synonyms)


def same_group(rows: list[Row], passages: list[list[str]]) -> list[list[int]]:
    """Positions by group, in the order of their first row."""
    groups: dict[str, list[int]] = {}
    for position, group in enumerate(group_rows(rows, passages, passages)):
        groups.setdefault(group, []).append(position)
    return list(groups.values())


def test_rows_stay_together_by_topic_question_and_passage() -> None:
    rows = [row("q0", "Gout"), row("q1", "gout "), row("q2?", "A"), row("Q2", "B"), row("q4", "C"), row("q5", "D")]
    passages = [["p0"], ["p1"], ["p2"], ["p3"], ["p4", "Twice  said"], ["twice said", "p5"]]
    assert same_group(rows, passages) == [[0, 1], [2, 3], [4, 5]]


def test_other_names_of_a_topic_stay_with_it() -> None:
    """Spelled with other punctuation, or called otherwise but annotated with the same concept."""
    rows = [row("q0", "Coffin-Lowry syndrome", "C1"), row("q1", "Coffin Lowry Syndrome"), row("q2", "CLS", "C1")]
    assert same_group([*rows, row("q3", "Gout", "C2"), row("q4", "Flu")], [[f"p{i}"] for i in range(5)]) == [
        [0, 1, 2],
        [3],
        [4],
    ]


def test_a_synonym_ties_a_topic_to_what_has_the_same_name() -> None:
    """One topic's synonym is another's name, or a synonym of both, however either is spelled."""
    rows = [
        row("q0", "Nevoid basal cell carcinoma syndrome", synonyms="Gorlin's syndrome|NBCCS"),
        row("q1", "Gorlin s Syndrome"),
        row("q2", "Multiple basal cell nevi", synonyms=" nbccs |"),
        row("q3", "Flu", synonyms="Influenza"),
    ]
    assert same_group(rows, [[f"p{i}"] for i in range(4)]) == [[0, 1, 2], [3]]


def test_one_common_concept_is_enough() -> None:
    """MedQuAD annotates a disease and its subtype, or two of its names, with lists that only overlap."""
    concepts = ["C1|C2", "C2 | C3", "C3", "C4", "C4|"]
    rows = [row(f"q{i}", f"topic {i}", concept) for i, concept in enumerate(concepts)]
    assert same_group(rows, [[f"p{i}"] for i in range(5)]) == [[0, 1, 2], [3, 4]]


def test_the_only_concept_of_topics_is_their_whole_annotation() -> None:
    """As a whole it ties more topics than as one of several."""
    for n, n_groups in (
        (MOST_TOPICS["concept"] + 1, 1),
        (MOST_TOPICS["annotation"] + 1, MOST_TOPICS["annotation"] + 1),
    ):
        rows = [row(f"q{i}", f"topic {i}", "C1") for i in range(n)]
        assert len(same_group(rows, [[f"p{i}"] for i in range(n)])) == n_groups


def test_the_order_of_concepts_does_not_matter() -> None:
    general = [row(f"g{i}", f"general {i}", f"C1|C2|own {i}") for i in range(MOST_TOPICS["concept"])]
    rows = [row("q0", "Gout", "C1|C2"), row("q1", "Podagra", "C2|C1"), *general]
    assert same_group(rows, [[f"p{i}"] for i in range(len(rows))])[0] == [0, 1]


@pytest.mark.parametrize(
    ("kind", "concept", "synonyms"),
    [("annotation", "C1|C2", ""), ("concept", "C1|own {}", ""), ("name", "", "Dementia|own {}")],
    ids=["whole annotation", "concept", "name"],
)
def test_what_is_too_general_ties_nothing(kind: str, concept: str, synonyms: str) -> None:
    most = MOST_TOPICS[kind]
    rows = [row(f"q{i}", f"topic {i}", concept.format(i), synonyms.format(i)) for i in range(most + 1)]
    passages = [[f"p{i}"] for i in range(most + 1)]
    assert len(same_group(rows[:-1], passages[:-1])) == 1
    assert len(same_group(rows, passages)) == most + 1


def test_a_topic_whose_name_many_others_have_as_a_synonym_still_keeps_its_rows() -> None:
    """However many; the last of them has another topic's passage, after which the group is named."""
    rows = [row(f"q{i}", f"topic {i}", synonyms="Dementia") for i in range(MOST_TOPICS["name"])]
    rows += [row(f"whole {i}", "Dementia" if i % 2 else "dementia") for i in range(BOILERPLATE_ROWS + 1)]
    passages = [[f"p{i}"] for i in range(len(rows))]
    found = same_group([*rows, row("other", "A topic")], [*passages, passages[-1]])
    assert found[-1] == list(range(MOST_TOPICS["name"], len(rows) + 1))


def test_ties_chain() -> None:
    rows = [row("q0", "A"), row("q1", "A"), row("q1", "B"), row("q3", "C"), row("q4", "D")]
    assert same_group(rows, [["p0"], ["p1"], ["shared"], ["shared"], ["p4"]]) == [[0, 1, 2, 3], [4]]


def test_a_question_without_a_topic_is_its_own() -> None:
    assert same_group([row("q0"), row("q1"), row("q0 ?")], [["p0"], ["p1"], ["p2"]]) == [[0, 2], [1]]


def test_boilerplate_ties_nothing() -> None:
    rows = [row(f"q{i}", f"topic {i}") for i in range(BOILERPLATE_ROWS + 1)]
    assert len(same_group(rows[:-1], [["boilerplate"]] * BOILERPLATE_ROWS)) == 1
    assert len(same_group(rows, [["boilerplate"]] * (BOILERPLATE_ROWS + 1))) == BOILERPLATE_ROWS + 1


def test_one_answer_under_many_wordings_is_no_boilerplate() -> None:
    """As in a list of questions without topics: parted, test questions would have training's answers."""
    rows = [row(f"q{i}") for i in range(2 * BOILERPLATE_ROWS)]
    assert len(same_group(rows, [["the answer"]] * len(rows))) == 1
    rows[3] = row("What causes gout?", "gout")  # one wording that tells its topic
    assert len(same_group(rows, [["the answer"]] * len(rows))) == 1
    assert len(same_group(rows, [["of the house", f"the answer to {i}"] for i in range(len(rows))])) == len(rows)
    rows = [row(f"q{i}") for i in range(3 * (BOILERPLATE_ROWS + 1))]
    assert len(same_group(rows, [["of the house", f"answer {i % 3}"] for i in range(len(rows))])) == 3


def test_titles_in_the_chunks_do_not_part_one_answer() -> None:
    """An FAQ whose rows in part tell their topic: one answer, and two chunks of it."""
    rows = [row(f"q{i}", "gout" if i % 3 else "") for i in range(BOILERPLATE_ROWS + 5)]
    answers = [["the answer"]] * len(rows)
    chunks = [["gout: the answer" if row.topic else "the answer"] for row in rows]
    assert len(set(group_rows(rows, answers, answers))) == len(set(group_rows(rows, answers, chunks))) == 1


def test_a_passage_is_counted_as_the_chunks_have_it() -> None:
    """With titles it is another chunk under each, and the one of rows without a topic has few enough rows to tie."""
    n = BOILERPLATE_ROWS // 2 + 1
    rows = [row(f"q{i}", f"topic {i}" if i < n else "") for i in range(2 * n)]
    passages = [[f"own {i}", "closing words", "closing words"] for i in range(2 * n)]
    texts = [[f"topic {i}: {text}" if i < n else text for text in own] for i, own in enumerate(passages)]
    groups = group_rows(rows, passages, texts)
    assert len(set(groups[:n])) == n and len(set(groups[n:])) == 1


def test_a_group_is_named_after_its_first_topic() -> None:
    rows = [row("q0", "Gout"), row("q1", "Flu"), row("q2", "Measles"), row("q3", "A cold")]
    passages = [["shared"], ["shared"], ["shared"], ["p3"]]
    assert group_rows(rows, passages, passages) == ["flu", "flu", "flu", "a cold"]


def split_sizes(groups: list[str], splits: list[str]) -> dict[str, int]:
    assert len(set(zip(groups, splits, strict=True))) == len(set(groups)), "a group was parted"
    return {split: splits.count(split) for split in ("train", "val", "test")}


def test_fractions_are_met_and_seeded() -> None:
    groups = [f"g{group}" for group in range(200) for _ in range(1 + group % 4)]  # 500 rows
    questions = [f"q{position}" for position in range(len(groups))]
    splits = assign_splits(groups, questions, 0.1, 0.2, seed=1)
    assert split_sizes(groups, splits) == {"train": 350, "val": 50, "test": 100}
    assert splits == assign_splits(groups, questions, 0.1, 0.2, seed=1)
    assert splits != assign_splits(groups, questions, 0.1, 0.2, seed=2)


def test_most_groups_keep_their_split_when_others_change() -> None:
    names = [f"g{i}" for i in range(1000)]
    before = dict(zip(names, assign_splits(names, names, 0.1, 0.1, seed=1), strict=True))
    after = dict(zip(names[5:], assign_splits(names[5:], names[5:], 0.1, 0.1, seed=1), strict=True))
    assert sum(before[name] != after[name] for name in after) <= 5


def test_questions_are_counted_not_rows() -> None:
    groups = ["g0"] * 50 + [f"g{i}" for i in range(1, 101)]  # the first group asks one question fifty times
    questions = ["asked often"] * 50 + [f"q{position}" for position in range(100)]
    splits = assign_splits(groups, questions, 0.1, 0.1, seed=0)
    held_out = {(question, split) for question, split in zip(questions, splits, strict=True) if split != "train"}
    assert len(held_out) == 20


@pytest.mark.parametrize("seed", range(20))
def test_a_huge_group_is_never_held_out(seed: int) -> None:
    """Nor are groups of more than a quarter of the 40 questions of a split."""
    groups = ["g0"] * 40 + ["g1"] * 11 + ["g2"] * 11 + [f"g{i}" for i in range(3, 341)]
    splits = assign_splits(groups, [f"q{position}" for position in range(400)], 0.1, 0.1, seed)
    assert set(splits[:62]) == {"train"}
    assert split_sizes(groups, splits) == {"train": 320, "val": 40, "test": 40}


def test_a_group_of_just_a_quarter_may_be_held_out() -> None:
    groups = [f"ten {i}" for i in range(20) for _ in range(10)] + [f"one {i}" for i in range(200)]
    splits = assign_splits(groups, [f"q{position}" for position in range(400)], 0.1, 0.1, seed=0)
    assert set(splits[:200]) == {"train", "val", "test"}


def test_each_split_gets_a_group_even_where_none_fits() -> None:
    groups = ["a"] * 9 + ["b"] * 5 + ["c"] * 6
    splits = assign_splits(groups, [f"q{position}" for position in range(20)], 0.1, 0.1, seed=0)
    assert split_sizes(groups, splits) == {"train": 9, "val": 6, "test": 5}


def test_too_few_groups_to_split() -> None:
    with pytest.raises(InputError, match=r"forms only 2 group\(s\) .* too few for train, val and test; .* categories$"):
        assign_splits(["a", "a", "b"], ["a", "b", "c"], 0.1, 0.1, seed=0)
    with pytest.raises(InputError, match=r"or name the topic in questions such as 'a', which 2 rows ask$"):
        assign_splits(["a", "a", "b"], ["a", "a", "c"], 0.1, 0.1, seed=0)


@pytest.mark.parametrize(("groups", "val", "test"), [("abcd", 0.5, 0.5), ("abc", 0.05, 0.9)])
def test_nothing_left_to_train_on(groups: str, val: float, test: float) -> None:
    with pytest.raises(InputError, match=rf"no training data of the {len(groups)} groups .* --test-fraction"):
        assign_splits(list(groups), list(groups), val, test, seed=0)


def test_leakage_finds_each_kind() -> None:
    pairs = [
        make_qa_pair("a", "What is gout?", "Gout", "train", concept="C1|C2"),
        make_qa_pair("b", "what is gout ?", "Podagra", "test", concept="C2"),
        make_qa_pair("c", "How bad is gout?", "gout", "val"),
        make_qa_pair("d", "What is flu?", "Flu", "test", synonyms="Grippe"),
        make_qa_pair("e", "What is a cold?", "Cold", "val", synonyms="grippe"),
    ]
    chunks = [make_chunk(0, "in one", qa_ids=["b", "d"]), make_chunk(0, "in two", qa_ids=["a", "d"])]
    assert leakage(chunks, pairs) == {"questions": 1, "topics": 1, "names": 2, "concepts": 1, "chunks": 1}
    assert leakage(chunks[:1], pairs[1:4]) == {"questions": 0, "topics": 0, "names": 0, "concepts": 0, "chunks": 0}


@pytest.mark.parametrize(("concept", "synonyms"), [("C1|own {}", ""), ("", "Dementia|own {}")])
def test_general_concepts_and_names_are_no_leak_but_counted_apart(concept: str, synonyms: str) -> None:
    splits = ("train", "test", "test", "val", *["train"] * MOST_TOPICS["name"])
    pairs = [
        make_qa_pair(
            f"r{i}", f"question {i}", f"topic {i}", split, concept=concept.format(i), synonyms=synonyms.format(i)
        )
        for i, split in enumerate(splits)
    ]
    pairs.append(make_qa_pair("again", "Question 1?", "topic 1", "test", concept="C9"))
    assert {name: count for name, count in leakage([], pairs).items() if count} == {}
    assert related_questions(pairs) == {"val": {"question 3"}, "test": {"question 1", "question 2"}}
    assert related_questions([make_qa_pair("a", "q", "t", "train"), make_qa_pair("b", "r", "u", "test")]) == {
        "val": set(),
        "test": set(),
    }


def test_boilerplate_begins_above_its_limit() -> None:
    rows = [f"r{i}" for i in range(21)]
    chunks = [
        make_chunk(0, "twenty", qa_ids=rows[:20], split="shared"),
        make_chunk(1, "more", qa_ids=rows, split="shared"),
        make_chunk(2, "one question, repeated or in many wordings", qa_ids=rows, split="train"),
    ]
    assert boilerplate_ids(chunks) == {1}


def test_boilerplate_is_counted_apart() -> None:
    wide = [f"r{i}" for i in range(BOILERPLATE_ROWS + 2)]
    pairs = [make_qa_pair(qa_id, f"question {qa_id}", qa_id, "train" if qa_id == "r0" else "test") for qa_id in wide]
    pairs += [make_qa_pair(f"x{i}", f"question x{i}", f"x{i}", "train") for i in range(44)]
    chunks = [
        make_chunk(0, "here", qa_ids=["x0"]),
        make_chunk(0, "everywhere", qa_ids=wide, split="shared"),
        make_chunk(0, "nearly", qa_ids=wide[:-1], split="shared"),
    ]
    assert leakage(chunks, pairs)["chunks"] == 0
    assert count_boilerplate(chunks, pairs) == {"chunks": 2, "rows_of_the_widest": 22, "share_of_questions": 0.3333}
    assert count_boilerplate(chunks[:1], pairs) == {"chunks": 0, "rows_of_the_widest": 0, "share_of_questions": 0.0}
