"""The signals that tell a script to stop, and blocks that they must not interrupt."""

import signal
from collections.abc import Callable, Iterator
from contextlib import contextmanager

# Ctrl-C, kill or a shutdown, a closed terminal; plain numbers, as signal handlers get them
STOP_SIGNALS: tuple[int, ...] = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


@contextmanager
def held_signals(told: Callable[[], object] = lambda: None) -> Iterator[None]:
    """Within this block signals to stop are only noted, and `told` is called; they take effect after it.

    Only for the main thread: in others Python sets no handlers.

    For a transaction, which a signal between two instructions could leave open, and for an event loop: raised in the
    middle of a task they would end it, and with it an answer that was read but not yet stored; raised between two
    tasks, the loop would forget what it was about to do, and never end.
    """
    arrived: list[int] = []

    def note(signum: int, frame: object) -> None:
        arrived.append(signum)
        told()

    handlers = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    held = {signum: handler for signum, handler in handlers.items() if callable(handler)}
    try:
        for signum in held:
            signal.signal(signum, note)
        yield
    finally:
        for signum, handler in held.items():
            signal.signal(signum, handler)
        for signum in arrived:
            held[signum](signum, None)
