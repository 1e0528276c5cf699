"""The README.md of an adapted model."""

import pytest

from hardneg.learning.model_card import model_card
from tests.records import CONFIGURATION, make_record


def test_tables_and_front_matter() -> None:
    card = model_card(make_record(configuration=CONFIGURATION | {"base_model": "some/base"}))
    _, front_matter, text = card.split("---\n", 2)
    assert front_matter.splitlines()[:3] == [
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "base_model: some/base",
    ]
    assert text.startswith("\n# some/base, adapted by iterative hard-negative mining\n")
    assert "| measure | base model | this model |\n| --- | --- | --- |\n| MRR@5 | 0.5000 | 0.6000 |\n| DCG@5 " in text
    assert "| setting | value |\n| --- | --- |\n| base_model | some/base |\n| seed | 1 |\n" in text
    for line in (
        "| DCG@5 | 0.6123 | 0.7000 |",
        "| guard nDCG@10 | 0.7000 | 0.6900 |",
        "| guard MRR@5 | 0.4000 | 0.5000 |",
        "| iteration | 3 |",
        "| training examples | 17 |",
        "| share of tuned weights | 0.6 |",
        "| scale of the cosines | 26.4 |",
    ):
        assert line in text.splitlines()
    assert "averaged with the base model's" in text and "Why this one" not in text


def test_a_base_model_that_may_know_the_questions() -> None:
    own = CONFIGURATION | {"corpus_sha256": "b"}
    for trained_on, is_told in (([], False), (["b"], False), (["a", "b"], True)):
        card = model_card(make_record(configuration=own, base_trained_on=trained_on))
        assert ("which may have had some of the validation questions; `evaluate.py`" in card) == is_told
        assert ("questions' topics were not trained on; `evaluate.py`" in card) != is_told


def test_without_a_guard() -> None:
    scores = {"mrr": 0.5, "dcg": 0.6, "guard_ndcg": None, "guard_mrr": None}
    card = model_card(make_record(validation=scores, base_validation=scores))
    assert "| guard nDCG" not in card and "| guard MRR" not in card


def test_why_it_was_chosen() -> None:
    card = model_card(make_record(chosen="iteration 1 is best"))
    assert "cosine.\n\nWhy this one: iteration 1 is best.\n\n## Validation" in card


def test_the_base_model_itself_claims_no_training() -> None:
    record = make_record(chosen="the base model: nothing gained")
    for name in ("iteration", "strengths", "counts"):
        del record[name]
    card = model_card(record)
    assert "# tiny, unchanged\n" in card and "the base model's own weights" in card
    assert "Why this one: the base model: nothing gained." in card
    assert "adapted by" not in card and "was trained" not in card
    assert "share of tuned weights" not in card and "training examples" not in card


@pytest.mark.parametrize("name", ["all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"])
def test_the_packaged_model_is_named_as_on_the_hub(name: str) -> None:
    card = model_card(make_record(configuration={"base_model": name}))
    assert "\nbase_model: sentence-transformers/all-MiniLM-L6-v2\n" in card
    assert f"# {name}, adapted" in card


@pytest.mark.parametrize("folder", ["/srv/base", "./base", "../base", "models/medical-specialized/final"])
def test_a_folder_is_no_hub_name(folder: str) -> None:
    """`base_model` in the front matter is looked up on a hub."""
    card = model_card(make_record(configuration={"base_model": folder}))
    assert "base_model:" not in card
    assert f"# {folder}, adapted" in card
