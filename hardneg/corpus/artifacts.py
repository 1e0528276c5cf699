"""What passes between the stages: the records of the pickles, read only where they are what one manifest tells of."""

import math
import shlex
from collections.abc import Sequence
from pathlib import Path
from typing import Any, TypedDict

from hardneg.running.errors import InputError
from hardneg.running.files import read_json, read_pickle

SPLITS = ("train", "val", "test")
SHARED = "shared"  # a chunk that answers questions of several splits (boilerplate)


class Chunk(TypedDict):
    """One passage of the corpus; `chunk_id` is its position in the list."""

    chunk_id: int
    text: str
    title: str  # the topic of all that it answers; empty where they have several, or one has none
    qa_ids: list[str]
    qtype: str
    source: str
    url: str
    split: str  # one of SPLITS, or SHARED: whose questions this chunk answers


class QAPair(TypedDict):
    """One answered question of the source data and the chunks its answer was cut into."""

    qa_id: str
    question: str
    topic: str
    concept: str  # the source's annotation of the topic, "" where it has none
    synonyms: str  # the source's other names of the topic with | between, "" where it has none
    group: str  # the rows that no two splits may share, named after one of their topics
    qtype: str
    split: str
    chunk_ids: list[int]


class Query(TypedDict):
    """One question, asked once, with every chunk known to answer it."""

    query_id: str
    query: str
    ground_truth_chunk_ids: list[int]
    qtype: str
    topic: str
    group: str  # as in QAPair: questions of one group were split together and are no independent sample


def _read_records(path: Path, sha256: str | None, remedy: str, fields: type) -> list[Any]:
    """`read_pickle`, for a list of records that have these fields."""
    records = read_pickle(path, sha256, remedy)
    if not isinstance(records, list) or not records:
        raise InputError(f"{path} holds no list of records; {remedy}")
    wanted = set(fields.__annotations__)
    for position, record in enumerate(records):
        if not isinstance(record, dict) or not wanted <= record.keys():
            found = sorted(record) if isinstance(record, dict) else type(record).__name__
            raise InputError(f"{path}: record {position} has {found}, not the fields {sorted(wanted)}; {remedy}")
    return records


def _corpus_remedy(data_dir: Path) -> str:
    """What to do about a corpus that cannot be used. The command names this folder, so that copying it cannot overwrite
    another folder's data."""
    return f"run {_command('prepare_corpus.py', data_dir)} with the --source and other flags of this corpus"


def _command(script: str, data_dir: Path) -> str:
    return f"`python {script} --data-dir {shlex.quote(str(data_dir))}`"


def read_manifest(data_dir: Path) -> dict[str, dict[str, Any]]:
    """What the prepare scripts noted about their files, under "corpus" and "queries" (empty where not yet prepared).

    All that is loaded with one manifest belongs together, whatever is written to the folder meanwhile.

    Raises:
        InputError: it is missing or of another shape.
    """
    path = data_dir / "manifest.json"
    noted = read_json(path, _corpus_remedy(data_dir))
    if isinstance(noted, dict):
        manifest: dict[str, Any] = {"corpus": {}, "queries": {}} | noted
        checksums = manifest["queries"].get("sha256", {}) if isinstance(manifest["queries"], dict) else None
        if isinstance(manifest["corpus"], dict) and isinstance(checksums, dict):
            return manifest
    raise InputError(f"{path} is no manifest of a prepared corpus; {_corpus_remedy(data_dir)}")


def load_chunks(data_dir: Path, manifest: dict[str, Any]) -> list[Chunk]:
    """Read the corpus. Raises InputError where it is missing, damaged, or not the one the manifest tells of."""
    sha256 = manifest["corpus"].get("sha256")
    return _read_records(data_dir / "corpus_chunks.pkl", sha256, _corpus_remedy(data_dir), Chunk)


def load_qa_pairs(data_dir: Path, manifest: dict[str, Any]) -> list[QAPair]:
    """Read the question/answer pairs behind the corpus. Raises InputError as `load_chunks` does."""
    sha256 = manifest["corpus"].get("qa_pairs_sha256")
    return _read_records(data_dir / "qa_pairs.pkl", sha256, _corpus_remedy(data_dir), QAPair)


def load_queries(data_dir: Path, manifest: dict[str, Any], split: str) -> list[Query]:
    """Read the queries of one of SPLITS. Raises InputError as `load_chunks`, and where none are of this corpus."""
    path, remedy = data_dir / f"{split}_queries.pkl", f"run {_command('prepare_queries.py', data_dir)}"
    sha256 = manifest["queries"].get("sha256", {}).get(path.name)
    if sha256 is None:  # prepare_corpus.py notes none
        raise InputError(f"{path} is not made yet, or is older than the corpus; {remedy}")
    return _read_records(path, sha256, remedy, Query)


def spread(records: Sequence[Any], count: int) -> Sequence[Any]:
    """At most `count` of the records, in equal steps from the first one on: a sample to look at."""
    return records[:: max(1, math.ceil(len(records) / count))]
