"""Batch files: what `vllm run-batch` or a hosted service is given, and what comes back."""

import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from hardneg.judging.batch_files import check_files, export_batch, import_batch
from hardneg.judging.judge import Pair
from hardneg.judging.llm_judge import LLMJudge
from hardneg.running.errors import InputError
from tests.judge_data import assert_right, make_judge, make_pair, make_pairs
from tests.llm_stub import MODEL, NOWHERE, LLMStub, true_probabilities

TOO_MANY = "top_logprobs must be between 0 and 5"


@pytest.fixture
def judge(tmp_path: Path) -> LLMJudge:
    """A judge whose server is never asked."""
    return make_judge([NOWHERE], tmp_path)


def answer(request: dict, model: str = MODEL) -> dict:
    """What a batch run makes of one line of the request file."""
    probabilities = true_probabilities(request["body"]["messages"][0]["content"])
    top: list[dict[str, Any]] = [{"token": str(g), "logprob": math.log(p)} for g, p in enumerate(probabilities, 1)]
    digit = max(top, key=lambda entry: entry["logprob"])["token"]
    choice = {"message": {"content": digit}, "logprobs": {"content": [{"token": digit, "top_logprobs": top}]}}
    body = {"model": model, "choices": [choice], "usage": {"prompt_tokens": 9}}
    response = {"status_code": 200, "request_id": "1", "body": body}
    return {"id": "1", "custom_id": request["custom_id"], "response": response, "error": None}


def run_batch(requests: Path, results: Path, change: Callable[[int, dict], dict] = lambda _, line: line) -> None:
    """Answer a request file, last line first, each result passed through `change`."""
    lines = [json.loads(line) for line in requests.read_text(encoding="utf-8").splitlines()]
    answers = [change(number, answer(line)) for number, line in enumerate(lines)]
    results.write_text("".join(json.dumps(line) + "\n" for line in reversed(answers)), encoding="utf-8")


def test_what_comes_back_is_in_the_store_and_not_asked_again(
    judge: LLMJudge, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("hardneg.judging.batch_files.RECORDS_AT_ONCE", 7)
    pairs = [*make_pairs(30), make_pair(7)]
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    assert export_batch(judge, pairs, requests, "choice") == 30
    run_batch(requests, results)
    found = import_batch(judge, pairs, results)
    assert (found.judged, found.unjudged, found.failed, found.unknown) == (30, {}, {}, 0)
    assert_right(judge, list(judge.judge(make_pairs(30))), list(make_pairs(30)))
    assert judge.stats.asked == 0
    assert export_batch(judge, pairs, requests, "choice") == 0


def test_the_lines_are_openai_batch_requests(judge: LLMJudge, tmp_path: Path) -> None:
    export_batch(judge, make_pairs(2), tmp_path / "r.jsonl", "object")
    first, second = map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())
    assert set(first) == {"custom_id", "method", "url", "body"}
    assert (first["method"], first["url"]) == ("POST", "/v1/chat/completions")
    assert first["custom_id"] == judge.request(make_pair(0)).key != second["custom_id"]
    assert first["body"]["model"] == MODEL and "response_format" in first["body"]
    assert "Passage 0 is about" in first["body"]["messages"][0]["content"]


@pytest.mark.parametrize(("constraint", "asked"), [("choice", 20), ("object", 5), ("integer", 5), ("none", 5)])
def test_a_service_that_is_not_vllm_is_asked_for_few_log_probabilities(
    constraint: str, asked: int, judge: LLMJudge, tmp_path: Path
) -> None:
    export_batch(judge, make_pairs(1), tmp_path / "r.jsonl", constraint)
    (line,) = map(json.loads, (tmp_path / "r.jsonl").read_text().splitlines())
    assert (line["body"]["logprobs"], line["body"]["top_logprobs"]) == (True, asked)


def test_a_live_server_and_a_batch_share_their_keys(judge: LLMJudge, tmp_path: Path) -> None:
    with LLMStub() as stub:
        list(make_judge(stub, judge.store).judge(make_pairs(5)))
    assert export_batch(judge, make_pairs(8), tmp_path / "r.jsonl", "choice") == 3


def test_what_the_batch_could_not_answer_stays_outstanding(judge: LLMJudge, tmp_path: Path) -> None:
    def change(number: int, line: dict) -> dict:
        if number == 0:
            return line | {"response": None, "error": {"code": "batch_expired", "message": "This request\nexpired."}}
        if number == 1:
            line["response"] |= {"status_code": 500, "body": ["?"]}
        elif number == 2:
            line["response"]["body"]["choices"] = []
        elif number == 3:
            line["response"]["body"]["choices"][0]["message"]["content"] = "Score: 3"
        elif number == 4:
            line["custom_id"] = "of another run"
        elif number in (5, 6):  # as OpenAI says it
            line["response"] |= {"status_code": 400, "body": {"error": {"message": TOO_MANY, "code": None}}}
        elif number == 7:  # as `vllm run-batch` does
            line |= {"response": {"status_code": 400, "body": None}, "error": {"error": {"message": TOO_MANY}}}
        elif number == 8:
            line |= {"response": {"status_code": 429}, "error": None}
        elif number == 9:
            line |= {"response": None, "error": None}
        return line

    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    export_batch(judge, make_pairs(15), requests, "choice")
    run_batch(requests, results, change)
    found = import_batch(judge, make_pairs(15), results)
    assert (found.judged, found.unjudged, found.unknown) == (5, {"not a grade": 1}, 1)
    assert found.failed == {
        f"HTTP 400: {TOO_MANY}": 3,
        "no response: This request expired.": 1,
        "HTTP 500: ['?']": 1,
        "the answer has no choices": 1,
        "HTTP 429": 1,
        "no response": 1,
    }
    assert judge.plan(make_pairs(15)).to_ask == 10


@pytest.mark.parametrize(
    ("error", "words"),
    [
        ({"code": "batch_expired", "message": "", "param": None}, "no response: batch_expired"),
        ({"detail": "Not Found"}, "no response: Not Found"),
        ({"error": {"detail": {"message": "full"}}}, "no response: full"),
        ({"message": "too long", "code": "context_length"}, "no response: too long"),
        ("out of memory", "no response: out of memory"),
        ({"param": "model"}, "no response"),
    ],
)
def test_a_service_s_own_words_wherever_it_has_them(error: object, words: str, judge: LLMJudge, tmp_path: Path) -> None:
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    export_batch(judge, make_pairs(1), requests, "choice")
    run_batch(requests, results, lambda _, line: line | {"response": "none", "error": error})
    assert import_batch(judge, make_pairs(1), results).failed == {words: 1}


def test_blank_lines_among_the_results_are_passed_over(judge: LLMJudge, tmp_path: Path) -> None:
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    export_batch(judge, make_pairs(1), requests, "choice")
    run_batch(requests, results)
    results.write_text(f"\n \n{results.read_text()}\n{{")
    with pytest.raises(InputError, match="line 5, is no batch result"):
        import_batch(judge, make_pairs(1), results)
    results.write_text(results.read_text().removesuffix("{"))
    assert import_batch(judge, make_pairs(1), results).judged == 1


def test_files_of_no_use_are_found_before_the_work(tmp_path: Path) -> None:
    (tmp_path / "results.jsonl").touch()
    check_files(None, None)
    check_files(tmp_path / "results.jsonl", tmp_path / "requests.jsonl")
    assert not (tmp_path / "requests.jsonl").exists()
    with pytest.raises(InputError, match=r"cannot read .*none\.jsonl"):
        check_files(tmp_path / "none.jsonl", None)
    with pytest.raises(InputError, match=r"cannot write .*requests\.jsonl"):
        check_files(None, tmp_path / "results.jsonl" / "requests.jsonl")


def test_a_pair_asked_twice_keeps_its_answer(judge: LLMJudge, tmp_path: Path) -> None:
    """As when a batch that expired was started again and both results are in one file, in whatever order."""
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    export_batch(judge, make_pairs(2), requests, "choice")
    run_batch(requests, results)
    answers = results.read_text().splitlines()
    expired = [json.dumps({**json.loads(line), "response": None}) for line in answers]
    vague = answers[1].replace('"content": "', '"content": "Score: ', 1)
    results.write_text("\n".join([expired[0], vague, *answers, expired[1]]) + "\n")
    found = import_batch(judge, make_pairs(2), results)
    assert (found.judged, found.unjudged, found.failed, found.unknown) == (
        2,
        {"not a grade": 1},
        {"no response": 1},
        1,
    )


@pytest.mark.parametrize("name", [f"{MODEL}-2026-01-01", "what a gateway's alias stands for"])
def test_the_model_may_answer_by_another_name(judge: LLMJudge, tmp_path: Path, name: str) -> None:
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    export_batch(judge, make_pairs(1), requests, "choice")
    results.write_text(json.dumps(answer(json.loads(requests.read_text()), name)))
    assert import_batch(judge, make_pairs(1), results).judged == 1


def test_answers_to_another_model_s_requests_are_not_taken(judge: LLMJudge, tmp_path: Path) -> None:
    requests, results = tmp_path / "requests.jsonl", tmp_path / "results.jsonl"
    other = LLMJudge(["http://localhost/v1"], "another", judge.template.text, judge.store)
    export_batch(other, make_pairs(3), requests, "choice")
    run_batch(requests, results)
    found = import_batch(judge, make_pairs(3), results)
    assert (found.judged, found.unknown, len(judge.store)) == (0, 3, 0)


@pytest.mark.parametrize(
    ("content", "problem"),
    [
        ("", "holds no results"),
        ("\n", "holds no results"),
        ('{"custom_id": "a", "response": {}}\n{"custom', "line 2, is no batch result"),
        ('{"custom_id": "a", "method": "POST"}\n', "line 1, is no batch result"),
        ("[]", "line 1, is no batch result"),
        ("[" * 100_000, "line 1, is no batch result"),  # deeper than the parser goes
        ('{"custom_id": 7, "response": {}}', "line 1, is no batch result"),
        ("\udcff", "line 1, is no batch result"),
    ],
)
def test_a_file_that_is_no_results_file(content: str, problem: str, judge: LLMJudge, tmp_path: Path) -> None:
    path = tmp_path / "results.jsonl"
    path.write_bytes(content.encode(errors="surrogateescape"))
    with pytest.raises(InputError, match=problem):
        import_batch(judge, make_pairs(1), path)


def test_a_missing_file(judge: LLMJudge, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="check the path"):
        import_batch(judge, make_pairs(1), tmp_path / "missing.jsonl")


def test_a_failed_export_leaves_nothing(judge: LLMJudge, tmp_path: Path) -> None:
    def broken() -> Iterator[Pair]:
        yield make_pair(1)
        raise InputError("the pairs end here")

    with pytest.raises(InputError, match="the pairs end here"):
        export_batch(judge, broken(), tmp_path / "r.jsonl", "choice")
    assert not list(tmp_path.glob("*r.jsonl*"))
