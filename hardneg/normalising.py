"""When two texts, questions or topics count as the same, and whether a text names a topic."""

import unicodedata

import regex

# A letter or digit with the marks on it: Hindi's vowels are marks. Chinese and Japanese have no spaces: each character
# of theirs is a word.
_WORD = regex.compile(r"[\p{Han}\p{Hiragana}\p{Katakana}]|[\p{L}\p{N}][\p{L}\p{N}\p{M}\p{Join_Control}]*")


def normalise(text: str) -> str:
    """Key under which two texts count as the same: composed (NFC), case-folded, every run of whitespace one space.

    >>> normalise("  What is\\n Gout? ")
    'what is gout?'
    """
    return " ".join(unicodedata.normalize("NFC", text).casefold().split())


def normalise_question(question: str) -> str:
    """Key under which two questions count as the same: as `normalise`, without question marks at the end."""
    return normalise(question).rstrip(" ?？؟")


def normalise_topic(topic: str) -> str:
    """Key under which two topics count as the same: as `normalise`, without punctuation.

    >>> normalise_topic("Coffin-Lowry  Syndrome")
    'coffin lowry syndrome'
    """
    key = normalise(topic)
    return " ".join(_WORD.findall(key)) or key


def names_topic(text: str, topic: str) -> bool:
    """Whether a text has every word of its topic, in any order.

    >>> names_topic("Diabetes of type 1 begins early.", "Type 1 Diabetes"), names_topic("It is rare.", "Gout")
    (True, False)
    """
    words = set(normalise_topic(topic).split())
    return bool(words) and words <= set(normalise_topic(text).split())
