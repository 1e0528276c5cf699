"""When two texts, questions or topics count as the same, and whether a text names a topic."""

import unicodedata

import regex

# Chinese and Japanese have no spaces: each of their characters is a word. Any other word is letters and digits with the
# marks on them, as Hindi's vowels are, and signs behind them that make another name of it, as in C++ and C#.
# (The long vowel and the half-width marks of Katakana belong to no script of their own.)
_UNSPACED = r"\p{Han}\p{Hiragana}\p{Katakana}ーｰﾞﾟ"
_WORD = regex.compile(
    rf"[{_UNSPACED}]|[\p{{L}}\p{{N}}][[\p{{L}}\p{{N}}\p{{M}}\p{{Join_Control}}]--[{_UNSPACED}]]*(?:(?:\+\+|\#)(?![\p{{L}}+\#]))?",
    regex.VERSION1,
)


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
    """Whether a text has every word of its topic, in any order, or a Chinese or Japanese topic as it stands.

    >>> names_topic("Diabetes of type 1 begins early.", "Type 1 Diabetes"), names_topic("It is rare.", "Gout")
    (True, False)
    """
    name, words = normalise_topic(topic), normalise_topic(text)
    if regex.search(f"[{_UNSPACED}]", name):
        return f" {name} " in f" {words} "
    return bool(name) and set(name.split()) <= set(words.split())
