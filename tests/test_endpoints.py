"""The fault suite: whatever a real HTTP server does, right grades are stored once, and a run ends complete or clear."""

import asyncio
import re
import sqlite3
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hardneg.judging.endpoints import Endpoint, EndpointPool, RetryPolicy
from hardneg.judging.faults import Throttled
from hardneg.judging.judge import JudgeStats, Judgment, Pair
from hardneg.judging.judge_requests import request_body
from hardneg.judging.llm_judge import LLMJudge
from hardneg.running.errors import InputError, Unavailable
from tests.judge_data import FAST, NO_YEAR, answers_of, assert_right, likeliest_grade, make_judge, make_pair, make_pairs
from tests.llm_stub import MODEL, NOWHERE, LLMStub

SHORT = replace(FAST, timeout=2.0)
IMPATIENT = replace(FAST, patience=0.5)


def checked_judge(stub: LLMStub | list[str], folder: Path, policy: RetryPolicy = FAST) -> LLMJudge:
    judge = make_judge(stub, folder, policy=policy)
    judge.check()
    return judge


def judge_until_error(judge: LLMJudge, count: int) -> tuple[list[Judgment], str]:
    judgments: list[Judgment] = []
    with pytest.raises(InputError) as caught:
        judgments.extend(judge.judge(make_pairs(count)))
    message = str(caught.value)
    assert "\n" not in message
    return judgments, message


def test_servers_that_do_not_answer_are_waited_for_ten_minutes() -> None:
    """As the runbook says: a server that is started again has loaded its model by then."""
    assert RetryPolicy().patience == 600


TRANSIENT = [
    "429",
    "503",
    "500",
    "502",
    "408",
    "reset",
    "drop",
    "latin-1",
    "invalid-json",
    "nested",
    "html",
    "json-list",
    "empty-choices",
    "429-within",
]


@pytest.mark.parametrize("fault", TRANSIENT)
def test_transient_faults_are_tried_again(fault: str, stub: LLMStub, tmp_path: Path) -> None:
    pairs = list(make_pairs(40))
    judge = checked_judge(stub, tmp_path)
    stub.configure(fault=fault, after=5, every=2, times=12)
    assert_right(judge, list(judge.judge(pairs)), pairs)
    assert judge.stats.requests == 40 + 12


@pytest.mark.parametrize("fault", ["hang", "trickle"])
def test_hangs_and_trickles_meet_the_timeout(fault: str, stub: LLMStub, tmp_path: Path) -> None:
    pairs = list(make_pairs(20))
    judge = checked_judge(stub, tmp_path, SHORT)
    stub.configure(fault=fault, after=5, times=3)
    start = time.monotonic()
    assert_right(judge, list(judge.judge(pairs)), pairs)
    assert judge.stats.requests == 20 + 3
    assert time.monotonic() - start < 30  # the faults would last an hour


@pytest.mark.parametrize(
    ("fault", "reason"),
    [
        ("refusal", "refused"),
        ("score-3", "not a grade"),
        ("full-width", "not a grade"),
        ("five", "not a grade"),
        ("empty", "empty answer"),
        ("400", "HTTP 400"),
    ],
)
def test_answers_without_a_grade_are_unjudged_and_asked_again_next_time(
    fault: str, reason: str, stub: LLMStub, tmp_path: Path
) -> None:
    pairs = list(make_pairs(30))
    judge = checked_judge(stub, tmp_path)
    stub.configure(fault=fault, every=5, times=4)
    assert_right(judge, list(judge.judge(pairs)), pairs, unjudged=4)
    assert judge.stats.unjudged == {reason: 4}
    assert (judge.stats.asked, judge.stats.judged, judge.stats.requests) == (30, 26, 30)
    again = make_judge(stub, judge.store)
    assert_right(again, list(again.judge(pairs)), pairs)
    assert (again.stats.reused, again.stats.asked) == (26, 4)


def test_missing_logprobs_leave_the_grade_in_the_text(stub: LLMStub, tmp_path: Path) -> None:
    judge = checked_judge(stub, tmp_path)
    stub.configure(fault="no-logprobs", every=2)
    judgments = {judgment.chunk_id: judgment for judgment in judge.judge(make_pairs(20))}
    plain = [judgment for judgment in judgments.values() if judgment.probabilities is None]
    assert len(plain) == 10
    for judgment in plain:
        assert judgment.grade == likeliest_grade(judge, make_pair(judgment.chunk_id))


@pytest.mark.parametrize(
    ("fault", "words"),
    [
        ("404", "HTTP 404"),
        ("401", "HTTP 401"),
        ("403", "HTTP 403"),
        ("402-within", "HTTP 402: no credit"),
        ("no-credit", "HTTP 402: You exceeded your current quota"),
        ("other-model", 'now answers as "other-model"'),
    ],
)
def test_a_server_that_turns_useless_stops_the_run_at_once(
    fault: str, words: str, stub: LLMStub, tmp_path: Path
) -> None:
    judge = checked_judge(stub, tmp_path)
    stub.configure(fault=fault, after=20)
    _, message = judge_until_error(judge, 60)
    assert words in message and 20 - 8 <= len(judge.store) <= 20
    stub.configure(fault=None)
    again, pairs = make_judge(stub, judge.store), list(make_pairs(60))
    assert_right(again, list(again.judge(pairs)), pairs)
    assert again.stats.reused == judge.stats.judged


@pytest.mark.parametrize("fault", ["401", "403", "404"])
def test_one_refused_pair_is_not_a_useless_server(fault: str, stub: LLMStub, tmp_path: Path) -> None:
    """As a gateway refuses what it takes for harmful."""
    judge, pairs = checked_judge(stub, tmp_path), list(make_pairs(60))
    stub.configure(fault=fault, after=20, times=1)
    assert_right(judge, list(judge.judge(pairs)), pairs, unjudged=1)
    assert judge.stats.unjudged == {f"HTTP {fault}": 1}


def test_hardly_any_grade_ends_the_run(stub: LLMStub, tmp_path: Path) -> None:
    judge = checked_judge(stub, tmp_path)
    stub.configure(fault="400", after=10)
    judgments, message = judge_until_error(judge, 1000)
    assert 200 <= len(judgments) < 250 and len(judge.store) == 10
    assert re.search(r"of the last 200 answers hold no grade \(\d+x HTTP 400", message)


def test_a_third_of_grades_does_not_end_the_run(stub: LLMStub, tmp_path: Path) -> None:
    judge = checked_judge(stub, tmp_path)
    pairs = [make_pair(number, f"Passage {number} is {'odd' if number % 3 else 'fine'}.") for number in range(300)]
    stub.configure(fault="refusal", only=" is odd.")
    assert_right(judge, list(judge.judge(pairs)), pairs, unjudged=200)


def test_hardly_any_grade_any_more_ends_the_run_too(
    stub: LLMStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As of a server that came back without structured outputs: of all answers most are still grades."""
    monkeypatch.setattr("hardneg.judging.llm_judge.ENOUGH", 20)
    judge = checked_judge(stub, tmp_path)
    stub.configure(fault="score-3", after=100)
    judgments, message = judge_until_error(judge, 1000)
    assert len(judge.store) == 100 and len(judgments) < 150
    assert re.search(r"of the last 20 answers hold no grade \(\d+x not a grade", message)


def test_a_run_taken_up_again_passes_the_pairs_that_get_no_grade(
    stub: LLMStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hardneg.judging.llm_judge.ENOUGH", 4)
    judge, pairs = checked_judge(stub, tmp_path), list(make_pairs(500))
    stub.configure(fault="400", only="19 is about")
    for _ in range(2):
        assert_right(judge, list(judge.judge(pairs)), pairs, unjudged=5)
        judge.stats = JudgeStats()
    again = make_judge(stub, judge.store)
    assert sum(judgment.grade is None for judgment in again.judge(pairs)) == 5
    assert (again.stats.asked, again.stats.reused) == (5, 495)


def test_an_endpoint_that_passed_its_probe_takes_requests_at_once() -> None:
    """Also where requests from before the probe fail during it."""

    async def check() -> None:
        endpoint = Endpoint(NOWHERE, "key", 64, FAST)
        endpoint.set_aside("timeout")
        endpoint.probing = True
        for _ in range(48):
            endpoint.failed("timeout")
        endpoint.rejoin("model")
        assert endpoint.aside is None and endpoint.resume_at <= time.monotonic()
        await endpoint.close()

    asyncio.run(check())


def test_a_model_renamed_halfway_stops_the_run(stub: LLMStub, tmp_path: Path) -> None:
    judge = checked_judge(stub, tmp_path)
    judging = judge.judge(make_pairs(60))
    judgments = [next(judging) for _ in range(10)]
    stub.configure(model="new-name")
    with pytest.raises(InputError, match="does not serve stub-model; it serves new-name"):
        judgments.extend(judging)
    stub.configure(model="stub-model")
    assert len(judge.store) >= len(judgments) >= 10
    assert_right(judge, list(judge.judge(make_pairs(60))), list(make_pairs(60)))


def test_a_server_that_only_fails_ends_the_run(stub: LLMStub, tmp_path: Path) -> None:
    judge = checked_judge(stub, tmp_path, IMPATIENT)
    stub.configure(fault="500", after=10)
    judgments, message = judge_until_error(judge, 100)
    assert "no endpoint has answered for" in message and "HTTP 500" in message
    assert 0 < len(judge.store) <= 10 and len(judgments) <= 10 + judge.stats.unjudged.total()


def test_a_pair_that_always_fails_is_unjudged_after_its_attempts(stub: LLMStub, tmp_path: Path) -> None:
    judge = checked_judge(stub, tmp_path, replace(FAST, aside_after=100))
    stub.configure(fault="500", times=FAST.attempts)
    (judgment,) = judge.judge([make_pair(1)])
    assert (judgment.grade, judgment.unjudged_reason) == (None, "no answer: HTTP 500")
    assert judge.stats.requests == FAST.attempts


@pytest.mark.parametrize("times", [29, 30])  # so that it ends with a request as well as with a probe
def test_a_storm_of_429_never_ends_a_pair_only_the_run(times: int, stub: LLMStub, tmp_path: Path) -> None:
    judge = checked_judge(stub, tmp_path)
    stub.configure(fault="429", times=times)
    pairs = list(make_pairs(10))
    assert_right(judge, list(judge.judge(pairs)), pairs)
    impatient = make_judge(stub, judge.store, policy=IMPATIENT)
    impatient.check()
    stub.configure(fault="429", times=None)
    _, message = judge_until_error(impatient, 30)
    assert "throttles every request" in message


@pytest.mark.parametrize("fault", ["429", "503"])
def test_one_pair_that_is_always_throttled_is_left_unjudged(fault: str, stub: LLMStub, tmp_path: Path) -> None:
    """As a gateway says 429 to what is too large for its tokens per minute."""
    judge, pairs = checked_judge(stub, tmp_path), list(make_pairs(20))
    stub.configure(fault=fault, only="Passage 7 ")
    assert_right(judge, list(judge.judge(pairs)), pairs, unjudged=1)
    (judgment,) = judge.judge([pairs[7]])  # nobody else is asked
    assert judgment.unjudged_reason == f"no answer: HTTP {fault}"


def test_several_pairs_that_are_always_throttled_do_not_end_the_run(stub: LLMStub, tmp_path: Path) -> None:
    """Nothing else is left to ask, so nothing but probes tells that the server is well."""
    impatient = replace(FAST, throttle_pause=0.01, longest_pause=0.05, patience=1.0)
    judge, pairs = checked_judge(stub, tmp_path, impatient), list(make_pairs(20))
    stub.configure(fault="429", only="Passage 1")  # 1 and 10 to 19
    judgments = list(judge.judge(pairs[2:10] + pairs[10:16]))
    assert [judgment.grade is None for judgment in judgments].count(True) == 6
    assert judge.stats.unjudged == {"no answer: HTTP 429": 6}


def test_what_is_too_large_for_a_limit_per_minute_is_cut_and_not_waited_for(stub: LLMStub, tmp_path: Path) -> None:
    """OpenAI says 429 to it too."""
    judge = checked_judge(stub, tmp_path)
    stub.configure(fault="429-too-large", only="omega")
    (judgment,) = judge.judge([make_pair(1, "Rest and fluids. " * 50 + "omega")])
    assert judgment.grade is not None
    assert (judge.stats.requests, judge.stats.cut) == (2, 1)


def test_what_a_server_says_when_it_throttles_is_told(stub: LLMStub, tmp_path: Path) -> None:
    judge = checked_judge(stub, tmp_path, IMPATIENT)
    stub.configure(fault="429-within")
    assert "throttles every request (HTTP 429: slow down)" in judge_until_error(judge, 10)[1]


def test_a_timeout_halves_what_is_asked_at_once(stub: LLMStub) -> None:
    """Once for all that were sent before, and it grows again."""

    async def check() -> None:
        endpoint = Endpoint(stub.url, "no key", 64, replace(FAST, timeout=1.0))
        endpoint.answers_as = MODEL
        pool = EndpointPool([endpoint], failing_probe, FAST)
        sent_at = time.monotonic()
        stub.configure(fault="hang", times=1)
        await pool.ask(request_body(MODEL, "a prompt", "choice", 20))
        await pool.close()
        assert pool.requests == 2 and endpoint.window == 1 + 1  # half of the one under way, and one more for the answer
        assert not endpoint.crowd(sent_at) and endpoint.window == 2
        endpoint.window, endpoint.in_flight = 64.0, 40
        assert endpoint.crowd(time.monotonic()) and endpoint.window == 20

    async def failing_probe(_: Endpoint) -> str:
        raise AssertionError

    asyncio.run(check())


def test_retry_after_pauses_the_whole_endpoint(stub: LLMStub, tmp_path: Path) -> None:
    judge = checked_judge(stub, tmp_path, replace(FAST, longest_pause=60.0))
    stub.configure(fault="429", times=8, retry_after=1)
    start = time.monotonic()
    pairs = list(make_pairs(20))
    assert_right(judge, list(judge.judge(pairs)), pairs)
    assert 1.0 <= time.monotonic() - start < 5  # one storm of 8, one pause: not one each
    assert judge.stats.requests == 28


def test_a_retry_after_of_an_hour_is_not_waited_for(stub: LLMStub, tmp_path: Path) -> None:
    judge, pairs = checked_judge(stub, tmp_path), list(make_pairs(10))
    stub.configure(fault="429", times=1, retry_after=3600)
    start = time.monotonic()
    assert_right(judge, list(judge.judge(pairs)), pairs)
    assert time.monotonic() - start < 5  # FAST.longest_pause is 0.1


def test_a_retry_after_of_no_time_is_a_pause_too() -> None:
    async def pause() -> float:
        endpoint = Endpoint(NOWHERE, "no key", 1, RetryPolicy(throttle_pause=60.0))
        await endpoint.close()
        now = time.monotonic()
        endpoint.throttle(now, Throttled("HTTP 429", retry_after=0.0))
        return endpoint.resume_at - now

    assert asyncio.run(pause()) >= 30


def test_a_retry_after_that_is_no_date_is_a_pause_like_any(stub: LLMStub, tmp_path: Path) -> None:
    judge, pairs = checked_judge(stub, tmp_path), list(make_pairs(10))
    stub.configure(fault="429", times=3, retry_after=NO_YEAR)
    assert_right(judge, list(judge.judge(pairs)), pairs)


def test_pauses_double_up_to_their_limit() -> None:
    policy = RetryPolicy(first_pause=1.0, longest_pause=10.0)
    for times, longest in [(1, 1.0), (2, 2.0), (4, 8.0), (5, 10.0), (1000, 10.0)]:
        assert all(longest / 2 <= policy.pause(times) <= longest for _ in range(20))


def test_a_refusing_server_gets_fewer_requests_at_once(tmp_path: Path) -> None:
    """64 callers, a server that does 200/s and lets 8 wait: fewer than half as many refusals as pairs."""
    with LLMStub(rate=200, queue=8) as server:
        judge = make_judge(server, tmp_path, concurrency=64)
        pairs = list(make_pairs(300))
        assert_right(judge, list(judge.judge(pairs)), pairs)
        statuses = server.stats()["statuses"]
    assert statuses.get("429", 0) < 0.5 * 300  # the first 56 at once, then two or three now and then


def test_a_restarted_server_goes_on(tmp_path: Path) -> None:
    with LLMStub(latency=0.01) as server:
        judge = checked_judge(server, tmp_path, replace(FAST, patience=60.0))  # it is a process that has to start
        pairs = list(make_pairs(100))
        judging = judge.judge(pairs)
        judgments = [next(judging) for _ in range(20)]
        server.kill()
        threading.Timer(0.5, server.start).start()
        judgments.extend(judging)
        assert_right(judge, judgments, pairs)


def test_a_dead_server_ends_the_run_and_a_new_one_goes_on(tmp_path: Path) -> None:
    with LLMStub(latency=0.01) as server:
        judge = checked_judge(server, tmp_path, IMPATIENT)
        judging = judge.judge(make_pairs(100))
        next(judging)
        server.kill()
        with pytest.raises(Unavailable, match="no connection"):
            list(judging)
        server.start()
        pairs = list(make_pairs(100))
        assert_right(judge, list(judge.judge(pairs)), pairs)


def test_a_server_that_comes_back_as_patience_ends_may_answer(stub: LLMStub) -> None:
    """Those that wait for their turn wait for its first answers, but no longer than an answer may take."""

    async def judge_two() -> None:
        async def probe(_: Endpoint) -> str:
            pool._failing_since = time.monotonic() - policy.patience  # so long did it take
            return MODEL

        policy = replace(FAST, timeout=1.0, patience=0.5)
        endpoint = Endpoint(stub.url, "no key", 1, policy)
        endpoint.set_aside("it was down")
        endpoint.resume_at = 0.0
        pool = EndpointPool([endpoint], probe, policy)
        try:
            await asyncio.gather(*(pool.ask(request_body(MODEL, f"prompt {n}", "choice", 20)) for n in range(2)))
        finally:
            await pool.close()

    asyncio.run(judge_two())
    stub.configure(fault="hang")
    with pytest.raises(Unavailable, match="no endpoint has answered for"):
        asyncio.run(judge_two())


def test_a_dead_endpoint_is_left_out_and_comes_back(tmp_path: Path) -> None:
    with LLMStub(latency=0.01) as first, LLMStub(latency=0.01) as second:
        told: list[str] = []
        judge = make_judge([first.url, second.url], tmp_path, tell=told.append)
        judge.check()
        pairs = list(make_pairs(500))
        judging = judge.judge(pairs)
        judgments = [next(judging) for _ in range(50)]
        assert not told
        second.kill()
        judgments += [next(judging) for _ in range(50)]
        second.start()
        judgments.extend(judging)
        assert_right(judge, judgments, pairs)
        assert second.stats()["chats"] > 50
    gone, back = told  # once each, however often it was probed in between
    assert gone.startswith(f"{second.url} gets no more requests until it answers again: ") and "connect" in gone
    assert back == f"{second.url} answers, and gets requests"


def test_an_endpoint_that_is_down_at_the_start_joins_later(tmp_path: Path) -> None:
    with LLMStub(latency=0.01) as first, LLMStub(latency=0.01) as second:
        second.kill()
        told: list[str] = []
        judge = make_judge([first.url, second.url], tmp_path, tell=told.append)
        findings = judge.check()
        assert list(findings.endpoints) == [first.url] and "vllm serve" in findings.unreachable[second.url]
        second.start()
        pairs = list(make_pairs(300))
        assert_right(judge, list(judge.judge(pairs)), pairs)
        assert second.stats()["chats"] > 50
        list(judge.judge(make_pairs(300, start=300)))
    assert set(told) == {f"{second.url} answers, and gets requests"}  # it never went away


@pytest.mark.parametrize(
    "other", [{"logprobs": False}, {"top_logprobs": 5}, {"digit_mass": 0.1}, {"binds": ["integer"]}]
)
def test_an_endpoint_that_grades_otherwise_does_not_join(other: dict[str, Any], tmp_path: Path) -> None:
    with LLMStub(latency=0.01) as first, LLMStub(**other) as second:
        second.kill()
        judge = checked_judge([first.url, second.url], tmp_path)
        second.start()
        pairs = list(make_pairs(100))
        assert_right(judge, list(judge.judge(pairs)), pairs)
        asked = second.stats()["answered"]
    assert asked and not any("Passage: Passage" in prompt for prompt in asked)  # probes alone


def test_one_endpoint_down_and_the_other_refusing_ends_the_run(tmp_path: Path) -> None:
    """Neither is hopeless for the same reason, and nobody answers: patience must end it."""
    with LLMStub() as first, LLMStub() as second:
        second.kill()
        judge = make_judge([first.url, second.url], tmp_path, policy=IMPATIENT)
        judge.check()
        first.configure(fault="401")
        with pytest.raises(InputError, match=r"no endpoint"):
            list(judge.judge(make_pairs(20)))


def test_an_endpoint_that_serves_another_model_does_not_come_back(tmp_path: Path) -> None:
    with LLMStub(latency=0.01) as first, LLMStub(latency=0.01) as second:
        judge = make_judge([first.url, second.url], tmp_path)
        pairs = list(make_pairs(200))
        judging = judge.judge(pairs)
        judgments = [next(judging) for _ in range(20)]
        second.configure(answers_as="another")
        answered = len(second.stats()["answered"])
        judgments.extend(judging)
        assert_right(judge, judgments, pairs)
        assert len(second.stats()["answered"]) - answered < 40  # those under way, and probes


def test_a_stop_during_a_probe_asks_nothing_after_it() -> None:
    async def requests_of_a_stopped_pool() -> int:
        async def probe(_: Endpoint) -> str:
            pool.stop()
            return "stub-model"

        endpoint = Endpoint(NOWHERE, "no key", 1, FAST)
        endpoint.set_aside("it was down")
        endpoint.resume_at = 0.0
        pool = EndpointPool([endpoint], probe, FAST)
        with pytest.raises(asyncio.CancelledError):
            await pool.ask({})
        await pool.close()
        assert endpoint.aside is None  # the probe passed
        return pool.requests

    assert asyncio.run(requests_of_a_stopped_pool()) == 0


def test_a_full_disk_stops_the_run_clearly(stub: LLMStub, tmp_path: Path) -> None:
    judge = checked_judge(stub, tmp_path)
    pages = judge.store._db.execute("PRAGMA page_count").fetchone()[0]
    judge.store._db.execute(f"PRAGMA max_page_count = {pages + 10}")
    with pytest.raises(InputError, match="free some disk space"):
        list(judge.judge(make_pairs(2000)))
    judge.store._db.execute("PRAGMA max_page_count = 1000000")
    stored = len(judge.store)
    pairs = list(make_pairs(200))
    assert_right(judge, list(judge.judge(pairs)), pairs)
    assert judge.stats.reused == stored


def test_the_key_is_nowhere(stub: LLMStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Though the stub repeats it in its errors."""
    key = "sk-do-not-show-me"
    stub.configure(api_key=key)
    monkeypatch.setenv("OPENAI_API_KEY", key)
    judge = make_judge(stub, tmp_path, policy=IMPATIENT)
    judge.check()
    stub.configure(fault="500", after=10)
    _, message = judge_until_error(judge, 50)
    assert "[key]" in message and key not in message
    monkeypatch.setenv("OPENAI_API_KEY", key + "x")
    with pytest.raises(InputError) as caught:
        make_judge(stub, judge.store).check()
    assert key not in str(caught.value) and "OPENAI_API_KEY" in str(caught.value)
    assert key not in repr(judge.findings) + repr(judge.stats)
    assert not [path for path in tmp_path.iterdir() if key.encode() in path.read_bytes()]


def test_an_error_of_the_caller_passes_through(stub: LLMStub, tmp_path: Path) -> None:
    def broken() -> Iterator[Pair]:
        yield from make_pairs(20)
        raise ZeroDivisionError

    judge = make_judge(stub, tmp_path)
    with pytest.raises(ZeroDivisionError):
        list(judge.judge(broken()))
    assert 20 - 8 <= len(judge.store) <= 20  # those that were not asked yet are not asked any more


_KILLED = """
import os, random, signal, sys, time
from contextlib import closing
from pathlib import Path
from hardneg.running.script import run
from hardneg.judging.judgment_store import JudgmentStore
from tests.judge_data import make_judge, make_pairs

url, folder, rounds, pairs = sys.argv[1], Path(sys.argv[2]), int(sys.argv[3]), list(make_pairs(int(sys.argv[4])))
signals = [signal.Signals[name] for name in sys.argv[5:]]

def judge_all(start):
    signal.pthread_sigmask(signal.SIG_UNBLOCK, signals)
    judge = make_judge([url], folder)
    judge.findings = first.findings
    with seen.open("ab", buffering=0) as file, closing(judge.judge(pairs[start:] + pairs[:start])) as judgments:
        for judgment in judgments:
            file.write(f"{judgment.chunk_id} {judgment.grade!r}\\n".encode())

with JudgmentStore(folder / "judgments.sqlite") as store:
    first = make_judge([url], store)
    first.check()  # what this imports and finds out need not be repeated below
    keys = [first.request(pair).key for pair in pairs]
random.seed(7)
for number in range(rounds):
    seen = folder / "seen"
    seen.write_bytes(b"")
    start = random.randrange(len(pairs))
    signal.pthread_sigmask(signal.SIG_BLOCK, signals)  # until there is a handler
    child = os.fork()
    if child == 0:
        try:
            run(lambda: judge_all(start))
        except SystemExit as end:
            os._exit(end.code)
        os._exit(0)
    for _ in range(1000 if number % 5 else 0):  # a fifth is killed while it starts, the others at work
        if seen.stat().st_size:
            break
        time.sleep(0.005)
    time.sleep(random.uniform(0.0, 0.2))
    os.kill(child, signals[number % len(signals)])
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    with JudgmentStore(folder / "judgments.sqlite") as store:
        judged = [line.split() for line in seen.read_text().splitlines()]
        lost = sum(store.get(keys[int(chunk_id)]).grade != float(grade) for chunk_id, grade in judged)
        print(len(store), status, lost, store._db.execute("PRAGMA integrity_check").fetchone()[0], flush=True)
"""


@pytest.mark.parametrize(
    ("signals", "rounds", "statuses", "lost_each"),
    [
        (["SIGKILL"], 40, {-9}, 8),  # what is under way: the server may have answered, nobody has read it
        (["SIGTERM", "SIGINT", "SIGHUP"], 30, {143, 130, 129}, 0),  # what is under way is waited for and stored
    ],
)
def test_kills_at_random_instants_lose_nothing(
    signals: list[str], rounds: int, statuses: set[int], lost_each: int, tmp_path: Path
) -> None:
    """70 kills: what was handed out is stored, and the next run asks only the rest."""
    count = 1500
    with LLMStub(latency=0.002) as server:
        command = [sys.executable, "-c", _KILLED, server.url, str(tmp_path), str(rounds), str(count), *signals]
        done = subprocess.run(command, check=True, capture_output=True, text=True)
        reports = [line.split() for line in done.stdout.splitlines()]
        assert len(reports) == rounds and all(report[2:] == ["0", "ok"] for report in reports)
        assert {int(report[1]) for report in reports} - {0} == statuses, done.stderr  # 0: it was done before
        assert len({report[0] for report in reports}) > 5  # many were killed at work
        judge, pairs = make_judge(server, tmp_path), list(make_pairs(count))
        assert_right(judge, list(judge.judge(pairs)), pairs)
        twice = sum(times - 1 for times in answers_of(server))
    assert twice <= rounds * lost_each
    stored = sqlite3.connect(tmp_path / "judgments.sqlite").execute(
        "SELECT count(*), count(DISTINCT key) FROM judgments"
    )
    assert stored.fetchone() == (count, count)
