"""The README.md of an adapted model."""

import pytest

from hardneg.model_card import model_card

MEASURES = [("MRR@5", "0.5000", "0.6000"), ("DCG@5", "0.6000", "0.7000")]


def test_tables_and_front_matter() -> None:
    card = model_card("some/base", {"seed": 42, "judge": "llm"}, MEASURES, adapted=True, chosen="")
    _, front_matter, text = card.split("---\n", 2)
    assert front_matter.splitlines()[:3] == [
        "library_name: sentence-transformers",
        "pipeline_tag: sentence-similarity",
        "base_model: some/base",
    ]
    assert text.startswith("\n# some/base, adapted by iterative hard-negative mining\n")
    assert "| measure | base model | this model |\n| --- | --- | --- |\n| MRR@5 | 0.5000 | 0.6000 |\n| DCG@5 " in text
    assert "| setting | value |\n| --- | --- |\n| seed | 42 |\n| judge | llm |\n" in text
    assert "averaged with the base model's" in text and "Why this one" not in text


def test_why_it_was_chosen() -> None:
    card = model_card("some/base", {}, MEASURES, adapted=True, chosen="iteration 1 is best")
    assert "cosine.\n\nWhy this one: iteration 1 is best.\n\n## Validation" in card


def test_the_base_model_itself_claims_no_training() -> None:
    card = model_card("some/base", {}, MEASURES, adapted=False, chosen="nothing gained")
    assert "# some/base, unchanged\n" in card and "the base model's own weights" in card
    assert "adapted by" not in card and "was trained" not in card


@pytest.mark.parametrize("folder", ["/srv/base", "./base", "../base", "models/medical-specialized/final"])
def test_a_folder_is_no_hub_name(folder: str) -> None:
    """`base_model` in the front matter is looked up on a hub."""
    card = model_card(folder, {}, MEASURES, adapted=True, chosen="")
    assert "base_model:" not in card
    assert f"# {folder}, adapted" in card
