"""Short aligned tables for what the scripts report."""

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
