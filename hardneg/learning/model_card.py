"""The README.md of an adapted model: what it was made from, how, and what was measured."""

from collections.abc import Mapping, Sequence
from typing import Any

from hardneg.embedding.model_files import strength_of
from hardneg.embedding.models import PACKAGED_NAMES
from hardneg.learning.validation import FIGURES
from hardneg.running.hub import may_be_hub_name

_ADAPTED = """\
Candidates were retrieved per training question and graded 1-4. A copy of the base model was trained by contrast: the
surest answers against the best ranked wrong candidates and the rest of the batch, and the questions against the base
model's embeddings of all candidates. Whatever was graded as an answer to a question was not used as its negative.
Training was held near the base model's embeddings. The weights that the iterations up to this one trained were
averaged, and then averaged with the base model's in the share that is given below."""
_UNCHANGED = "These are the base model's own weights."

_HELD_OUT = "Validation questions' topics were not trained on;"
_BASE_MAY_KNOW = "The base model was trained on another corpus, which may have had some of the validation questions;"


def model_card(record: Mapping[str, Any]) -> str:
    """The model card, in Markdown, of the model that this training.json describes."""
    settings, is_adapted = dict(record["configuration"]), "iteration" in record  # else the base model itself was kept
    base_model = settings["base_model"]
    hub_name = PACKAGED_NAMES[-1] if base_model in PACKAGED_NAMES else base_model
    named_base = f"base_model: {hub_name}\n" if may_be_hub_name(hub_name) else ""
    title = f"{base_model}, {'adapted by iterative hard-negative mining' if is_adapted else 'unchanged'}"
    why = f"\n\nWhy this one: {record['chosen']}." if "chosen" in record else ""
    base, tuned = record["base_validation"], record["validation"]
    measures = [
        (name, f"{base[key]:.4f}", f"{tuned[key]:.4f}") for key, name in FIGURES.items() if tuned[key] is not None
    ]
    if is_adapted:
        settings |= {
            "iteration": record["iteration"],
            "training examples": record["counts"]["examples"],
            "share of tuned weights": strength_of(record),
            "scale of the cosines": f"{record['scale']:.1f}",
        }
    is_foreign = any(corpus != settings.get("corpus_sha256") for corpus in record.get("base_trained_on", ()))
    return f"""---
library_name: sentence-transformers
pipeline_tag: sentence-similarity
{named_base}tags: [sentence-transformers, retrieval, hard-negatives, domain-adaptation]
---

# {title}

Load it with `SentenceTransformer(path)`, embed questions with its `encode_query` and passages with its
`encode_document`; similarity is the cosine.{why}

## Validation

{_BASE_MAY_KNOW if is_foreign else _HELD_OUT} `evaluate.py` reports the test questions.

{_table(("measure", "base model", "this model"), measures)}

## How it was made

{_ADAPTED if is_adapted else _UNCHANGED}

{_table(("setting", "value"), [(name, str(value)) for name, value in settings.items()])}
"""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    return "\n".join(f"| {' | '.join(row)} |" for row in [head, ["---"] * len(head), *rows])
