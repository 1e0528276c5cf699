"""What the lab log's figures rest on: the simulated judge, the other losses, the arms and the second domain's text."""

import random
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from hardneg.artifacts import Chunk, Query
from hardneg.candidates import Candidate, CandidateList
from hardneg.encoder import load_model
from hardneg.judge import Pair
from hardneg.judge_quality import agreement
from hardneg.training import Example
from iterative_miner import Mined, mine_hard_examples
from tests.benchmarks import arms, losses, second_domain
from tests.benchmarks.noisy_judge import NoisyJudge
from tests.tiny_data import tiny_corpus


def pairs_like_medquad(n_queries: int) -> list[Pair]:
    """Fifty candidates per query: two answers, three other passages on its topic, the rest unrelated."""
    pairs = []
    for number in range(n_queries):
        query = Query(query_id=f"q{number}", query="?", ground_truth_chunk_ids=[0, 1], qtype="", topic="gout")
        for chunk_id in range(50):
            title = "gout" if chunk_id < 5 else "flu"
            chunk = Chunk(
                chunk_id=chunk_id, text="", title=title, qa_ids=[], qtype="", source="", url="", split="train"
            )
            pairs.append(Pair(query, chunk))
    return pairs


def candidates(query: Query, *grades: float | None, known: tuple[int, ...] = ()) -> CandidateList:
    """Chunks 0, 1, ... at ranks 1, 2, ... and cosines 0.99, 0.98, ..., with these grades."""
    return CandidateList(
        query,
        tuple(
            Candidate(place, place + 1, 0.99 - place / 100, place in known, grade) for place, grade in enumerate(grades)
        ),
    )


QUERY = Query(
    query_id="q", query="What helps against gout?", ground_truth_chunk_ids=[1], qtype="treatment", topic="gout"
)


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
    found = agreement(judge.true, judge.said)
    assert 0.2 < found["cohen_kappa"] < 0.3
    assert 0.35 < found["binary_kappa"] < 0.5
    assert judge.agreement().startswith(f"5,000 pairs: kappa {found['cohen_kappa']:.2f} on four levels")


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


# ---------------------------------------------------------------- the arms


def grades_of(item: CandidateList) -> list[float | None]:
    return [candidate.grade for candidate in item.candidates]


def test_the_margin_drops_negatives_near_the_answer() -> None:
    item = candidates(QUERY, 1.0, 4.0, 1.0, 1.0, known=(1,))  # cosines 0.99, 0.98, 0.97, 0.96
    assert grades_of(arms.within_margin(item, 0.98)) == [arms.UNUSED, 4.0, arms.UNUSED, 1.0]  # 0.98 * 0.98 = 0.9604
    assert mine_hard_examples([arms.within_margin(item, 0.98)]).examples[0].negative_ids == (3, 3, 3, 3)


def test_hardest_positives() -> None:
    item = candidates(QUERY, 4.0, 1.0, 4.0, 3.0, known=(0, 2))
    assert grades_of(arms.hardest_positives(item, 2)) == [arms.UNUSED, 1.0, 4.0, 3.0]


def test_a_view_keeps_what_must_not_be_its_negative() -> None:
    chunks, _, _ = tiny_corpus()
    item = candidates(QUERY, 1.0, 4.0, known=(1,))
    mined = mine_hard_examples([item])
    same = arms.with_views(mined, [item], chunks, 0.0, seed=0)
    assert (same.examples, same.relevant) == (mined.examples, mined.relevant)
    asked = arms.with_views(mined, [item], chunks, 1.0, seed=0)
    assert isinstance(asked, Mined)
    (example,) = asked.examples
    assert example == replace(mined.examples[0], query_id=example.query_id, query=example.query)
    assert example.query in ("gout treatment", chunks[1]["text"])
    assert asked.relevant[example.query_id] == mined.relevant["q"]


def test_the_arms_run(tiny_model: Path, tiny_data_dir: Path, capsys: pytest.CaptureFixture[str]) -> None:
    flags = ["--data-dir", str(tiny_data_dir), "--base-model", str(tiny_model), "--num-queries", "4"]
    arms.main([*flags, "--num-candidates", "5", "--missed", "--margin", "0.99", "--strengths", "0.5", "--epochs", "1"])
    assert "strength 0.5: MRR@5 " in capsys.readouterr().out


# ---------------------------------------------------------------- the second domain

DOCUMENT = """\
**Example 1: To attach a policy to a role**

The following ``attach-role-policy`` command attaches a policy::

    aws iam attach-role-policy --role-name Reader

This command produces no output.

For more information, see `Roles <somewhere>`__ in the guide.

**To detach it**

Use `detach <elsewhere>`__.

**A heading without text**
"""


def test_examples_are_split_at_their_headings(tmp_path: Path) -> None:
    expected = [
        (
            "To attach a policy to a role",
            "aws iam attach-role-policy --role-name Reader\n\nThis command produces no output.",
        ),
        ("To detach it", "Use detach."),
    ]
    assert list(second_domain.split_at_headings(DOCUMENT)) == expected
    with zipfile.ZipFile(tmp_path / "wheel.zip", "w") as archive:
        archive.writestr("awscli/examples/iam/attach.rst", DOCUMENT)
        archive.writestr("awscli/examples/iam/readme.txt", DOCUMENT)
    rows = list(second_domain.read_examples(tmp_path / "wheel.zip"))
    assert [(row["question"], row["answer"]) for row in rows] == expected
    assert {row["topic"] for row in rows} == {"iam attach"}
