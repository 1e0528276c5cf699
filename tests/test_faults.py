"""What went wrong with one request, as far as it can be told without a server; test_endpoints.py has the rest."""

import asyncio
import time
from email.utils import formatdate

import aiohttp
import pytest

from hardneg.judging.faults import (
    Fault,
    Rejected,
    Throttled,
    Transient,
    Unreachable,
    connection_fault,
    fault_of,
    retry_after,
)
from tests.judge_data import NO_YEAR

REFUSED = aiohttp.ClientConnectorError(None, OSError("refused\nby all"))  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("status", "detail", "kind"),
    [
        *((status, "", Rejected) for status in (400, 401, 402, 403, 404, 422)),
        *((status, "", Transient) for status in (408, 409, 500, 502, 504)),
        (429, "slow down", Throttled),
        (429, "Request too large for the limit per minute", Rejected),
        (503, "Request too large", Throttled),
    ],
)
def test_a_status_tells_whether_asking_again_may_help(status: int, detail: str, kind: type[Fault]) -> None:
    fault = fault_of(status, detail, 1.5)
    assert (type(fault), fault.kind, fault.status) == (kind, f"HTTP {status}", status)
    assert str(fault) == (f"HTTP {status}: {detail}" if detail else f"HTTP {status}")
    assert fault.retry_after == (1.5 if kind is Throttled else None)


def caused_by(cause: BaseException) -> BaseException:
    """As openai's client wraps what its transport has wrapped already."""
    outer, inner = RuntimeError("Connection error."), RuntimeError("timed out")
    outer.__cause__, inner.__cause__ = inner, cause
    return outer


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (asyncio.TimeoutError(), Transient, "timeout"),
        (aiohttp.ServerTimeoutError(), Transient, "timeout"),
        (aiohttp.ConnectionTimeoutError(), Unreachable, "no connection"),
        (REFUSED, Unreachable, "no connection: refused by all"),
        (aiohttp.ServerDisconnectedError(), Transient, "connection lost"),
        (ConnectionResetError(), Transient, "connection lost"),
        (ValueError(), Transient, "connection lost"),
    ],
)
def test_the_cause_tells_what_became_of_a_connection(error: BaseException, kind: type[Fault], words: str) -> None:
    for fault in (connection_fault(error), connection_fault(caused_by(error))):
        assert (type(fault), str(fault)) == (kind, words)


def test_retry_after_is_seconds_or_a_date() -> None:
    assert retry_after({"retry-after": "1.5"}) == 1.5
    assert 8 < retry_after({"retry-after": formatdate(time.time() + 10, usegmt=True)}) <= 10  # type: ignore[operator]
    assert [retry_after({"retry-after": value}) for value in ("soon", "-1", "inf", "nan", NO_YEAR)] == [None] * 5
    assert retry_after({}) is None
