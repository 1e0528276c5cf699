"""Splitting answers into passages."""

import os
import random
import time
from pathlib import Path

import pytest

from hardneg.corpus.chunking import FRAGMENT_SHARE, split_sentences, split_text
from hardneg.corpus.normalising import normalise
from hardneg.corpus.sources import read_rows


@pytest.mark.parametrize(
    ("text", "sentences"),
    [
        ("It hurts. It burns! Does it? Yes.", ["It hurts.", "It burns!", "Does it?", "Yes."]),
        ("See Dr. Miller, e.g. Tuesdays. Bring notes.", ["See Dr. Miller, e.g. Tuesdays.", "Bring notes."]),
        ("Ask (Dr. Miller). Yes.", ["Ask (Dr. Miller).", "Yes."]),
        ("Take 0.5 mg. Or 2.25 mg.", ["Take 0.5 mg.", "Or 2.25 mg."]),
        ("The bacterium E. Coli lives there. It is common.", ["The bacterium E. Coli lives there.", "It is common."]),
        ("Steps: 1. Wash. 2. Dry.", ["Steps: 1. Wash.", "2. Dry."]),
        ("10. Wash. 11. Dry.", ["10. Wash.", "11. Dry."]),
        ("Steps; 1. Wash. 2. Dry.", ["Steps; 1. Wash.", "2. Dry."]),
        ("Dose: 100. Often less.", ["Dose: 100.", "Often less."]),  # too high for a list number
        ("One in 20. Often less.", ["One in 20.", "Often less."]),
        ('He said "stop." Then he left.', ['He said "stop."', "Then he left."]),
        ("the pH rises. pH matters", ["the pH rises. pH matters"]),
        ("Surgery\n   \nSurgery is rare", ["Surgery", "Surgery is rare"]),
        ("Signs are\n    - fever    - a dry-cough", ["Signs are", "- fever", "- a dry-cough"]),
        ("Signs: - fever  • cough  * rash  -40 degrees", ["Signs: - fever", "• cough", "* rash -40 degrees"]),
        ("Signs\n• fever\n12. cough\n100. cold", ["Signs", "• fever", "12. cough 100. cold"]),
        ("كيف؟ هكذا.", ["كيف؟", "هكذا."]),
        ("It hurts. - Then _it_ burns. _Much_", ["It hurts. - Then _it_ burns. _Much_"]),
        ("wrapped\nline", ["wrapped line"]),
        (
            "To reset it\n1. Open the page\n2) Click\n- or\n* press",
            ["To reset it", "1. Open the page", "2) Click", "- or", "* press"],
        ),
        ("since\n1990. Then\n-40 degrees", ["since 1990.", "Then -40 degrees"]),
        ("Подагра болезненна. Она лечится.", ["Подагра болезненна.", "Она лечится."]),
        ("La goutte, p. ex. évitable. Évitez la bière.", ["La goutte, p. ex. évitable.", "Évitez la bière."]),
        ("Duele. ¿Mucho? Sí.", ["Duele.", "¿Mucho?", "Sí."]),
        ("यह दर्द है। यह ठीक होता है।", ["यह दर्द है।", "यह ठीक होता है।"]),
        ("痛风很痛。它可以治疗！真的吗？是的。", ["痛风很痛。", "它可以治疗！", "真的吗？", "是的。"]),
        ("痛。 走。", ["痛。", "走。"]),
        ("他说「停。」然后走了。", ["他说「停。」", "然后走了。"]),
        ("是。用 iPhone 吗？iPhone 很好。好。", ["是。", "用 iPhone 吗？", "iPhone 很好。", "好。"]),
        ("他读了书。《红楼梦》是小说。", ["他读了书。", "《红楼梦》是小说。"]),
        ("  \n ", []),
    ],
)
def test_sentences(text: str, sentences: list[str]) -> None:
    assert list(split_sentences(text)) == sentences


@pytest.mark.parametrize("opener", "\"'“‘„«¿¡([「『（《【")
def test_a_sentence_may_begin_with_a_quote_or_bracket(opener: str) -> None:
    assert list(split_sentences(f"It hurts. {opener}Then")) == ["It hurts.", f"{opener}Then"]


@pytest.mark.parametrize("closer", ['"', "'", "”", "’", "»", ")", "]", "”)"])
def test_quotes_and_brackets_after_a_stop_end_its_sentence(closer: str) -> None:
    assert list(split_sentences(f"It hurts.{closer} Then")) == [f"It hurts.{closer}", "Then"]


@pytest.mark.parametrize("closer", "\"'”’」』）")
def test_quotes_and_brackets_after_a_full_width_stop_end_its_sentence(closer: str) -> None:
    assert list(split_sentences(f"痛。{closer}走")) == [f"痛。{closer}", "走"]


@pytest.mark.parametrize("opener", "([\"'“‘")
def test_an_abbreviation_may_stand_behind_a_quote_or_bracket(opener: str) -> None:
    text = f"Ask {opener}Dr. Miller"
    assert list(split_sentences(text)) == [text]


@pytest.mark.parametrize("abbreviation", ["al", "i.e", "Fig", "figs", "no", "Nos", "Ph.D", "M.D", "vs"])
def test_an_abbreviation_ends_no_sentence(abbreviation: str) -> None:
    text = f"It is {abbreviation}. Miller"
    assert list(split_sentences(text)) == [text]


def test_short_text_is_one_passage_and_blank_text_none() -> None:
    assert split_text("Rest.", 100) == ["Rest."]
    assert split_text(" \n\t ", 100) == []


def test_lengths_are_as_even_as_the_sentences_allow() -> None:
    sentences = ["Aaaaaaaaaa.", "Bbbbbbbbbb.", "Cccccccccc.", "Dddddddddd."]  # 11 each; 3 fit into 40, 2 and 2 are even
    assert split_text(" ".join(sentences), 40) == ["Aaaaaaaaaa. Bbbbbbbbbb.", "Cccccccccc. Dddddddddd."]


def test_too_long_a_sentence_is_cut_between_words_into_even_pieces() -> None:
    assert split_text("one two three four five six seven", 20) == ["one two three four", "five six seven"]


def test_only_a_word_longer_than_the_limit_is_cut_inside() -> None:
    assert split_text("x" * 250, 100) == ["x" * 100, "x" * 100, "x" * 50]


def test_chinese_is_cut_at_its_stops() -> None:
    sentence = "甲" * 59 + "。"
    assert split_text(sentence * 3, 130) == [sentence, f"{sentence} {sentence}"]


def test_a_fragment_is_balanced_with_its_shorter_neighbour() -> None:
    first = "A" + " aa" * 32 + "."  # 98 characters
    last = "C" + " cc" * 31 + "."  # 95
    text = f"{first} Bbbb. {last}"  # "Bbbb." fits neither side: 98 + 1 + 5 and 5 + 1 + 95 exceed 100
    pieces = split_text(text, 100)
    assert pieces[0] == first
    assert " ".join(pieces) == text
    assert [len(piece) for piece in pieces[1:]] == [49, 51]


@pytest.mark.parametrize(
    ("order", "lengths"),
    [
        (["fragment", "long", "shorter"], [52, 51, 95]),
        (["shorter", "fragment", "long"], [49, 51, 98]),
        (["long", "shorter", "fragment"], [98, 49, 51]),
    ],
)
def test_a_fragment_is_balanced_wherever_it_stands(order: list[str], lengths: list[int]) -> None:
    """And what is not its neighbour stays as it is, however short."""
    sentences = {"long": "A" + " aa" * 32 + ".", "shorter": "C" + " cc" * 31 + ".", "fragment": "Bbbb."}
    text = " ".join(sentences[name] for name in order)
    pieces = split_text(text, 100)
    assert " ".join(pieces) == text
    assert [len(piece) for piece in pieces] == lengths


@pytest.mark.parametrize(("first", "lengths"), [("Bbbb bbbb.", [10, 98]), ("Bbb bbbb.", [53, 54])])
def test_a_tenth_of_the_limit_is_no_fragment(first: str, lengths: list[int]) -> None:
    assert [len(piece) for piece in split_text(first + " A" + " aa" * 32 + ".", 100)] == lengths


@pytest.mark.parametrize("text", ["It" + " " * 100_000 + "hurts.", "E. " * 300_000 + "coli."])
def test_long_runs_take_no_longer_than_other_text(text: str) -> None:
    begun = time.process_time()
    assert list(split_sentences(text)) == [" ".join(text.split())]
    assert time.process_time() - begun < 5


def random_text(rng: random.Random) -> str:
    words = ["".join(rng.choices("abcdefgh", k=rng.randint(1, 12))) for _ in range(rng.randint(1, 300))]
    ends = rng.choices(["", ",", ". X", ".\n\nX", "  - ", " \n"], weights=[12, 2, 2, 1, 1, 1], k=len(words))
    return " ".join(word + end for word, end in zip(words, ends, strict=True))


def assert_well_split(text: str, limit: int) -> None:
    passages = split_text(text, limit)
    assert " ".join(passages) == " ".join(text.split())  # nothing lost, spaces kept, no word cut
    assert max(map(len, passages)) <= limit
    if len(passages) > 1:
        assert min(map(len, passages)) >= FRAGMENT_SHARE * limit


def test_what_holds_for_every_text() -> None:
    rng = random.Random(7)
    for _ in range(300):
        assert_well_split(random_text(rng), rng.randint(100, 500))


@pytest.mark.skipif("HARDNEG_DATA" not in os.environ, reason="HARDNEG_DATA names no folder with medquad.parquet")
def test_real_answers() -> None:
    rows = read_rows(str(Path(os.environ["HARDNEG_DATA"]) / "medquad.parquet"), {})
    passages = [split_text(row.answer, 1000) for row in rows]
    assert all(
        " ".join(texts) == " ".join(row.answer.split()) and all(len(text) <= 1000 for text in texts)
        for row, texts in zip(rows, passages, strict=True)
    )
    assert all(len(text) >= 100 for texts in passages if len(texts) > 1 for text in texts)
    assert 24_000 < len({normalise(text) for texts in passages for text in texts}) < 28_000
