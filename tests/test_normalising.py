"""What counts as the same, and what names a topic."""

import pytest

from hardneg.normalising import names_topic, normalise_question


@pytest.mark.parametrize("other", ["WHAT is  gout", "What is gout ?", "what is gout??"])
def test_questions_that_count_as_the_same(other: str) -> None:
    assert normalise_question(other) == normalise_question("What is gout?") == "what is gout"


@pytest.mark.parametrize(
    ("text", "topic", "named"),
    [
        ("Diabetes, of TYPE 1, begins early.", "Type 1 diabetes", True),
        ("Diabetes begins early.", "Type 1 diabetes", False),
        ("Coffin-Lowry syndrome is rare.", "Coffin Lowry Syndrome", True),
        ("Goutweed is a herb.", "Gout", False),
        ("It is rare.", "", False),
    ],
)
def test_a_text_names_its_topic_with_every_word_of_it(text: str, topic: str, named: bool) -> None:
    assert names_topic(text, topic) is named
