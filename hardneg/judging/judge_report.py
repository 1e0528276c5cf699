"""What an LLM judge found at start-up, will have to do, and did: in words, and as records for JSON."""

from collections.abc import Iterable, Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import asdict
from typing import Any

from hardneg.judging.judge import Judge, JudgeStats, describe_reasons
from hardneg.judging.llm_judge import PASSAGE_TOKENS, JudgePlan, LLMJudge
from hardneg.judging.probing import JudgeFindings

MIN_ASKED = 50  # judgments before a rate says anything


def describe_findings(findings: JudgeFindings) -> str:
    """Lines on the server(s): what answers, what holds it to a grade, and what its grades are read from."""
    length = f"{findings.max_model_len:,} tokens" if findings.max_model_len else "length unknown"
    reading = "token probabilities" if findings.probabilities else "the digit it writes (no usable probabilities)"
    lines = [
        f"Judge: {findings.model} ({length}) at {', '.join(findings.endpoints)}",
        f"  held to a grade by: {findings.constraint}; grade read from {reading}",
    ]
    return "\n".join(
        lines + [f"  not answering, will be tried again: {url}: {why}" for url, why in findings.unreachable.items()]
    )


def name_warnings(findings: JudgeFindings, stored_as: AbstractSet[str]) -> Iterator[str]:
    """A line where the name of a hosted model may stand for another model by now than when it was asked before.

    Args:
        findings: of all endpoints.
        stored_as: how servers named themselves whose judgments of this model are stored.
    """
    now = set(findings.endpoints.values()) - {""}
    if now and stored_as - now and not findings.unreachable:  # which may be the one that answered so
        yield (
            f"the server answers as {', '.join(sorted(now))}, but stored judgments of {findings.model} come from "
            f"{', '.join(sorted(stored_as - now))}; they are not asked again: for one judge take another --data-dir"
        )


def describe_plan(plan: JudgePlan) -> str:
    """One line before the long step."""
    text = f"{plan.pairs:,} pairs: {plan.stored:,} already stored, {plan.to_ask:,} to ask, "
    text += f"about {plan.prompt_tokens:,} prompt tokens"
    return text + (f", {plan.cut:,} passages cut to {PASSAGE_TOKENS:,} tokens" if plan.cut else "")


def effort_record(stats: JudgeStats, gpu_hour_price: float | None) -> dict[str, Any]:
    """What judging took of the server, for JSON; "cost" at a price per hour of the server."""
    return {
        "asked": stats.asked,
        "requests": stats.requests,
        "from_store": stats.reused,
        "seconds": round(stats.seconds, 3),
        "judgments_per_second": stats.rate,
        "prompt_tokens": stats.prompt_tokens,
        "cached_tokens": stats.cached_tokens,
        "passages_cut": stats.cut,
        "unjudged": dict(stats.reasons.most_common()),
        "cost": cost(stats.seconds, gpu_hour_price),
    }


def describe_effort(effort: Mapping[str, Any]) -> str:
    """`effort_record` in one line."""
    text = f"{effort['from_store']:,} from the store, {effort['asked']:,} asked"
    if effort["asked"]:
        rate = effort["judgments_per_second"]
        text += "" if rate is None else f" in {duration(effort['seconds'])}, {rate:.1f}/s"
        tokens = effort["prompt_tokens"]
        text += f", {tokens:,} prompt tokens" if tokens else ""  # not every server counts
        text += f" ({effort['cached_tokens'] / tokens:.0%} cached)" if effort["cached_tokens"] else ""
        text += f", {effort['passages_cut']:,} passages cut" if effort["passages_cut"] else ""
        text += "" if effort["cost"] is None else f", cost {effort['cost']:.2f}"
    if effort["unjudged"]:
        text += f"; unjudged: {describe_reasons(effort['unjudged'])}"
    return text


def cost(seconds: float, gpu_hour_price: float | None) -> float | None:
    """What so long a use of the server costs; None without a price."""
    return None if gpu_hour_price is None else seconds / 3600 * gpu_hour_price


def duration(seconds: float) -> str:
    """Seconds in readable form.

    >>> duration(8100), duration(150), duration(4.2)
    ('2 h 15 min', '2.5 min', '4.2 s')
    """
    if seconds < 59.95:
        return f"{seconds:.1f} s"
    if seconds < 59.95 * 60:
        return f"{seconds / 60:.1f} min"
    hours, minutes = divmod(round(seconds / 60), 60)
    return f"{hours} h {minutes} min"


def describe_left(stats: JudgeStats, to_ask: int, gpu_hour_price: float | None) -> str:
    """Time until `to_ask` requests are answered at the rate so far, and its cost at a price per hour of the server.

    Empty before MIN_ASKED answers.

    >>> describe_left(JudgeStats(asked=100, seconds=10.0), 54_100, 5.0)
    '1 h 30 min left, 7.50 to pay'
    """
    if stats.asked < MIN_ASKED or stats.rate is None:
        return ""
    seconds = max(to_ask - stats.asked, 0) / stats.rate
    to_pay = cost(seconds, gpu_hour_price)
    return f"{duration(seconds)} left" + ("" if to_pay is None else f", {to_pay:.2f} to pay")


def estimate_full_run(
    efforts: Iterable[Mapping[str, Any]], size: tuple[int, int, int], gpu_hour_price: float | None
) -> dict[str, Any] | None:
    """What judging takes in a run of `size` (queries, candidates, iterations) at the rate of all `effort_record`s
    together; None where nothing was asked.

    Too low by the known answers beyond the candidates, which are judged too; too high where iterations come back to the
    same questions and so find many pairs in the store.
    """
    efforts = list(efforts)
    asked, seconds = (sum(effort[key] for effort in efforts) for key in ("asked", "seconds"))
    if not (asked and seconds):
        return None
    queries, candidates, iterations = size
    judgments = queries * candidates * iterations
    seconds *= judgments / asked
    return {
        "measured_on": asked,
        "judgments_per_second": judgments / seconds,
        "queries": queries,
        "candidates": candidates,
        "iterations": iterations,
        "judgments": judgments,
        "seconds": round(seconds, 1),
        "cost": cost(seconds, gpu_hour_price),
    }


def judge_record(judge: Judge) -> dict[str, Any]:
    """What training.json and small_sample_results.json say of a judge, and of what an LLM's server was found to be."""
    record: dict[str, Any] = {"kind": judge.configuration["judge"]}
    if isinstance(judge, LLMJudge):
        record |= {
            "model": judge.model,
            "prompt_sha256": judge.template.sha256,
            "findings": asdict(judge.findings) if judge.findings else None,
        }
    return record
