"""When two texts, questions or topics count as the same, and whether a text names a topic."""

import re

_PUNCTUATION = re.compile(r"[\W_]+")


def normalise(text: str) -> str:
    """Key under which two texts count as the same: case-folded, every run of whitespace one space.

    >>> normalise("  What is\\n Gout? ")
    'what is gout?'
    """
    return " ".join(text.casefold().split())


def normalise_question(question: str) -> str:
    """Key under which two questions count as the same: case-folded, whitespace collapsed, no " ?" at the end."""
    return normalise(question).rstrip(" ?")


def normalise_topic(topic: str) -> str:
    """Key under which two topics count as the same: case-folded, without punctuation.

    >>> normalise_topic("Coffin-Lowry  Syndrome")
    'coffin lowry syndrome'
    """
    return normalise(_PUNCTUATION.sub(" ", topic)) or normalise(topic)


def names_topic(text: str, topic: str) -> bool:
    """Whether a text has every word of its topic, in any order.

    >>> names_topic("Diabetes of type 1 begins early.", "Type 1 Diabetes"), names_topic("It is rare.", "Gout")
    (True, False)
    """
    words = set(normalise_topic(topic).split())
    return bool(words) and words <= set(normalise_topic(text).split())
