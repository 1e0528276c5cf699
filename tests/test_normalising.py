"""What counts as the same, and what names a topic."""

import pytest

from hardneg.corpus.normalising import names_topic, normalise, normalise_question, normalise_topic


def test_composed_and_decomposed_letters_are_the_same() -> None:
    assert normalise("Me\u0301nie\u0300re") == normalise("M\u00e9ni\u00e8re")


def test_marks_are_part_of_words() -> None:
    """Hindi's vowels are marks: day, charity, poor and a valley are four words."""
    assert [normalise_topic(f"({word})") for word in ("दिन", "दान", "दीन", "दून")] == ["दिन", "दान", "दीन", "दून"]
    assert normalise_topic("☂️") != normalise_topic("❤️")


@pytest.mark.parametrize("word", ["می\u200cخورد", "क्\u200dष"])
def test_joiners_are_part_of_words(word: str) -> None:
    assert normalise_topic(f"({word})") == word


def test_signs_between_words_and_more_of_them_are_no_part_of_a_name() -> None:
    found = [normalise_topic(topic) for topic in ("Ca++Mg", "C+++", "C##")]
    assert found == ["ca mg", "c", "c"]


def test_case_is_folded_and_raised_digits_stay_so() -> None:
    assert normalise("STRASSE") == normalise("Straße")
    assert normalise("10² cells") != normalise("102 cells")


@pytest.mark.parametrize(
    ("question", "key"),
    [("如何重置密码？", "如何重置密码"), ("如何重置密码 ?", "如何重置密码"), ("ما هو النقرس؟", "ما هو النقرس")],
)
def test_question_marks_of_other_scripts(question: str, key: str) -> None:
    assert normalise_question(question) == key


@pytest.mark.parametrize("other", ["WHAT is  gout", "What is gout ?", "what is gout??"])
def test_questions_that_count_as_the_same(other: str) -> None:
    assert normalise_question(other) == normalise_question("What is gout?") == "what is gout"


@pytest.mark.parametrize(
    ("text", "topic", "named"),
    [
        ("Diabetes, of TYPE 1, begins early.", "Type 1 diabetes", True),
        ("Diabetes begins early.", "Type 1 diabetes", False),
        ("Diabetes of type 2 begins late.", "Type 1 diabetes", False),
        ("Gout.", "Gout", True),
        ("Coffin-Lowry syndrome is rare.", "Coffin Lowry Syndrome", True),
        ("Goutweed is a herb.", "Gout", False),
        ("It is rare.", "", False),
        ("यह महीने में एक बार होता है।", "महामारी", False),
        ("糖尿病的症状包括口渴。", "糖尿病", True),
        ("关节痛，患者怕风。", "痛风", False),  # both characters, but apart
        ("2型糖尿病的症状包括口渴。", "2型糖尿病", True),
        ("HIV感染的症状", "HIV感染", True),
        ("データベースの設定", "データベース", True),
        ("ビタミンCの不足", "ビタミン", True),
        ("サーバー2台を設定する。", "サーバー", True),
        ("ﾃﾞｰﾀ2件", "ﾃﾞｰﾀ", True),
        ("慢性HIV感染", "HIV感染", True),
        ("ひざの痛みについて", "ひざ", True),
        ("第11型です。", "1型", False),
        ("Bjarne wrote C++.", "C++", True),
        ("C++11 adds lambdas.", "C++", True),
        ("HIV+ people need care.", "HIV", True),
        ("Vitamin C is good, and so is C#.", "C++", False),
        ("Vitamin C is good.", "C#", False),
        ("C# is typed.", "C#", True),
        ("T-B+NK- cells", "B NK cells", True),
    ],
)
def test_a_text_names_its_topic_with_every_word_of_it(text: str, topic: str, named: bool) -> None:
    assert names_topic(text, topic) is named
