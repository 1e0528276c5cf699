"""OpenAI-compatible servers behind one door: least-outstanding dispatch, bounded retries, pauses, and coming back.

Three kinds of trouble are told apart. A request's own (a reset, a timeout, a 500, broken JSON) is tried again a bounded
number of times. An endpoint's load (429, 503) pauses that endpoint as a whole and halves how many requests it gets at
once; a timeout halves that too. (A request that is throttled again and again, while the endpoint passes a probe, has
trouble of its own.) A dead endpoint is set aside, probed after growing pauses, and comes back when it passes the same
probe as at the start, while the others go on.
"""

import asyncio
import os
import random
import time
from collections import deque
from collections.abc import Awaitable, Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

import aiohttp
import httpx2
import openai

from hardneg.judging.faults import (
    TIMEOUT,
    Fault,
    GaveUp,
    Rejected,
    Throttled,
    Transient,
    Unreachable,
    connection_fault,
    fault_of,
    retry_after,
)
from hardneg.judging.judge_answers import Answer, MalformedAnswer, read_answer
from hardneg.running.errors import PROXY_URL_REMEDY, InputError, Unavailable, one_line

_CLIENT_VARIABLES = ("SSL_CERT_FILE", "SSL_CERT_DIR", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY", "NO_PROXY")


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """How long to keep trying; times in seconds."""

    timeout: float = 120.0  # for one whole request, however slowly its bytes trickle in
    attempts: int = 6  # of one request, when the trouble is its own
    first_pause: float = 0.5  # after a failure; doubled each time, with jitter
    throttle_pause: float = 0.05  # the same after a 429 or 503, where it asks for less; short: the window shrinks too
    longest_pause: float = 60.0  # also the most that a Retry-After header can ask for at once
    patience: float = 600.0  # without a single answer from any endpoint; vLLM loads a 7B model in 1 to 3 minutes
    aside_after: int = 16  # failures in a row before an endpoint counts as dead

    def pause(self, times: int, first: float | None = None) -> float:
        """The pause after so many failures in a row (from 1), with jitter so that clients do not come back as one."""
        first = self.first_pause if first is None else first
        return min(first * 2 ** min(times - 1, 30), self.longest_pause) * random.uniform(0.5, 1.0)


def checked_url(url: str) -> str:
    """An endpoint without its trailing slash. Raises InputError where it is no URL, or holds what may be a secret."""
    if "@" in url or "?" in url:  # not shown: what stands before an @ or behind a ? may be a key
        raise InputError(
            "an LLM endpoint holds a password or a parameter (there is an @ or a ? in it); give a URL such as "
            "http://localhost:8000/v1, and the key in OPENAI_API_KEY"
        )
    try:
        parts = urlsplit(url)
        is_valid = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        httpx2.URL(url)
    except (ValueError, httpx2.InvalidURL):
        is_valid = False
    if not is_valid:
        raise InputError(f"{url!r} is no LLM endpoint; give a URL such as http://localhost:8000/v1")
    return url.rstrip("/")


def _http_client() -> httpx2.AsyncClient:
    """A client as the environment wants it. Raises InputError where that names proxies or certificates of no use."""
    try:
        return openai.DefaultAioHttpClient()
    except (OSError, ValueError, httpx2.InvalidURL) as error:
        names = ", ".join(name for name in os.environ if name.upper() in _CLIENT_VARIABLES)
        is_url = isinstance(error, httpx2.InvalidURL)  # whose message may quote a piece of a password
        reason = PROXY_URL_REMEDY if is_url else one_line(error)
        raise InputError(
            f"an LLM server cannot be asked with the environment's proxies or certificates ({reason}); "
            f"correct or unset what is wrong of {names or 'them'}"
        ) from None


class Endpoint:
    """One server: its client, and what is known of its state. Belongs to one event loop.

    Args:
        url: as `checked_url` returns it.
        api_key: sent with each request.
        concurrency: most requests at once.
        policy: see RetryPolicy.
        tell: called with one line when the server, having answered, is set aside, and when it takes requests again.

    Raises:
        InputError: the environment's proxies or certificates are of no use.
    """

    def __init__(
        self,
        url: str,
        api_key: str,
        concurrency: int,
        policy: RetryPolicy,
        tell: Callable[[str], object] = lambda words: None,
    ) -> None:
        self.url = url
        self.answers_as: str | None = None  # the model's name in its answers, once probed
        self.in_flight = 0
        self.window = float(concurrency)  # how many requests at once; shrinks when the server has too much to do
        self.resume_at = 0.0  # no request before this time (monotonic)
        self.aside: str | None = None  # why no requests go there
        self.refusal = ""  # what it said when it last throttled
        self.hopeless = False  # set aside for a reason that waiting does not cure
        self.probing = False
        self.doubt = asyncio.Lock()  # held while a refusal is looked into
        self.vouched_at = 0.0  # when a probe last passed (monotonic)
        self._limit = concurrency
        self._policy = policy
        self._tell = tell
        self._api_key = api_key
        self._crowded_at = 0.0
        self.pauses = 0  # in a row, for load
        self._failures = self._probes = 0
        self._client = openai.AsyncOpenAI(
            base_url=url,
            api_key=api_key,
            max_retries=0,
            timeout=httpx2.Timeout(policy.timeout, connect=min(10.0, policy.timeout)),
            http_client=_http_client(),
        )

    async def models(self) -> object:
        """The decoded answer of `/models`. Raises Fault."""
        return await self._request(self._client.get("/models", cast_to=httpx2.Response))

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        """Send one chat-completions request and read its answer. Raises Fault."""
        completion = await self._request(self._client.post("/chat/completions", body=body, cast_to=httpx2.Response))
        try:
            return read_answer(completion)
        except MalformedAnswer as error:
            raise self._fault_within(completion) or Transient(str(error)) from None

    async def close(self) -> None:
        """Close the connections."""
        await self._client.close()

    def succeeded(self) -> None:
        """Note an answer: the window grows by about one per round trip, as in TCP's congestion avoidance."""
        self.pauses = self._failures = 0
        self.window = min(self.window + 1 / self.window, self._limit)

    def failed(self, reason: str) -> None:
        """Note a failed request; too many in a row mean a dead endpoint."""
        self._failures += 1
        if self._failures >= self._policy.aside_after:
            self.set_aside(reason)

    def crowd(self, sent_at: float) -> bool:
        """Halve the window for a request sent at `sent_at`; False if it has been halved since, in the same storm."""
        if sent_at < self._crowded_at:
            return False
        self._crowded_at = time.monotonic()
        self.window = max(min(self.window, self.in_flight) / 2, 1.0)
        return True

    def throttle(self, sent_at: float, fault: Throttled) -> None:
        """Pause the whole endpoint, at least as long as it asks, and halve its window."""
        self.refusal = str(fault)
        now = time.monotonic()
        pause = fault.retry_after or 0.0
        if self.crowd(sent_at):
            self.pauses += 1
            pause = max(pause, self._policy.pause(self.pauses, self._policy.throttle_pause))
        self.resume_at = max(self.resume_at, now + min(pause, self._policy.longest_pause))

    def set_aside(self, reason: str, hopeless: bool = False) -> None:
        """Send no more requests until a probe passes."""
        if self.aside is None and self.answers_as is not None:
            self._tell(f"{self.url} gets no more requests until it answers again: {reason}")
        if self.aside is None or self.probing:  # several requests find it dead at once: one pause for all of them
            self._probes += 1
            self.resume_at = time.monotonic() + self._policy.pause(self._probes)
        self.aside, self.hopeless = reason, hopeless

    def rejoin(self, answers_as: str) -> None:
        """Take requests again, after a probe."""
        if self.aside is not None:
            self._tell(f"{self.url} answers, and gets requests")
        self.answers_as, self.aside, self.hopeless = answers_as, None, False
        self._failures = self._probes = 0
        self.vouched_for()

    def vouched_for(self) -> None:
        """Note a passed probe."""
        self.vouched_at, self.resume_at, self.pauses = time.monotonic(), 0.0, 0

    async def _request(self, request: Awaitable[httpx2.Response]) -> object:
        """Await a request and decode its JSON; every way to fail becomes one kind of Fault."""
        try:
            # The client's own timeout is per read: a server that trickles bytes would never meet it.
            response = await asyncio.wait_for(request, self._policy.timeout)
        except openai.APIStatusError as error:
            raise self._status_fault(error) from None
        except (asyncio.TimeoutError, openai.APIConnectionError, aiohttp.ClientError, OSError) as error:
            raise connection_fault(error) from None
        except UnicodeEncodeError:  # openai's transport, of a reason phrase; the status is lost with it
            raise Transient("the status line is not UTF-8") from None
        try:
            return response.json()
        except (ValueError, RecursionError):
            raise Transient("the answer is not JSON") from None

    def _status_fault(self, error: openai.APIStatusError) -> Fault:
        body = error.body if isinstance(error.body, dict) else {"message": error.body}
        words = body.get("message") or body.get("detail") or error.response.reason_phrase
        has_no_credit = error.status_code == 429 and body.get("code") == "insufficient_quota"
        status = 402 if has_no_credit else error.status_code  # what OpenAI means: waiting does not help
        return fault_of(status, self._clean(words), retry_after(error.response.headers))

    def _fault_within(self, completion: object) -> Fault | None:
        """The fault of another server that a gateway passes on with status 200, as OpenRouter does; else None."""
        passed_on = completion.get("error") if isinstance(completion, dict) else None
        error = passed_on if isinstance(passed_on, dict) else {}
        status = error.get("code")
        if not (isinstance(status, int) and 400 <= status < 600):
            return None
        return fault_of(status, self._clean(error.get("message") or ""), None)

    def _clean(self, words: object) -> str:
        """A server's own explanation on one line, without the key should the server repeat it."""
        return one_line(str(words).replace(self._api_key, "[key]"))


class EndpointPool:
    """The endpoints of one run. Each `ask` has at most one request in flight, so its callers bound the concurrency.

    Args:
        endpoints: at least one.
        probe: checks an endpoint and returns the model name it answers with; raises Fault or InputError.
        policy: see RetryPolicy.
    """

    def __init__(
        self, endpoints: Sequence[Endpoint], probe: Callable[[Endpoint], Awaitable[str]], policy: RetryPolicy
    ) -> None:
        self.endpoints = endpoints
        self.requests = 0  # sent, with retries, without probes
        self._probe = probe
        self._policy = policy
        self._failing_since: float | None = None
        self._stopping = False
        self._waiters: deque[asyncio.Future[None]] = deque()

    async def ask(self, body: Mapping[str, Any]) -> Answer:
        """One answer from whichever endpoint has the least to do.

        Raises:
            GaveUp: every attempt failed for reasons of this request's own.
            Rejected: no endpoint will answer this request.
            Unavailable: no endpoint answers any more.
            InputError: none serves the model as it did.
        """
        failures = throttles = 0
        while True:
            endpoint = await self._acquire()
            sent_at = time.monotonic()
            self.requests += 1
            try:
                answer = await endpoint.ask(body)
                if answer.model == endpoint.answers_as:
                    endpoint.succeeded()
                    self._failing_since = None
                    return answer
                self._note_failure()
                endpoint.set_aside(f'it now answers as "{answer.model}", before as "{endpoint.answers_as}"', True)
            except Throttled as fault:
                self._note_failure()
                endpoint.throttle(sent_at, fault)
                throttles += 1
                if await self._throttles_this_one(endpoint, throttles, sent_at):
                    raise GaveUp(f"no answer: {fault.kind}", f"{throttles} attempts, at last: {fault}") from None
            except Unreachable as fault:
                self._note_failure()
                endpoint.set_aside(str(fault))
            except Rejected as fault:
                if fault.status not in (401, 402, 403, 404) or await self._still_serves(endpoint, sent_at):
                    raise
            except Transient as fault:
                self._note_failure()
                endpoint.failed(str(fault))
                if fault.kind == TIMEOUT:
                    endpoint.crowd(sent_at)
                failures += 1
                if failures >= self._policy.attempts:
                    raise GaveUp(f"no answer: {fault.kind}", f"{failures} attempts, at last: {fault}") from None
            finally:
                endpoint.in_flight -= 1
                self._wake_one()
            if failures:
                await asyncio.sleep(self._policy.pause(failures))

    def stop(self) -> None:
        """Ask nothing more: what is under way goes on, what waits for its turn or comes later is cancelled."""
        self._stopping = True
        while self._waiters:
            self._wake_one()

    async def close(self) -> None:
        """Close all connections."""
        for endpoint in self.endpoints:
            await endpoint.close()

    def _note_failure(self) -> None:
        if self._failing_since is None:
            self._failing_since = time.monotonic()

    async def _acquire(self) -> Endpoint:
        """The free endpoint with the fewest requests in flight, one more counted; waits until there is one."""
        while True:
            now = time.monotonic()
            for endpoint in self.endpoints:
                is_due = endpoint.aside is not None and endpoint.resume_at <= now and not endpoint.probing
                if is_due and not self._stopping:
                    await self._try_again(endpoint)
                    now = time.monotonic()
            if self._stopping:
                raise asyncio.CancelledError
            up = [endpoint for endpoint in self.endpoints if endpoint.aside is None]
            free = [e for e in up if e.resume_at <= now and e.in_flight < e.window]
            if free:
                endpoint = min(free, key=lambda e: e.in_flight)
                endpoint.in_flight += 1
                self._wake_one()  # there may be room for another
                return endpoint
            self._check_hope(now)
            await self._wait(min((e.resume_at for e in self.endpoints if e.resume_at > now), default=now + 1.0))

    async def _wait(self, due: float) -> None:
        """Wait for a change, at most until `due` (monotonic) or for a second."""
        loop = asyncio.get_running_loop()
        waiter: asyncio.Future[None] = loop.create_future()
        self._waiters.append(waiter)
        timer = loop.call_later(min(due - time.monotonic(), 1.0) + 0.001, self._wake_one)
        try:
            await waiter
        finally:
            timer.cancel()

    def _wake_one(self) -> None:
        """Let the longest-waiting caller look for room; waking all for one place would cost more than asking."""
        while self._waiters:
            waiter = self._waiters.popleft()
            if not waiter.done():
                waiter.set_result(None)
                return

    async def _still_serves(self, endpoint: Endpoint, sent_at: float) -> bool:
        """Whether an endpoint has passed a probe since `sent_at`: then it refused that one request only.

        If it fails the probe it is set aside. One that has been set aside meanwhile is not probed.
        """
        async with endpoint.doubt:
            if endpoint.aside is None and endpoint.vouched_at < sent_at:
                await self._try_again(endpoint)
            return endpoint.aside is None

    async def _throttles_this_one(self, endpoint: Endpoint, times: int, sent_at: float) -> bool:
        """Whether an endpoint that is well has throttled a request so many `times` that the request is the trouble.

        An endpoint that has throttled as many requests in a row is probed too; if it is well, its pauses begin anew.
        """
        most = 2 * self._policy.attempts
        is_one_too_many = times % most == 0  # again later on: a server that was not well the last time may be by now
        is_in_doubt = is_one_too_many or endpoint.pauses >= most
        return is_in_doubt and await self._is_well(endpoint, sent_at) and is_one_too_many

    async def _is_well(self, endpoint: Endpoint, sent_at: float) -> bool:
        """Whether an endpoint that throttles has passed a probe since `sent_at`; then its pauses begin anew."""
        async with endpoint.doubt:
            if endpoint.vouched_at < sent_at:
                try:
                    await self._probe(endpoint)
                except (Fault, InputError):
                    return False
                endpoint.vouched_for()
                self._failing_since = None
            return True

    async def _try_again(self, endpoint: Endpoint) -> None:
        """Probe an endpoint that was set aside or is in doubt; the caller's own request waits meanwhile."""
        endpoint.probing = True
        try:
            endpoint.rejoin(await self._probe(endpoint))
        except Fault as fault:
            self._note_failure()
            endpoint.set_aside(str(fault))
        except InputError as error:
            self._note_failure()
            endpoint.set_aside(str(error), hopeless=True)
        finally:
            endpoint.probing = False

    def _check_hope(self, now: float) -> None:
        """Raise InputError when no endpoint can be expected to answer, Unavailable when none has for too long."""
        reasons = "; ".join(f"{e.url}: {e.aside or f'throttles every request ({e.refusal})'}" for e in self.endpoints)
        if all(endpoint.hopeless for endpoint in self.endpoints):
            raise InputError(f"no endpoint can judge any more ({reasons}); correct the server or its settings")
        just_back = any(
            e.aside is None and e.in_flight and now - e.vouched_at < self._policy.timeout for e in self.endpoints
        )  # its first answers are on their way
        if self._failing_since is not None and now - self._failing_since > self._policy.patience and not just_back:
            raise Unavailable(
                f"no endpoint has answered for {now - self._failing_since:.0f} s ({reasons}); see to the server"
            )
