"""How the scripts lay out what they report: short aligned tables, and texts on one line."""

import textwrap
from collections.abc import Iterable, Sequence


def aligned(rows: Iterable[Sequence[object]], indent: str = "  ") -> str:
    """Lay out rows of cells as text: the first column left-aligned, the others right-aligned.

    Numbers get thousands separators.

    >>> print(aligned([("split", "topics"), ("train", 3785), ("test", 475)], indent=""))
    split  topics
    train   3,785
    test      475
    """
    cells = [[f"{cell:,}" if isinstance(cell, int | float) else str(cell) for cell in row] for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    return "\n".join(
        indent
        + "  ".join([row[0].ljust(widths[0]), *(c.rjust(w) for c, w in zip(row[1:], widths[1:], strict=True))]).rstrip()
        for row in cells
    )


def excerpt(text: str, width: int) -> str:
    """A text on one line of at most `width` characters: cut between words or, where that leaves too little, anywhere.

    >>> excerpt("What are the treatments for gout?", 25), excerpt("如何重置我的账户密码？", 10)
    ('What are the [...]', '如何重置 [...]')
    """
    cut_between_words = textwrap.shorten(text, width)
    if len(cut_between_words) > width / 2:
        return cut_between_words
    text = " ".join(text.split())  # Chinese has no spaces, and a URL none either
    return text if len(text) <= width else f"{text[: width - 6]} [...]"
