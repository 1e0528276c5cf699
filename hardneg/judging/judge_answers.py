"""How a grade is read from a server's answer: from the digits' probabilities, else from strict text.

The grade is the expected grade sum(g * p_g) over the probabilities of the digit tokens 1-4, renormalised over these
four. An answer that is not exactly one grade is no grade at all.
"""

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from hardneg.judging.judge import GRADES

# Where logprobs are unconstrained (llama.cpp), a digit missing among 20 listed tokens may hold up to a 17th of the mass
# that is not the digits'. With half the mass on digits that is at most 6% of theirs; with a tenth it would be half.
# Among 5 it is at most a third of theirs with half the mass on digits, and 4% with nine tenths: still surer than the
# digit alone.
MIN_DIGIT_MASS = 0.5
# Greedy decoding takes the likeliest digit; another by more than rounding means the position was misread.
TIE = 0.02

_BARE = re.compile(r"\s*([1-4])\s*")
_WRAPPED = re.compile(r'\s*\{\s*"grade"\s*:\s*([1-4])\s*\}\s*')


class MalformedAnswer(Exception):
    """The server answered 200 with something that is no chat completion: a fault of the server, not of the model."""


@dataclass(frozen=True, slots=True)
class Answer:
    """A chat completion, read. `grade` is None where it holds no grade, and then `reason` says why."""

    content: str
    model: str  # as the server names it
    grade: float | None
    probabilities: tuple[float, float, float, float] | None
    reason: str | None
    has_logprobs: bool = False
    prompt_tokens: int | None = None
    cached_tokens: int | None = None


def unanswered(reason: str, detail: str) -> Answer:
    """A stand-in for an answer that never came."""
    return Answer(_storable(detail), model="", grade=None, probabilities=None, reason=reason)


def read_answer(completion: object) -> Answer:
    """Read a decoded chat-completions response.

    Raises:
        MalformedAnswer: it is no chat completion or has no choices.
    """
    if not isinstance(completion, dict):
        raise MalformedAnswer("the answer is no JSON object")
    try:
        choice = completion["choices"][0]
        message = choice["message"]
        content, refusal = message.get("content"), message.get("refusal")
    except (KeyError, IndexError, TypeError, AttributeError):
        raise MalformedAnswer("the answer has no choices") from None
    text = content if isinstance(content, str) else ""
    grade, probabilities, reason = None, None, None
    if refusal:
        reason = "refused"
    elif not text.strip():
        reason = "empty answer"
    elif found := _BARE.fullmatch(text) or _WRAPPED.fullmatch(text):
        digit = int(found[1])
        probabilities = _digit_probabilities(choice.get("logprobs"), text, found.start(1), digit)
        grade = expected_grade(probabilities) if probabilities else float(digit)
    else:
        reason = "not a grade"
    prompt_tokens, cached_tokens = _usage(completion.get("usage"))
    return Answer(
        content=_storable(str(refusal or text)),
        model=_storable(str(completion.get("model") or "")),
        grade=grade,
        probabilities=probabilities,
        reason=reason,
        has_logprobs=bool(choice.get("logprobs")),
        prompt_tokens=prompt_tokens,
        cached_tokens=cached_tokens,
    )


def expected_grade(probabilities: tuple[float, float, float, float]) -> float:
    """The mean grade under the probabilities of grades 1-4, held to [1, 4] against rounding."""
    return min(max(sum(g * p for g, p in zip(GRADES, probabilities, strict=True)), 1.0), 4.0)


def _digit_probabilities(
    logprobs: object, text: str, position: int, digit: int
) -> tuple[float, float, float, float] | None:
    """Probabilities of the grades at the token that holds `text[position]`, or None where they cannot be trusted."""
    mass = dict.fromkeys(GRADES, 0.0)
    try:
        token = _token_at(logprobs["content"], text, position)  # type: ignore[index]
        if token["token"].strip() != str(digit):
            return None
        for candidate in token["top_logprobs"]:
            name = candidate["token"].strip()  # "4" and " 4" are one grade
            if name in ("1", "2", "3", "4"):
                mass[int(name)] += math.exp(candidate["logprob"])
    except (LookupError, TypeError, AttributeError, OverflowError):
        return None
    total = sum(mass.values())
    if not MIN_DIGIT_MASS <= total <= 1.01 or mass[digit] < max(mass.values()) - TIE:
        return None
    return tuple(mass[grade] / total for grade in GRADES)  # type: ignore[return-value]


def _token_at(tokens: list[Mapping[str, Any]], text: str, position: int) -> Mapping[str, Any]:
    """The token that covers `text[position]`. Raises LookupError where tokens and text do not agree."""
    start = 0
    for token in tokens:
        end = start + len(token["token"])
        if text[start:end] != token["token"]:
            break
        if end > position:
            return token
        start = end
    raise LookupError("tokens and text differ")


def _usage(usage: object) -> tuple[int | None, int | None]:
    """Prompt tokens and those of them found in the server's prefix cache, where the server reports them."""
    if not isinstance(usage, dict):
        return None, None
    details = usage.get("prompt_tokens_details")
    cached = details.get("cached_tokens") if isinstance(details, dict) else None
    return _count(usage.get("prompt_tokens")), _count(cached)


def _storable(text: str) -> str:
    """Without halves of surrogate pairs, which no database takes."""
    return text.encode(errors="replace").decode()


def _count(value: object) -> int | None:
    return value if isinstance(value, int) and value >= 0 else None
