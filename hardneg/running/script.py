"""How a script runs and ends: with one clear line on bad input, in good order when told to stop."""

import errno
import io
import os
import signal
import sys
import threading
from collections.abc import Callable
from pathlib import Path

from hardneg.running.errors import InputError
from hardneg.running.signals import STOP_SIGNALS

_Handler = Callable[[int, object], None]


class _Stopped(KeyboardInterrupt):
    """A signal to stop; like Ctrl-C it passes every `except Exception`, so that open work is wound up."""


def run(main: Callable[[], None]) -> None:
    """Run a script's `main`: one line and an error's status on bad input, 128 + the signal when told to stop, else 0.

    Raises:
        SystemExit: with status 2 (bad input, a place one may not use, no space for the output), 75 (a server is away),
            130, 143 or 129 (SIGINT, SIGTERM or SIGHUP), or 141 (SIGPIPE: nobody reads the output any more, as behind
            `| head`).
    """
    handlers = {signum: signal.getsignal(signum) for signum in STOP_SIGNALS}
    replaced = {signum: handler for signum, handler in handlers.items() if handler not in (signal.SIG_IGN, None)}
    hook, sys.unraisablehook = sys.unraisablehook, _stop_after_all
    try:
        _ready_streams()
        for signum in replaced:  # what is ignored stays so: nohup ignores SIGHUP
            signal.signal(signum, _stop)
        main()
        sys.stdout.flush()
    except BrokenPipeError:
        _say("")
        raise SystemExit(128 + signal.SIGPIPE) from None
    except InputError as error:
        _say(f"error: {error}\n")
        raise SystemExit(error.status) from None
    except PermissionError as error:
        if error.filename is None:
            raise
        _say(f"error: cannot use {error.filename}: {error.strerror}; check the permissions, or name another place\n")
        raise SystemExit(2) from None
    except OSError as error:
        if error.errno != errno.ENOSPC:
            raise
        _say(f"error: cannot write the output: {error.strerror}; free some disk space and run again\n")
        raise SystemExit(2) from None
    except KeyboardInterrupt as stopped:
        _say("\nstopped; what is done is saved, run the same command again to go on\n")
        raise SystemExit(128 + (stopped.args[0] if isinstance(stopped, _Stopped) else signal.SIGINT)) from None
    finally:
        sys.unraisablehook = hook
        for signum, handler in replaced.items():
            signal.signal(signum, handler)


def _ready_streams() -> None:
    """Make printing safe wherever the output goes."""
    for name in ("stdout", "stderr"):
        if getattr(sys, name) is None:  # closed, as by `>&-`
            setattr(sys, name, Path(os.devnull).open("w"))  # noqa: SIM115, as long as the script runs
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # what a terminal's encoding lacks is shown by its number


def _say(words: str) -> None:
    """Write the last words after all other output; what has no reader, or no room, any more is dropped."""
    for stream, text in ((sys.stdout, ""), (sys.stderr, words)):
        try:
            stream.write(text)
            stream.flush()
        except OSError:
            _drop(stream.fileno())


def _drop(descriptor: int) -> None:
    """Send what is written to an open file nowhere."""
    nowhere = os.open(os.devnull, os.O_WRONLY)
    os.dup2(nowhere, descriptor)
    os.close(nowhere)


def _stop(signum: int, frame: object) -> None:
    """Stop at the first signal. A second one would lose work that is being saved, so it is ignored."""
    _exchange(_stop, _stopping)
    _leave_terminal()
    raise _Stopped(signum)


def _stopping(signum: int, frame: object) -> None:
    """What a signal does once the script is stopping: it does not stop it again."""
    _leave_terminal()


def _leave_terminal() -> None:
    """Drop further output where the terminal is gone: each write, of a progress bar too, would be an error."""
    for stream in (1, 2):
        try:
            os.write(stream, b"")  # nothing, which only a terminal that is gone refuses
        except OSError:
            _drop(stream)


def _exchange(handler: _Handler, other: _Handler) -> None:
    """Put `other` in the place of `handler`; signals that are handled otherwise stay so."""
    for signum in STOP_SIGNALS:
        if signal.getsignal(signum) is handler:
            signal.signal(signum, other)


def _stop_after_all(unraisable: "sys.UnraisableHookArgs") -> None:
    """`run`'s `sys.unraisablehook`: Python drops an exception that falls into a destructor, so the signal is sent anew
    when that is over."""
    if isinstance(unraisable.exc_value, _Stopped):
        _exchange(_stopping, _stop)
        threading.Timer(0.01, os.kill, (os.getpid(), unraisable.exc_value.args[0])).start()
    else:
        sys.__unraisablehook__(unraisable)
