"""The README.md of an adapted model: what it was made from, how, and what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any


def model_card(base_model: str, settings: Mapping[str, Any], measures: Sequence[tuple[str, str, str]]) -> str:
    """Markdown of a model card.

    Args:
        base_model: name of the model that was adapted.
        settings: name -> value of everything that determined the result.
        measures: rows (measure, base model, this model), already formatted.
    """
    setting_rows = "\n".join(f"| {name} | {value} |" for name, value in settings.items())
    measure_rows = "\n".join(f"| {' | '.join(row)} |" for row in measures)
    front_matter_base = f"base_model: {base_model}\n" if not base_model.startswith((".", "/")) else ""
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
{front_matter_base}tags: [sentence-transformers, retrieval, hard-negatives, domain-adaptation]
---

# {base_model}, adapted by iterative hard-negative mining

Load it with `SentenceTransformer(path)`; similarity is the cosine.

## Validation

Chosen on validation questions whose topics were not trained on; `evaluate.py` reports the test questions.

| measure | base model | this model |
|---|---|---|
{measure_rows}

## How it was made

Candidates were retrieved per training question, graded 1-4, and mined for hard positives and hard negatives; the
model was trained by in-batch contrast with graded-relevant chunks masked out, then averaged with the base model.

| setting | value |
|---|---|
{setting_rows}
"""
