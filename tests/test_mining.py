"""Mining by hand: what mine_hard_examples finds in graded candidates, and how it adds up."""

import pytest

import iterative_miner as miner
from hardneg.corpus.artifacts import Query
from hardneg.judging.candidates import Candidate
from hardneg.learning.mining import accumulate, check_examples, describe_mining
from hardneg.learning.recipe import Example
from hardneg.running.errors import InputError
from tests.mining_data import graded, mine
from tests.records import make_query


def ids(found: list[tuple[Query, Candidate]]) -> list[int]:
    return [candidate.chunk_id for _, candidate in found]


def test_hard_is_what_is_out_of_order() -> None:
    # ranks:                       1    2    3    4    5    6
    mined = mine([graded(make_query("q"), 4.0, 1.0, 3.5, 2.0, 3.0, 1.5)])
    assert ids(mined.hard_positives) == [102, 104]  # below the irrelevant 101
    assert ids(mined.hard_negatives) == [101, 103]  # above the relevant 104; 105 is below all of them
    assert mined.examples == [Example("q", "q?", 100, (101,)), Example("q", "q?", 102, (103,))]


def test_a_right_order_holds_nothing_hard_but_is_still_learnt_from() -> None:
    mined = mine([graded(make_query("q"), 4.0, 3.0, 2.0, 1.0)])
    assert mined.hard_positives == mined.hard_negatives == []
    assert mined.examples == [Example("q", "q?", 100, (102,)), Example("q", "q?", 101, (103,))]


def test_in_between_and_unjudged_are_not_used() -> None:
    mined = mine([graded(make_query("q"), 2.01, None, 2.99, 4.0, 1.0)])
    assert mined.hard_positives == mined.hard_negatives == []
    assert mined.examples == [Example("q", "q?", 103, (104,))]
    assert mined.spared == {"q": {100, 101, 102, 103}}  # what is unjudged is not pushed away in a batch either


def test_known_answers_never_become_negatives() -> None:
    mined = mine([graded(make_query("q", 100, 999), 1.0, 1.0, 4.0)])
    assert ids(mined.hard_negatives) == [101] and ids(mined.hard_positives) == [102]
    assert mined.spared == {"q": {100, 102}}  # known answers and what was graded above 2


def test_a_known_answer_needs_only_not_be_refuted() -> None:
    """The judge doubts 101 and 102; the data says that 101 answers the question."""
    mined = mine([graded(make_query("q", 101), 1.0, 1.5, 2.5, 4.0, 1.0)])
    assert ids(mined.hard_positives) == [101, 103] and ids(mined.hard_negatives) == [100]
    # what the judge finds besides is not trained on, nor pushed away
    assert mined.examples == [Example("q", "q?", 101, (100,))]
    assert mined.spared == {"q": {101, 102, 103}}


def test_a_doubtful_known_answer_is_contrasted_with_what_is_no_answer_by_grade_even_if_that_is_graded_higher() -> None:
    assert mine([graded(make_query("q", 101), 2.0, 1.5)]).examples == [Example("q", "q?", 101, (100,))]


def test_a_grade_of_just_2_makes_a_negative_and_a_grade_below_one_and_a_half_refutes_a_known_answer() -> None:
    mined = mine([graded(make_query("q", 101), 2.0, 1.49, 3.0)])
    assert mined.examples == []  # 101 is refuted, and 102 is not in the data
    assert (ids(mined.hard_positives), ids(mined.hard_negatives)) == ([102], [100])
    assert mined.spared == {"q": {101, 102}}


def test_an_unjudged_known_answer_is_no_negative_in_the_batch() -> None:
    mined = mine([graded(make_query("q", 100), None, 1.0, 4.0)])
    assert mined.spared == {"q": {100, 102}}
    assert mined.examples == []


def test_a_query_whose_answer_the_judge_refutes_teaches_nothing() -> None:
    mined = mine([graded(make_query("q", 100), 1.0, 1.0, 4.0)])
    assert mined.examples == []
    assert mined.counts["queries_without_answer"] == 1


def test_known_answers_are_trained_on_by_grade_and_rank() -> None:
    mined = mine([graded(make_query("q", 100, 101, 103), 2.5, 4.0, 4.0, 4.0, 1.0)], max_positives=3)
    # places 3, 1, 2 by grade among the known, ranks 1, 2, 4: 1/63 + 1/61, 1/61 + 1/62, 1/62 + 1/64
    assert [example.positive_id for example in mined.examples] == [101, 100, 103]


def test_boilerplate_is_trained_on_only_where_nothing_else_is_left() -> None:
    """103 is found by the judge beside the key, so it is not trusted and does not stand in for a known answer."""
    grades = (4.0, 4.0, 1.0, 4.0)
    lists = [graded(make_query("several", 100, 101), *grades), graded(make_query("alone", 100), *grades)]
    mined = miner.mine_hard_examples(lists, boilerplate={100})
    assert [(each.query_id, each.positive_id) for each in mined.examples] == [("several", 101), ("alone", 100)]
    assert all(100 in chunk_ids for chunk_ids in mined.spared.values())  # nor is it a negative
    refuted = graded(make_query("refuted", 100, 101), 4.0, 1.0, 1.0, 4.0)  # it has another answer, which is not trusted
    assert miner.mine_hard_examples([refuted], boilerplate={100}).examples == []
    found = [graded(make_query("found"), *grades), graded(make_query("found too"), 4.0, 1.0)]
    examples = miner.mine_hard_examples(found, boilerplate={100}).examples
    assert [(each.query_id, each.positive_id) for each in examples] == [("found", 101), ("found too", 100)]


def test_without_known_answers_judge_and_model_must_agree() -> None:
    lists = [graded(make_query("q"), 3.0, 3.5, 3.5, 4.0, 1.0)]
    # places 4, 2, 3, 1 by grade, ranks 1, 2, 3, 4: 1/64 + 1/61, 2/62, 2/63, 1/61 + 1/64
    assert [example.positive_id for example in mine(lists, max_found=4).examples] == [101, 103, 100, 102]
    assert [example.positive_id for example in miner.mine_hard_examples(lists, frozenset()).examples] == [101]


def test_negatives_rotate_over_the_positives() -> None:
    item = graded(make_query("q"), 1.0, 1.0, 1.0, 1.0, 1.0, 4.0, 4.0, 4.0)
    mined = mine([item], negatives=2, max_found=3)
    # hardest first; the third positive finds only one left, then the hardest again
    assert [example.negative_ids for example in mined.examples] == [(100, 101), (102, 103), (104, 100)]


def test_few_negatives_are_repeated_and_none_gives_no_example() -> None:
    mined = mine([graded(make_query("q"), 1.0, 4.0), graded(make_query("p"), 4.0, 4.0)], negatives=3)
    assert mined.examples == [Example("q", "q?", 101, (100, 100, 100))]
    assert mined.counts["queries_without_irrelevant"] == 1


def test_thresholds_are_included_and_can_be_moved() -> None:
    item = graded(make_query("q"), 2.0, 3.0)
    assert ids(mine([item]).hard_positives) == [101]
    assert mine([item], relevant_grade=3.5).hard_positives == []
    assert mine([item], irrelevant_grade=1.5).hard_negatives == []


def test_in_between_a_chunk_is_none_if_it_lies_clearly_below_the_best_known_answer() -> None:
    grades = (3.25, 2.25, 2.75, 2.76, 3.0, 1.0)
    mined = mine([graded(make_query("q", 100, 101), *grades)], negatives=9)
    assert {chunk_id for example in mined.examples for chunk_id in example.negative_ids} == {102, 105}
    assert mined.spared["q"] == {100, 101, 103, 104}
    sure = mine([graded(make_query("q", 100), 4.0, 2.99, 3.0)])  # what counts as an answer is never one's negative
    assert (sure.examples[0].negative_ids[0], sure.spared["q"]) == (101, {100, 102})
    unknown = mine([graded(make_query("q"), *grades)], negatives=9)
    assert set(unknown.examples[0].negative_ids) == {105}


def test_a_known_answer_ranked_far_below_the_candidates_is_a_hard_positive() -> None:
    item = graded(make_query("q", 101), 1.0, 4.0, ranks=[1, 812])
    assert ids(mine([item]).hard_positives) == [101]


def test_counts_add_up() -> None:
    lists = [
        graded(make_query("a", 100), 1.0, 4.0, None, 2.5, 1.0, 2.0),
        graded(make_query("b"), 1.0, 1.0),
        graded(make_query("c"), 4.0, 2.5),
        graded(make_query("d"), None, None),
    ]
    counts = mine(lists).counts
    assert counts == {
        "candidates": 12,
        "unjudged": 3,
        "relevant": 2,
        "trained_on": 0,
        "uncertain": 2,
        "refuted": 1,
        "irrelevant": 4,
        "queries_without_answer": 3,
        "queries_without_irrelevant": 1,
    }
    of_each = ("unjudged", "relevant", "uncertain", "refuted", "irrelevant")
    assert sum(counts[name] for name in of_each) == counts["candidates"]


def test_counts_of_one_query_are_numbers() -> None:
    """They are written to training.json."""
    counts = mine([graded(make_query("q"), 4.0, 1.0)]).counts
    assert {type(value) for value in counts.values()} == {int}


def test_iterations_accumulate_examples_and_what_is_relevant() -> None:
    first = mine([graded(make_query("q"), 1.0, 4.0, 2.5, 1.0, 1.0), graded(make_query("p"), 1.0, 4.0)])
    again = graded(make_query("q"), 4.0, 1.0, 1.0, 3.0)
    second = mine([again, graded(make_query("p"), 1.0, 4.0)])
    both = accumulate([first, second])
    of_q, of_p = Example("q", "q?", 101, (100,)), Example("p", "p?", 101, (100,))
    assert both.examples == [of_q, of_p, Example("q", "q?", 100, (101,)), Example("q", "q?", 103, (102,))]
    assert both.spared == {"q": {100, 101, 102, 103}, "p": {101}}
    assert (both.candidates, first.candidates) == ({*range(100, 105)}, {*range(100, 105)})
    assert second.candidates == {100, 101, 102, 103}
    assert (both.counts, both.hard_negatives) == (second.counts, second.hard_negatives)
    assert first.spared["q"] == {101, 102}  # unchanged
    assert accumulate([first]).examples == first.examples


def test_the_table_says_what_became_of_every_candidate() -> None:
    """Of q's three answers two are trained on and one is refuted; nobody judged one candidate, and the judge was in
    doubt about two. p and r have no answer, s has nothing else.
    """
    several = graded(make_query("q", 100, 101, 102), 3.0, 1.5, 1.4, 1.0, 2.6, None, 2.9)
    mined = mine([several, graded(make_query("p"), 1.0), graded(make_query("r"), 1.0), graded(make_query("s"), 4.0)])
    assert mined.counts["trained_on"] == len(mined.examples) == 2
    rows = [line.rsplit(maxsplit=1) for line in describe_mining(mined.counts, miner.MINING).splitlines()]
    assert [int(number) for _, number in rows] == [10, 3, 2, 3, 1, 2, 1, 2, 1]


def test_nothing_to_train_on_is_an_error() -> None:
    check_examples(mine([graded(make_query("q", 100), 4.0, 1.0)]))
    with pytest.raises(InputError, match="nothing to train on"):
        check_examples(mine([graded(make_query("q", 100), 4.0, 4.0)]))
