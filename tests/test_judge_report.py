"""What is said of an LLM judge before, during and after the long step."""

import json
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from hardneg.judging.judge import AnswerKeyJudge, JudgeStats
from hardneg.judging.judge_report import (
    MIN_ASKED,
    describe_effort,
    describe_findings,
    describe_left,
    describe_plan,
    effort_record,
    estimate_full_run,
    judge_record,
    name_warnings,
)
from hardneg.judging.judgment_store import JudgmentStore
from hardneg.judging.llm_judge import JudgePlan, LLMJudge
from hardneg.judging.probing import JudgeFindings

FINDINGS = JudgeFindings(
    endpoints={"http://a/v1": "qwen", "http://b/v1": "qwen"},
    unreachable={},
    model="qwen",
    max_model_len=4096,
    constraint="choice",
    top_logprobs=20,
    probabilities=True,
)


def findings(**changes: Any) -> JudgeFindings:
    return JudgeFindings(**{name: getattr(FINDINGS, name) for name in FINDINGS.__dataclass_fields__} | changes)


def test_findings_say_which_server_answers_and_what_grades_are_read_from() -> None:
    assert describe_findings(FINDINGS).splitlines() == [
        "Judge: qwen (4,096 tokens) at http://a/v1, http://b/v1",
        "  held to a grade by: choice; grade read from token probabilities",
    ]
    poor = findings(
        endpoints={"http://a/v1": "qwen"},
        unreachable={"http://b/v1": "refused"},
        max_model_len=None,
        constraint="none",
        probabilities=False,
    )
    assert describe_findings(poor).splitlines() == [
        "Judge: qwen (length unknown) at http://a/v1",
        "  held to a grade by: none; grade read from the digit it writes (no usable probabilities)",
        "  not answering, will be tried again: http://b/v1: refused",
    ]


def test_a_name_that_stands_for_another_model_by_now_is_told() -> None:
    """As a hosted alias: what is stored is the old model's, and would be mixed with the new one's."""
    assert list(name_warnings(FINDINGS, {"qwen"})) == []
    (warning,) = name_warnings(FINDINGS, {"qwen", "qwen-2025", "qwen-2024"})
    assert warning.startswith(
        "the server answers as qwen, but stored judgments of qwen come from qwen-2024, qwen-2025; they are not asked"
    )


def test_a_name_that_may_be_a_silent_server_s_is_not_told() -> None:
    half = findings(unreachable={"http://b/v1": "refused"})
    nameless = findings(endpoints={"http://a/v1": ""})
    for found in (half, nameless):
        assert list(name_warnings(found, {"other"})) == []


def test_a_plan_is_one_line_before_the_long_step() -> None:
    plan = JudgePlan(50_000, 1_234, 48_000, 20_000_000, cut=0)
    text = "50,000 pairs: 1,234 already stored, 48,000 to ask, about 20,000,000 prompt tokens"
    assert describe_plan(plan) == text
    assert describe_plan(replace(plan, cut=1200)) == f"{text}, 1,200 passages cut to 1,024 tokens"


def said(stats: JudgeStats, gpu_hour_price: float | None = None) -> str:
    return describe_effort(json.loads(json.dumps(effort_record(stats, gpu_hour_price))))


def test_effort_is_one_line_of_what_the_server_did() -> None:
    assert said(JudgeStats(reused=1500)) == "1,500 from the store, 0 asked"
    stats = JudgeStats(
        reused=10, asked=1200, unjudged=Counter(refused=2, timeout=1000), prompt_tokens=4000, cached_tokens=1000
    )
    stats.cut, stats.seconds = 3, 60.0
    assert said(stats) == (
        "10 from the store, 1,200 asked in 1.0 min, 20.0/s, 4,000 prompt tokens (25% cached), 3 passages cut"
        "; unjudged: 1,000x timeout, 2x refused"
    )
    assert said(JudgeStats(asked=10, seconds=2.0)) == "0 from the store, 10 asked in 2.0 s, 5.0/s"
    hour = JudgeStats(asked=3600, seconds=3600.0)
    assert said(hour, 5.5) == "0 from the store, 3,600 asked in 1 h 0 min, 1.0/s, cost 5.50"
    assert said(hour, 0.0).endswith(", cost 0.00")  # a server of one's own
    assert said(JudgeStats(asked=10)) == "0 from the store, 10 asked"  # in no time that a clock can tell
    nobody_asked = JudgeStats(reused=90, missing=10)
    assert said(nobody_asked) == "90 from the store, 0 asked; unjudged: 10x no stored answer"
    assert nobody_asked.judged == 0


def test_the_time_left_is_unknown_before_enough_was_asked() -> None:
    assert describe_left(JudgeStats(asked=MIN_ASKED - 1, seconds=10), 1000, 5.0) == ""
    assert describe_left(JudgeStats(asked=MIN_ASKED, seconds=10.0), 1000 + MIN_ASKED, None) == "3.3 min left"
    assert describe_left(JudgeStats(asked=MIN_ASKED, seconds=10.0), 20, None) == "0.0 s left"
    assert describe_left(JudgeStats(asked=MIN_ASKED), 1000, None) == ""  # nor in no time that a clock can tell


@pytest.mark.parametrize(
    ("seconds", "price", "text"),
    [
        (20, None, "20.0 s left"),
        (59.94, None, "59.9 s left"),  # and never 60.0 s
        (59.96, None, "1.0 min left"),
        (90, None, "1.5 min left"),
        (3596, None, "59.9 min left"),
        (3598, None, "1 h 0 min left"),
        (3599, None, "1 h 0 min left"),
        (36_000, None, "10 h 0 min left"),
        (5400, 6.0, "1 h 30 min left, 9.00 to pay"),
        (5400, 0.0, "1 h 30 min left, 0.00 to pay"),
    ],
)
def test_time_and_price_in_words(seconds: int, price: float | None, text: str) -> None:
    assert describe_left(JudgeStats(asked=100, seconds=100.0), 100 + seconds, price) == text


def test_the_record_is_json_and_holds_no_key(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert judge_record(AnswerKeyJudge()) == {"kind": "answer-key"}
    monkeypatch.setenv("OPENAI_API_KEY", "sk-very-secret")
    with JudgmentStore(tmp_path / "judgments.sqlite") as store:
        judge = LLMJudge(["http://a/v1"], "qwen", "{query} {passage}", store)
        assert judge_record(judge)["findings"] is None
        judge.findings = FINDINGS
        record = json.loads(json.dumps(judge_record(judge)))
    assert (record["kind"], record["model"], record["prompt_sha256"]) == ("llm", "qwen", judge.template.sha256)
    assert record["findings"]["constraint"] == "choice"
    assert "secret" not in json.dumps(record)


def test_the_full_run_goes_on_at_the_rate_of_all_that_was_asked() -> None:
    """100 in 20 s and 300 in 20 s are 10/s."""
    efforts = [{"asked": 100, "seconds": 20.0}, {"asked": 300, "seconds": 20.0}, {"asked": 0, "seconds": 0.0}]
    full = estimate_full_run(efforts, (200, 20, 3), gpu_hour_price=6.0)
    assert full == {
        "measured_on": 400,
        "judgments_per_second": pytest.approx(10),
        "queries": 200,
        "candidates": 20,
        "iterations": 3,
        "judgments": 12_000,
        "seconds": 1200.0,
        "cost": pytest.approx(2.0),
    }
    assert estimate_full_run(efforts[2:], (200, 20, 3), gpu_hour_price=None) is None


@pytest.mark.parametrize("effort", [{"asked": 10, "seconds": 0.0}, {"asked": 0, "seconds": 10.0}])
def test_without_a_rate_there_is_no_estimate(effort: dict[str, float]) -> None:
    assert estimate_full_run([effort], (200, 20, 3), gpu_hour_price=None) is None
