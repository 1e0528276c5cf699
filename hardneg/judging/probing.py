"""What a judge's servers are and can do, found out before anything is paid for."""

import asyncio
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from hardneg.judging.endpoints import Endpoint, RetryPolicy
from hardneg.judging.faults import Fault, Rejected, Unreachable
from hardneg.judging.judge_answers import Answer
from hardneg.judging.judge_requests import CONSTRAINTS, TOP_LOGPROBS, PromptTemplate, request_body
from hardneg.running.errors import InputError, Unavailable, one_line

# Left free, a model answers "Paris": a digit shows that the constraint binds.
_UNGRADEABLE = "What is the capital of France? Answer with one word."
_SAMPLE = ("What is the capital of France?", "Paris is the capital of France and its largest city.")
NAMES_SHOWN = 10  # of the models that a server has
_UNKNOWN_FIELD = (400, 422)  # how servers say that they do not take a field of the request
_NO_SUCH_PAGE = (404, 405)  # and that they have nothing at an address


@dataclass(frozen=True, slots=True)
class EndpointFindings:
    """What one endpoint turned out to be."""

    answers_as: str  # the model's name in its answers
    max_model_len: int | None  # tokens of prompt and answer together; None where the server does not say
    constraint: str  # the best of CONSTRAINTS that binds
    top_logprobs: int  # log-probabilities per token that it lets itself be asked for; 0 where none come back
    probabilities: bool  # and the digits' probabilities can be read from them


@dataclass(frozen=True, slots=True)
class JudgeFindings:
    """What the start-up probe found of all endpoints; printed and stored by the scripts."""

    endpoints: dict[str, str]  # those that answer, each with the model's name in its answers
    unreachable: dict[str, str]  # those that do not, each with one line that says why; they are retried
    model: str  # as asked for
    max_model_len: int | None  # tokens of prompt and answer; the least of the endpoints', None where none says
    constraint: str  # what holds the model to a grade: one of hardneg.judging.judge_requests.CONSTRAINTS
    top_logprobs: int  # log-probabilities to ask for per token; the least of the endpoints', 0 where one gives none
    probabilities: bool  # the grades' probabilities can be read from them


async def survey(
    endpoints: Sequence[Endpoint], model: str, template: PromptTemplate, policy: RetryPolicy, concurrency: int
) -> JudgeFindings:
    """Probe all endpoints, at most `concurrency` of them at a time.

    Raises:
        Unavailable: none answers.
        InputError: one is of no use, or they grade in different ways.
    """
    places = asyncio.Semaphore(concurrency)

    async def one(endpoint: Endpoint) -> EndpointFindings | str:
        async with places:
            return await _patient_probe(endpoint, model, template, policy)

    outcomes = await asyncio.gather(*map(one, endpoints))
    answering = {
        e.url: found for e, found in zip(endpoints, outcomes, strict=True) if isinstance(found, EndpointFindings)
    }
    silent = {e.url: found for e, found in zip(endpoints, outcomes, strict=True) if isinstance(found, str)}
    if not answering:
        raise Unavailable("; ".join(silent.values()))
    constraints = {found.constraint for found in answering.values()}
    if len(constraints) > 1:
        ways = ", ".join(f"{url}: {found.constraint}" for url, found in answering.items())
        raise InputError(f"the endpoints constrain answers in different ways ({ways}); start the same server on all")
    lengths = [found.max_model_len for found in answering.values() if found.max_model_len is not None]
    return JudgeFindings(
        endpoints={url: found.answers_as for url, found in answering.items()},
        unreachable=silent,
        model=model,
        max_model_len=min(lengths, default=None),
        constraint=constraints.pop(),
        top_logprobs=min(found.top_logprobs for found in answering.values()),
        probabilities=all(found.probabilities for found in answering.values()),
    )


async def reprobe(endpoint: Endpoint, template: PromptTemplate, findings: JudgeFindings) -> str:
    """Probe an endpoint that was set aside; the model's name in its answers if it is what the survey found.

    Raises:
        Fault: it still does not answer.
        InputError: it is not what it was.
    """
    found = await probe(endpoint, findings.model, template)
    if found.constraint != findings.constraint:
        raise InputError(f"its answers are now constrained by {found.constraint}, not {findings.constraint}")
    if found.top_logprobs < findings.top_logprobs:
        most = f"{found.top_logprobs} log-probabilities per token at most, not {findings.top_logprobs}"
        raise InputError(f"it gives {most} as the run began with")
    if findings.probabilities and not found.probabilities:
        raise InputError("its log-probabilities are of no use, unlike those that the run began with")
    if endpoint.answers_as not in (None, found.answers_as):
        raise InputError(f'it now answers as "{found.answers_as}", before as "{endpoint.answers_as}"')
    return found.answers_as


async def _patient_probe(
    endpoint: Endpoint, model: str, template: PromptTemplate, policy: RetryPolicy
) -> EndpointFindings | str:
    """What an endpoint is, or why it does not answer."""
    for pause in (policy.pause(1), policy.pause(2), None):
        try:
            return await probe(endpoint, model, template)
        except Fault as fault:
            if pause is None or isinstance(fault, Unreachable):
                reason = _unreachable(endpoint.url, fault, model)
                break
            pause = max(pause, min(fault.retry_after or 0.0, policy.longest_pause))
        await asyncio.sleep(pause)
    return reason


async def probe(endpoint: Endpoint, model: str, template: PromptTemplate) -> EndpointFindings:
    """Check that an endpoint serves `model` and can grade, and how.

    Raises:
        Fault: it cannot be reached or does not answer.
        InputError: it can be reached but is of no use: wrong key, path or model, or no grades; names the remedy.
    """
    try:
        entry = await _entry(endpoint, model)
        constraint = await _binding_constraint(endpoint, model)
        answer, top_logprobs = await _graded_sample(endpoint, model, constraint, template)
    except Rejected as fault:
        raise InputError(_remedy(fault, endpoint.url, model)) from None
    return EndpointFindings(
        answers_as=answer.model,
        max_model_len=_max_model_len(entry),
        constraint=constraint,
        top_logprobs=top_logprobs if answer.has_logprobs else 0,
        probabilities=answer.probabilities is not None,
    )


def _unreachable(url: str, fault: Fault, model: str) -> str:
    """One line on an endpoint that does not answer, with the remedy."""
    if isinstance(fault, Unreachable):
        port = urlsplit(url).port or 8000
        start = f"start it (`vllm serve {model} --port {port}`) and wait until it is up, or correct the address"
        start += ", or let the data's own answers judge (--judge answer-key)"
        return f"no LLM server answers at {url} ({fault}); {start}"
    return f"the LLM server at {url} does not answer ({fault}); wait until it is up, or see its log"


async def _entry(endpoint: Endpoint, model: str) -> Mapping[str, Any]:
    """The model's entry in `/models`; empty where a server has no such page, as some have none and chat all the same.

    Raises:
        Fault: it does not answer, or refuses.
        InputError: it serves other models.
    """
    try:
        listing = await endpoint.models()
    except Rejected as fault:
        if fault.status in _NO_SUCH_PAGE:
            return {}
        raise
    return _served(listing, endpoint.url, model)


def _served(listing: object, url: str, model: str) -> Mapping[str, Any]:
    """The model's entry in the answer of `/models`: OpenAI wraps the list, Together does not."""
    entries = listing.get("data") if isinstance(listing, dict) else listing
    entries = [entry for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    for entry in entries:
        if model == entry.get("id") or model in (entry.get("aliases") or ()):
            return entry
    names = ", ".join(str(entry.get("id")) for entry in entries[:NAMES_SHOWN]) or "nothing"
    names += f" and {len(entries) - NAMES_SHOWN} others" if len(entries) > NAMES_SHOWN else ""
    raise InputError(f"{url} does not serve {model}; it serves {names}: name that, or start the server with {model}")


def _max_model_len(entry: Mapping[str, Any]) -> int | None:
    """The context length of `/models`: vLLM says `max_model_len`, llama.cpp `meta.n_ctx` (of one slot)."""
    meta = entry.get("meta")
    length = entry.get("max_model_len") or (meta.get("n_ctx") if isinstance(meta, dict) else None)
    return length if isinstance(length, int) and length > 0 else None


async def _binding_constraint(endpoint: Endpoint, model: str) -> str:
    for constraint in CONSTRAINTS:
        if constraint == "none":
            break
        try:
            answer = await endpoint.ask(request_body(model, _UNGRADEABLE, constraint, 0))
        except Rejected as fault:
            if fault.status not in _UNKNOWN_FIELD:
                raise
        else:
            if answer.grade is not None:
                return constraint
    return "none"


async def _graded_sample(
    endpoint: Endpoint, model: str, constraint: str, template: PromptTemplate
) -> tuple[Answer, int]:
    """The answer to a question with a grade, and how many log-probabilities the server let itself be asked for."""
    prompt = template.render(*_SAMPLE)
    for top_logprobs in (*TOP_LOGPROBS, 0):
        try:
            answer = await endpoint.ask(request_body(model, prompt, constraint, top_logprobs))
            break
        except Rejected as fault:
            if fault.status not in _UNKNOWN_FIELD or not top_logprobs:
                raise
    if answer.grade is None:
        said = one_line(answer.content)
        raise InputError(
            f'{model} at {endpoint.url} takes no constraint and answers "{said}" instead of a grade 1-4; use a server '
            "with structured outputs (vLLM 0.12 or newer, llama.cpp), or a prompt that asks for the number alone"
        )
    return answer, top_logprobs


def _remedy(fault: Rejected, url: str, model: str) -> str:
    if fault.status in (401, 403):
        return f"{url} refuses the API key (HTTP {fault.status}); set OPENAI_API_KEY to a key that it accepts"
    if fault.status in _NO_SUCH_PAGE:
        return f"{url} is no OpenAI-compatible API, or has no {model} ({fault}); the endpoint usually ends in /v1"
    return f"{url} refuses the judge's requests ({fault}); correct what it objects to, or see its log"
