"""Records of the artifacts with only what a test is about, the rest empty."""

from typing import Any, cast

from hardneg.corpus.artifacts import Chunk, QAPair, Query


def make_chunk(chunk_id: int = 0, text: str = "", **fields: Any) -> Chunk:
    """A chunk of the training split, unless `fields` says otherwise."""
    rest = {"title": "", "qa_ids": [], "qtype": "", "source": "", "url": "", "split": "train"}
    return cast(Chunk, {"chunk_id": chunk_id, "text": text, **rest, **fields})


def make_query(query_id: str, *answers: int, **fields: Any) -> Query:
    """A query that asks its id, answered by the chunks of these ids."""
    rest = {"query": f"{query_id}?", "qtype": "", "topic": "", "group": ""}
    return cast(Query, {"query_id": query_id, "ground_truth_chunk_ids": list(answers), **rest, **fields})


def make_qa_pair(qa_id: str, question: str, topic: str, split: str, **fields: Any) -> QAPair:
    """A question with its answer, without concepts, synonyms or chunks."""
    rest = {"concept": "", "synonyms": "", "group": "", "qtype": "", "chunk_ids": []}
    return cast(QAPair, {"qa_id": qa_id, "question": question, "topic": topic, "split": split, **rest, **fields})


CONFIGURATION = {"base_model": "tiny", "seed": 1, "guard_tolerance": 0.01}


def make_record(**changes: Any) -> dict[str, Any]:
    """An iteration's training.json."""
    return {
        "iteration": 3,
        "configuration": CONFIGURATION,
        "counts": {"examples": 17},
        "scale": 26.44,
        "strengths": [{"strength": 1.0, "chosen": False}, {"strength": 0.6, "chosen": True}],
        "base_validation": {"mrr": 0.5, "dcg": 0.61234, "guard_ndcg": 0.7, "guard_mrr": 0.4},
        "validation": {"mrr": 0.6, "dcg": 0.7, "guard_ndcg": 0.69, "guard_mrr": 0.5},
    } | changes
