"""What the lab log's figures rest on: the simulated judge, the other losses, the arms, the second domain's text."""

import json
import random
import sys
import zipfile
from dataclasses import replace
from itertools import accumulate
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import norm
from sentence_transformers import SentenceTransformer

import evaluate
import iterative_miner as miner
from hardneg.corpus.artifacts import SHARED, Chunk, Query
from hardneg.corpus.sources import topic_of_question
from hardneg.embedding.encoder import CachedEncoder
from hardneg.embedding.models import load_model
from hardneg.judging.candidates import Candidate, CandidateList, read_candidates
from hardneg.judging.judge import AnswerKeyJudge, Pair
from hardneg.learning.mining import Mined
from hardneg.learning.recipe import Example
from hardneg.learning.validation import Validator
from hardneg.measuring.agreement import agreement
from hardneg.measuring.graded import open_graded
from hardneg.measuring.metrics import retrieval_metrics
from hardneg.running.errors import InputError
from hardneg.running.files import read_json, sha256_file, write_json
from iterative_miner import mine_hard_examples
from tests.benchmarks import (
    among,
    arms,
    aspects,
    bm25,
    judge_throughput,
    losses,
    mixture,
    noisy_judge,
    paraphrased,
    second_domain,
    synonyms,
    unrelated,
    untouched,
)
from tests.benchmarks.noisy_judge import BLUR, CUTS, LEVELS, NOISE, NoisyJudge
from tests.records import make_chunk, make_query
from tests.tiny_data import tiny_corpus, write_pickle, write_tiny_data
from tests.tiny_model import build_tiny_model


def pairs_like_medquad(n_queries: int) -> list[Pair]:
    """Fifty candidates per query: two answers, five other passages on its topic, the rest unrelated.

    Of the candidates of 500 MedQuAD questions, 4.1% were answers and 11% on the topic.
    """
    pairs = []
    for number in range(n_queries):
        query = make_query(f"q{number}", 0, 1, topic="gout")
        for chunk_id in range(50):
            pairs.append(Pair(query, make_chunk(chunk_id, title="gout" if chunk_id < 7 else "flu")))
    return pairs


def candidates(query: Query, *grades: float | None, known: tuple[int, ...] = ()) -> CandidateList:
    """Chunks 0, 1, ... at ranks 1, 2, ... and cosines 0.99, 0.98, ..., with these grades."""
    return CandidateList(
        query,
        tuple(
            Candidate(place, place + 1, 0.99 - place / 100, place in known, grade) for place, grade in enumerate(grades)
        ),
    )


QUERY = make_query("q", 1, query="What helps against gout?", qtype="treatment", topic="gout")


# ---------------------------------------------------------------- the noisy judge


def test_a_noisy_judge_never_changes_its_mind() -> None:
    pairs = pairs_like_medquad(3)
    first = {(each.query_id, each.chunk_id): each for each in NoisyJudge().judge(pairs)}
    random.Random(0).shuffle(pairs)
    again = {(each.query_id, each.chunk_id): each for each in NoisyJudge().judge(pairs)}
    other = {(each.query_id, each.chunk_id): each for each in NoisyJudge(seed=1).judge(pairs)}
    assert first == again != other
    for judgment in first.values():
        assert judgment.probabilities is not None and sum(judgment.probabilities) == pytest.approx(1)
        assert judgment.grade == pytest.approx(sum(grade * p for grade, p in enumerate(judgment.probabilities, 1)))


def test_a_noisy_judge_agrees_as_little_as_a_7b_llm() -> None:
    """Published: a 4-level kappa with people of about 0.2 to 0.3; on answers or not, about 0.4."""
    judge = NoisyJudge()
    list(judge.judge(pairs_like_medquad(100)))
    found = agreement(judge.true, judge.said, judge.queries)
    assert 0.2 < found["cohen_kappa"] < 0.3
    assert 0.35 < found["binary_kappa"] < 0.5
    weighted = agreement(judge.true, judge.expected, judge.queries)["weighted_kappa"]
    with_bundled = judge.kappa_with(open_graded("bundled"))
    assert weighted < with_bundled == pytest.approx(0.54, abs=0.01)  # its grades lie further apart
    told = judge.agreement()
    assert told.startswith(f"5,000 pairs: kappa {found['cohen_kappa']:.2f} on four levels")
    assert f"weighted {weighted:.2f} ({with_bundled:.2f} with the bundled questions" in told


def test_a_noisy_judge_errs_as_often_as_the_lab_log_says() -> None:
    """Grade 3 is likelier than 2 from 1.147 on, and (level - 1.147) / 0.6 is -1.91, -0.995, 0.172: these shares."""
    judge = NoisyJudge()
    list(judge.judge(pairs_like_medquad(200)))
    true, said = np.array(judge.true), np.array(judge.said)
    answers = {grade: (said[true == grade] >= 3).mean() for grade in (1, 2, 4)}
    # three standard errors of 8,600, 1,000 and 400 pairs
    assert answers == {
        1: pytest.approx(0.028, abs=0.006),
        2: pytest.approx(0.160, abs=0.035),
        4: pytest.approx(0.568, abs=0.075),
    }


def test_a_noisy_judge_s_probabilities_lie_between_its_cuts() -> None:
    """The normal quantiles of P(grade <= 1, 2, 3) are (cut - seen) / 0.35: 0.65 / 0.35 and 0.35 / 0.35 apart."""
    pairs = [pair for pair in pairs_like_medquad(20) if pair.chunk["chunk_id"] < 2]
    for judgment in NoisyJudge().judge(pairs):
        assert judgment.probabilities is not None
        first, second, third, _ = norm.ppf(list(accumulate(judgment.probabilities)))
        assert (second - first, third - second) == (pytest.approx(13 / 7, abs=1e-3), pytest.approx(1, abs=1e-3))


def test_a_noisy_judge_is_misled_by_what_looks_right_to_the_base_model(
    model: SentenceTransformer, tmp_path: Path
) -> None:
    """With all of its noise the appeal, passages of one grade are ordered as the base model orders them."""
    base = CachedEncoder(model, tmp_path)
    texts = ["Gout is a disease of the joints.", "Influenza is a virus.", "Anaemia: too little iron."]
    chunks = [make_chunk(chunk_id, text) for chunk_id, text in enumerate(texts)]
    queries = [make_query("a", query="What is gout?", topic="a"), make_query("b", query="What is flu?", topic="b")]
    pairs = [Pair(query, chunk) for query in queries for chunk in chunks]
    judged = NoisyJudge(correlation=1.0, appeal=noisy_judge.appeal_to(base)).judge(pairs)
    surely_wrong = np.array([judgment.probabilities[0] for judgment in judged if judgment.probabilities])
    cosines = base.encode_queries([query["query"] for query in queries]) @ base.encode_passages(texts).T
    appeal = (cosines - cosines.mean(axis=1, keepdims=True)) / cosines.std(axis=1, keepdims=True)
    expected = norm.cdf((CUTS[0] - LEVELS[1] - NOISE * appeal) / BLUR)
    assert surely_wrong.reshape(2, 3) == pytest.approx(expected, abs=1e-4)


def test_the_noisy_judge_s_run_is_another_than_the_key_s(
    tiny_model: Path, tiny_data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    output = tmp_path / "models"
    flags = [
        *("--base-model", str(tiny_model), "--data-dir", str(tiny_data_dir), "--output-dir", str(output)),
        *("--num-queries", "12", "--num-candidates", "10", "--iterations", "1", "--guard", "none", "--device", "cpu"),
    ]
    noisy_judge.main(flags)
    lists = read_candidates(output / "iteration_0" / "candidates.jsonl")
    grades = [candidate.grade for item in lists for candidate in item.candidates]
    assert None not in grades and not {1.0, 2.0, 4.0} & set(grades)  # expected grades, not the key's
    assert f"Noisy judge: {len(grades)} pairs: kappa " in capsys.readouterr().out
    assert read_json(output / "run.json", "")["judge"] == "noisy answer-key"
    assert read_json(output / "iteration_0" / "training.json", "")["judge"]["kind"] == "noisy answer-key"
    noisy_judge.main(flags)
    assert "Noisy judge: nothing was judged" in capsys.readouterr().out
    with pytest.raises(InputError, match="judge: noisy answer-key there, answer-key now"):
        miner.main(["--judge", "answer-key", *flags])


# ---------------------------------------------------------------- the other losses


def test_listwise_lists_begin_with_the_positives(tiny_model: Path) -> None:
    chunks, _, _ = tiny_corpus()
    grades = [1.0, 4.0, None, *[1.5] * 6, 4.0, 2.0]
    item = candidates(QUERY, *grades, known=(1,))
    short = candidates(Query(**{**QUERY, "query_id": "short"}), 1.0, 4.0)
    examples = [Example("q", QUERY["query"], 9, (0,)), Example("short", QUERY["query"], 1, (0,))]
    dataset, _ = losses.listwise(load_model(str(tiny_model), "cpu"), examples, [item, short], chunks)
    assert len(dataset) == 1
    row = dataset[0]
    ids = [9, 0, 1, 3, 4, 5, 6, 7]  # the unjudged chunk 2 is left out
    assert [row[f"passage_{place}"] for place in range(8)] == [chunks[chunk_id]["text"] for chunk_id in ids]
    assert row["label"] == [4.0, 1.0, 4.0, *[1.5] * 5]


def test_margins_are_worth_their_grades(tiny_model: Path) -> None:
    chunks, _, _ = tiny_corpus()
    model, item = load_model(str(tiny_model), "cpu"), candidates(QUERY, 1.0, 4.0, 2.0, known=(1,))
    examples = [Example("q", QUERY["query"], 1, (0, 2)), Example("q", QUERY["query"], 1, (2, 0))]
    dataset, _ = losses.margin_mse(model, examples, [item], chunks)
    assert dataset["label"] == pytest.approx([0.3, 0.2])
    triplets, loss = losses.triplet(model, examples, [item], chunks)
    assert triplets[1] == {"anchor": QUERY["query"], "positive": chunks[1]["text"], "negative": chunks[2]["text"]}
    assert loss.triplet_margin == 0.1


@pytest.mark.parametrize("name", losses.LOSSES)
def test_every_loss_trains_on_what_it_measures(name: str, tiny_model: Path, tmp_path: Path) -> None:
    """On the tiny model's own mistakes, of which every loss has some to lower."""
    chunks, _, queries = tiny_corpus()
    model = load_model(str(tiny_model), "cpu")
    encoder = CachedEncoder(model, tmp_path)
    index = miner.embed_corpus(encoder, chunks)
    lists = miner.retrieve_candidates(queries["train"], 15, index=index)
    lists = miner.llm_judge_relevance(lists, chunks, AnswerKeyJudge())
    examples = mine_hard_examples(lists, frozenset(), replace(miner.MINING, max_positives=1)).examples
    dataset, loss = losses.LOSSES[name](model, examples, lists, chunks)
    assert len(dataset) == 12
    texts = dataset.select_columns([column for column in dataset.column_names if column != "label"])[:]
    labels = torch.tensor(dataset["label"] if "label" in dataset.column_names else [])

    def value() -> float:
        model.eval()
        with torch.no_grad():
            return loss([model.preprocess(column) for column in texts.values()], labels).item()

    before = value()
    recipe = replace(miner.RECIPE, epochs=12, batch_size=6, learning_rate=2e-3)
    losses.train_with(name, model, examples, lists, chunks, recipe, seed=7)
    assert 0 <= value() < before / 2


# ---------------------------------------------------------------- the arms


def grades_of(item: CandidateList) -> list[float | None]:
    return [candidate.grade for candidate in item.candidates]


def test_missed_is_what_has_no_answer_at_rank_1(tiny_model: Path, tmp_path: Path) -> None:
    """Both ask with the words of chunk 3, which is therefore the nearest one in any model."""
    chunks, _, _ = tiny_corpus()
    encoder = CachedEncoder(load_model(str(tiny_model), "cpu"), tmp_path)
    index = miner.embed_corpus(encoder, chunks)
    found, missed = (
        make_query(name, *known, query=chunks[3]["text"]) for name, known in (("found", [3, 7]), ("missed", [4]))
    )
    assert arms.missed([found, missed], index) == [missed]


def test_the_margin_drops_negatives_near_the_answer() -> None:
    item = candidates(QUERY, 1.0, 4.0, 1.0, 1.0, known=(1,))  # cosines 0.99, 0.98, 0.97, 0.96
    assert grades_of(arms.within_margin(item, 0.98)) == [arms.UNUSED, 4.0, arms.UNUSED, 1.0]  # 0.98 * 0.98 = 0.9604
    assert mine_hard_examples([arms.within_margin(item, 0.98)], frozenset()).examples[0].negative_ids == (3, 3, 3, 3)


def test_negatives_of_the_same_page() -> None:
    chunks, _, queries = tiny_corpus()
    query = queries["train"][0]
    (answer,) = query["ground_truth_chunk_ids"]
    of_topic = {chunk["chunk_id"] for chunk in chunks if (chunk["title"], chunk["split"]) == (query["topic"], "train")}
    page = of_topic - {answer}
    retrieved = CandidateList(query, (Candidate(29, 1, 0.9, False, 1.0), Candidate(answer, 2, 0.8, True, 4.0)))
    (item,) = arms.same_page([retrieved], chunks, 4, 42)
    known, *others = item.candidates
    assert known == retrieved.candidates[1] and len(others) == 4 and page
    assert {candidate.chunk_id for candidate in others[: len(page)]} == page
    assert all(chunks[candidate.chunk_id]["split"] == "train" and candidate.grade == 1 for candidate in others)


def test_answers_without_their_topic_s_name() -> None:
    chunks, _, _ = tiny_corpus()
    named: list[Chunk] = [{**chunks[0], "title": "Gout", "text": text} for text in ("Gout hurts.", "It hurts.")]
    assert arms.without_name([{**chunk, "chunk_id": place} for place, chunk in enumerate(named)]) == {1}


def test_hardest_positives() -> None:
    item = candidates(QUERY, 4.0, 1.0, 4.0, 3.0, known=(0, 2))
    left = arms.hardest_positives(item, 2)
    assert grades_of(left) == [arms.UNUSED, 1.0, 4.0, 3.0]
    assert [candidate.known for candidate in left.candidates] == [False, False, True, False]
    mined = mine_hard_examples([left], frozenset())
    assert [(each.positive_id, each.negative_ids) for each in mined.examples] == [(2, (1, 1, 1, 1))]
    assert mined.spared == {"q": {0, 2, 3}}  # what is dropped is pushed away by nothing


def test_a_view_keeps_what_must_not_be_its_negative() -> None:
    chunks, _, _ = tiny_corpus()
    item = candidates(QUERY, 1.0, 4.0, known=(1,))
    mined = mine_hard_examples([item], frozenset())
    view_of = arms.keywords_or_sentence(chunks)
    same = arms.with_views(mined, [item], 0.0, 0, view_of)
    assert (same.examples, same.spared) == (mined.examples, mined.spared)
    asked = arms.with_views(mined, [item], 1.0, 0, view_of)
    assert isinstance(asked, Mined)
    (example,) = asked.examples
    assert example == replace(mined.examples[0], query_id=example.query_id, query=example.query)
    assert example.query in ("gout treatment", chunks[1]["text"])
    assert asked.spared[example.query_id] == mined.spared["q"]
    both = arms.with_views(mined, [item], 1.0, 0, view_of, added=True)
    assert both.examples == [*mined.examples, example]


def test_training_sees_no_wording_that_it_is_scored_on() -> None:
    for qtype, wordings in paraphrased.WORDINGS.items():
        queries = [make_query(f"q{number}", qtype=qtype, topic="gout") for number in range(30)]
        trained = {arms.in_other_words(query, 0, random.Random(0)) for query in queries}
        scored = {arms.reworded(query, arms.HELD_OUT_WORDINGS)["query"] for query in queries}
        assert trained == {wording.format("gout") for wording in wordings[:2]}
        assert scored == {wordings[2].format("gout")}
    unknown = make_query("q", qtype="dietary", topic="gout")
    assert arms.reworded(unknown, arms.HELD_OUT_WORDINGS) == unknown


def test_the_arms_run(tiny_model: Path, tiny_data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    """With all fifteen training chunks as candidates, so that some are beyond the margin in any tiny model."""
    flags = ["--data-dir", str(tiny_data_dir), "--base-model", str(tiny_model), "--num-queries", "3"]
    arms.main([*flags, "--num-candidates", "15", "--missed", "--margin", "0.99", "--strengths", "0.5", "--epochs", "1"])
    arms.main([*flags, "--num-candidates", "15", "--rewordings", "1", "--over-types", "--strengths", "0.5"])
    printed = [line for line in capsys.readouterr().out.splitlines() if line.startswith("strength 0.5: MRR@5 ")]
    assert len(printed) == 2 and all("reworded DCG@5 " in line for line in printed)
    with pytest.raises(InputError, match="nothing to train on"):
        arms.main([*flags, "--num-candidates", "15", "--margin", "0.0001"])


def test_types_are_left_out_of_training_and_scored_apart(
    tiny_model: Path, tiny_data_dir: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    trained_on: list[str] = []
    mine = miner.mine_hard_examples

    def noting(lists: list[CandidateList], *rest: Any) -> Mined:
        trained_on.extend(item.query["qtype"] for item in lists)
        return mine(lists, *rest)

    monkeypatch.setattr(miner, "mine_hard_examples", noting)
    flags = ["--data-dir", str(tiny_data_dir), "--base-model", str(tiny_model), "--num-candidates", "15"]
    arms.main([*flags, "--apart", "treatment", "--left-out", "--strengths", "0.5"])
    assert trained_on == ["symptoms"] * 6
    (line,) = [line for line in capsys.readouterr().out.splitlines() if line.startswith("strength 0.5: ")]
    assert "  apart MRR@5 " in line and "  reworded MRR@5 " in line
    with pytest.raises(InputError, match="--left-out is about the questions of --apart"):
        arms.parse_arguments(["--left-out"])


def test_a_question_is_named_by_its_type_or_by_the_source_of_any_of_its_answers() -> None:
    chunks = [make_chunk(0, source="NIH"), make_chunk(1, source="CDC")]
    query = make_query("q", 0, 1, qtype="treatment")
    found = [name for name in ("treatment", "NIH", "CDC", "symptoms", "GARD") if arms.is_any_of(query, [name], chunks)]
    assert found == ["treatment", "NIH", "CDC"]
    assert arms.is_any_of(query, ["GARD", "CDC"], chunks)
    assert not arms.is_any_of(query, [], chunks)


@pytest.mark.parametrize("flag", ["--margin", "--views", "--rewordings", "--frozen", "--distillation"])
def test_flags_that_another_loss_would_ignore_are_refused(flag: str) -> None:
    with pytest.raises(InputError, match=f"--loss triplet goes without .*{flag}"):
        arms.parse_arguments(["--loss", "triplet", flag, "0.5"])
    assert arms.parse_arguments(["--loss", "triplet"]).loss == "triplet"


def test_an_example_is_asked_otherwise_in_one_way() -> None:
    with pytest.raises(InputError, match="by one of them"):
        arms.parse_arguments(["--views", "0.5", "--rewordings", "0.5"])
    with pytest.raises(InputError, match="--added is about"):
        arms.parse_arguments(["--added"])


# ---------------------------------------------------------------- the judge's throughput


def test_the_throughput_of_the_judge_is_measured(capsys: pytest.CaptureFixture[str]) -> None:
    judge_throughput.main(["--pairs", "120", "--concurrency", "16", "--turns", "2"])
    printed = capsys.readouterr().out
    assert "judge / bare loop = " in printed and printed.count("server of 250/s") == 3
    judge_throughput.main(["--memory", "10", "30"])
    assert "30 pairs: peak memory " in capsys.readouterr().out


# ---------------------------------------------------------------- the second domain

DOCUMENT = """\
**Example 1: To attach a policy to a role**

The following ``attach-role-policy`` command attaches a policy::

    aws iam attach-role-policy --role-name Reader

This command produces no output.

For more information, see `Roles <somewhere>`__ in the guide.

**To detach it**

Use `detach <elsewhere>`__ on arn:aws:iam::aws:policy/Reader::

    {"Type": "AWS::IAM::Role"}

**A heading without text**
"""


def test_examples_are_split_at_their_headings(tmp_path: Path) -> None:
    expected = [
        (
            "To attach a policy to a role",
            "aws iam attach-role-policy --role-name Reader\n\nThis command produces no output.",
        ),
        ("To detach it", '{"Type": "AWS::IAM::Role"}'),
    ]
    assert list(second_domain.split_at_headings(DOCUMENT)) == expected
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w") as archive:
        archive.writestr("awscli/examples/iam/attach.rst", DOCUMENT)
        archive.writestr("awscli/examples/iam/readme.txt", DOCUMENT)
    rows = list(second_domain.read_examples(tmp_path / "wheel.zip"))
    assert [(row["question"], row["answer"]) for row in rows] == expected
    assert {row["topic"] for row in rows} == {"iam attach"}


def test_examples_are_written_in_the_order_of_their_names(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    wheel, output = tmp_path / "wheel.zip", tmp_path / "aws.jsonl"
    with zipfile.ZipFile(wheel, "w") as archive:
        archive.writestr("awscli/examples/s3/ls.rst", "**To list buckets**\n\nIt takes ``--profile`` too.\n")
        windows = (
            "**To wait**\r\n\r\nThis waits\r\nfor a role. ::\r\n\r\n    aws iam wait\r\n\r\nOutput::\r\n\r\n    {}\r\n"
        )
        archive.writestr("awscli/examples/iam/wait/role.rst", windows)
        archive.writestr("awscli/topics/s3.rst", "**No example**\n\nText.\n")
    monkeypatch.setattr(sys, "argv", ["second_domain", str(wheel), str(output)])
    second_domain.main()
    assert [json.loads(line) for line in output.read_text().splitlines()] == [
        {"question": "To wait", "answer": "aws iam wait\n\nOutput:\n\n    {}", "topic": "iam wait role"},
        {"question": "To list buckets", "answer": "It takes --profile too.", "topic": "s3 ls"},
    ]
    assert capsys.readouterr().out == f"2 examples of 2 commands written to {output}\n"


def test_what_is_no_wheel_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    wheel = tmp_path / "awscli.whl"
    monkeypatch.setattr(sys, "argv", ["second_domain", str(wheel), str(tmp_path / "aws.jsonl")])
    with pytest.raises(InputError, match="no readable wheel"):
        second_domain.main()
    wheel.write_text("404 Not Found")
    with pytest.raises(InputError, match="no readable wheel"):
        second_domain.main()
    assert not (tmp_path / "aws.jsonl").exists()
    zipfile.ZipFile(wheel, "w").close()
    monkeypatch.setattr(sys, "argv", ["second_domain", str(wheel), str(tmp_path / "none" / "aws.jsonl")])
    with pytest.raises(InputError, match="cannot write"):
        second_domain.main()


# ---------------------------------------------------------------- unrelated questions


def test_questions_with_a_concept_of_training_are_left_out(
    tiny_model: Path, tiny_data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, pairs, queries = tiny_corpus()
    related = queries["test"][0]["query"]
    for pair in pairs:
        if pair["split"] == "train" or pair["question"] == related:
            pair["concept"] = "C1"
    write_tiny_data(tiny_data_dir, changed_pairs=pairs)
    flags = ["--baseline-model", str(tiny_model), "--specialized-model", str(tiny_model), "--device", "cpu"]
    output = tmp_path / "unrelated.json"
    unrelated.main([*flags, "--data-dir", str(tiny_data_dir), "--output", str(output)])
    left = len(queries["test"]) - 1
    assert f"{left} of {left + 1} test questions share no concept or name" in capsys.readouterr().out
    assert read_json(output, "")["counts"]["queries"] == left


def test_questions_that_were_held_out_before_are_left_out(
    tiny_model: Path, tiny_data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    _, _, queries = tiny_corpus()
    for number, query in enumerate(queries["test"][:2]):
        folder = tmp_path / f"earlier{number}"
        folder.mkdir()
        earlier = [{"question": query["query"].upper(), "split": "val"}, {"question": "Another?", "split": "train"}]
        write_pickle(folder / "qa_pairs.pkl", [*earlier, {"question": queries["test"][2]["query"], "split": "train"}])
        write_json(folder / "manifest.json", {"corpus": {"qa_pairs_sha256": sha256_file(folder / "qa_pairs.pkl")}})
    flags = ["--baseline-model", str(tiny_model), "--specialized-model", str(tiny_model), "--device", "cpu"]
    output, before = tmp_path / "untouched.json", [str(tmp_path / f"earlier{number}") for number in range(2)]
    untouched.main(["--earlier", *before, *flags, "--data-dir", str(tiny_data_dir), "--output", str(output)])
    left = len(queries["test"]) - 2
    assert f"{left} of {left + 2} test questions were never held out before" in capsys.readouterr().out
    assert read_json(output, "")["counts"]["queries"] == left


# ---------------------------------------------------------------- mixtures


def test_a_mixture_of_two_models(tiny_model: Path, tmp_path: Path) -> None:
    """The base model's weights moved by 1 and by 4: half of the one and a quarter of the other move them by 1.5."""
    name = "0.model.embeddings.word_embeddings.weight"
    for folder, moved in (("one", 1), ("other", 4)):
        model = load_model(str(tiny_model), "cpu")
        model.state_dict()[name].add_(moved)
        model.save(str(tmp_path / folder))
    mix = [f"{tmp_path}/one=0.5", f"{tmp_path}/other=0.25"]
    mixture.main(["--base-model", str(tiny_model), "--mix", *mix, "--output", str(tmp_path / "mixed")])
    before, after = (load_model(str(folder), "cpu").state_dict() for folder in (tiny_model, tmp_path / "mixed"))
    assert (after.pop(name) - before.pop(name)).numpy() == pytest.approx(1.5, abs=1e-5)
    assert all(torch.equal(after[each], weight) for each, weight in before.items())


def test_a_share_is_a_number(capsys: pytest.CaptureFixture[str]) -> None:
    for wrong in ("models/a", "models/a=much", "models/a=nan"):
        with pytest.raises(SystemExit):
            mixture.main(["--mix", wrong, "--output", "none"])
        assert "argument --mix" in capsys.readouterr().err


# ---------------------------------------------------------------- BM25


def test_bm25_finds_what_shares_rare_words(
    tiny_model: Path, tiny_data_dir: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks, _, queries = tiny_corpus()
    ranked = bm25.bm25_ranking(chunks, queries["val"])
    answers = [set(query["ground_truth_chunk_ids"]) for query in queries["val"]]
    values = retrieval_metrics(ranked, answers, 5)["MRR"].tolist()
    found = {query["query"]: value for query, value in zip(queries["val"], values, strict=True)}
    assert found["How is glaucoma treated?"] == 1  # no other passage has both words
    assert found["What are the symptoms of rickets?"] == 1
    assert found["What are the symptoms of cholera?"] < 1  # its passage has neither word
    bm25.main(["--data-dir", str(tiny_data_dir), "--split", "val", "--models", str(tiny_model)])
    first, alone, model, both = capsys.readouterr().out.splitlines()
    assert first == "6 val questions among 30 chunks"
    assert alone.startswith(f"  BM25: MRR@5 {np.mean(values):.4f}  DCG@5 ")
    assert model.startswith(f"  {tiny_model}: MRR@5 ") and both.startswith(f"  BM25 and {tiny_model}: MRR@5 ")


def test_fusion_by_hand() -> None:
    """7 and 8 have 1/62 + 1/61 each, 9 and 5 one place alone."""
    assert bm25.fused(np.array([[8, 7, 9]]), np.array([[7, 8, 5]]), k=3).tolist() == [[7, 8, 5]]


# ---------------------------------------------------------------- other words, and what was gained


def test_other_words_keep_the_topic_and_are_none_of_medquad_s() -> None:
    for qtype, wordings in paraphrased.WORDINGS.items():
        asked = [
            paraphrased.paraphrase({**QUERY, "query_id": f"q{number}", "qtype": qtype})["query"] for number in range(50)
        ]
        assert set(asked) == {wording.format("gout") for wording in wordings}  # each is used
        assert all("gout" in text and not topic_of_question(text) for text in asked)
    assert paraphrased.paraphrase(QUERY) == paraphrased.paraphrase(QUERY) != QUERY


def evaluated(main: Any, flags: list[str], monkeypatch: pytest.MonkeyPatch) -> evaluate.Inputs:
    """What a benchmark hands to evaluate.py."""
    given: list[evaluate.Inputs] = []
    monkeypatch.setattr(evaluate, "evaluate_models", lambda _, inputs: given.append(inputs))
    main(flags)
    return given[0]


def test_paraphrased_asks_for_the_same_answers_in_other_words(
    tiny_model: Path, tiny_data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--baseline-model", str(tiny_model), "--specialized-model", str(tiny_model)]
    flags += ["--data-dir", str(tiny_data_dir), "--output", str(tmp_path / "paraphrased.json")]
    asked = evaluated(paraphrased.main, flags, monkeypatch).queries
    before = tiny_corpus()[2]["test"]
    assert len(asked) == len(before) == 6
    for query, original in zip(asked, before, strict=True):
        assert query["query"] != original["query"] and original["topic"] in query["query"]
        assert {**query, "query": ""} == {**original, "query": ""}


def test_names_that_are_another_topic_s_too_are_none() -> None:
    rows = [("Gout", "Podagra|Urate"), ("Toe pain", "Podagra|gout"), ("Flu", "")]
    pairs: list[Any] = [{"topic": topic, "synonyms": names} for topic, names in rows]
    found = synonyms.names_of_one_topic(pairs)
    assert {topic: names - {""} for topic, names in found.items()} == {
        "gout": {"Urate"},
        "toe pain": set(),
        "flu": set(),
    }


def test_another_name_is_the_one_with_least_in_common() -> None:
    names = ["", "Gouty arthritis", "Gout arthritis, acute"]
    query: Query = {**QUERY, "query": "How is Gout arthritis treated?", "topic": "Gout arthritis"}
    found = synonyms.by_another_name(query, names)
    assert found == {**query, "query": "How is Gouty arthritis treated?"}
    assert synonyms.by_another_name(query, ["Podagra", *names]) == {**query, "query": "How is Podagra treated?"}
    assert synonyms.by_another_name(query, ["arthritis gout"]) is None
    assert synonyms.by_another_name({**query, "query": "How is it treated?"}, names) is None


def test_among_a_part_of_the_passages(
    tiny_model: Path, tiny_data_dir: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    flags = ["--baseline-model", str(tiny_model), "--specialized-model", str(tiny_model)]
    flags += ["--data-dir", str(tiny_data_dir), "--output", str(tmp_path / "among.json")]
    chunks, _, queries = tiny_corpus()
    parts = {part: evaluated(among.main, [part, *flags], monkeypatch) for part in among.PARTS}
    held_out = {chunk["text"] for chunk in chunks if chunk["split"] in ("val", "test")}
    assert {chunk["text"] for chunk in parts["held-out"].chunks} == held_out
    assert len(parts["seen"].chunks) == len(held_out)
    assert {chunk["split"] for chunk in parts["seen"].chunks} == {"train", "test"}
    assert parts["written"].chunks == chunks  # there is no template
    for inputs in parts.values():
        assert [chunk["chunk_id"] for chunk in inputs.chunks] == list(range(len(inputs.chunks)))
        for query, original in zip(inputs.queries, queries["test"], strict=True):
            answers = [inputs.chunks[chunk_id]["text"] for chunk_id in query["ground_truth_chunk_ids"]]
            known = [chunks[chunk_id] for chunk_id in original["ground_truth_chunk_ids"]]
            shared_too = inputs is parts["written"]
            assert answers == [chunk["text"] for chunk in known if shared_too or chunk["split"] != SHARED]
    with pytest.raises(InputError, match="'all' is no part of the passages; begin with one of held-out, seen, written"):
        among.main(["all", *flags])


def test_templates_and_questions_that_they_alone_answer_are_left_out() -> None:
    texts = [f"These resources address the diagnosis or management of disease {n}: see there." for n in range(21)]
    texts.append("Disease 3 hurts.")
    chunks = [make_chunk(n, text, qa_ids=[str(n)]) for n, text in enumerate(texts)]
    pairs: list[Any] = [{"qa_id": str(n), "topic": f"Disease {n}", "synonyms": ""} for n in range(22)]
    queries: list[Query] = [{**QUERY, "ground_truth_chunk_ids": answers} for answers in ([3], [3, 21])]
    inputs = evaluate.Inputs(chunks, queries, None, {})
    kept = among.written(inputs, pairs)
    assert kept == {21}
    left = among.only(inputs, kept)
    assert [query["ground_truth_chunk_ids"] for query in left.queries] == [[0]]
    assert among.written(replace(inputs, chunks=chunks[1:21]), pairs) == set(range(20))  # twenty may share it
    everywhere = make_chunk(0, texts[21], qa_ids=[str(n) for n in range(21)], split=SHARED)
    assert among.written(replace(inputs, chunks=[everywhere]), pairs) == set()  # boilerplate


def test_aspects_by_hand() -> None:
    """Four passages on the unit circle: the question on gout's treatment sees flu's treatment before gout's."""
    labels = [("gout", "symptoms"), ("flu", "treatment"), ("gout", "treatment"), ("flu", "symptoms")]
    pairs: list[Any] = [{"qa_id": str(n), "topic": topic, "qtype": qtype} for n, (topic, qtype) in enumerate(labels)]
    chunks: list[Any] = [{"chunk_id": n, "qa_ids": [str(n)]} for n in range(4)]
    angles = np.array([0.1, 0.2, 0.3, 0.4])
    vectors = np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)
    query = make_query("q", 2, qtype="treatment", topic="gout")
    found = aspects.aspects([query], np.array([[1, 0]], np.float32), chunks, vectors, pairs)
    assert {name: values.tolist() for name, values in found.items()} == {
        "MRR@5": [1 / 3],
        "DCG@5": [0.5],
        "MRR@5 of any passage on the topic": [1.0],
        "first passage of the question's type": [0.0],
        "MRR@5, told the type": [0.5],
        "DCG@5, told the type": [pytest.approx(1 / np.log2(3))],
    }


def test_aspects_of_two_models(
    tiny_model: Path, tiny_data_dir: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    chunks, _, queries = tiny_corpus()
    other = build_tiny_model(tmp_path / "other", [chunk["text"] for chunk in chunks], seed=1)
    models = ["--baseline-model", str(tiny_model), "--specialized-model", str(other)]
    aspects.main([*models, "--data-dir", str(tiny_data_dir), "--split", "val", "--device", "cpu"])
    first, *rows = capsys.readouterr().out.splitlines()
    assert first.startswith("6 val questions, ") and len(rows) == 8
    figures = {row[:42].strip(): tuple(map(float, row[42:].split()[:2])) for row in rows[:6]}
    for place, path in enumerate((tiny_model, other)):
        encoder = CachedEncoder(load_model(str(path), "cpu"), tmp_path)
        expected = Validator(chunks, queries["val"], None, encoder).score(encoder)
        assert figures["MRR@5"][place] == pytest.approx(expected.mrr, abs=5e-5)
        assert figures["DCG@5"][place] == pytest.approx(expected.dcg, abs=5e-5)
    assert figures["MRR@5"][0] != figures["MRR@5"][1]
    told, plain = figures["MRR@5, told the type"][0], figures["MRR@5"][1]
    assert f"base told the type, adapted not {told:.4f} {plain:.4f} " in rows[6]
