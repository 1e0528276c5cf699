"""A hand-written corpus of 30 chunks with 12 train, 6 val and 6 test queries, split by topic like the real one."""

from pathlib import Path
from typing import Any

from hardneg.corpus.artifacts import SHARED, Chunk, QAPair, Query
from hardneg.running.files import pickle_bytes, sha256_file, write_json
from tests.records import make_chunk, make_qa_pair, make_query

# topic, its split, symptoms, treatment
CONDITIONS = [
    ("asthma", "train", "Wheezing, a tight chest and cough at night.", "Asthma is treated with inhaled steroids."),
    ("gout", "train", "One big toe turns red, hot and very painful.", "Gout is treated with allopurinol."),
    ("anaemia", "train", "Pale skin, tiredness and breathlessness.", "Anaemia is treated with iron tablets."),
    ("migraine", "train", "Throbbing pain on one side with nausea.", "Triptans stop a migraine early."),
    ("scurvy", "train", "Bleeding gums and loose teeth are symptoms of scurvy.", "Vitamin C heals within weeks."),
    ("psoriasis", "train", "Silvery scales cover red plaques.", "Vitamin D creams and light clear psoriasis."),
    ("glaucoma", "val", "Side vision is lost slowly.", "Glaucoma is treated with drops that lower the pressure."),
    ("cholera", "val", "Diarrhoea like rice water dries the body out.", "Salts and fluids by mouth save lives."),
    ("rickets", "val", "Bowed legs and a soft skull are symptoms of rickets.", "Calcium hardens the bones."),
    ("tetanus", "test", "The jaw locks and spasms arch the back.", "Tetanus is treated with antitoxin."),
    ("shingles", "test", "A burning belt of blisters follows one nerve.", "Aciclovir shortens shingles."),
    ("cataract", "test", "Glare and cloudy sight are symptoms of cataract.", "Surgery swaps the lens for a clear one."),
]
# a second chunk of the treatment answer of five topics
FOLLOW_UPS = {
    "asthma": "A reliever inhaler opens the airways within minutes.",
    "gout": "Colchicine or an anti-inflammatory drug eases the acute attack.",
    "cholera": "Antibiotics shorten the illness in severe cases.",
    "tetanus": "A booster of the vaccine is due after a dirty wound.",
    "cataract": "Stronger glasses help for a while before an operation.",
}
BOILERPLATE = "Talk to your doctor about which treatment is right for you."  # answers asthma's and tetanus's question


def write_pickle(path: Path, records: list[Any]) -> None:
    """Builtin records, as the prepare scripts write them."""
    path.write_bytes(pickle_bytes(records))


def _chunk(chunks: list[Chunk], text: str, title: str, qa_ids: list[str], qtype: str, split: str) -> int:
    """Append a chunk and return its id."""
    chunk_id = len(chunks)
    chunks.append(make_chunk(chunk_id, text, title=title, qa_ids=qa_ids, qtype=qtype, source="tiny", split=split))
    return chunk_id


def tiny_corpus() -> tuple[list[Chunk], list[QAPair], dict[str, list[Query]]]:
    """The chunks, the pairs behind them, and the queries by split."""
    chunks: list[Chunk] = []
    pairs: list[QAPair] = []
    queries: dict[str, list[Query]] = {"train": [], "val": [], "test": []}
    boilerplate = _chunk(chunks, BOILERPLATE, "asthma", ["asthma-treatment", "tetanus-treatment"], "treatment", SHARED)
    for topic, split, symptoms, treatment in CONDITIONS:
        answers = {"symptoms": [symptoms], "treatment": [treatment, *filter(None, [FOLLOW_UPS.get(topic)])]}
        for qtype, texts in answers.items():
            qa_id = f"{topic}-{qtype}"
            ids = [_chunk(chunks, text, topic, [qa_id], qtype, split) for text in texts]
            if qa_id in chunks[boilerplate]["qa_ids"]:
                ids.append(boilerplate)
            question = f"What are the symptoms of {topic}?" if qtype == "symptoms" else f"How is {topic} treated?"
            pairs.append(make_qa_pair(qa_id, question, topic, split, group=topic, qtype=qtype, chunk_ids=sorted(ids)))
            queries[split].append(
                make_query(f"q-{qa_id}", *sorted(ids), query=question, qtype=qtype, topic=topic, group=topic)
            )
    return chunks, pairs, queries


def write_tiny_data(
    data_dir: Path, changed_chunks: list[Chunk] | None = None, changed_pairs: list[QAPair] | None = None
) -> Path:
    """Write the pickles and a manifest as prepare_corpus.py and prepare_queries.py would; returns `data_dir`."""
    chunks, pairs, queries = tiny_corpus()
    data_dir.mkdir(parents=True, exist_ok=True)
    write_pickle(data_dir / "corpus_chunks.pkl", changed_chunks or chunks)
    write_pickle(data_dir / "qa_pairs.pkl", changed_pairs or pairs)
    for split, records in queries.items():
        write_pickle(data_dir / f"{split}_queries.pkl", records)
    query_files = [f"{split}_queries.pkl" for split in queries]
    manifest = {
        "corpus": {
            "sha256": sha256_file(data_dir / "corpus_chunks.pkl"),
            "qa_pairs_sha256": sha256_file(data_dir / "qa_pairs.pkl"),
        },
        "queries": {"sha256": {name: sha256_file(data_dir / name) for name in query_files}},
    }
    write_json(data_dir / "manifest.json", manifest)
    return data_dir


def lengthen_three(data_dir: Path) -> None:
    """Write the tiny data anew with three of the 30 chunks far longer than the tiny model reads."""
    chunks, _, _ = tiny_corpus()
    for chunk in chunks[:3]:
        chunk["text"] *= 20
    write_tiny_data(data_dir, chunks)
