"""Cuts answers into passages: at sentence ends, of even length, never inside a word."""

import re
from collections.abc import Iterator, Sequence
from itertools import pairwise

FRAGMENT_SHARE = 0.1  # a piece below this share of the limit is a fragment and is balanced with its neighbour

# A blank line, or the start of a list item: a bullet or number on a new line, or a bullet behind two spaces. Each run
# of whitespace is looked at once, from its beginning.
_BLOCK_BREAK = re.compile(r"\n\s*\n|\n\s*(?=(?:[-•*]|\d{1,2}[.)])\s)|(?<!\s)\s{2,}(?=[-•*]\s)")
_FULL_WIDTH_STOPS = "。！？"  # they end nothing but sentences, and need no space
_SENTENCE_END = re.compile(
    rf"""(?:[.!?؟।]["'”’»)\]]*\s+|[{_FULL_WIDTH_STOPS}]["'”’」』）]*\s*)"""
    r"""(?=["'“‘„«¿¡(\[「『（《【]*([^\W_]))"""
)
_INITIAL_OR_ABBREVIATION = re.compile(
    r"[^\W\d_]|al|approx|ca|cf|dept|dr|e\.g|eq|figs?|gen|i\.e|inc|jr|m\.d|mr|mrs|ms|nos?|ph\.d|prof|rev|sr|st|vol|vs",
    re.IGNORECASE,
)


def split_text(text: str, limit: int) -> list[str]:
    """Cut `text` into passages of at most `limit` characters.

    Runs of whitespace become one space; joined by spaces again, the passages are the text (between Chinese or Japanese
    sentences a space is put). As few passages as the limit allows, cut at sentence ends (also at blank lines and before
    list items), of lengths as even as these allow. Two things are cut between words instead: a sentence longer than the
    limit, and, together with its shorter neighbour, a passage below `FRAGMENT_SHARE` of the limit. Only a single word
    longer than the limit is cut inside. A text shorter than that is one passage.

    Args:
        text: any text.
        limit: longest passage, in characters.

    Returns:
        The passages in order; none for a blank text.

    >>> split_text("It hurts, e.g. at night.  Take 0.5 mg. Rest.", 30)
    ['It hurts, e.g. at night.', 'Take 0.5 mg. Rest.']
    """
    units: list[str] = []
    for sentence in split_sentences(text):
        units += [sentence] if len(sentence) <= limit else _pack(_words(sentence, limit), limit)
    return _balance_fragments(_pack(units, limit), limit)


def split_sentences(text: str) -> Iterator[str]:
    """Yield the sentences, headings and list items of `text`, whitespace collapsed.

    A sentence ends at `.`, `!` or `?` (Arabic and Hindi ones too) before whitespace and a digit or letter that is no
    small one, except after an abbreviation ("Dr.", "e.g."), an initial ("E. coli") or a list number ("2."). Chinese and
    Japanese stops need no whitespace.
    """
    for block in _BLOCK_BREAK.split(text):
        block = " ".join(block.split())
        start = 0
        for end in _SENTENCE_END.finditer(block):
            is_full_width = block[end.start()] in _FULL_WIDTH_STOPS
            if is_full_width or not (end[1].islower() or _stops_within_sentence(block, start, end.start())):
                yield block[start : end.end()].rstrip()
                start = end.end()
        if start < len(block):
            yield block[start:]


def _stops_within_sentence(block: str, start: int, stop: int) -> bool:
    """Whether the stop at `stop` in the sentence from `start` on ends an abbreviation, an initial or a list number."""
    space = block.rfind(" ", start, stop)
    word = block[max(space + 1, start) : stop]
    if word.isdigit():
        return len(word) <= 2 and (space <= start or block[space - 1] in ":;")
    return _INITIAL_OR_ABBREVIATION.fullmatch(word.lstrip("([\"'“‘")) is not None


def _words(text: str, limit: int) -> list[str]:
    return [word[i : i + limit] for word in text.split() for i in range(0, len(word), limit)]


def _pack(units: Sequence[str], limit: int) -> list[str]:
    """Join neighbouring units, each within `limit`, into as few pieces as fit it, their lengths as even as can be.

    Shortest path over the cut positions: `best[end]` is (pieces, sum of squared lengths, last cut) for the
    first `end` units.
    """
    best: list[tuple[int, int, int]] = [(0, 0, 0)]
    for end in range(1, len(units) + 1):
        length = -1
        options = []
        for start in range(end - 1, -1, -1):
            length += 1 + len(units[start])
            if length > limit:
                break
            pieces, squares, _ = best[start]
            options.append((pieces + 1, squares + length * length, start))
        best.append(min(options))
    cuts = [len(units)]
    while cuts[-1]:
        cuts.append(best[cuts[-1]][2])
    cuts.reverse()
    return [" ".join(units[start:end]) for start, end in pairwise(cuts)]


def _balance_fragments(pieces: list[str], limit: int) -> list[str]:
    """Cut every fragment anew together with its shorter neighbour, at the word that makes the two most even."""
    for position, piece in enumerate(pieces):
        if len(piece) >= FRAGMENT_SHARE * limit or len(pieces) == 1:
            continue
        neighbours = [other for other in (position - 1, position + 1) if 0 <= other < len(pieces)]
        first = min(position, min(neighbours, key=lambda other: len(pieces[other])))
        pieces[first : first + 2] = _pack(_words(" ".join(pieces[first : first + 2]), limit), limit)
    return pieces
