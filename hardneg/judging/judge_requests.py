"""What is sent to a server: the prompt, a passage cut to a token budget, and what holds the model to a grade."""

import hashlib
import math
from collections.abc import Mapping
from typing import Any

from hardneg.judging.judge import GRADES
from hardneg.running.errors import InputError

# Byte-pair vocabularies make about one token of 3 bytes of Chinese; by Qwen2.5's, 3 in 100 MedQuAD passages have fewer
# bytes per token (LOG.md, "A real vLLM server"). Where this is too few after all, the server refuses and the judge cuts
# further.
MIN_BYTES_PER_TOKEN = 3.0
LONGEST_WORD = 50  # characters; more of them without a space are cut anywhere, as Chinese must be
TYPICAL_BYTES_PER_TOKEN = 4.5  # by Qwen2.5's vocabulary the judge's prompts have 4.42
TEMPLATE_TOKENS = 29  # of Qwen2.5's chat template around one user message

# Log-probabilities to ask for per token, best first: the most of vLLM and OpenAI, and that of Fireworks and DashScope.
# judge_answers.MIN_DIGIT_MASS rests on them.
TOP_LOGPROBS = (20, 5)

_INTEGER = {"type": "integer", "enum": list(GRADES)}
_OBJECT = {"type": "object", "properties": {"grade": _INTEGER}, "required": ["grade"], "additionalProperties": False}


def _json_schema(schema: Mapping[str, Any]) -> dict[str, Any]:
    return {"type": "json_schema", "json_schema": {"name": "grade", "strict": True, "schema": schema}}


# Ways to hold the model to a grade, best first. vLLM binds the first (one token, log-probabilities over the four
# choices); llama.cpp the second; hosted services only take a schema that is an object. vLLM takes the penalty from the
# model's own settings where none is sent: Qwen2.5's (1.05) then keeps it from writing a digit that the prompt has.
CONSTRAINTS: Mapping[str, Mapping[str, Any]] = {
    "choice": {"structured_outputs": {"choice": [str(grade) for grade in GRADES]}, "repetition_penalty": 1.0},
    "integer": {"response_format": _json_schema(_INTEGER)},
    "object": {"response_format": _json_schema(_OBJECT), "max_tokens": 16},  # `{"grade": 4}`
    "none": {},
}
MAX_TOKENS = 4  # of an answer: a digit, perhaps with a space and an end mark; a constraint may need more

# What determines an answer besides model and prompt: part of every key of the store. The constraint is not: whichever
# one a server understands, the grade is the model's distribution over the same four digits, before any penalty.
DECODING = {"temperature": 0, "seed": 0}


def estimate_tokens(text: str) -> int:
    """A cautious (high) estimate of a text's tokens without the model's tokenizer."""
    return math.ceil(len(text.encode()) / MIN_BYTES_PER_TOKEN)


def typical_tokens(prompt: str) -> int:
    """What a prompt is likely to have in tokens, with the chat template around it: for estimates of cost."""
    return TEMPLATE_TOKENS + math.ceil(len(prompt.encode()) / TYPICAL_BYTES_PER_TOKEN)


def cut_to_tokens(text: str, tokens: int) -> str:
    """The longest beginning of `text` that `estimate_tokens` puts at no more than `tokens`.

    It ends between words, but within one of more than LONGEST_WORD characters.
    """
    encoded = text.encode()
    room = int(max(tokens, 0) * MIN_BYTES_PER_TOKEN)
    if len(encoded) <= room:
        return text
    beginning = encoded[:room].decode(errors="ignore")
    if beginning and not (beginning[-1].isspace() or text[len(beginning)].isspace()):
        words = beginning.rsplit(maxsplit=1)
        if len(words) == 2 and len(words[1]) <= LONGEST_WORD:
            beginning = words[0]
    return beginning.rstrip()


class PromptTemplate:
    """A judge's prompt with `{query}` and, after it, `{passage}`; other braces are plain text.

    The order lets a server's prefix cache work: instructions, then the question, and the passage, the only part that
    changes from one request to the next, last.

    >>> PromptTemplate("Q: {query} P: {passage} Grade:").render("why {x}?", "because {query}")
    'Q: why {x}? P: because {query} Grade:'
    """

    def __init__(self, text: str) -> None:
        """Check the placeholders. Raises InputError where one is missing, repeated or out of order."""
        for placeholder in ("{query}", "{passage}"):
            count = text.count(placeholder)
            if count != 1:
                raise InputError(
                    f"the judge's prompt holds {placeholder} {count} times; write {{query}} and {{passage}} once each"
                )
        head, _, rest = text.partition("{query}")
        if "{passage}" not in rest:
            raise InputError(
                "the judge's prompt has {passage} before {query}; put the passage last, or the server's prefix cache "
                "cannot reuse the question"
            )
        middle, _, tail = rest.partition("{passage}")
        self.text = text
        self.sha256 = hashlib.sha256(text.encode()).hexdigest()
        self._parts = (head, middle, tail)
        self.tokens = sum(map(estimate_tokens, self._parts))  # estimated, without question and passage

    def render(self, query: str, passage: str) -> str:
        """The prompt for one question and passage; braces inside them stay as they are."""
        head, middle, tail = self._parts
        return f"{head}{query}{middle}{passage}{tail}"


def request_body(model: str, prompt: str, constraint: str, top_logprobs: int) -> dict[str, Any]:
    """One chat-completions request, the same for a live server and for a batch file.

    Args:
        model: the served model's name.
        prompt: the whole prompt, sent as one user message.
        constraint: one of CONSTRAINTS.
        top_logprobs: how many log-probabilities to ask for per token; 0 for none.
    """
    body = {"model": model, "messages": [{"role": "user", "content": prompt}], "max_tokens": MAX_TOKENS}
    if top_logprobs:
        body |= {"logprobs": True, "top_logprobs": top_logprobs}
    return {**body, **DECODING, **CONSTRAINTS[constraint]}
