"""What counts as a grade, and what never does."""

import math
from typing import Any

import pytest

from hardneg.judging.judge_answers import Answer, MalformedAnswer, read_answer, unanswered


def completion(content: str | None, tokens: list[tuple[str, dict[str, float]]] | None = None, **message: Any) -> dict:
    """A chat completion; `tokens` are the answer's tokens with the probabilities of their alternatives."""
    logprobs = None
    if tokens is not None:
        logprobs = {
            "content": [
                {
                    "token": token,
                    "logprob": 0.0,
                    "top_logprobs": [{"token": t, "logprob": math.log(p) if p else -9999.0} for t, p in top.items()],
                }
                for token, top in tokens
            ]
        }
    choice = {"message": {"content": content} | message, "logprobs": logprobs}
    usage = {"prompt_tokens": 120, "prompt_tokens_details": {"cached_tokens": 100}}
    return {"model": "m", "choices": [choice], "usage": usage}


def test_the_expected_grade_of_hand_worked_probabilities() -> None:
    answer = read_answer(completion("4", [("4", {"4": 0.6, "3": 0.3, "1": 0.1, "2": 0.0})]))
    assert answer.probabilities == pytest.approx((0.1, 0.0, 0.3, 0.6))
    assert answer.grade == pytest.approx(0.1 + 0.9 + 2.4)  # 3.4
    assert (answer.model, answer.prompt_tokens, answer.cached_tokens, answer.reason) == ("m", 120, 100, None)
    assert (answer.content, answer.has_logprobs) == ("4", True)
    for digit in ("1", "4"):
        assert read_answer(completion(digit, [(digit, {digit: 1.0})])).grade == int(digit)


def test_probabilities_are_renormalised_over_the_digits() -> None:
    """As llama.cpp reports them: other words hold a share, and "4" and " 4" are one grade."""
    answer = read_answer(completion(" 4", [(" 4", {" 4": 0.4, "4": 0.1, "The": 0.2, "2": 0.25, "\uff14": 0.05})]))
    assert answer.probabilities == pytest.approx((0.0, 1 / 3, 0.0, 2 / 3))
    assert answer.grade == pytest.approx(10 / 3)


def test_the_digit_is_found_inside_json() -> None:
    tokens = [('{"', {}), ("grade", {}), ('":', {}), (" ", {}), ("3", {"3": 0.5, "1": 0.5}), ("}", {})]
    answer = read_answer(completion('{"grade": 3}', tokens))
    assert answer.probabilities == pytest.approx((0.5, 0.0, 0.5, 0.0))


@pytest.mark.parametrize(
    "tokens",
    [
        None,
        [],
        [("3", {})],
        [("3", {"3": 0.4, "4": 0.09, "The": 0.51})],  # too little of it on digits
        [("3", {"3": 0.479, "4": 0.5})],
        [("3", {"3": 0.1, "4": 0.9})],  # greedy decoding would have said 4: the position is misread
        [("3.", {"3": 1.0})],  # the tokens do not spell the text
        [("The", {}), ("3", {"3": 1.0})],
        [("", {"3": 1.0})],
        [("4", {"4": 1.0})],
        [("3", {"3": math.nan})],
        [("3", {"3": 1e300})],
        [("3", {"3": 0.6, "4": 0.5})],  # more than all
    ],
)
def test_doubtful_probabilities_leave_the_text(tokens: Any) -> None:
    answer = read_answer(completion("3", tokens))
    assert (answer.grade, answer.probabilities, answer.has_logprobs) == (3.0, None, tokens is not None)


@pytest.mark.parametrize(
    ("top", "threes"),
    [
        ({"3": 0.51, "The": 0.49}, 1.0),  # just over half of it on digits
        ({"3": 0.481, "4": 0.5}, 0.481 / 0.981),  # a tie but for rounding
    ],
)
def test_probabilities_that_are_just_trusted(top: dict[str, float], threes: float) -> None:
    answer = read_answer(completion("3", [("3", top)]))
    assert answer.probabilities == pytest.approx((0.0, 0.0, threes, 1 - threes))


@pytest.mark.parametrize(
    "tokens",
    [
        [('{"grade":', {}), (" 3}", {" 3}": 0.4, " 3": 0.6})],  # the digit is no token of its own
        [('{"grades":', {}), ("3", {"3": 1.0})],  # it is one, but the tokens before it do not spell the text
    ],
)
def test_doubtful_tokens_of_json_leave_the_text(tokens: Any) -> None:
    answer = read_answer(completion('{"grade": 3}', tokens))
    assert (answer.grade, answer.probabilities) == (3.0, None)


@pytest.mark.parametrize(
    "logprobs",
    [
        *({}, [], "x", {"content": None}, {"content": [{}]}, {"content": [{"token": "3"}]}),
        {"content": [{"token": "3", "top_logprobs": [{"token": None, "logprob": 0.0}]}]},
        {"content": [{"token": "3", "top_logprobs": [{"token": "3", "logprob": 1000.0}]}]},  # more than a float holds
    ],
)
def test_logprobs_of_another_shape_leave_the_text(logprobs: Any) -> None:
    answer = completion("3")
    answer["choices"][0]["logprobs"] = logprobs
    assert (read_answer(answer).grade, read_answer(answer).probabilities) == (3.0, None)


@pytest.mark.parametrize("content", ["3", " 3\n", '{"grade":3}', ' { "grade" : 3 }\n'])
def test_text_that_is_a_grade(content: str) -> None:
    for digit in "1234":
        assert read_answer(completion(content.replace("3", digit))).grade == int(digit)


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        *((text, "not a grade") for text in ("Score: 3", "3.", "3/4", "\uff13", "③", "0", "5", "34", "three", "-3")),
        *((text, "not a grade") for text in ('{"grade": 5}', '{"grade": "3"}', '{"score": 3}', '{"grade": 3', "[3]")),
        *((text, "not a grade") for text in ('{"grade": 3, "grade": 4}', "3\n4", "The passage", '{"grade": 0}')),
        ("", "empty answer"),
        ("  ", "empty answer"),
        (None, "empty answer"),
    ],
)
def test_text_that_is_no_grade(content: str | None, reason: str) -> None:
    certain = [(content or "", {"3": 1.0})]
    for answer in (read_answer(completion(content)), read_answer(completion(content, certain))):
        assert (answer.grade, answer.probabilities, answer.reason) == (None, None, reason)


def test_a_refusal_is_no_grade_whatever_it_says() -> None:
    answer = read_answer(completion("3", refusal="I cannot"))
    assert (answer.grade, answer.reason, answer.content) == (None, "refused", "I cannot")


@pytest.mark.parametrize(
    ("body", "problem"),
    [
        *((body, "no JSON object") for body in ("3", ["3"], 3, None)),
        ({}, "no choices"),
        ({"choices": []}, "no choices"),
        ({"choices": None}, "no choices"),
        ({"choices": [{}]}, "no choices"),
        ({"choices": [{"message": None}]}, "no choices"),
    ],
)
def test_what_is_no_completion(body: Any, problem: str) -> None:
    with pytest.raises(MalformedAnswer, match=problem):
        read_answer(body)


def test_half_a_surrogate_pair_can_be_stored() -> None:
    assert read_answer(completion("\ud800")).content.encode()
    assert read_answer(completion("3") | {"model": "m\ud800"}).model == "m?"
    assert unanswered("refused", "bad input \ud83d") == Answer("bad input ?", "", None, None, "refused", False)


@pytest.mark.parametrize("unnamed", [{}, {"model": None}])
def test_a_server_that_does_not_name_its_model(unnamed: dict[str, None]) -> None:
    body = completion("3")
    del body["model"]
    assert read_answer(body | unnamed).model == ""


@pytest.mark.parametrize(
    ("usage", "prompt_tokens", "cached_tokens"),
    [
        (None, None, None),
        ({"prompt_tokens": 7, "prompt_tokens_details": None}, 7, None),
        ({"prompt_tokens": -1, "prompt_tokens_details": {"cached_tokens": 0}}, None, 0),
        ({"prompt_tokens": "7", "prompt_tokens_details": {}}, None, None),
    ],
)
def test_missing_usage_is_not_zero(usage: Any, prompt_tokens: int | None, cached_tokens: int | None) -> None:
    answer = read_answer(completion("3") | {"usage": usage})
    assert (answer.prompt_tokens, answer.cached_tokens) == (prompt_tokens, cached_tokens)
