"""The LLM judge: an asynchronous client of OpenAI-compatible servers behind the synchronous `Judge` protocol.

`LLMJudge.judge` reads pairs only as fast as they are judged, keeps at most `concurrency` requests in flight, and hands
out a judgment once it is in the store. The event loop runs only while the caller waits for the next judgment, in the
caller's thread, which must be the main one: no threads, no queues. A signal that ends the run (Ctrl-C, SIGTERM) takes
effect between two turns of the loop, so that what a server has answered is stored first.
"""

import asyncio
import os
import re
import time
from collections import Counter, deque
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from contextlib import AsyncExitStack, ExitStack, suppress
from dataclasses import dataclass, replace
from typing import Any

from hardneg.judging.endpoints import Endpoint, EndpointPool, RetryPolicy, checked_url
from hardneg.judging.faults import GaveUp, Rejected
from hardneg.judging.judge import NOT_STORED, JudgeStats, Judgment, Pair, as_read, describe_reasons
from hardneg.judging.judge_answers import Answer, unanswered
from hardneg.judging.judge_requests import (
    DECODING,
    PromptTemplate,
    cut_to_tokens,
    estimate_tokens,
    request_body,
    typical_tokens,
)
from hardneg.judging.judgment_store import JudgmentStore, Record, judgment_key
from hardneg.judging.probing import JudgeFindings, reprobe, survey
from hardneg.running.errors import InputError
from hardneg.running.signals import held_signals

DEFAULT_CONCURRENCY = 64  # at 50 ms a request this allows 1,280/s, twice what the client can do
PASSAGE_TOKENS = 1024  # (estimated) that longer passages are cut to
MAX_CONCURRENCY = 1000  # connections that the HTTP client keeps
NO_KEY = "EMPTY"  # what vLLM's documentation sends where no key is needed
RESERVED_TOKENS = 80  # for the chat template around one user message, and the answer; generous
SHRINK = 0.7  # what is kept of a passage each time a server finds the prompt too long
GRACE = 5.0  # seconds that answers on their way get when a run is stopped
# A run is stopped if more than USELESS of the last ENOUGH answers are no grades, unless it has asked for fewer than
# LEFT_OVER of what the store gave: those may be just the pairs that no server grades.
ENOUGH = 200
USELESS = 0.9
LEFT_OVER = 0.1
LONGEST_STALL = 0.05  # seconds that requests under way may wait while stored judgments are handed out
_TOO_LONG = re.compile(r"context|too long|too large|longer than|max_model_len|maximum.*(tokens|length)", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class JudgePlan:
    """What judging some pairs would take."""

    pairs: int
    stored: int  # pairs already judged
    to_ask: int  # requests: pairs with the same question and passage are asked once
    prompt_tokens: int  # estimated, of the requests to ask
    cut: int  # passages of the requests to ask that are cut to PASSAGE_TOKENS


@dataclass(frozen=True, slots=True)
class Request:
    """One question to the judge, before it is asked.

    Its key does not depend on the server: a server with less room gets less of the passage under the same key.
    """

    key: str
    query: str
    passage: str  # cut to PASSAGE_TOKENS
    is_cut: bool

    def shortened(self, tokens: int) -> "Request":
        """The request with a passage of at most so many (estimated) tokens."""
        passage = cut_to_tokens(self.passage, tokens)
        return self if passage == self.passage else replace(self, passage=passage, is_cut=True)


class LLMJudge:
    """Grades pairs with a language model, each once: what is stored is not asked again."""

    def __init__(
        self,
        endpoints: Sequence[str],
        model: str,
        prompt_template: str,
        store: JudgmentStore,
        *,
        concurrency: int = DEFAULT_CONCURRENCY,
        stored_only: bool = False,
        policy: RetryPolicy | None = None,
        tell: Callable[[str], object] = lambda words: None,
    ) -> None:
        """Set up; nothing is sent yet. The servers' key is the environment's OPENAI_API_KEY, or NO_KEY.

        Args:
            endpoints: at least one base URL, such as http://localhost:8000/v1; each serves `model`.
            model: the served model's name.
            prompt_template: with `{query}` and then `{passage}`, once each.
            store: where judgments are looked up and kept.
            concurrency: most requests in flight, over all endpoints.
            stored_only: ask nobody; pairs without a stored answer stay unjudged.
            policy: timeouts and retries.
            tell: called with one line when a server goes or comes back.

        Raises:
            InputError: an endpoint is no URL or holds a password; the template, the key or `concurrency` is wrong.
        """
        self.endpoints = tuple(dict.fromkeys(checked_url(url) for url in endpoints))
        if not 1 <= concurrency <= MAX_CONCURRENCY:
            raise InputError(
                f"--concurrency {concurrency} is outside 1 to {MAX_CONCURRENCY:,}, the connections that the client "
                "keeps; give a number in between"
            )
        self.model = model
        self.template = PromptTemplate(prompt_template)
        self.store = store
        self.configuration = {
            "judge": "llm",
            "llm_model": model,
            "prompt_sha256": self.template.sha256,
            "passage_tokens": PASSAGE_TOKENS,
        }
        self.stats = JudgeStats()
        self.findings: JudgeFindings | None = None
        self.concurrency = concurrency
        self.stored_only = stored_only
        self._policy = policy or RetryPolicy()
        self._tell = tell
        self._api_key = os.environ.get("OPENAI_API_KEY", "").strip() or NO_KEY
        if not (self._api_key.isascii() and self._api_key.isprintable()):
            raise InputError("OPENAI_API_KEY holds characters that no HTTP header may hold; set it to the key alone")

    def check(self) -> JudgeFindings:
        """Ask every endpoint what it serves, which constraint binds and what log-probabilities come back.

        Raises:
            Unavailable: no endpoint answers.
            InputError: one is of no use (wrong key, path, model; no grades), or they differ.
        """
        _Run(self).close()
        assert self.findings is not None
        return self.findings

    def judge(self, pairs: Iterable[Pair]) -> Generator[Judgment, None, None]:
        """See `Judge`. Judgments are in the store before they are yielded; unjudged pairs carry the reason.

        Closing the generator early waits up to GRACE seconds for what is under way, and stores it.

        Raises:
            InputError: the servers or the store are of no use (any more). What was answered is stored.
        """
        run: _Run | None = None
        try:
            for pair in pairs:
                request = self.request(pair)
                stored = self.store.get(request.key)
                if stored is not None:
                    self.stats.reused += 1
                    yield _judgment(pair, stored.grade, stored.probabilities)
                elif self.stored_only:
                    self.stats.missing += 1
                    yield _judgment(pair, None, None, NOT_STORED)
                else:
                    run = run or _Run(self)
                    run.submit(request, pair)
                if run is not None:
                    yield from run.collect()
            while run is not None and run.busy:
                yield from run.collect(to_the_end=True)
        finally:
            if run is not None:
                run.close()

    def plan(self, pairs: Iterable[Pair]) -> JudgePlan:
        """Count what `judge(pairs)` would ask, without asking.

        Raises:
            InputError: the store cannot be read.
        """
        count = stored = prompt_tokens = cut = 0
        to_ask: set[str] = set()
        for pair in pairs:
            count += 1
            request = self.request(pair)
            if request.key in to_ask:
                continue
            if self.store.get(request.key) is not None:
                stored += 1
            else:
                to_ask.add(request.key)
                cut += request.is_cut
                prompt_tokens += typical_tokens(self.template.render(request.query, request.passage))
        return JudgePlan(count, stored, len(to_ask), prompt_tokens, cut)

    def request(self, pair: Pair) -> Request:
        """What would be asked about a pair, its passage cut to PASSAGE_TOKENS, and the key of the answer."""
        query, text = pair.query["query"], as_read(pair.chunk)
        passage = cut_to_tokens(text, PASSAGE_TOKENS)
        prompt = self.template.render(query, passage)
        return Request(judgment_key(self.model, prompt, DECODING), query, passage, passage != text)

    def body(self, request: Request, constraint: str, top_logprobs: int) -> dict[str, Any]:
        """The chat-completions request for `request`."""
        return request_body(self.model, self.template.render(request.query, request.passage), constraint, top_logprobs)

    def record(self, request: Request, constraint: str, answer: Answer) -> Record:
        """What the store keeps of an answer."""
        return Record(request.key, self.model, self.template.text, request.query, request.passage, constraint, answer)

    def room(self, query: str) -> int:
        """Tokens for the passage: PASSAGE_TOKENS, or what the server's context leaves beside the question."""
        longest = self.findings.max_model_len if self.findings else None
        if longest is None:
            return PASSAGE_TOKENS
        taken = self.template.tokens + estimate_tokens(query) + RESERVED_TOKENS
        return max(0, min(PASSAGE_TOKENS, longest - taken))

    async def _open_pool(self) -> EndpointPool:
        """Connect to the endpoints, surveying them if that was not done. Raises InputError as `check` does."""
        endpoints = [Endpoint(url, self._api_key, self.concurrency, self._policy, self._tell) for url in self.endpoints]
        pool = EndpointPool(endpoints, self._reprobe, self._policy)
        async with AsyncExitStack() as on_failure:
            on_failure.push_async_callback(pool.close)
            if self.findings is None:
                self.findings = await survey(endpoints, self.model, self.template, self._policy, self.concurrency)
            if self.room("") < 1:
                raise InputError(
                    f"the judge's prompt alone takes about {self.template.tokens} of the server's "
                    f"{self.findings.max_model_len} tokens; shorten it, or start the server with a longer context"
                )
            on_failure.pop_all()
        for endpoint in endpoints:
            endpoint.answers_as = self.findings.endpoints.get(endpoint.url)
            if endpoint.answers_as is None:
                endpoint.set_aside(self.findings.unreachable[endpoint.url])
        return pool

    async def _reprobe(self, endpoint: Endpoint) -> str:
        assert self.findings is not None
        return await reprobe(endpoint, self.template, self.findings)


class _Run:
    """One event loop with the requests under way on it; it turns only inside `collect` and `close`."""

    def __init__(self, judge: LLMJudge) -> None:
        self._judge = judge
        self._loop = asyncio.new_event_loop()
        self._pool: EndpointPool | None = None
        self._waiting: dict[str, list[Pair]] = {}  # pairs by key: the same question and passage are asked once
        self._tasks: set[asyncio.Task[Record]] = set()
        self._finished: list[asyncio.Task[Record]] = []
        self._recent: deque[str | None] = deque(maxlen=ENOUGH)  # why the last answers have no grade, None where they do
        self._closing = self._store_failed = False
        self._counted_at = self._turned_at = time.monotonic()
        with ExitStack() as on_failure:
            on_failure.callback(self.close)
            # Making the task must not be interrupted; while it runs, a signal cancels it rather than break the loop.
            with held_signals():
                opening = self._loop.create_task(judge._open_pool())
            with (
                held_signals(lambda: self._loop.call_soon_threadsafe(opening.cancel)),
                suppress(asyncio.CancelledError),
            ):
                self._pool = self._loop.run_until_complete(opening)
            on_failure.pop_all()

    @property
    def busy(self) -> bool:
        """Whether anything is under way."""
        return bool(self._tasks)

    def submit(self, request: Request, pair: Pair) -> None:
        """Take a pair on; a place in flight must be free (`collect` sees to that)."""
        waiting = self._waiting.setdefault(request.key, [])
        waiting.append(pair)
        if len(waiting) > 1:
            return
        if not self.busy:  # the time since the last answer was not spent asking
            self._counted_at = time.monotonic()
        with held_signals():  # raised while the task is being made, a signal would leave one that nobody can cancel
            task = self._loop.create_task(self._ask(request))
            self._tasks.add(task)
            task.add_done_callback(self._note_finished)

    def collect(self, to_the_end: bool = False) -> Iterator[Judgment]:
        """Store and yield what has been answered; first wait for an answer where no place is free, or `to_the_end`.

        Raises:
            InputError: the servers or the store are of no use any more.
        """
        if to_the_end or len(self._tasks) >= self._judge.concurrency:
            self._turn(wait=True)
        elif time.monotonic() - self._turned_at > LONGEST_STALL:
            self._turn(wait=False)
        if not self._finished:
            return
        records, error = self._store_finished()
        for record in records:
            answer = record.answer
            for pair in self._waiting.pop(record.key):
                yield _judgment(pair, answer.grade, answer.probabilities, answer.reason)
        self._check_use()
        if error is not None:
            raise error

    def close(self) -> None:
        """Wait a moment for what is under way, drop the rest, free the connections, store what has been answered."""
        with held_signals():
            self._closing = True
            try:
                if self._pool is not None:
                    self._pool.stop()
                self._run_what_is_ready()  # a stop that a signal left behind would end the winding up
                self._loop.run_until_complete(self._wind_up())
                self._finished += self._tasks
                if not self._store_failed:
                    self._store_finished()
            finally:
                self._loop.close()

    async def _wind_up(self) -> None:
        if self._tasks:
            await asyncio.wait(self._tasks, timeout=GRACE)
        others = asyncio.all_tasks() - {asyncio.current_task()}
        for task in others:
            task.cancel()
        await asyncio.gather(*others, return_exceptions=True)
        if self._pool is not None:
            await self._pool.close()

    def _turn(self, wait: bool) -> None:
        """Run the loop until some task has finished, or just long enough for what is ready."""
        with held_signals(lambda: self._loop.call_soon_threadsafe(self._loop.stop)):
            if wait:
                self._loop.run_forever()  # until `_note_finished` or a signal stops it
            else:
                self._run_what_is_ready()
        self._turned_at = time.monotonic()

    def _run_what_is_ready(self) -> None:
        self._loop.call_soon(self._loop.stop)
        self._loop.run_forever()

    def _note_finished(self, task: "asyncio.Task[Record]") -> None:
        if not self._closing:
            self._tasks.discard(task)
            self._finished.append(task)
            self._loop.stop()

    def _store_finished(self) -> tuple[list[Record], BaseException | None]:
        """Store all finished answers in one transaction. Returns them, and the error that ended a task without one."""
        records, error = [], None
        for task in self._finished:
            if not task.cancelled():
                error = error or task.exception()
                records += [] if task.exception() else [task.result()]
        try:
            self._judge.store.add(records)
        except InputError:
            self._store_failed = True
            raise
        self._finished = []  # not before: a signal may fall in between, and then `close` stores them
        self._count(records)
        return records, error

    def _check_use(self) -> None:
        """Raise InputError where hardly any answer is a grade (any more): the rest would be paid for in vain.

        Not while fewer are asked than a tenth of what the store gave: they may be just those that no server grades.
        """
        stats = self._judge.stats
        unjudged = Counter(reason for reason in self._recent if reason is not None)
        if stats.asked >= max(ENOUGH, LEFT_OVER * stats.reused) and unjudged.total() > USELESS * len(self._recent):
            raise InputError(
                f"{unjudged.total()} of the last {len(self._recent)} answers hold no grade "
                f"({describe_reasons(unjudged)}); fix the server or the prompt"
            )

    def _count(self, records: list[Record]) -> None:
        stats, answers = self._judge.stats, [record.answer for record in records]
        self._recent.extend(answer.reason for answer in answers)
        stats.asked += len(answers)
        stats.unjudged.update(answer.reason for answer in answers if answer.reason is not None)
        stats.prompt_tokens += sum(answer.prompt_tokens or 0 for answer in answers)
        stats.cached_tokens += sum(answer.cached_tokens or 0 for answer in answers)
        if self._pool is not None:
            stats.requests, self._pool.requests = stats.requests + self._pool.requests, 0
        if records:
            now = time.monotonic()
            stats.seconds, self._counted_at = stats.seconds + now - self._counted_at, now

    async def _ask(self, request: Request) -> Record:
        """Ask until there is an answer or no hope of one, with less of a passage that the server finds too long."""
        judge, findings, pool = self._judge, self._judge.findings, self._pool
        assert findings is not None and pool is not None
        sent = request.shortened(judge.room(request.query))
        has_no_room = request.passage and not sent.passage
        answer = unanswered("the question leaves no room", "") if has_no_room else None
        while answer is None:
            try:
                answer = await pool.ask(judge.body(sent, findings.constraint, findings.top_logprobs))
            except GaveUp as fault:
                answer = unanswered(fault.kind, str(fault))
            except Rejected as fault:
                shorter = sent.shortened(int(estimate_tokens(sent.passage) * SHRINK))
                if shorter.passage and _TOO_LONG.search(str(fault)):
                    sent = shorter
                else:
                    answer = unanswered(fault.kind, str(fault))
        judge.stats.cut += sent.is_cut
        return judge.record(sent, findings.constraint, answer)


def _judgment(
    pair: Pair,
    grade: float | None,
    probabilities: tuple[float, float, float, float] | None,
    reason: str | None = None,
) -> Judgment:
    return Judgment(pair.query["query_id"], pair.chunk["chunk_id"], grade, probabilities, reason)
