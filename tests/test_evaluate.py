"""evaluate.py: the terminal output to the letter, the JSON, exit statuses, and what bad input gets."""

import json
import math
import re
import shutil
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

import evaluate
from hardneg.corpus.artifacts import SHARED, Chunk, Query
from hardneg.embedding.models import fingerprint, load_model
from hardneg.measuring.graded import GradedSet, load_graded, open_graded
from hardneg.measuring.metrics import relative_gain
from hardneg.running.errors import InputError
from hardneg.running.files import read_json, sha256_file, write_json
from tests.brute_force import brute_force
from tests.records import make_chunk, make_query
from tests.tiny_data import lengthen_three, tiny_corpus, write_pickle, write_tiny_data
from tests.tiny_model import build_tiny_model

ROOT = Path(__file__).parent.parent


@pytest.fixture(scope="module")
def other_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A second model, with other random weights and room for 16 tokens."""
    chunks, _, queries = tiny_corpus()
    texts = [chunk["text"] for chunk in chunks] + [query["query"] for part in queries.values() for query in part]
    return build_tiny_model(tmp_path_factory.mktemp("models") / "other", texts, max_seq_length=16, seed=1)


@pytest.fixture
def arguments(tiny_model: Path, tiny_data_dir: Path, tmp_path: Path) -> list[str]:
    """The tiny model against itself."""
    return [
        *("--baseline-model", str(tiny_model), "--specialized-model", str(tiny_model), "--device", "cpu"),
        *("--data-dir", str(tiny_data_dir), "--output", str(tmp_path / "results.json")),
    ]


def results(tmp_path: Path) -> dict[str, Any]:
    return read_json(tmp_path / "results.json", "evaluate.py")


# ---------------------------------------------------------------- the output: made-up figures in the runbook's form

RUNBOOK_RESULTS = """\
==================================================
RESULTS
==================================================

Baseline (sentence-transformers/all-MiniLM-L12-v2):
  MRR@5: 0.1523
  DCG@5: 0.2145
  Precision@5: 0.3421
  Recall@5: 0.2876

Specialized (models/medical-specialized/final):
  MRR@5: 0.1945
  DCG@5: 0.2687
  Precision@5: 0.4123
  Recall@5: 0.3512

Improvement:
  MRR@5: +27.7%  ✓
  DCG@5: +25.3%  ✓
  Precision@5: +20.5%
  Recall@5: +22.1%

"""
RUNBOOK_CHECK = """\
==================================================
SUCCESS CRITERIA CHECK
==================================================
Target: +15% improvement in MRR@5 and DCG@5
Achieved:
  MRR@5: +27.7% ✓
  DCG@5: +25.3% ✓

🎉 SUCCESS! Specialized model meets success criteria!
"""
RUNBOOK_BASELINE = {"MRR": 0.1523, "DCG": 0.2145, "Precision": 0.3421, "Recall": 0.2876}
RUNBOOK_SPECIALIZED = {"MRR": 0.1945, "DCG": 0.2687, "Precision": 0.4123, "Recall": 0.3512}


def scores_of(name: str, figures: dict[str, list[float]], k: int = 5) -> evaluate.ModelScores:
    return evaluate.ModelScores(name, "0" * 64, {f"{key}@{k}": np.array(row) for key, row in figures.items()}, {}, {})


def queries_of(n: int) -> list[Query]:
    """n questions, every two of them on one topic, every four of one group, the first three of one type."""
    return [
        make_query(
            f"q{row}",
            row,
            query=f"Question {row}?",
            qtype="symptoms" if row < 3 else "treatment",
            topic=f"topic {row // 2}",
            group=f"topic {row // 4 * 2}",
        )
        for row in range(n)
    ]


def answers_of(queries: Sequence[Query]) -> list[Chunk]:
    """An answer to each question; the first four name their topic, however they put it."""
    texts = [f"{query['topic'].split()[1]}, a TOPIC." if row < 4 else "It." for row, query in enumerate(queries)]
    return [make_chunk(row, text, qa_ids=[f"row {row}"], split="test") for row, text in enumerate(texts)]


def compared(
    baseline: dict[str, list[float]],
    specialized: dict[str, list[float]],
    *options: str,
    queries: list[Query] | None = None,
) -> tuple[dict[str, Any], Any]:
    """The report on two models with these per-question figures, and the arguments."""
    args = evaluate.parse_arguments(list(options))
    queries = queries or queries_of(len(baseline["MRR"]))
    inputs = evaluate.Inputs(answers_of(queries), queries, None, {"corpus": {}, "queries": {}})
    before = scores_of(args.baseline_model, baseline, args.k)
    after = scores_of(args.specialized_model, specialized, args.k)
    result = evaluate.compare(inputs, before, after, args) | evaluate.provenance(inputs, args)
    return result | {"notes": [], "seconds": {}}, args


def on_four_questions(figures: dict[str, float]) -> dict[str, list[float]]:
    return {key: [value] * 4 for key, value in figures.items()}


def test_output_has_the_runbooks_form_to_the_letter(capsys: pytest.CaptureFixture[str]) -> None:
    result, args = compared(on_four_questions(RUNBOOK_BASELINE), on_four_questions(RUNBOOK_SPECIALIZED))
    evaluate.print_result(result, args.output)
    printed = capsys.readouterr().out
    interval = re.compile(r"   \(95% CI [+-]\d+\.\d% to [+-]\d+\.\d%\)$", re.MULTILINE)
    assert "  MRR@5: +27.7%  ✓   (95% CI +27.7% to +27.7%)\n" in printed  # of one group: no interval over groups
    assert RUNBOOK_RESULTS in interval.sub("", printed)
    assert printed.endswith("\n\n" + RUNBOOK_CHECK)
    assert result["verdict"] == {"target": 0.15, "met": True, "reached": {"MRR@5": True, "DCG@5": True}}


def test_one_target_missed(capsys: pytest.CaptureFixture[str]) -> None:
    after = on_four_questions(RUNBOOK_SPECIALIZED) | {"DCG": [0.22] * 4}
    result, args = compared(on_four_questions(RUNBOOK_BASELINE), after)
    evaluate.print_result(result, args.output)
    printed = capsys.readouterr().out
    assert "\n  DCG@5: +2.6%  ✗   (95% CI" in printed
    assert printed.endswith(
        "Achieved:\n  MRR@5: +27.7% ✓\n  DCG@5: +2.6% ✗\n\n"
        "Specialized model does not meet the success criteria (+15%): DCG@5 is 12.44 percentage points short.\n"
    )
    assert not result["verdict"]["met"]


def test_a_gain_that_is_rounded_to_its_target_is_said_to_miss_it(capsys: pytest.CaptureFixture[str]) -> None:
    after = dict.fromkeys(RUNBOOK_BASELINE, 0.2 * 1.1496)
    result, args = compared(on_four_questions(dict.fromkeys(RUNBOOK_BASELINE, 0.2)), on_four_questions(after))
    evaluate.print_result(result, args.output)
    printed = capsys.readouterr().out
    assert "  MRR@5: +15.0% ✗\n" in printed
    assert printed.endswith("MRR@5 is 0.04 percentage points short and DCG@5 is 0.04 percentage points short.\n")


@pytest.mark.parametrize(("after", "met"), [(0.23, True), (0.2299, False)])
def test_exactly_the_target_is_enough(after: float, met: bool) -> None:
    """0.23 / 0.2 - 1 is 0.1499... in binary."""
    result, _ = compared(
        on_four_questions(dict.fromkeys(RUNBOOK_BASELINE, 0.2)),
        on_four_questions(dict.fromkeys(RUNBOOK_BASELINE, after)),
    )
    assert result["verdict"]["met"] is met


@pytest.mark.filterwarnings("error")
def test_a_baseline_that_finds_nothing(capsys: pytest.CaptureFixture[str]) -> None:
    result, args = compared(
        on_four_questions(dict.fromkeys(RUNBOOK_BASELINE, 0.0)), on_four_questions(RUNBOOK_BASELINE)
    )
    evaluate.print_result(result, args.output)
    printed = capsys.readouterr().out
    assert "\n  MRR@5: n/a  ✗\n" in printed and "MRR@5 has no relative gain, as the baseline's is 0" in printed
    assert not result["verdict"]["met"]
    assert result["improvement"]["MRR@5"]["gain"] is None
    assert result["improvement"]["MRR@5"]["ci95_questions"] == [None, None]
    json.dumps(result, allow_nan=False)


def test_an_interval_that_begins_below_the_target_is_said(capsys: pytest.CaptureFixture[str]) -> None:
    before = {key: [0.5] * 40 for key in RUNBOOK_BASELINE}
    after = before | {"MRR": [1.0] * 20 + [0.25] * 20, "DCG": [0.6] * 40}
    result, args = compared(before, after)
    evaluate.print_result(result, args.output)
    printed = capsys.readouterr().out
    question_low, group_low = (result["improvement"]["MRR@5"][f"ci95_{unit}"][0] for unit in ("questions", "groups"))
    assert group_low < question_low < 0.15 < result["improvement"]["MRR@5"]["gain"] == 0.25
    of_four = [f"group {row // 4}" for row in range(40)]
    by_group = relative_gain(np.array(before["MRR"]), np.array(after["MRR"]), of_four)
    assert result["improvement"]["MRR@5"]["ci95_groups"] == [by_group.low, by_group.high]
    question_high, group_high = (result["improvement"]["MRR@5"][f"ci95_{unit}"][1] for unit in ("questions", "groups"))
    assert (
        f"  MRR@5: +25.0%  ✓   (95% CI {question_low:+.1%} to {question_high:+.1%}; "
        f"over groups {group_low:+.1%} to {group_high:+.1%})\n"
    ) in printed
    assert (
        "Note: MRR@5 reaches the target, but its 95% interval begins below it "
        f"({question_low:+.1%} over questions, {group_low:+.1%} over groups of tied topics)\n"
    ) in printed
    assert "Note: DCG@5" not in printed


@pytest.mark.parametrize(("gain", "is_noted"), [(1.05, True), (1.0, False), (0.95, False)])
def test_a_gain_that_is_sure_but_short_of_the_target_is_said(
    gain: float, is_noted: bool, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {key: [0.2, 0.4] * 20 for key in RUNBOOK_BASELINE}
    after = {key: [value * gain for value in values] for key, values in before.items()}
    result, args = compared(before, after)
    evaluate.print_result(result, args.output)
    words = "Note: MRR@5 misses the target, but it did improve: its 95% interval begins above 0 (+5.0% over"
    assert (words in capsys.readouterr().out) == is_noted


def test_questions_of_few_groups_are_said_to_be() -> None:
    assert evaluate.group_notes(queries_of(117)) == []
    (note,) = evaluate.group_notes(queries_of(116))
    assert note == "Note: only 29 groups of tied topics: the intervals over groups are too narrow"
    (note,) = evaluate.group_notes(queries_of(4))
    assert note.startswith("Note: all questions belong to one group of tied topics")


def test_question_types_and_extremes(capsys: pytest.CaptureFixture[str]) -> None:
    rest = {"Precision": [0.2] * 5, "Recall": [0.2] * 5}
    before = {"MRR": [1, 0.5, 0, 0, 0.25], "DCG": [1, 0.5, 0, 0, 0.25]} | rest
    after = {"MRR": [1, 0.25, 1, 0.5, 0.25], "DCG": [1, 0.5, 1, 0.5, 0.2]} | rest
    result, args = compared(before, after)
    symptoms, treatment = result["by_question_type"]
    assert symptoms == {"qtype": "symptoms", "n": 3, "baseline": 0.5, "specialized": 0.75, "gain": 0.5}
    assert (treatment["n"], treatment["baseline"], treatment["gain"]) == (2, 0.125, pytest.approx(2))
    assert result["by_naming"] == [
        {"named": True, "n": 4, "baseline": 0.375, "specialized": 0.6875, "gain": pytest.approx(5 / 6)},
        {"named": False, "n": 1, "baseline": 0.25, "specialized": 0.25, "gain": 0},
    ]
    assert [entry["query_id"] for entry in result["gained_most"]] == ["q2", "q3"]
    assert [entry["query_id"] for entry in result["lost_most"]] == ["q1", "q4"]  # q4 by DCG alone
    assert result["lost_most"][0] == {
        "query_id": "q1",
        "query": "Question 1?",
        "qtype": "symptoms",
        "topic": "topic 0",
        "baseline": {"MRR@5": 0.5, "DCG@5": 0.5},
        "specialized": {"MRR@5": 0.25, "DCG@5": 0.5},
    }
    evaluate.print_result(result, args.output)
    printed = capsys.readouterr().out
    assert re.search(r"^  symptoms +3 +0\.5000 +0\.7500   \+50\.0%$", printed, re.MULTILINE)
    assert re.search(r"^  no answer names the topic +1 +0\.2500 +0\.2500   \+0\.0%$", printed, re.MULTILINE)
    assert "  Gained most, MRR@5 and DCG@5:\n    0.00 > 1.00   0.00 > 1.00   Question 2?\n" in printed
    assert "  Lost most, MRR@5 and DCG@5:\n    0.50 > 0.25   0.50 > 0.50   Question 1?\n" in printed
    headings = ("Improvement:", "BY QUESTION TYPE", "QUESTIONS THAT CHANGED MOST", "SUCCESS CRITERIA CHECK")
    places = [printed.index(heading) for heading in headings]
    assert places == sorted(places)


def test_a_question_that_is_its_own_topic_counts_neither_as_named_nor_as_not_named() -> None:
    queries = queries_of(5)
    queries[1]["topic"] = "Question 1"  # but for its mark
    figures = {key: [0.5, 1.0, 0.25, 0.0, 0.2] for key in RUNBOOK_BASELINE}
    result, _ = compared(figures, figures, queries=queries)
    assert [(row["named"], row["n"], row["baseline"]) for row in result["by_naming"]] == [
        (True, 3, 0.25),
        (False, 1, 0.2),
    ]


def test_questions_with_one_right_passage_are_told_from_those_with_several(capsys: pytest.CaptureFixture[str]) -> None:
    queries = queries_of(4)
    queries[1]["ground_truth_chunk_ids"] = [1, 2]
    before = {key: [0.5, 1.0, 0.25, 0.0] for key in RUNBOOK_BASELINE}
    after = {key: [1.0, 0.5, 0.25, 0.25] for key in RUNBOOK_BASELINE}
    result, args = compared(before, after, queries=queries)
    assert result["by_right_passages"] == [
        {"several": False, "n": 3, "baseline": 0.25, "specialized": 0.5, "gain": 1.0},
        {"several": True, "n": 1, "baseline": 1.0, "specialized": 0.5, "gain": -0.5},
    ]
    evaluate.print_result(result, args.output)
    printed = capsys.readouterr().out
    assert re.search(r"^  one right passage +3 +0\.2500 +0\.5000   \+100\.0%$", printed, re.MULTILINE)
    assert re.search(r"^  several right passages +1 +1\.0000 +0\.5000   -50\.0%$", printed, re.MULTILINE)


def test_of_many_question_types_the_rarer_ones_are_in_the_file(capsys: pytest.CaptureFixture[str]) -> None:
    queries = queries_of(15)
    for row, query in enumerate(queries):
        query["qtype"] = f"type {min(row, 13)}"  # the last of 14 is asked twice
    figures = {key: [value] * 15 for key, value in RUNBOOK_BASELINE.items()}
    result, args = compared(figures, figures, queries=queries)
    evaluate.print_result(result, args.output)
    printed = capsys.readouterr().out
    assert len(result["by_question_type"]) == 14
    assert len(re.findall(r"^  type \d+ +\d ", printed, re.MULTILINE)) == 12
    assert "\n  type 13                        2 " in printed
    assert "\n  ... and 2 rarer types in evaluation_results.json\n" in printed


def test_the_gain_without_boilerplate(
    arguments: list[str],
    tiny_model: Path,
    other_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Of a corpus without those passages; here three, which both models rank among the first five of some question."""
    evaluate.main(arguments)
    assert results(tmp_path)["without_boilerplate"] is None
    chunks, _, _ = tiny_corpus()
    boilerplate = {0, 9, 24}
    for chunk_id in boilerplate:
        chunks[chunk_id] |= {"qa_ids": [f"row {row}" for row in range(21)], "split": SHARED}
    data_dir = write_tiny_data(tmp_path / "data", chunks)
    monkeypatch.setattr(evaluate, "DEEP", 1)  # so that nothing is ranked deeper than it must be
    capsys.readouterr()
    evaluate.main([*arguments, "--specialized-model", str(other_model), "--data-dir", str(data_dir)])
    own = results(tmp_path)["without_boilerplate"]
    assert (own["passages_left_out"], own["questions"]) == (3, 6)
    for role, model in (("baseline", tiny_model), ("specialized", other_model)):
        figures = own["improvement"]["MRR@5"][role], own["improvement"]["DCG@5"][role]
        assert figures == pytest.approx(brute_force(model, "test", 5, boilerplate))
        assert figures != pytest.approx(brute_force(model, "test", 5))
    gain = evaluate.percent(own["improvement"]["MRR@5"]["gain"])
    heading = "\nWithout boilerplate (3 of the chunks, each in over 20 answers; 6 questions):\n  MRR@5: "
    assert heading + gain in capsys.readouterr().out


# ---------------------------------------------------------------- real models


def test_the_command(tiny_model: Path, other_model: Path, tiny_data_dir: Path, tmp_path: Path) -> None:
    command = [
        *(sys.executable, "evaluate.py", "--baseline-model", str(tiny_model), "--specialized-model", str(other_model)),
        *("--k", "3", "--data-dir", str(tiny_data_dir), "--output", str(tmp_path / "results.json")),
        *("--graded", "bundled", "--device", "cpu"),
    ]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, encoding="utf-8", check=False)
    assert done.returncode == 0, done.stderr
    result = results(tmp_path)
    for role, model in (("baseline", tiny_model), ("specialized", other_model)):
        figures = result[role]["metrics"]
        assert list(figures) == ["MRR@3", "DCG@3", "Precision@3", "Recall@3", "Recall@50"]
        assert (figures["MRR@3"], figures["DCG@3"]) == pytest.approx(brute_force(model, "test", 3))
        assert figures["Recall@50"] == 1 > figures["Recall@3"]  # of 30 chunks
        lines = [f"{role.capitalize()} ({model}):", *(f"  {key}: {figures[key]:.4f}" for key in list(figures)[:4])]
        assert "\n".join(lines) + "\n" in done.stdout
    assert result["baseline"]["fingerprint"] != result["specialized"]["fingerprint"]
    assert result["counts"] == {"chunks": 30, "queries": 6, "topics": 3, "groups": 3}
    assert result["data"]["corpus_sha256"] == sha256_file(tiny_data_dir / "corpus_chunks.pkl")
    assert result["data"]["queries_sha256"]["test_queries.pkl"] == sha256_file(tiny_data_dir / "test_queries.pkl")
    assert set(result["seconds"]) == {"load_models", "baseline", "specialized", "compare"}
    assert result["versions"]["torch"]

    for key, row in result["graded"]["improvement"].items():
        assert re.search(rf"^  {key} +{row['baseline']:.4f} +{row['specialized']:.4f} ", done.stdout, re.MULTILINE)
        assert row["ci95_questions"][0] < row["gain"] < row["ci95_questions"][1]
    assert list(result["graded"]["improvement"]) == ["MRR@5", "DCG@5", "nDCG@10"]
    assert "Baseline: 100%" in done.stderr
    assert "Specialized: 100%" in done.stderr
    assert "Traceback" not in done.stderr


def test_bad_input_is_one_line_and_status_2(tmp_path: Path, tiny_model: Path) -> None:
    command = [sys.executable, "evaluate.py", "--baseline-model", str(tiny_model), "--data-dir", str(tmp_path / "none")]
    command += ["--specialized-model", str(tiny_model), "--output", str(tmp_path / "results.json")]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(
        r"error: .*manifest\.json is missing; run `python prepare_corpus.py --data-dir [^\n]*\n", done.stderr
    )


def test_a_model_against_itself(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    evaluate.main(arguments)
    printed = capsys.readouterr().out
    assert "  MRR@5: +0.0%  ✗   (95% CI +0.0% to +0.0%; over groups +0.0% to +0.0%)\n" in printed
    result = results(tmp_path)
    assert not result["verdict"]["met"]
    assert result["gained_most"] == result["lost_most"] == []
    assert result["graded"] is None
    assert "GRADED" not in printed
    assert "  Gained most, MRR@5 and DCG@5: none\n" in printed


def test_require_target(arguments: list[str], tmp_path: Path) -> None:
    with pytest.raises(SystemExit) as exit_:
        evaluate.main([*arguments, "--require-target"])
    assert exit_.value.code == 1
    assert not results(tmp_path)["verdict"]["met"]  # written all the same
    evaluate.main([*arguments, "--require-target", "--target", "0"])
    assert results(tmp_path)["verdict"]["met"]


@pytest.mark.parametrize("prompts", [{}, {"query": "asthma: ", "document": "gout: "}])
def test_val_split_and_deep_k(
    arguments: list[str], model: SentenceTransformer, tmp_path: Path, prompts: dict[str, str]
) -> None:
    model.prompts |= prompts
    model.save(str(tmp_path / "model"))
    evaluate.main([*arguments, "--baseline-model", str(tmp_path / "model"), "--split", "val", "--k", "100"])
    result = results(tmp_path)
    figures = result["baseline"]["metrics"]
    assert result["split"] == "val"
    assert (figures["MRR@100"], figures["DCG@100"]) == pytest.approx(brute_force(tmp_path / "model", "val", 100))
    assert figures["Recall@100"] == 1  # all 30 chunks are retrieved
    assert figures["Precision@100"] == pytest.approx(7 / 6 / 100)  # 7 known answers to 6 questions


def test_a_graded_file(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = {"question_id": "1", "question": "How is gout treated?", "answer_title": ""}
    useless = {
        "question_id": "2",
        "question": "How is scurvy treated?",
        "answer_title": "",
        "answer": "Salts.",
        "grade": 1,
    }
    rows = [
        asked | {"answer": "How is gout treated?", "grade": 4},
        asked | {"answer": "Bowed legs.", "grade": 1},
        useless,
    ]
    path = tmp_path / "mine.jsonl"
    path.write_text("\n".join(json.dumps(row) for row in rows), encoding="utf-8")
    evaluate.main([*arguments, "--graded", str(path)])
    report = results(tmp_path)["graded"]
    assert {key: report[key] for key in ("file", "questions", "answers", "left_out_of_ndcg")} == {
        "file": "mine.jsonl",
        "questions": 2,
        "answers": 3,
        "left_out_of_ndcg": 1,
    }
    assert {key: row["baseline"] for key, row in report["improvement"].items()} == {
        "MRR@5": 0.5,
        "DCG@5": 1.5,
        "nDCG@10": 1,
    }
    printed = capsys.readouterr().out
    assert "  questions left out of nDCG, as all their answers have the same grade: 1\n" in printed
    assert "\n  nDCG@10 of a random order: 0.8155\n" in printed
    assert report["ndcg_of_random_order"] == pytest.approx((1 + 1 / math.log2(3)) / 2)
    assert load_graded(path).n_answers == 3
    path.write_text(json.dumps(rows[1]), encoding="utf-8")
    with pytest.raises(InputError, match=r"mine.jsonl: no question in it has answers of different grades"):
        evaluate.main([*arguments, "--graded", str(path)])


# ---------------------------------------------------------------- warnings


def notes_of(
    record: object,
    data_dir: Path,
    split: str = "test",
    graded: GradedSet | None = None,
    queries: Sequence[Query] = (),
) -> list[str]:
    """`training_notes` of a model with this training.json."""
    model = data_dir.parent / "model"
    model.mkdir(exist_ok=True)
    write_json(model / "training.json", record)
    return evaluate.training_notes(
        str(model), evaluate.Inputs([], list(queries), graded, read_json(data_dir / "manifest.json", "")), split
    )


def test_trained_on_another_corpus(tiny_data_dir: Path) -> None:
    here = read_json(tiny_data_dir / "manifest.json", "")["corpus"]["sha256"]
    (note,) = notes_of({"iteration": 0, "configuration": {"corpus_sha256": "another"}}, tiny_data_dir)
    assert f"was trained on another corpus (another, here {here[:12]})" in note
    assert notes_of({"iteration": 0, "configuration": {"corpus_sha256": here}}, tiny_data_dir) == []
    kinds: tuple[Any, ...] = ({}, [], {"arguments": {"k": 5}}, {"configuration": None}, {"files_sha256": ["x"]})
    for of_another_kind in kinds:
        assert notes_of(of_another_kind, tiny_data_dir) == []


@pytest.mark.parametrize("role", ["--baseline-model", "--specialized-model"])
def test_notes_are_printed_and_kept(
    role: str, arguments: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    trained = tmp_path / "trained"
    shutil.copytree(tiny_model, trained)
    write_json(trained / "training.json", {"iteration": 0, "configuration": {"corpus_sha256": "f" * 64}})
    evaluate.main([*arguments, role, str(trained)])
    notes = results(tmp_path)["notes"]
    assert notes[0].startswith(f"Warning: {trained} was trained on another corpus (ffffffffffff, here ")
    assert notes[1:] == [evaluate.group_notes(queries_of(12))[0]]  # of three groups too
    printed = capsys.readouterr().out
    assert f"{notes[0]}\n{notes[1]}\n" in printed and printed.index(notes[1]) < printed.index("RESULTS")


def test_notes_come_before_the_work(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    lengthen_three(tmp_path / "data")
    monkeypatch.setattr(evaluate, "score_model", lambda *_: pytest.fail("works"))
    with pytest.raises(pytest.fail.Exception, match="works"):
        evaluate.main(arguments)
    assert "reads only the first 64 tokens of a text" in capsys.readouterr().out


def test_a_set_that_chose_the_model_is_no_independent_test(tiny_data_dir: Path) -> None:
    graded = open_graded("bundled")
    record = {"configuration": {"guard_sha256": graded.sha256}}
    (note,) = notes_of(record, tiny_data_dir, graded=graded)
    assert "consumer_questions.jsonl was the guard that chose" in note
    assert notes_of(record, tiny_data_dir, graded=replace(graded, questions=graded.questions[1:])) == []
    assert notes_of(record, tiny_data_dir) == notes_of({}, tiny_data_dir, graded=graded) == []


def test_questions_of_the_guard_are_found_in_other_files_and_splits(tiny_data_dir: Path) -> None:
    guard = open_graded("bundled")
    record = {"configuration": {"guard": "bundled", "guard_sha256": guard.sha256}}
    (note,) = notes_of(record, tiny_data_dir, graded=replace(guard, questions=guard.questions[1:]))
    assert note.startswith("Warning: 239 of 239 questions of consumer_questions.jsonl are in the guard that chose ")
    asked = guard.questions[7].question.upper()
    queries = [make_query("1"), make_query("2", query=asked)]
    (note,) = notes_of(record, tiny_data_dir, queries=queries)
    assert note.startswith("Warning: 1 of 2 test questions are in the guard that chose ")
    for unknown in ({"guard": "gone.jsonl"}, {"guard_sha256": "0" * 64}, {"guard": "nanobeir"}):
        assert notes_of({"configuration": record["configuration"] | unknown}, tiny_data_dir, queries=queries) == []


def test_questions_that_chose_the_model_are_no_test_of_it(tiny_data_dir: Path) -> None:
    record = {"validation": {"mrr": 0.5}}
    (note,) = notes_of(record, tiny_data_dir, split="val")
    assert note.endswith("was chosen by validation questions: no independent test of it")
    assert notes_of(record, tiny_data_dir) == notes_of({}, tiny_data_dir, split="val") == []


def test_a_model_that_does_not_compare_by_the_cosine(
    arguments: list[str], tiny_model: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """As a baseline it would be measured by what it was not trained for."""
    model = load_model(str(tiny_model), "cpu")
    model = SentenceTransformer(modules=[*model][:-1], similarity_fn_name="dot")
    model.save(str(tmp_path / "dot"))
    with pytest.raises(InputError, match=r"dot compares embeddings by dot, .* of normalised embeddings$"):
        evaluate.main([*arguments, "--baseline-model", str(tmp_path / "dot")])


@pytest.mark.parametrize("damage", ["training.json", "tokenizer.json"])
def test_a_model_that_is_not_whole_is_not_evaluated(
    arguments: list[str], tiny_model: Path, tmp_path: Path, damage: str
) -> None:
    trained = tmp_path / "trained"
    shutil.copytree(tiny_model, trained)
    write_json(trained / "training.json", {"files_sha256": {"tokenizer.json": sha256_file(trained / "tokenizer.json")}})
    (trained / damage).write_text("{damaged")
    with pytest.raises(InputError, match=f"trained/{damage} is not "):
        evaluate.main([*arguments, "--specialized-model", str(trained)])


def test_a_baseline_that_the_model_was_not_adapted_from(
    arguments: list[str], tiny_model: Path, other_model: Path, tmp_path: Path
) -> None:
    base_fingerprint = fingerprint(load_model(str(tiny_model), "cpu"))
    of_tiny = {"configuration": {"base_model": "tiny", "base_fingerprint": base_fingerprint}}
    folders = [tmp_path / name for name in ("iteration_0", "iteration_1")]
    for folder in folders:
        shutil.copytree(tiny_model, folder)
        write_json(folder / "training.json", of_tiny)
    nudged = load_model(str(folders[0]), "cpu")
    with torch.no_grad():
        next(nudged.parameters()).view(-1)[0] += 1
    nudged.save_pretrained(str(folders[0]), create_model_card=False)
    notes = []
    for baseline in (tiny_model, folders[0], other_model):
        evaluate.main([*arguments, "--baseline-model", str(baseline), "--specialized-model", str(folders[1])])
        notes.append([note for note in results(tmp_path)["notes"] if "adapted from" in note])
    assert notes[:2] == [[], []]
    assert notes[2] == [
        f"Warning: {folders[1]} was adapted from tiny, not from {other_model}: "
        "the improvement is not the adaptation's alone"
    ]


# ---------------------------------------------------------------- bad input


def test_missing_and_damaged_data(arguments: list[str], tiny_data_dir: Path, tmp_path: Path) -> None:
    queries = tiny_data_dir / "test_queries.pkl"
    whole = queries.read_bytes()
    queries.write_bytes(whole[: len(whole) // 2])
    with pytest.raises(
        InputError, match=r"test_queries\.pkl is not the file .*; run again, or run `python prepare_queries"
    ):
        evaluate.main(arguments)
    queries.unlink()
    with pytest.raises(InputError, match=r"test_queries\.pkl is missing"):
        evaluate.main(arguments)
    write_tiny_data(tiny_data_dir)
    write_pickle(tiny_data_dir / "corpus_chunks.pkl", [])
    with pytest.raises(
        InputError, match=r"corpus_chunks\.pkl is not the file .*; run again, or run `python prepare_corp"
    ):
        evaluate.main(arguments)
    assert not (tmp_path / "results.json").exists()
    assert not (tiny_data_dir / "embeddings.sqlite").exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (["--specialized-model", "models/none/final"], "model folder models/none/final does not exist; train it first"),
        (["--baseline-model", "no-such-model"], "model no-such-model cannot be loaded"),
        (["--graded", "none.jsonl"], r"cannot read none\.jsonl"),
        (["--device", "cuda:9"], "--device cuda:9: no such device"),
    ],
)
def test_unusable_arguments(
    arguments: list[str], tiny_data_dir: Path, tmp_path: Path, changes: list[str], message: str
) -> None:
    with pytest.raises(InputError, match=message) as error:
        evaluate.main([*arguments, *changes])
    assert "\n" not in str(error.value)
    assert not (tmp_path / "results.json").exists()
    assert not (tiny_data_dir / "embeddings.sqlite").exists()


def test_unwritable_output(arguments: list[str], tiny_data_dir: Path, tmp_path: Path) -> None:
    with pytest.raises(InputError, match="is a folder; name a file"):
        evaluate.main([*arguments, "--output", str(tmp_path)])
    with pytest.raises(InputError, match=r"cannot write .*; a file stands where a folder is needed"):
        evaluate.main([*arguments, "--output", str(tiny_data_dir / "manifest.json" / "results.json")])
    assert not (tiny_data_dir / "embeddings.sqlite").exists()


@pytest.mark.parametrize(
    "option", [["--k", "0"], ["--k", "-1"], ["--k", "five"], ["--target", "nan"], ["--split", "train"]]
)
def test_arguments_out_of_range(option: list[str]) -> None:
    with pytest.raises(InputError, match=f"argument {option[0]}: "):
        evaluate.main(option)
