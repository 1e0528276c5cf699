"""Fixtures of several test modules: a tiny real model, a tiny real data folder, and a stand-in for an LLM server."""

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from hardneg.corpus.artifacts import Query
from tests.llm_stub import LLMStub

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

os.environ["HF_HUB_OFFLINE"] = "1"  # before any import of a hub client: no test waits for a network
# A shell that starts the tests in the background has them ignore Ctrl-C, nohup has them ignore a closed terminal; every
# program that a test starts would inherit it.
signal.signal(signal.SIGINT, signal.default_int_handler)
signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(autouse=True)
def devices(monkeypatch: pytest.MonkeyPatch) -> None:
    """`claim_device` sets this variable; it is put back after each test, and none needs a GPU."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")


@pytest.fixture(scope="session")
def tiny_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a random two-layer BERT that knows the words of the tiny corpus. Read only."""
    from tests.tiny_data import tiny_corpus
    from tests.tiny_model import build_tiny_model

    chunks, _, queries = tiny_corpus()
    questions: list[Query] = [query for records in queries.values() for query in records]
    texts = [chunk["text"] for chunk in chunks] + [query["query"] for query in questions]
    return build_tiny_model(tmp_path_factory.mktemp("models") / "tiny", texts)


@pytest.fixture(scope="session")
def shared_model(tiny_model: Path) -> "SentenceTransformer":
    """The tiny model, for tests that leave it as it is."""
    from hardneg.embedding.models import load_model

    return load_model(str(tiny_model), "cpu")


@pytest.fixture
def model(tiny_model: Path) -> "SentenceTransformer":
    """The tiny model, for tests that spoil it."""
    from hardneg.embedding.models import load_model

    return load_model(str(tiny_model), "cpu")


@pytest.fixture
def tiny_data_dir(tmp_path: Path) -> Path:
    """A data folder of 30 chunks, 12 train, 6 val and 6 test queries; each test has its own to spoil."""
    from tests.tiny_data import write_tiny_data

    return write_tiny_data(tmp_path / "data")


@pytest.fixture(scope="module")
def shared_stub() -> Iterator[LLMStub]:
    with LLMStub() as server:
        yield server


@pytest.fixture
def stub(shared_stub: LLMStub) -> Iterator[LLMStub]:
    """A sound server to `configure`; sound again afterwards."""
    sound = dict(shared_stub.config)
    yield shared_stub
    shared_stub.configure(**sound)
