"""What is sent to the judge: a prompt template with checked placeholders, and passages cut to a token budget."""

import hashlib
import math

from hardneg.errors import InputError

# Byte-pair vocabularies make about one token of 3 bytes of Chinese; by Qwen2.5's, 3 in 100 MedQuAD passages have fewer
# bytes per token (LOG.md). Where this is too few after all, the server refuses and the judge cuts further.
MIN_BYTES_PER_TOKEN = 3.0
LONGEST_WORD = 50  # characters; more of them without a space are cut anywhere, as Chinese must be
TYPICAL_BYTES_PER_TOKEN = 4.5  # by Qwen2.5's vocabulary the judge's prompts have 4.42
TEMPLATE_TOKENS = 29  # of Qwen2.5's chat template around one user message


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
