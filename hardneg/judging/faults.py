"""What went wrong with one request to a server, told apart by whether and when asking again may help."""

import asyncio
import email.utils
import time
from collections.abc import Mapping

import aiohttp

from hardneg.running.errors import one_line

TIMEOUT = "timeout"  # the kind of fault


class Fault(Exception):
    """A request that brought no answer. Its text holds no secrets; `kind` is one of few, for counting.

    Args:
        kind: what went wrong, without the particulars.
        detail: the particulars, such as the server's own words.
        status: the HTTP status, where there was one.
        retry_after: seconds the server asks to wait, where it does.
    """

    def __init__(
        self, kind: str, detail: str = "", *, status: int | None = None, retry_after: float | None = None
    ) -> None:
        super().__init__(f"{kind}: {detail}" if detail else kind)
        self.kind = kind
        self.status = status
        self.retry_after = retry_after


class Transient(Fault):
    """Trouble with this request that another attempt may not have."""


class Unreachable(Fault):
    """No connection could be made: nothing was asked."""


class Throttled(Fault):
    """The server has too much to do."""


class Rejected(Fault):
    """The server understood the request and will not answer it; asking again is no use."""


class GaveUp(Fault):
    """The last attempt of a request failed."""


def fault_of(status: int, detail: str, retry_after: float | None) -> Fault:
    """What an HTTP status of 400 and more means for the request."""
    if status == 429 and "too large" in detail.casefold():  # of OpenAI's limit per minute; llm_judge._TOO_LONG cuts it
        return Rejected(f"HTTP {status}", detail, status=status)
    if status in (429, 503):
        return Throttled(f"HTTP {status}", detail, status=status, retry_after=retry_after)
    if status in (408, 409) or status >= 500:
        return Transient(f"HTTP {status}", detail, status=status)
    return Rejected(f"HTTP {status}", detail, status=status)


def connection_fault(error: BaseException | None) -> Fault:
    """Which trouble it was, by the first aiohttp error among the causes: the transport calls most of them time-outs."""
    while error is not None:
        if isinstance(error, aiohttp.ClientConnectorError | aiohttp.ConnectionTimeoutError):
            # Its own words say "ssl:default" where there is no TLS, and are needed only to tell a proxy's host.
            is_proxy = isinstance(error, aiohttp.ClientProxyConnectionError)
            return Unreachable("no connection", one_line(error if is_proxy else getattr(error, "os_error", error)))
        if isinstance(error, asyncio.TimeoutError):  # aiohttp's own are such too
            return Transient(TIMEOUT)
        if isinstance(error, aiohttp.ClientError | OSError):
            break
        error = error.__cause__
    return Transient("connection lost")


def retry_after(headers: Mapping[str, str]) -> float | None:
    """Seconds of a Retry-After header, which is a number or a date (RFC 9110, 10.2.3)."""
    value = headers.get("retry-after")
    if value is None:
        return None
    try:
        seconds = float(value)
    except ValueError:
        try:
            seconds = email.utils.parsedate_to_datetime(value).timestamp() - time.time()
        except (ValueError, OverflowError):  # the latter: of a year of eleven digits
            return None
    return seconds if 0 <= seconds < float("inf") else None
