"""The miner: candidates, averaging, keeping the best, and whole runs on the tiny data."""

import argparse
import json
import random
import re
import shutil
import signal
import subprocess
import sys
import weakref
from collections import Counter
from collections.abc import Callable
from contextlib import redirect_stdout
from dataclasses import asdict, replace
from functools import partial
from itertools import chain
from pathlib import Path
from types import SimpleNamespace
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from safetensors.numpy import load_file
from sentence_transformers import SentenceTransformer

import iterative_miner as miner
from hardneg.corpus.artifacts import Chunk, Query, read_manifest
from hardneg.embedding.device import has_bfloat16
from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.model_files import strength_of
from hardneg.embedding.models import fingerprint, load_model
from hardneg.judging.candidates import Index, read_candidates
from hardneg.judging.judge import NOT_STORED, AnswerKeyJudge, as_read
from hardneg.judging.judgment_store import JudgmentStore, sha256_text
from hardneg.judging.llm_judge import PASSAGE_TOKENS, LLMJudge
from hardneg.learning.averaging import weights_of
from hardneg.learning.mining import Mined
from hardneg.learning.recipe import Recipe
from hardneg.learning.run_folder import claimed, graded_candidates
from hardneg.learning.validation import Score, Tried, Validator
from hardneg.measuring.graded import MIN_GUARD, load_graded, score_graded
from hardneg.running.errors import InputError
from hardneg.running.files import read_json, sha256_file, write_json
from hardneg.running.script import run
from tests.brute_force import brute_force
from tests.judge_data import PROMPT, make_judge, make_pairs
from tests.llm_stub import MODEL, NOWHERE, LLMStub, true_grade
from tests.mining_data import graded, mine
from tests.records import make_query
from tests.tiny_data import lengthen_three, tiny_corpus, write_pickle, write_tiny_data

ROOT = Path(__file__).parent.parent
TENSOR = "0.model.embeddings.word_embeddings.weight"


@pytest.mark.parametrize(("unjudged", "stops"), [(0, False), (2, False), (3, True)])
def test_more_unjudged_than_allowed_stops(unjudged: int, stops: bool) -> None:
    lists = [graded(make_query("q"), *[None] * unjudged, *[1.0] * (100 - unjudged))]
    reasons = Counter(refused=unjudged)
    if stops:
        with pytest.raises(
            InputError, match=r"3 of 100 pairs are unjudged, more than --max-unjudged 0\.02.* Reasons: 3x refused\."
        ):
            miner.check_unjudged(lists, 0.02, reasons)
    else:
        miner.check_unjudged(lists, 0.02, reasons)


# ---------------------------------------------------------------- candidates


@pytest.fixture
def index(tiny_model: Path, tmp_path: Path) -> Index:
    chunks, _, _ = tiny_corpus()
    encoder = CachedEncoder(load_model(str(tiny_model), "cpu"), tmp_path)
    return miner.embed_corpus(encoder, chunks)


def test_held_out_chunks_are_no_candidates(index: Index) -> None:
    _, _, queries = tiny_corpus()
    every = miner.retrieve_candidates([*queries["train"], *queries["test"]], 1000, index=index)
    for item in every:
        # the shared boilerplate and the six training topics' fourteen chunks
        assert sorted(candidate.chunk_id for candidate in item.candidates) == list(range(15))
        assert [candidate.rank for candidate in item.candidates] == list(range(1, 16))


def test_top_k_and_all_known_answers(index: Index) -> None:
    _, _, queries = tiny_corpus()
    for few, every in zip(
        miner.retrieve_candidates(queries["train"], 2, index=index),
        miner.retrieve_candidates(queries["train"], 15, index=index),
        strict=True,
    ):
        known = set(few.query["ground_truth_chunk_ids"])
        assert few.candidates == tuple(c for c in every.candidates if c.rank <= 2 or c.chunk_id in known)
        assert {candidate.chunk_id for candidate in few.candidates if candidate.known} == known


def test_cosines_are_those_of_queries_and_passages_each_behind_its_prompt(
    model: SentenceTransformer, tmp_path: Path
) -> None:
    model.prompts |= {"query": "asthma: ", "document": "gout: "}
    chunks, _, queries = tiny_corpus()
    encoder = CachedEncoder(model, tmp_path)
    for item in miner.retrieve_candidates(queries["train"], 15, index=miner.embed_corpus(encoder, chunks)):
        own = model.encode("asthma: " + item.query["query"], prompt="", normalize_embeddings=True)
        texts = ["gout: " + chunks[candidate.chunk_id]["text"] for candidate in item.candidates]
        cosines = model.encode(texts, prompt="", normalize_embeddings=True) @ own
        found = [candidate.cosine for candidate in item.candidates]
        np.testing.assert_allclose(found, cosines, atol=2e-3 if has_bfloat16("cpu") else 1e-5)


@pytest.mark.parametrize("k", [10, 3])
def test_few_candidates_give_hard_examples_too(index: Index, k: int) -> None:
    chunks, _, queries = tiny_corpus()
    lists = miner.retrieve_candidates(queries["train"], k, index=index)
    lists = miner.llm_judge_relevance(lists, chunks, AnswerKeyJudge())
    mined = miner.mine_hard_examples(lists, frozenset())
    assert len(mined.hard_positives) >= 5 and len(mined.hard_negatives) >= 5 and len(mined.examples) >= 12
    known = {query["query_id"]: set(query["ground_truth_chunk_ids"]) for query in queries["train"]}
    assert all(not known[example.query_id] & set(example.negative_ids) for example in mined.examples)
    assert all(example.positive_id in known[example.query_id] for example in mined.examples)


def test_fine_tuning_contrasts_with_all_candidates(index: Index, monkeypatch: pytest.MonkeyPatch) -> None:
    """Three candidates of each question, which are more chunks than its examples hold."""
    chunks, _, queries = tiny_corpus()
    lists = miner.retrieve_candidates(queries["train"], 3, index=index)
    lists = miner.llm_judge_relevance(lists, chunks, AnswerKeyJudge())
    mined = mine(lists, max_positives=1)
    taught, masked, scales = [], [], []

    def train(*arguments: Any, teacher: Any, **_: object) -> list[float]:
        scales.append(arguments[4].scale)
        taught.extend(teacher.chunk_ids.tolist())
        masked.append(arguments[3])
        return []

    monkeypatch.setattr("hardneg.learning.training.train", train)
    miner.fine_tune(index.encoder.model, mined, chunks, replace(miner.RECIPE, scale=30.0), 7, index.encoder)
    assert scales == [30.0]
    assert masked == [mined.spared]
    assert taught == sorted({candidate.chunk_id for item in lists for candidate in item.candidates})
    assert {each.positive_id for each in mined.examples} | {each.negative_ids[0] for each in mined.examples} < set(
        taught
    )


class Activations:
    """What an attempt holds, and only the garbage collector frees."""

    def __init__(self) -> None:
        self.own = self


def test_where_memory_does_not_suffice_training_starts_again_with_fewer_passages_at_once(
    index: Index, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """From the weights that it started with, however far it came, and in the memory that what failed has left."""
    chunks, _, queries = tiny_corpus()
    lists = miner.retrieve_candidates(queries["train"], 5, index=index)
    mined = mine(miner.llm_judge_relevance(lists, chunks, AnswerKeyJudge()), negatives=3)
    model = index.encoder.model
    weights = next(model.parameters())
    tried: list[tuple[int, bool]] = []
    held: list[weakref.ref[Activations]] = []
    start = weights.detach().clone()

    def train(*_: object, mini_batch_size: int, **__: object) -> list[float]:
        assert not any(activations() for activations in held)
        activations = Activations()
        held.append(weakref.ref(activations))
        tried.append((mini_batch_size, torch.equal(weights, start)))
        with torch.no_grad():
            weights.add_(1)
        if mini_batch_size > fits:
            raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")
        return [0.5]

    monkeypatch.setattr("hardneg.learning.training.train", train)
    recipe, fits = replace(miner.RECIPE, batch_size=4), 2
    assert miner.fine_tune(model, mined, chunks, recipe, 7, index.encoder) == [0.5]
    assert tried == [(16, True), (4, True), (2, True)]  # of four examples, each with an answer and three others
    told = re.findall("Out of GPU memory; once more with (.*) passages", capsys.readouterr().out)
    assert told == ["4", "2"] and torch.equal(weights, start + 1)
    fits = 0
    with pytest.raises(torch.OutOfMemoryError):
        miner.fine_tune(model, mined, chunks, recipe, 7, index.encoder)
    assert tried[-1][0] == 1


def test_a_disk_without_room_is_told_before_anything_is_judged(
    arguments: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    miner.main([*arguments, "--iterations", "1"])
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=2**40, free=2**10))
    monkeypatch.setattr(CachedEncoder, "encode_passages", lambda *_: pytest.fail("embeds"))
    with pytest.raises(InputError, match=r"the models of this run need up to 0\.0 GiB"):
        miner.main([*arguments, "--iterations", "2"])
    with pytest.raises(pytest.fail.Exception, match="embeds"):  # nothing is left to train
        miner.main([*arguments, "--iterations", "1"])


def test_a_gpu_that_is_full_is_told_in_a_line(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As where the judge's server has grown since the run began."""

    def full(*_: object, **__: object) -> NoReturn:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    for place in ("fine_tune", "deepcopy"):
        with monkeypatch.context() as patch:
            patch.setattr(miner, place, full)
            assert "out of GPU memory while training; restart vLLM" in refused(arguments, capsys)


# ---------------------------------------------------------------- choosing


@pytest.mark.parametrize(
    ("has_guard", "strengths", "chosen"),
    [
        (False, [0.8, 0.7, 0.6, 0.5], 0.6),  # 0.5 gains less: the weaker ones are not tried
        # The guard rules out a loss of 5.5% from 0.5 on, so that 0.4 is the first to gain less than a harmless one.
        (True, [0.8, 0.7, 0.6, 0.5, 0.4], 0.5),
    ],
)
def test_each_strength_is_measured_and_the_chosen_one_is_kept(
    tiny_model: Path, has_guard: bool, strengths: list[float], chosen: float, capsys: pytest.CaptureFixture[str]
) -> None:
    """The gain is highest at 0.6 of the way from the base model to the tuned one; more and more is forgotten on it."""
    base, tuned = (load_model(str(tiny_model), "cpu") for _ in range(2))
    for tensor in tuned.state_dict().values():
        tensor.add_(1)

    def share(model: SentenceTransformer) -> float:
        """How far the model is on that way."""
        return float((model.state_dict()[TENSOR] - base.state_dict()[TENSOR]).mean())

    def score(model: SentenceTransformer, progress: object = None) -> Score:
        guard = (0.5, 0.5, -share(model) / 10) if has_guard else (None, None, None)
        return Score(1 - abs(share(model) - 0.6), 1.0, *guard)

    setting: Any = SimpleNamespace(
        base=SimpleNamespace(model=base),
        pool=SimpleNamespace(score=score, base_score=score(base), n_passages=0),
        encoder=lambda model: model,
        args=argparse.Namespace(guard_tolerance=0.055, learning_rate=1e-4),
    )
    tuned_weights = weights_of(tuned)
    tried = miner.average_with_base(setting, tuned, 0.95)
    assert [each["strength"] for each in tried[:2]] == [0.9, 0.8]
    tuned.load_state_dict(tuned_weights)
    capsys.readouterr()
    tried = miner.average_with_base(setting, tuned, miner.STRONGEST_ALONE)
    assert [each["strength"] for each in tried] == strengths
    assert [each["strength"] for each in tried if each["chosen"]] == [chosen]
    measured = [1 - abs(strength - 0.6) for strength in strengths]
    assert [each["score"]["mrr"] for each in tried] == pytest.approx(measured, abs=1e-5)
    assert share(tuned) == pytest.approx(chosen, abs=1e-6)
    is_held_back = has_guard  # to half of what was trained
    assert ("--learning-rate 0.0001 may be too high for this model" in capsys.readouterr().out) == is_held_back


@pytest.mark.parametrize(
    ("shares", "gain_per_share", "guard_low", "told"),
    [
        ((0.8, 0.7), 0.01, -0.01, None),
        ((0.8, 0.7), 0.01, -0.03, "passes no share of the tuned weights: --learning-rate 0.001 may be too high"),
        ((0.8, 0.5, 0.2), 0.001, 0.0, "All shares rank alike: --learning-rate 0.001 may be too low"),
        ((0.8, 0.5, 0.2), -0.001, None, "All shares rank alike: --learning-rate 0.001 may be too low"),
        ((0.8, 0.5, 0.2), 0.002, 0.0, None),
        ((0.8, 0.7), 0.0, 0.0, None),  # the others were not tried
    ],
)
def test_what_the_shares_say_of_the_rate(
    shares: tuple[float, ...], gain_per_share: float, guard_low: float | None, told: str | None
) -> None:
    score = Score(0.5, 0.5, None, None, guard_low)
    tried = [Tried(share, score, 0.1 + gain_per_share * share) for share in shares]
    hint = miner.rate_hint(tried, 0.02, 1e-3)
    assert hint is None if told is None else hint is not None and told in hint


BASE = Score(0.5, 0.5, 0.8, 0.6, 0.0)


@pytest.fixture
def setting(tiny_model: Path, tmp_path: Path) -> miner.Setting:
    """What `keep_best` looks at."""
    args = argparse.Namespace(guard_tolerance=0.01, output_dir=tmp_path)
    base = CachedEncoder(load_model(str(tiny_model), "cpu"), tmp_path)
    measured: Any = SimpleNamespace(base_score=BASE)
    recipe = miner.RECIPE
    return miner.Setting(args, [], [], AnswerKeyJudge(), base, measured, measured, recipe, {"base_model": "tiny"})


def finish(setting: miner.Setting, *scores: Score, bases: list[Score] | None = None) -> str:
    """Iterations with these validation scores, then `keep_best`; returns what final/ says of itself."""
    records = []
    for number, (score, base) in enumerate(zip(scores, bases or [BASE] * len(scores), strict=True)):
        record = {
            "iteration": number,
            "configuration": {"base_model": "tiny"},
            "counts": {"examples": 9},
            "scale": 20.0,
            "epoch_losses": [0.5],
            "strengths": [{"strength": 0.6, "chosen": True}],
            "base_validation": asdict(base),
            "validation": asdict(score),
        }
        folder = setting.args.output_dir / f"iteration_{number}"
        write_json(folder / "training.json", record)
        (folder / "which").write_text(str(number))
        records.append(record)
    miner.keep_best(setting, records)
    return read_json(setting.args.output_dir / "final" / "training.json", "")["chosen"]


def test_final_is_the_best_iteration_that_forgot_nothing(setting: miner.Setting) -> None:
    harmless, forgetful = Score(0.6, 0.6, 0.8, 0.6, 0.0), Score(0.9, 0.9, 0.7, 0.6, -0.2)
    chosen = finish(setting, harmless, forgetful)
    assert (setting.args.output_dir / "final" / "which").read_text() == "0"
    assert chosen.startswith("iteration 0 is the best on validation among those that the guard passes: MRR@5 ")


def test_iterations_of_two_machines_are_compared_by_what_they_gained_there(setting: miner.Setting) -> None:
    base_in_bfloat16 = Score(0.48, 0.48, 0.8, 0.6, 0.0)
    chosen = finish(
        setting, Score(0.6, 0.6, 0.8, 0.6, 0.0), Score(0.59, 0.59, 0.8, 0.6, 0.0), bases=[BASE, base_in_bfloat16]
    )
    assert (setting.args.output_dir / "final" / "which").read_text() == "1"
    assert "MRR@5 0.5900 (+22.9%)" in chosen


def test_final_is_the_base_model_where_nothing_was_gained(setting: miner.Setting) -> None:
    chosen = finish(setting, Score(0.4, 0.4, 0.9, 0.6, 0.1))
    final = setting.args.output_dir / "final"
    assert chosen == "the base model: no iteration gained on validation"
    loaded = SentenceTransformer(str(final), device="cpu")
    np.testing.assert_array_equal(loaded.encode("gout"), setting.base.model.encode("gout"))
    assert "| MRR@5 | 0.5000 | 0.5000 |" in (final / "README.md").read_text()
    record = read_json(final / "training.json", "")
    assert record["validation"] == record["base_validation"] and {"arguments", "versions"} < record.keys()


def test_the_base_model_s_card_claims_no_training(setting: miner.Setting) -> None:
    finish(setting, Score(0.4, 0.4, 0.8, 0.6, 0.0))
    final = setting.args.output_dir / "final"
    assert "share of tuned weights" not in (final / "README.md").read_text()
    assert not {"iteration", "strengths", "epoch_losses"} & read_json(final / "training.json", "").keys()


# ---------------------------------------------------------------- whole runs


GUARD = [
    {"question_id": "1", "question": "my toe hurts", "answer": "One big toe turns red.", "grade": 4},
    {"question_id": "1", "question": "my toe hurts", "answer": "Side vision is lost slowly.", "grade": 1},
    {"question_id": "2", "question": "what helps my asthma", "answer": "A reliever inhaler.", "grade": 3},
    {"question_id": "2", "question": "what helps my asthma", "answer": "Vitamin C heals.", "grade": 1},
]


def write_guard(path: Path, times: int = MIN_GUARD // 2, **changes: Any) -> Path:
    """The two questions of GUARD, each so many times."""
    lines = [
        {**row, "question_id": f"{row['question_id']} {time}", "answer_title": "", **changes}
        for time in range(times)
        for row in GUARD
    ]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


RUN = [
    *("--judge", "answer-key", "--base-model", "base", "--data-dir", "data", "--output-dir", "models"),
    *("--guard", "guard.jsonl", "--num-queries", "12", "--num-candidates", "10", "--device", "cpu"),
]
SOURCE = "faq.csv"
# What is trained must show in the figures of six questions.
RECIPE = replace(miner.RECIPE, batch_size=4, learning_rate=1e-2)


def write_data(chunks: list[Chunk] | None = None) -> None:
    """The data of the working folder, as if made of SOURCE; no test questions, for which the miner has no use."""
    write_tiny_data(Path("data"), chunks)
    manifest = read_json(Path("data/manifest.json"), "")
    manifest["corpus"]["arguments"] = {"source": SOURCE}
    write_json(Path("data/manifest.json"), manifest)
    Path("data/test_queries.pkl").unlink()


@pytest.fixture(scope="module")
def finished(tiny_model: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with base model, data and guard, and the whole run they gave in models/. Read only."""
    folder = tmp_path_factory.mktemp("finished")
    shutil.copytree(tiny_model, folder / "base")
    with pytest.MonkeyPatch.context() as patch, (folder / "shown.txt").open("w") as shown, redirect_stdout(shown):
        patch.chdir(folder)
        patch.setenv("CUDA_VISIBLE_DEVICES", "")
        patch.setattr(miner, "RECIPE", RECIPE)
        write_data()
        write_guard(Path("guard.jsonl"))
        miner.main(RUN)
    return folder


@pytest.fixture
def run_again(finished: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The arguments of the finished run, in a copy of its folder to spoil."""
    shutil.copytree(finished, tmp_path / "copy")
    monkeypatch.chdir(tmp_path / "copy")
    monkeypatch.setattr(miner, "RECIPE", RECIPE)
    return RUN


@pytest.fixture
def arguments(tiny_model: Path, tiny_data_dir: Path, tmp_path: Path) -> list[str]:
    return [
        *("--judge", "answer-key", "--base-model", str(tiny_model), "--data-dir", str(tiny_data_dir)),
        *("--output-dir", str(tmp_path / "models"), "--guard", str(write_guard(tmp_path / "guard.jsonl"))),
        *("--num-queries", "12", "--num-candidates", "10", "--device", "cpu"),
    ]


def refused(
    arguments: list[str], capsys: pytest.CaptureFixture[str], status: int = 2, judge: LLMJudge | None = None
) -> str:
    """The one line that a run ends with, at this exit status."""
    capsys.readouterr()
    with pytest.raises(SystemExit) as caught:
        run(lambda: miner.main(arguments, judge))
    *before, error = capsys.readouterr().err.replace("\r", "\n").splitlines()
    assert caught.value.code == status
    assert error.startswith("error: ")
    assert all(not line.strip() or "it/s" in line or "%|" in line or "B/s" in line for line in before), before
    return error


def no_training(*_: object) -> NoReturn:
    raise AssertionError("something was trained")


CONTRACT = [
    r"={60}",
    r"ITERATION {n}",
    r"={60}",
    r"\[Step 1/5\] Embedding corpus\.\.\.",
    r"Embedded 30 chunks",
    r"\[Step 2/5\] Retrieving candidates\.\.\.",
    r"Retrieved candidates for 12 queries",
    r"\[Step 3/5\] LLM judging relevance\.\.\.",
    r"Judging \d+ candidates\.\.\.",
    r"LLM judged \d+ \(query, chunk\) pairs",
    r"\[Step 4/5\] Mining hard examples\.\.\.",
    r"Mined \d+ hard positives, \d+ hard negatives",
    r"\[Step 5/5\] Fine-tuning model\.\.\.",
    r"Training on \d+ examples\.\.\.",
    r"Fine-tuning complete for iteration {n}",
    r"Model saved to: {folder}/iteration_{n}",
]


def assert_in_order(patterns: list[str], lines: list[str]) -> None:
    rest = iter(lines)
    for pattern in patterns:
        assert any(re.fullmatch(pattern, line) for line in rest), f"{pattern} is not there, or not in its place"


def assert_recorded(record: dict[str, Any], number: int, output: Path) -> None:
    """An iteration's training.json in a run of twelve questions."""
    assert record["iteration"] == number and len(record["epoch_losses"]) == miner.RECIPE.epochs
    assert record["configuration"] == read_json(output / "run.json", "")
    assert record["configuration"]["num_queries"] == 12
    strengths = [tried["strength"] for tried in record["strengths"]]
    strongest = miner.STRENGTHS.index(strengths[0])
    assert len(strengths) >= 2 and strengths == list(miner.STRENGTHS[strongest : strongest + len(strengths)])
    assert strengths[0] == miner.STRONGEST_ALONE or (number and strengths[0] > miner.STRONGEST_ALONE)
    assert sum(tried["chosen"] for tried in record["strengths"]) == 1
    assert record["counts"]["candidates"] >= 120 and record["counts"]["unjudged"] == 0
    assert 12 <= record["counts"]["examples"] <= 24 * (number + 1)
    figures = {"mrr", "dcg", "guard_ndcg", "guard_mrr", "guard_low"}
    assert set(record["validation"]) == figures == set(record["base_validation"])
    assert record["judge"] == {"kind": "answer-key"}
    assert record["arguments"]["seed"] == 42 and record["versions"]["torch"] and record["seconds"] > 0


def test_a_whole_run_prints_what_the_runbook_shows(finished: Path) -> None:
    lines = (finished / "shown.txt").read_text().splitlines()
    contract = [p.replace("{n}", n).replace("{folder}", "models") for n in "01" for p in CONTRACT]
    assert_in_order([*contract, r"Final model: .+", r"Model saved to: models/final"], lines)
    progress = [r"Epoch 1: loss \d+\.\d{4}", r"Validation after iteration 0: MRR@5 .*"]
    progress += ["Averaged with the weights of 1 earlier iteration", r"Validation after iteration 1: MRR@5 .*"]
    assert_in_order(progress, lines)
    assert f"Final model: {read_json(finished / 'models/final/training.json', '')['chosen']}" in lines


def test_a_whole_run_leaves_models_their_records_and_what_was_judged(finished: Path) -> None:
    output = finished / "models"
    assert {path.name for path in output.glob("[!.]*")} == {"run.json", "iteration_0", "iteration_1", "final"}
    assert moved(finished / "base", output / "iteration_0") > 1e-5
    records = [read_json(output / f"iteration_{number}" / "training.json", "") for number in range(2)]
    for number, record in enumerate(records):
        assert_recorded(record, number, output)
    assert records[0]["base_validation"] == records[1]["base_validation"]
    for folder in (output / "iteration_0", output / "iteration_1", output / "final"):
        assert SentenceTransformer(str(folder), device="cpu").encode("gout").shape == (32,)
        assert "| measure | base model | this model |" in (folder / "README.md").read_text()
    lists = read_candidates(output / "iteration_0" / "candidates.jsonl")
    assert len(lists) == 12
    assert {candidate.grade for item in lists for candidate in item.candidates} == {1.0, 2.0, 4.0}


def test_what_is_recorded_of_a_model_is_what_it_does_on_validation_and_guard_questions(
    finished: Path, tmp_path: Path
) -> None:
    """Measured anew with the model as it was saved."""
    iterations = [finished / "models" / f"iteration_{number}" for number in range(2)]
    records = [read_json(folder / "training.json", "") for folder in iterations]
    scores = [records[0]["base_validation"], *(record["validation"] for record in records)]
    guard = load_graded(finished / "guard.jsonl")
    for folder, score in zip((finished / "base", *iterations), scores, strict=True):
        assert (score["mrr"], score["dcg"]) == pytest.approx(brute_force(folder, "val", 5))
        encoder = CachedEncoder(load_model(str(folder), "cpu"), tmp_path)
        graded_scores = score_graded(encoder, guard)
        figures = graded_scores["nDCG@10"].mean(), graded_scores["MRR@5"].mean()
        assert (score["guard_ndcg"], score["guard_mrr"]) == pytest.approx(figures)
        assert score["guard_low"] is not None
    assert len({(score["mrr"], score["dcg"]) for score in scores}) == 3  # else one could stand for another


def test_a_finished_run_is_not_done_again(
    run_again: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    output = Path("models")
    final = read_json(output / "final" / "training.json", "")
    before = {path: path.stat().st_mtime_ns for path in output.glob("iteration_*/*")}
    monkeypatch.setattr(miner, "fine_tune", no_training)
    miner.main(run_again)
    again = capsys.readouterr().out.splitlines()
    assert "Already done: models/iteration_0" in again and "Already done: models/iteration_1" in again
    assert not any(line.startswith("[Step") for line in again)
    assert {path: path.stat().st_mtime_ns for path in output.glob("iteration_*/*")} == before
    kept = read_json(output / "final" / "training.json", "")
    assert kept.pop("files_sha256").keys() == final.pop("files_sha256").keys() and kept == final


def test_a_run_that_asks_for_less_than_there_is_keeps_the_best_of_all(run_again: list[str]) -> None:
    path = Path("models/iteration_1/training.json")
    record = read_json(path, "")
    record["validation"] |= {"mrr": 1.0, "dcg": 2.0, "guard_low": 0.0}
    write_json(path, record)
    miner.main([*run_again, "--iterations", "1"])
    assert read_json(Path("models/final/training.json"), "")["iteration"] == 1


def test_a_dry_run_leaves_a_finished_run_alone(run_again: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    final = Path("models/final/training.json")
    before = final.stat().st_ino
    miner.main([*run_again, "--dry-run"])
    assert final.stat().st_ino == before
    assert "num_queries" in refused([*run_again, "--num-queries", "6", "--dry-run"], capsys)


Change = Callable[[pytest.MonkeyPatch], object]


def constant(name: str, value: Any) -> Change:
    return lambda patch: patch.setattr(miner, name, value)


def nothing(_: pytest.MonkeyPatch) -> None:
    """Where flags alone make the difference."""


def renamed_base_model(_: pytest.MonkeyPatch) -> None:
    shutil.copytree("base", "renamed")


def renamed_guard(_: pytest.MonkeyPatch) -> None:
    shutil.copy("guard.jsonl", "renamed.jsonl")


def other_base_model(_: pytest.MonkeyPatch) -> None:
    nudged = load_model("base", "cpu")
    with torch.no_grad():
        next(nudged.parameters()).view(-1)[0] += 1e-3
    nudged.save("base")


def other_guard(_: pytest.MonkeyPatch) -> None:
    write_guard(Path("guard.jsonl"), times=MIN_GUARD // 2 + 1)


def other_chunk(_: pytest.MonkeyPatch) -> None:
    chunks = tiny_corpus()[0]
    chunks[7]["text"] += " Rest helps."
    write_data(chunks)


def other_question(_: pytest.MonkeyPatch) -> None:
    queries = tiny_corpus()[2]
    queries["train"][3]["query"] += " Please!"
    write_training_questions(Path("data"), queries["train"])


def other_source(_: pytest.MonkeyPatch) -> None:
    manifest = read_json(Path("data/manifest.json"), "")
    manifest["corpus"]["arguments"]["source"] = "other.csv"
    write_json(Path("data/manifest.json"), manifest)


def write_training_questions(data_dir: Path, queries: list[Query]) -> None:
    """As prepare_queries.py would."""
    write_pickle(data_dir / "train_queries.pkl", queries)
    manifest = read_json(data_dir / "manifest.json", "")
    manifest["queries"]["sha256"]["train_queries.pkl"] = sha256_file(data_dir / "train_queries.pkl")
    write_json(data_dir / "manifest.json", manifest)


@pytest.mark.parametrize(
    ("change", "flags", "told"),
    [
        (nothing, ["--seed", "43"], "seed: 42 there, 43 now"),
        (nothing, ["--num-queries", "9"], "num_queries: 12 there, 9 now"),
        (nothing, ["--num-candidates", "9"], "num_candidates: 10 there, 9 now"),
        (nothing, ["--positives", "judge"], "positives: known there, judge now"),
        (nothing, ["--learning-rate", "1e-3"], "training.learning_rate: 0.01 there, 0.001 now"),
        (nothing, ["--guard-tolerance", "0.05"], "guard_tolerance: 0.02 there, 0.05 now"),
        (renamed_base_model, ["--base-model", "renamed"], "base_model: base there, renamed now"),
        (renamed_guard, ["--guard", "renamed.jsonl"], "guard: guard.jsonl there, renamed.jsonl now"),
        (other_base_model, [], "base_fingerprint: "),
        (other_guard, [], "guard_sha256: "),
        (other_chunk, [], "corpus_sha256: "),
        (other_question, [], "queries_sha256.train_queries.pkl: "),
        (other_source, [], "source: faq.csv there, other.csv now"),
        # the runbook sends people to edit these
        (constant("MINING", replace(miner.MINING, negatives=3)), [], "mining.negatives: 4 there, 3 now"),
        (constant("FUSION_K", 30), [], "mining.fusion_k: 60 there, 30 now"),
        (constant("BOILERPLATE_ROWS", 10), [], "mining.boilerplate_rows: 20 there, 10 now"),
        (constant("RECIPE", replace(RECIPE, batch_size=5)), [], "training.batch_size: 4 there, 5 now"),
        (constant("FEW_STEPS", 2), [], "training.few_steps: 3 there, 2 now"),
        (constant("RECIPE", replace(RECIPE, scale=10.0)), [], "training.scale: None there, 10.0 now"),
        (constant("SCALES", (20.0, 50.0)), [], "training.scales: [20.0, 100.0] there, [20.0, 50.0] now"),
        (constant("STRENGTHS", (0.8, 0.4)), [], "averaging.strengths: "),
        (constant("STRONGEST_ALONE", 0.9), [], "averaging.strongest_alone: 0.8 there, 0.9 now"),
        (constant("POOL_QUERIES", 100), [], "averaging.pool_queries: 200 there, 100 now"),
        (constant("POOL_DEPTH", 5), [], "averaging.pool_depth: 10 there, 5 now"),
        (constant("K", 10), [], "averaging.k: 5 there, 10 now"),
        (constant("CONFIDENCE", 0.9), [], "averaging.confidence: 0.95 there, 0.9 now"),
        (constant("RESAMPLING_SEED", 7), [], "averaging.resampling_seed: 42 there, 7 now"),
    ],
)
def test_a_run_in_which_anything_is_different_is_another_run(
    run_again: list[str],
    change: Change,
    flags: list[str],
    told: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Refused before anything is embedded, for that one difference: the iterations must not pass for another run's."""
    change(monkeypatch)
    monkeypatch.setattr(CachedEncoder, "encode_passages", lambda *_: pytest.fail("embeds"))
    error = refused([*run_again, *flags], capsys)
    found = re.fullmatch(r"error: models holds a run of another configuration \(([^;]+ now)\); choose .*", error)
    assert found and found[1].startswith(told)


def test_a_finished_run_s_folder_is_that_of_its_source_before_anything_is_read(run_again: list[str]) -> None:
    args = miner.parse_arguments(run_again)
    miner.check_output_dir(args, SOURCE)
    with pytest.raises(InputError, match=r"another configuration \(source: faq\.csv there, other\.csv now\)"):
        miner.check_output_dir(args, "other.csv")


def test_what_the_model_does_not_read_is_told_before_anything_is_judged(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    lengthen_three(tmp_path / "data")
    miner.main([*arguments, "--dry-run"])
    assert "reads only the first 64 tokens of a text; about 10% of the chunks are longer" in capsys.readouterr().out


def test_what_keeps_a_run_safe_is_on_by_default() -> None:
    args = miner.parse_arguments([])
    assert (args.guard, args.guard_tolerance, args.max_unjudged, args.positives) == ("bundled", 0.02, 0.02, "known")


def test_without_known_answers_the_judge_alone_finds_them(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(miner, "fine_tune", lambda *_: [])
    for positives, any_known in (("judge", False), ("known", True)):
        folder = tmp_path / positives
        miner.main([*arguments, "--iterations", "1", "--positives", positives, "--output-dir", str(folder)])
        lists = read_candidates(folder / "iteration_0" / "candidates.jsonl")
        assert any(candidate.known for item in lists for candidate in item.candidates) == any_known


def test_the_depth_of_retrieval_is_the_flags_default(monkeypatch: pytest.MonkeyPatch) -> None:
    """The runbook sends people to the function for it."""
    assert miner.parse_arguments([]).num_candidates == 50
    monkeypatch.setattr(miner, "retrieve_candidates", lambda queries, k=10: [])
    assert miner.parse_arguments([]).num_candidates == 10


def test_training_is_at_the_scale_that_fits_the_validation_questions_unless_the_recipe_sets_it(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    asked, trained = [], []

    def base_scale(_: Validator, *asked_for: object) -> float:
        asked.append(asked_for)
        return 33.25

    def fine_tune(
        model: SentenceTransformer, mined: Mined, chunks: list[Chunk], recipe: Recipe, *_: Any
    ) -> list[float]:
        trained.append(recipe.scale)
        return []

    monkeypatch.setattr(Validator, "base_scale", base_scale)
    monkeypatch.setattr(miner, "fine_tune", fine_tune)
    for name, scale in (("fitted", None), ("set", 10.0)):
        monkeypatch.setattr(miner, "RECIPE", replace(miner.RECIPE, scale=scale))
        miner.main([*arguments, "--iterations", "2", "--output-dir", str(tmp_path / name)])
        told = "Scale of the cosines, fitted to the base model: 33.2\n" in capsys.readouterr().out
        assert told == (scale is None)
    assert asked == [(200, 42, 2, (20.0, 100.0))] and trained == [33.25, 33.25, 10.0, 10.0]
    records = [read_json(tmp_path / name / "iteration_1" / "training.json", "") for name in ("fitted", "set")]
    assert [record["scale"] for record in records] == [33.25, 10.0]


@pytest.mark.parametrize(("scale", "told"), [(20.004, "20.0 (the end of what is tried)"), (20.1, "20.1")])
def test_a_scale_at_the_end_of_what_is_tried_is_told(
    scale: float, told: str, capsys: pytest.CaptureFixture[str]
) -> None:
    validator: Any = SimpleNamespace(base_scale=lambda *_: scale)
    assert miner.with_scale(miner.RECIPE, validator, 7) == replace(miner.RECIPE, scale=scale)
    assert capsys.readouterr().out == f"Scale of the cosines, fitted to the base model: {told}\n"


def test_boilerplate_is_learnt_in_no_iteration(
    arguments: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Chunk 0 is one of three answers to how asthma is treated: only its many rows keep it out."""
    chunks, _, _ = tiny_corpus()
    learnt: list[set[int]] = []

    def fine_tune(_: SentenceTransformer, mined: Mined, *__: object) -> list[float]:
        learnt.append({example.positive_id for example in mined.examples})
        return []

    monkeypatch.setattr(miner, "fine_tune", fine_tune)
    monkeypatch.setattr(
        miner, "mine_hard_examples", partial(miner.mine_hard_examples, rules=replace(miner.MINING, max_positives=3))
    )
    miner.main([*arguments, "--output-dir", str(tmp_path / "before")])
    chunks[0]["qa_ids"] = [f"row {row}" for row in range(21)]
    write_tiny_data(tmp_path / "data", chunks)
    miner.main([*arguments, "--output-dir", str(tmp_path / "after")])
    assert len(learnt) == 4 and all(len(positives) >= 12 for positives in learnt)
    assert [0 in positives for positives in learnt] == [True, True, False, False]


def test_each_iteration_asks_other_questions(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Eight of twelve; what the first asked is still learnt in the second."""
    learnt: list[set[str]] = []

    def fine_tune(_: SentenceTransformer, mined: Mined, *__: object) -> list[float]:
        learnt.append({example.query_id for example in mined.examples})
        return []

    monkeypatch.setattr(miner, "fine_tune", fine_tune)
    miner.main([*arguments, "--num-queries", "8"])
    shown = capsys.readouterr().out
    assert shown.count("There are only 12 training questions: some are asked again") == 1
    assert shown.count("There are only") == 1
    folders = (tmp_path / "models" / "iteration_0", tmp_path / "models" / "iteration_1")
    first, second = ({item.query["query_id"] for item in graded_candidates(folder)} for folder in folders)
    assert (len(first), len(second), len(first | second)) == (8, 8, 12)
    assert learnt == [first, first | second]
    miner.main([*arguments, "--num-queries", "20", "--output-dir", str(tmp_path / "all")])
    shown = capsys.readouterr().out
    assert shown.count("There are only 12 training questions: all are asked\n") == 1
    assert shown.count("There are only 12 training questions: all are asked again\n") == 1
    assert [len(queries) for queries in learnt[2:]] == [12, 12]


def test_each_iteration_mines_with_the_last_model_and_trains_the_base_model(
    arguments: list[str], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Training adds 1, then 2, then 0 to a tensor of the base model's: on average 1, 1.5 and 1."""
    added = [1, 2, 0]
    trained, mined_with, embed = [], [], miner.embed_corpus

    def fine_tune(model: SentenceTransformer, *_: object) -> list[float]:
        trained.append(fingerprint(model))
        with torch.no_grad():
            model.state_dict()[TENSOR].add_(added[len(trained) - 1])
        return []

    def embed_corpus(encoder: CachedEncoder, *given: Any) -> Index:
        mined_with.append(encoder.fingerprint)
        return embed(encoder, *given)

    monkeypatch.setattr(miner, "fine_tune", fine_tune)
    monkeypatch.setattr(miner, "embed_corpus", embed_corpus)
    miner.main([*arguments, "--iterations", "3"])
    iterations = [tmp_path / "models" / f"iteration_{number}" for number in range(3)]
    base, first, second = (fingerprint(load_model(str(folder), "cpu")) for folder in (tiny_model, *iterations[:2]))
    assert len({base, first, second}) == 3
    assert (trained, mined_with) == ([base] * 3, [base, first, second])
    before = load_model(str(tiny_model), "cpu").state_dict()[TENSOR]
    # 1.0 of 1.5 is no further than 0.8 of 2
    for folder, mean, strongest in zip(iterations, (1, 1.5, 1), (0.8, 1.0, 0.8), strict=True):
        record = read_json(folder / "training.json", "")
        moved = load_model(str(folder), "cpu").state_dict()[TENSOR] - before
        assert moved.numpy() == pytest.approx(strength_of(record) * mean, abs=1e-5)
        assert record["strengths"][0]["strength"] == strongest


def test_questions_begin_anew_once_all_were_asked() -> None:
    queries = [make_query(str(number)) for number in range(7)]
    samples = [[query["query_id"] for query in miner.sample_queries(queries, 3, 42, number)] for number in range(4)]
    asked = list(chain.from_iterable(samples))
    assert sorted(asked[:7]) == [query["query_id"] for query in queries] and asked[7:] == asked[:5]
    assert asked[:7] == [query["query_id"] for query in random.Random(42).sample(queries, 7)]
    other_seed = [query["query_id"] for query in miner.sample_queries(queries, 7, 43, 0)]
    assert sorted(other_seed) == sorted(asked[:7]) and other_seed != asked[:7]
    assert [len(miner.sample_queries(queries, 8, 42, number)) for number in range(2)] == [7, 7]


def test_more_questions_begin_with_those_of_fewer() -> None:
    """So that their judgments are in the store: whatever random.sample() does at these sizes."""
    queries = [make_query(f"q{number}") for number in range(3000)]
    orders = {count: miner.sample_queries(queries, count, 42, 0) for count in (10, 500, 1000, 2000, 3000)}
    assert all(orders[3000][:count] == order for count, order in orders.items())
    assert orders[2000][1000:] == miner.sample_queries(queries, 1000, 42, 1)


KILLED = """
import os, signal, sys
from dataclasses import replace
import iterative_miner as miner
miner.RECIPE = replace(miner.RECIPE, batch_size=4)
fine_tune, calls = miner.fine_tune, []
def fine_tune_and_die(*arguments):
    losses = fine_tune(*arguments)
    calls.append(losses)
    if len(calls) == 2:
        os.kill(os.getpid(), signal.SIGKILL)
    return losses
miner.fine_tune = fine_tune_and_die
miner.main(sys.argv[1:])
"""


def weights(folder: Path) -> dict[str, np.ndarray]:
    return load_file(folder / "model.safetensors")


def moved(model: Path, other: Path) -> float:
    """The largest difference between two models' weights; averaging alone, without training, rounds by 1e-7."""
    one, another = weights(model), weights(other)
    return max(float(np.abs(another[name] - weight).max()) for name, weight in one.items())


def test_killed_in_the_second_iteration_and_run_again(
    arguments: list[str],
    tiny_model: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(miner, "RECIPE", replace(miner.RECIPE, batch_size=4))  # some steps of so few examples
    arguments += ["--num-queries", "8"]  # of twelve
    command = [sys.executable, "-c", KILLED, *arguments]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, check=False)
    assert done.returncode == -signal.SIGKILL, done.stderr.decode()
    output = tmp_path / "models"
    assert (output / "iteration_0" / "training.json").exists() and not (output / "iteration_1").exists()
    miner.main(arguments)
    assert f"Already done: {output}/iteration_0" in capsys.readouterr().out

    write_tiny_data(tmp_path / "other_data")
    elsewhere = tmp_path / "elsewhere"
    miner.main([*arguments, "--data-dir", str(tmp_path / "other_data"), "--output-dir", str(elsewhere)])
    for name in ("iteration_0", "iteration_1", "final"):
        resumed, whole = weights(output / name), weights(elsewhere / name)
        assert resumed.keys() == whole.keys() and len(whole) > 10
        for key, weight in whole.items():
            np.testing.assert_allclose(resumed[key], weight, rtol=0, atol=1e-6, err_msg=key)
    losses = [read_json(folder / "iteration_1" / "training.json", "")["epoch_losses"] for folder in (output, elsewhere)]
    assert losses[0] == pytest.approx(losses[1])
    first, second = elsewhere / "iteration_0", elsewhere / "iteration_1"
    assert moved(tiny_model, first) > 1e-5 and moved(first, second) > 1e-5


def test_a_damaged_iteration_is_neither_built_on_nor_kept(
    run_again: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a copy to another machine that was cut short: it would be loaded all the same."""
    monkeypatch.setattr(CachedEncoder, "encode_passages", lambda *_: pytest.fail("embeds"))
    Path("models/iteration_0/tokenizer.json").unlink()
    for iterations in ("1", "2", "3"):
        error = refused([*run_again, "--iterations", iterations], capsys)
        assert "iteration_0/tokenizer.json is not the file that was saved with this model" in error
    assert not Path("models/iteration_2").exists()
    another = ["--base-model", "models/iteration_0", "--output-dir", "another"]
    assert "tokenizer.json is not the file" in refused([*run_again, *another], capsys)


def test_a_base_model_that_changes_under_way(
    arguments: list[str], tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As a hub's does between two downloads, or a layer that its file lacks and that is drawn at random."""
    base, mine_all, trained = tmp_path / "base", miner.mine_hard_examples, []
    shutil.copytree(tiny_model, base)

    def update(*given: Any) -> Mined:
        newer = load_model(str(base), "cpu")
        with torch.no_grad():
            next(newer.parameters()).add_(1)
        newer.save(str(base))
        return mine_all(*given)

    def fine_tune(model: SentenceTransformer, *_: object) -> list[float]:
        trained.append(fingerprint(model))
        return []

    monkeypatch.setattr(miner, "mine_hard_examples", update)
    monkeypatch.setattr(miner, "fine_tune", fine_tune)
    miner.main([*arguments, "--base-model", str(base), "--iterations", "1"])
    assert trained == [fingerprint(load_model(str(tiny_model), "cpu"))] != [fingerprint(load_model(str(base), "cpu"))]


def test_what_the_base_model_was_trained_on_is_told_and_noted(
    run_again: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Of data that were split anew, an adapted model may have learnt the questions that are held out now."""
    own = read_json(Path("data/manifest.json"), "")["corpus"]["sha256"]
    record = read_json(Path("models/final/training.json"), "")
    assert record["base_trained_on"] == []
    other_chunk(monkeypatch)
    now = read_json(Path("data/manifest.json"), "")["corpus"]["sha256"]
    again = ["--base-model", "models/iteration_0", "--output-dir", "again", "--iterations", "1"]
    miner.main([*run_again, *again])
    assert f"models/iteration_0 was trained on another corpus ({own[:12]}, here {now[:12]})" in capsys.readouterr().out
    assert read_json(Path("again/final/training.json"), "")["base_trained_on"] == [own]


def test_data_that_are_prepared_anew_while_they_are_read(
    arguments: list[str], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def change_it_too(data_dir: Path) -> Any:
        manifest = read_manifest(data_dir)
        lengthen_three(data_dir)
        return manifest

    monkeypatch.setattr(miner, "read_manifest", change_it_too)
    assert "corpus_chunks.pkl is not the file that manifest.json tells of (damaged, or just" in refused(
        arguments, capsys
    )


# ---------------------------------------------------------------- what bad input gets


def drop(path: str) -> Callable[[Path], None]:
    return lambda folder: (folder / path).unlink()


def write(path: str, content: bytes) -> Callable[[Path], object]:
    return lambda folder: (folder / path).write_bytes(content)


def truncate(path: str) -> Callable[[Path], object]:
    return lambda folder: (folder / path).write_bytes((folder / path).read_bytes()[:-20])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (drop("corpus_chunks.pkl"), "corpus_chunks.pkl is missing; run `python prepare_corpus.py --data-dir"),
        (truncate("corpus_chunks.pkl"), "corpus_chunks.pkl is not the file that manifest.json tells of"),
        (write("train_queries.pkl", b""), "; run again, or run `python prepare_queries.py --data-dir"),
        (truncate("val_queries.pkl"), "val_queries.pkl is not the file that manifest.json tells of"),
        (write("val_queries.pkl", b"cos\nsystem\n(S'true'\ntR."), "val_queries.pkl is not the file that manifest.json"),
        (write("manifest.json", b"{"), "manifest.json is not JSON"),
        (write("manifest.json", b"{}"), "corpus_chunks.pkl is not the file that manifest.json tells of"),
        (write("embeddings.sqlite", b"not a database " * 100), "it is damaged or no embedding cache; delete it"),
    ],
)
def test_spoilt_data(
    arguments: list[str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    spoil: Callable[[Path], object],
    message: str,
) -> None:
    spoil(tmp_path / "data")
    assert message in refused(arguments, capsys)
    assert not list(tmp_path.glob("models/iteration_*"))


def test_a_model_that_cannot_be_trained_here_is_refused(
    arguments: list[str], model: SentenceTransformer, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    SentenceTransformer(modules=[*model][:-1], similarity_fn_name="dot").save(str(tmp_path / "dot"))
    error = refused([*arguments, "--base-model", str(tmp_path / "dot")], capsys)
    assert "dot compares embeddings by dot, training and evaluation here by the cosine" in error


@pytest.mark.parametrize(
    ("flags", "message"),
    [
        (["--base-model", "models/none"], "model folder models/none does not exist"),
        (["--base-model", "nobody/nothing"], "model nobody/nothing cannot be loaded"),
        (["--guard", "none.jsonl"], "cannot read none.jsonl"),
        (["--device", "cuda:7"], "--device cuda:7: no such device here"),
        (["--judge", "llm", "--llm-endpoint", "localhost"], "is no LLM endpoint"),
        (["--judge", "llm", "--prompt", "none.txt"], "cannot read none.txt"),
        (["--output-dir", "/proc/models"], "cannot write /proc/models"),
    ],
)
def test_wrong_flags(arguments: list[str], capsys: pytest.CaptureFixture[str], flags: list[str], message: str) -> None:
    assert message in refused([*arguments, *flags], capsys)


def test_a_server_that_does_not_answer(arguments: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--judge", "llm", "--llm-endpoint", NOWHERE]
    assert f"no LLM server answers at {NOWHERE}" in refused([*arguments, *flags], capsys, status=75)


@pytest.mark.parametrize(
    "flags",
    [
        ["--num-candidates", "0"],
        ["--num-queries", "0"],
        ["--iterations", "0"],
        ["--num-queries", "many"],
        ["--judge", "me"],
        ["--seed", "-1"],
        ["--max-unjudged", "2"],
        ["--guard-tolerance", "nan"],
    ],
)
def test_numbers_out_of_range(arguments: list[str], flags: list[str], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(miner, "prepared", no_training)
    with pytest.raises(InputError, match=f"argument {flags[0]}: "):
        miner.main([*arguments, *flags])


def test_the_same_command_twice_at_once(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """The second is refused before it asks or loads anything, though it may look."""
    with claimed(tmp_path / "models", {}):
        with monkeypatch.context() as patch:
            patch.setattr(miner, "open_judge", lambda *_: pytest.fail("asks the server"))
            patch.setattr(miner, "load_base", lambda *_: pytest.fail("takes the GPU's memory"))
            assert "another process is at work on" in refused(arguments, capsys)
        miner.main([*arguments, "--dry-run"])
        miner.check_output_dir(miner.parse_arguments([*arguments, "--dry-run"]), None)


def test_an_output_folder_of_something_else(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "models").mkdir()
    (tmp_path / "models" / "notes.txt").touch()
    assert "is not empty and holds no run.json" in refused(arguments, capsys)
    shutil.rmtree(tmp_path / "models")
    (tmp_path / "models").touch()
    assert "a file stands where a folder is needed" in refused(arguments, capsys)


def test_a_prompt_that_is_not_utf_8(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "prompt.txt").write_bytes("Größe {query} {passage}".encode("latin-1"))
    error = refused([*arguments, "--judge", "llm", "--prompt", str(tmp_path / "prompt.txt")], capsys)
    assert "prompt.txt" in error and "UTF-8" in error


def test_nothing_to_learn_from(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """Every candidate is an answer: there is no negative, hence no example."""
    _, _, queries = tiny_corpus()
    everything: Any = [{**query, "ground_truth_chunk_ids": list(range(15))} for query in queries["train"]]
    write_training_questions(tmp_path / "data", everything)
    assert "nothing to train on: no query has both" in refused(arguments, capsys)
    assert not list(tmp_path.glob("models/iteration_*"))


def test_a_guard_whose_answers_all_have_one_grade(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Any order of its answers is as good: nothing could ever be seen to be forgotten."""
    guard = write_guard(tmp_path / "bad_guard.jsonl", grade=4)
    assert "bad_guard.jsonl: no question in it has" in refused([*arguments, "--guard", str(guard)], capsys)


def test_a_guard_of_few_questions(arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    guard = write_guard(tmp_path / "small.jsonl", times=MIN_GUARD // 2 - 1)
    message = refused([*arguments, "--guard", str(guard)], capsys)
    assert "small.jsonl: 18 question(s) with answers of different grades, too few" in message


# ---------------------------------------------------------------- with an LLM's server


@pytest.fixture
def asking(arguments: list[str], stub: LLMStub) -> list[str]:
    """One iteration with the stub as the judge."""
    return [*arguments, "--judge", "llm", "--llm-model", MODEL, "--llm-endpoint", stub.url, "--iterations", "1"]


def test_a_dry_run_asks_nothing(
    asking: list[str], stub: LLMStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = stub.stats()["chats"]
    miner.main([*asking, "--dry-run"])
    output = capsys.readouterr().out
    assert re.search(r"(\d+) pairs: 0 already stored, \1 to ask, about [\d,]+ prompt tokens in this iteration", output)
    assert "[Step 3/5]" not in output
    assert stub.stats()["chats"] == before
    assert not list(tmp_path.glob("models/iteration_*"))
    # a look costs nothing: another configuration may be tried next
    miner.main([*asking, "--dry-run", "--num-candidates", "5"])


def test_a_dry_run_of_the_answer_key_trains_nothing(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miner.main([*arguments, "--dry-run"])
    output = capsys.readouterr().out
    assert re.search(r"^\d{3} pairs for the answer key, which asks nobody$", output, re.MULTILINE)
    assert "[Step 3/5]" not in output
    assert not (tmp_path / "models").exists()


def test_exporting_the_judgments(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data-dir", str(tmp_path), "--export-judgments", str(tmp_path / "all.jsonl")]
    assert "judgments.sqlite is missing" in refused(flags, capsys)
    JudgmentStore(tmp_path / "judgments.sqlite").close()
    miner.main(flags)
    assert "0 judgments written" in capsys.readouterr().out and (tmp_path / "all.jsonl").read_text() == ""


def test_too_many_unjudged_then_a_sound_server(
    asking: list[str],
    stub: LLMStub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    stub.configure(fault="refusal", after=40)
    with monkeypatch.context() as patch:
        patch.setattr(miner, "fine_tune", no_training)
        error = refused(asking, capsys)
    found = re.search(r"error: (\d+) of (\d+) pairs are unjudged, more than --max-unjudged 0.02; nothing was", error)
    assert found and int(found[1]) > 0.5 * int(found[2])
    assert not list(tmp_path.glob("models/iteration_*"))

    stub.configure(fault=None)
    answered = stub.stats()["answered"]
    miner.main(asking)
    output = capsys.readouterr().out
    stored = int(found[2]) - int(found[1])
    assert f"{found[2]} pairs: {stored} already stored, {found[1]} to ask" in output
    assert f"LLM judged {found[2]} (query, chunk) pairs" in output
    assert f"Judge: {MODEL} (4,096 tokens) at {stub.url}" in output
    now = stub.stats()["answered"]
    chunks, _, _ = tiny_corpus()
    record = read_json(tmp_path / "models" / "iteration_0" / "training.json", "")
    assert record["judge"]["kind"] == "llm" and record["judge"]["effort"]["asked"] == int(found[1])
    assert record["configuration"]["llm_model"] == MODEL
    for item in read_candidates(tmp_path / "models" / "iteration_0" / "candidates.jsonl"):
        for candidate in item.candidates:
            text = as_read(chunks[candidate.chunk_id])
            prompt = miner.JUDGE_PROMPT.replace("{query}", item.query["query"]).replace("{passage}", text)
            assert candidate.grade == pytest.approx(true_grade(prompt))
            # refusals were asked again, grades were not
            assert now[prompt] - answered.get(prompt, 0) in (0, 1)
    assert sum(now.values()) - sum(answered.values()) <= int(found[1]) + 10  # and the probes


def test_a_run_with_another_judge_prompt_or_budget_is_another_run(
    asking: list[str],
    stub: LLMStub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(miner, "fine_tune", lambda *_: [])
    with JudgmentStore(tmp_path / "judgments.sqlite") as store:
        miner.main(asking, make_judge(stub, store))
        monkeypatch.setattr(CachedEncoder, "encode_passages", lambda *_: pytest.fail("embeds"))
        for key, model, prompt, tokens in (
            ("llm_model", "another", PROMPT, PASSAGE_TOKENS),
            ("prompt_sha256", MODEL, PROMPT + " Grade:", PASSAGE_TOKENS),
            ("passage_tokens", MODEL, PROMPT, 100),
        ):
            monkeypatch.setattr("hardneg.judging.llm_judge.PASSAGE_TOKENS", tokens)
            judge = LLMJudge([stub.url], model, prompt, store, stored_only=True)
            error = refused([*asking, "--stored-only"], capsys, judge=judge)
            assert re.search(rf"holds a run of another configuration \({key}: [^;]+ now\); choose", error)


def test_a_few_unjudged_are_let_through_and_counted(
    asking: list[str], stub: LLMStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stub.configure(fault="refusal", after=60, times=1)
    error = refused([*asking, "--max-unjudged", "0"], capsys)
    assert re.search(r"1 of \d+ pairs are unjudged, more than --max-unjudged 0;", error)
    stub.configure(fault="refusal", after=2, times=1)  # after the probes: the same pair again, and alone
    miner.main(asking)
    record = read_json(tmp_path / "models" / "iteration_0" / "training.json", "")
    assert record["counts"]["unjudged"] == 1
    assert record["judge"]["effort"]["unjudged"] == {"refused": 1}


def test_time_and_cost_to_the_end_are_told_once_and_shown_in_the_bar(
    stub: LLMStub, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TQDM_MININTERVAL", "0")
    with JudgmentStore(tmp_path / "judgments.sqlite") as store:
        judged = miner.judge_pairs(make_judge(stub, store), list(make_pairs(80)), gpu_hour_price=5.0)
    assert len(judged) == 80
    told, bar = capsys.readouterr()
    plan, left = told.splitlines()
    assert plan.startswith("80 pairs: 0 already stored, 80 to ask, about ")
    assert re.fullmatch(r"At \d+\.\d answers/s: \d\.\d s left, 0\.\d\d to pay", left)
    states = [state for state in bar.split("\r") if "unjudged 0" in state]
    assert "to pay" not in states[0] and "0.0 s left, 0.00 to pay" in states[-1]


def test_a_server_that_is_lost_is_told(stub: LLMStub, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with LLMStub() as other:
        servers = ["--llm-endpoint", stub.url, "--llm-endpoint", other.url, "--llm-model", MODEL]
        judge: Any = miner.open_judge(miner.parse_arguments([*servers, "--data-dir", str(tmp_path)]))
        judge.check()
        other.kill()
        assert len(miner.judge_pairs(judge, list(make_pairs(80)), None)) == 80
        assert f"{other.url} gets no more requests until it answers again: no connection" in capsys.readouterr().out


def test_an_error_while_judging_says_how_many_pairs_are_left(stub: LLMStub, tmp_path: Path) -> None:
    with JudgmentStore(tmp_path / "judgments.sqlite") as store:
        judge = make_judge(stub, store)
        judge.check()
        stub.configure(fault="401", after=20, times=None)
        with pytest.raises(InputError, match=r"HTTP 401.*: the same command resumes there$") as caught:
            miner.judge_pairs(judge, list(make_pairs(60)), None)
        told = f"; {len(store)} judgments of this run are stored, and {60 - len(store)} of 60 pairs are left to ask: "
        assert told in str(caught.value)


def at(url: str, asking: list[str]) -> list[str]:
    """The same with another server."""
    return [url if word.startswith("http") else word for word in asking]


def test_the_prompt_s_hash_is_recorded_and_the_key_is_not(
    asking: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    key = "sk-do-not-show-me"
    monkeypatch.setenv("OPENAI_API_KEY", key)
    with LLMStub(api_key=key) as server:
        miner.main(at(server.url, asking))
    models, digest = tmp_path / "models", sha256_text(miner.JUDGE_PROMPT)
    record = read_json(models / "iteration_0" / "training.json", "")
    assert record["judge"]["prompt_sha256"] == digest
    for name in ("iteration_0", "final"):
        assert f"| prompt_sha256 | {digest} |" in (models / name / "README.md").read_text()
    shown = capsys.readouterr()
    assert key not in shown.out + shown.err
    assert not [path for path in tmp_path.rglob("*") if path.is_file() and key.encode() in path.read_bytes()]


@pytest.fixture
def offline(asking: list[str]) -> list[str]:
    """The same where no server is."""
    return at(NOWHERE, asking)


@pytest.fixture
def requests(offline: list[str], tmp_path: Path) -> list[dict[str, Any]]:
    """All that is to be judged, by a batch file."""
    miner.main([*offline, "--judge-batch", str(tmp_path / "batch.jsonl")])
    return [json.loads(line) for line in (tmp_path / "batch.jsonl").read_text().splitlines()]


def passage_of(request: dict[str, Any]) -> str:
    return request["body"]["messages"][0]["content"].split("Passage:")[1]


def answered(requests: list[dict[str, Any]], folder: Path) -> list[str]:
    """A batch's results for these requests, last first: 4 for each passage on a treatment; the flag that names them."""
    lines = []
    for request in reversed(requests):
        content = "4" if "treated" in passage_of(request) else "1"
        choice = {"index": 0, "message": {"role": "assistant", "content": content}, "finish_reason": "stop"}
        body = {"id": "1", "object": "chat.completion", "created": 1, "model": MODEL, "choices": [choice]}
        response = {"status_code": 200, "body": body}
        lines.append(json.dumps({"custom_id": request["custom_id"], "response": response, "error": None}) + "\n")
    (folder / "results.jsonl").write_text("".join(lines))
    return ["--judge-results", str(folder / "results.jsonl")]


def test_a_batch_holds_each_request_once_and_trains_nothing(
    offline: list[str], requests: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    miner.main([*offline, "--judge-batch", str(tmp_path / "again.jsonl")])
    assert f"{len(requests)} requests written to {tmp_path}/again.jsonl" in capsys.readouterr().out
    assert len({request["custom_id"] for request in requests}) == len(requests) >= 120
    assert all(request["body"]["structured_outputs"] == {"choice": ["1", "2", "3", "4"]} for request in requests)
    assert not list(tmp_path.glob("models/iteration_*"))


def test_results_of_a_part_of_a_batch_are_stored_and_the_rest_is_asked_for(
    offline: list[str], requests: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    error = refused([*offline, *answered(requests[:50], tmp_path)], capsys)
    missing = len(requests) - 50
    assert f"{missing} of {len(requests)} pairs are unjudged" in error and f"{missing}x no stored answer." in error
    assert "--judge-batch FILE" in error and not list(tmp_path.glob("models/iteration_*"))
    batch, rest = tmp_path / "rest.jsonl", answered(requests[50:70], tmp_path)
    miner.main([*offline, *rest, "--judge-batch", str(batch)])
    assert f"{missing - 20} requests written to {batch}; come back with their results" in capsys.readouterr().out
    assert [json.loads(line) for line in batch.read_text().splitlines()] == requests[70:]
    miner.main([*offline, *answered(requests[70:], tmp_path), "--judge-batch", str(batch)])
    assert f"0 requests written to {batch}; nothing is left to ask" in capsys.readouterr().out


def test_what_a_batch_could_not_answer_is_told_with_its_commonest_reasons(
    offline: list[str], requests: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    results = answered(requests[:14], tmp_path)
    lines = [json.loads(line) for line in (tmp_path / "results.jsonl").read_text().splitlines()]
    for number, line in enumerate(lines[:10]):
        message = "top_logprobs must be between 0 and 5" if number < 6 else f"request {number} is odd"
        line["response"] = {"status_code": 400, "body": {"error": {"message": message}}}
    for line in lines[10:13]:
        line["response"]["body"]["choices"][0]["message"]["content"] = "Score: 3"
    (tmp_path / "results.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    miner.main([*offline, *results, "--judge-batch", str(tmp_path / "rest.jsonl")])
    told = capsys.readouterr().out.split("Took in ")[1].splitlines()
    assert told[0].endswith("1 judged, 3 without a grade, 10 failed, 0 that nothing here waits for")
    assert told[1:5] == [
        "  3 without a grade: not a grade",
        "  6 failed: HTTP 400: top_logprobs must be between 0 and 5",
        "  1 failed: HTTP 400: request 6 is odd",
        "  1 failed: HTTP 400: request 7 is odd",
    ]
    assert "requests written to" in told[5]


def test_judging_by_batch_file_needs_no_server(
    offline: list[str], requests: list[dict[str, Any]], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """One request that the batch could not answer does not stop the run."""
    miner.main([*offline, *answered(requests[1:], tmp_path)])
    output = capsys.readouterr().out
    assert f"{len(requests) - 1} already stored, 1 to ask" in output and "no server is asked" in output
    record = read_json(tmp_path / "models" / "iteration_0" / "training.json", "")
    assert (record["counts"]["unjudged"], record["judge"]["effort"]["unjudged"]) == (1, {NOT_STORED: 1})
    chunks, _, _ = tiny_corpus()
    for item in read_candidates(tmp_path / "models" / "iteration_0" / "candidates.jsonl"):
        for candidate in item.candidates:
            right = 4.0 if "treated" in chunks[candidate.chunk_id]["text"] else 1.0
            assert candidate.grade in (right, None)

    miner.main(offline)  # nor does a run that is done
    assert not miner.trains(miner.parse_arguments(offline))  # so it needs no room to train in either
    assert miner.trains(miner.parse_arguments([*offline, "--iterations", "9"]))
    assert f"Already done: {tmp_path}/models/iteration_0" in capsys.readouterr().out
    miner.main([*offline, "--judge-batch", str(tmp_path / "more.jsonl")])
    assert f"All iterations of {tmp_path}/models are done: nothing is left to judge" in capsys.readouterr().out
    assert not (tmp_path / "more.jsonl").exists()


@pytest.mark.parametrize(
    ("flags", "asks"),
    [
        ([], True),
        (["--dry-run"], False),
        (["--judge-batch", "batch.jsonl"], False),
        (["--judge-results", "results.jsonl"], False),
        (["--stored-only"], False),
    ],
)
def test_what_needs_a_server_from_the_start(flags: list[str], asks: bool, tmp_path: Path) -> None:
    assert miner.asks_server(miner.parse_arguments(["--output-dir", str(tmp_path), *flags])) == asks


def test_a_batch_for_a_hosted_service_has_its_constraint(asking: list[str], tmp_path: Path) -> None:
    miner.main([*asking, "--judge-batch", str(tmp_path / "batch.jsonl"), "--batch-constraint", "object"])
    for line in (tmp_path / "batch.jsonl").read_text().splitlines():
        body = json.loads(line)["body"]
        assert body["response_format"]["json_schema"]["schema"]["type"] == "object"
        assert "structured_outputs" not in body


def test_what_is_stored_needs_no_server(
    asking: list[str],
    stub: LLMStub,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Judged, then stopped while training: with --stored-only the server need not be up any more."""
    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(miner, "fine_tune", interrupted)
        miner.main(asking)
    assert "127.0.0.1:9" in refused(at(NOWHERE, asking), capsys, status=75)
    miner.main([*at(NOWHERE, asking), "--stored-only"])
    assert ", 0 to ask, about 0 prompt tokens (but no server is asked)" in capsys.readouterr().out
    assert (tmp_path / "models" / "final").is_dir()


def interrupted(*_: object) -> NoReturn:
    raise KeyboardInterrupt


def test_a_results_file_that_is_none(asking: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (tmp_path / "results.jsonl").write_text('{"no": "result"}\n')
    error = refused([*asking, "--judge-results", str(tmp_path / "results.jsonl")], capsys)
    assert "results.jsonl, line 1, is no batch result" in error


def test_flags_of_an_llm_are_refused_without_one(
    arguments: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Ignoring --judge-batch would train at once where a file was asked for."""
    monkeypatch.setattr(miner, "fine_tune", lambda *_: pytest.fail("trained"))
    assert "--judge-batch" in refused([*arguments, "--judge-batch", str(tmp_path / "batch.jsonl")], capsys)
    endpoint = ["--llm-endpoint", "http://localhost:8000/v1"]
    for flags in (["--stored-only"], ["--prompt", "p.txt"], ["--gpu-hour-price", "0"], endpoint):
        assert flags[0] in refused([*arguments, *flags], capsys)


def test_a_batch_file_in_the_models_folder_is_refused(
    asking: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing was trained there yet: the run that comes back with its results would take the folder for another's."""
    error = refused([*asking, "--judge-batch", str(tmp_path / "models" / "batch.jsonl")], capsys)
    assert "batch.jsonl is in --output-dir" in error and not (tmp_path / "models").exists()


def test_a_constraint_without_a_batch_is_refused(asking: list[str], capsys: pytest.CaptureFixture[str]) -> None:
    assert "--judge-batch" in refused([*asking, "--batch-constraint", "object"], capsys)


def test_batch_files_are_looked_at_before_anything_is_embedded(
    asking: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(miner, "load_model", lambda *_: pytest.fail("embeds"))
    assert "cannot read" in refused([*asking, "--judge-results", str(tmp_path / "none.jsonl")], capsys)
    assert "is a folder" in refused([*asking, "--judge-batch", str(tmp_path)], capsys)
