"""Judging by batch file: the outstanding requests in OpenAI's batch format, and their results into the same store.

For `vllm run-batch`, a cluster's offline job or a hosted batch service. Each line of the request file is
`{"custom_id": key, "method": "POST", "url": "/v1/chat/completions", "body": {...}}`; of the results file
`{"custom_id": key, "response": {"status_code": 200, "body": {...}}, "error": null}`, in any order. The keys are those
of the store, so that a batch and a live server answer for each other.
"""

import json
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path
from typing import IO, Any

from hardneg.judging.judge import Pair
from hardneg.judging.judge_answers import Answer, MalformedAnswer, read_answer
from hardneg.judging.judge_requests import TOP_LOGPROBS
from hardneg.judging.judgment_store import Record
from hardneg.judging.llm_judge import LLMJudge, Request
from hardneg.running.errors import InputError, explain_os_errors, one_line
from hardneg.running.files import check_writable, write_json_lines

RECORDS_AT_ONCE = 500  # per transaction


@dataclass(slots=True)
class BatchImport:
    """What a results file held."""

    judged: int = 0
    unjudged: Counter[str] = field(default_factory=Counter)  # answers without a grade, by reason
    failed: Counter[str] = field(default_factory=Counter)  # what it could not answer, by reason; stays outstanding
    unknown: int = 0  # results of no outstanding pair: other pairs, prompt or model, or stored already


def check_files(results: Path | None, batch: Path | None) -> None:
    """Raise InputError where a results file that is to be taken in cannot be read, or a request file not be written."""
    if results:
        with explain_os_errors(results, "read"):
            results.open("rb").close()
    if batch:
        check_writable(batch)


def export_batch(judge: LLMJudge, pairs: Iterable[Pair], path: Path, constraint: str) -> int:
    """Write the requests for all pairs that are not stored, once each, and return their number.

    Args:
        judge: gives model, prompt and store; no server is needed.
        pairs: what is to be judged.
        path: the request file, written whole or not at all.
        constraint: one of hardneg.judging.judge_requests.CONSTRAINTS: "choice" for vLLM, "object" for hosted services.

    Raises:
        InputError: the file cannot be written or the store not be used.
    """
    # There is no server to ask how many it allows, and a service would refuse every line that asks for more.
    top_logprobs = TOP_LOGPROBS[0] if constraint == "choice" else TOP_LOGPROBS[-1]
    lines = (
        {
            "custom_id": key,
            "method": "POST",
            "url": "/v1/chat/completions",
            "body": judge.body(request, constraint, top_logprobs),
        }
        for key, request in _outstanding(judge, pairs).items()
    )
    return write_json_lines(path, lines)


def import_batch(judge: LLMJudge, pairs: Iterable[Pair], path: Path) -> BatchImport:
    """Store a batch file's results for those of `pairs` that are outstanding; of several for one the first grade.

    Raises:
        InputError: the file is missing or no results file (what is stored by then stays), or the store cannot be used.
    """
    found = BatchImport()
    pending = _outstanding(judge, pairs)
    with explain_os_errors(path, "read"), path.open("rb") as file:
        records = _records(judge, pending, _results(file, path), found)
        while batch := list(islice(records, RECORDS_AT_ONCE)):
            judge.store.add(batch)
            answers = [record.answer for record in batch]
            found.judged += sum(answer.grade is not None for answer in answers)
            found.unjudged.update(answer.reason for answer in answers if answer.reason is not None)
    return found


def _outstanding(judge: LLMJudge, pairs: Iterable[Pair]) -> dict[str, Request]:
    """The requests of all pairs that are not stored, by key: the same question and passage is one request."""
    requests = map(judge.request, pairs)
    return {request.key: request for request in requests if judge.store.get(request.key) is None}


def _results(file: IO[bytes], path: Path) -> Iterator[dict[str, Any]]:
    """The lines, decoded."""
    is_empty = True
    for number, line in enumerate(file, 1):
        if line.strip():
            is_empty = False
            yield _decode(line, path, number)
    if is_empty:
        raise InputError(f"{path} holds no results; give the output file of the batch run")


def _decode(line: bytes, path: Path, number: int) -> dict[str, Any]:
    try:
        result = json.loads(line)
        if isinstance(result["custom_id"], str) and "response" in result:
            return result
    except (ValueError, TypeError, KeyError, RecursionError):
        pass
    raise InputError(f"{path}, line {number}, is no batch result; give the output file of the batch run, whole")


def _records(
    judge: LLMJudge, pending: dict[str, Request], results: Iterable[dict[str, Any]], found: BatchImport
) -> Iterator[Record]:
    """The answers to `pending` requests, which are removed from it once graded; the other results are counted."""
    for result in results:
        request = pending.get(result["custom_id"])
        if request is None:
            found.unknown += 1
            continue
        try:
            answer = _answer(result)
        except MalformedAnswer as error:
            found.failed[str(error)] += 1
            continue
        if answer.grade is not None:
            del pending[request.key]
        yield judge.record(request, "batch", answer)


def _answer(result: dict[str, Any]) -> Answer:
    """The answer in a result. Raises MalformedAnswer, with the service's own words, where there is none."""
    response = result["response"] if isinstance(result["response"], dict) else {}
    status, body = response.get("status_code"), response.get("body")
    if status == 200:
        return read_answer(body)
    words = _message(result.get("error")) or _message(body)  # vLLM's are outside the response, OpenAI's in its body
    kind = "no response" if status is None else f"HTTP {status}"
    raise MalformedAnswer(f"{kind}: {words}" if words else kind)


def _message(error: object) -> str:
    """The words of an error on one line, in however many objects they are wrapped; "" where there are none."""
    while isinstance(error, dict):
        error = next((error[name] for name in ("error", "message", "detail", "code") if error.get(name)), None)
    return "" if error is None else one_line(error)
