"""The embedding cache with a real tiny model."""

import sqlite3
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Dense, Normalize

from hardneg.embedding import encoder as encoder_module
from hardneg.embedding.device import has_bfloat16
from hardneg.embedding.encoder import CachedEncoder
from hardneg.running.errors import InputError

TEXTS = ["How is gout treated?", "Bleeding gums", "Gout is treated with allopurinol.", "Wheezing and cough at night."]


@pytest.fixture
def encoded(shared_model: SentenceTransformer, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The texts that really go through the shared model."""
    texts: list[str] = []
    encode = shared_model.encode

    def counting(inputs: Sequence[str], **options: Any) -> np.ndarray:
        texts.extend(inputs)
        return encode(inputs, **options)

    monkeypatch.setattr(shared_model, "encode", counting)
    return texts


def test_vectors_are_the_model_s_unit_vectors(shared_model: SentenceTransformer, tmp_path: Path) -> None:
    vectors = CachedEncoder(shared_model, tmp_path / "new").encode_passages(TEXTS)
    assert vectors.dtype == np.float32 and vectors.shape == (4, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        own = shared_model.encode(text, normalize_embeddings=True)
        np.testing.assert_allclose(vector, own, atol=1e-3 if has_bfloat16("cpu") else 1e-5)


def test_vectors_of_a_model_with_a_dense_layer_are_of_unit_length(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its last layers run in bfloat16 where that is used, and normalise in it."""
    monkeypatch.setattr(encoder_module, "has_bfloat16", lambda _: True)
    dense = SentenceTransformer(modules=[*[*model][:-1], Dense(32, 16), Normalize()])
    vectors = CachedEncoder(dense, tmp_path).encode_passages(TEXTS)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-6)


def test_a_gpu_that_is_full_is_told_in_a_line(
    model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> NoReturn:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr(model, "encode_document", full)
    with pytest.raises(InputError, match=r"^out of GPU memory while embedding; restart vLLM"):
        CachedEncoder(model, tmp_path).encode_passages(TEXTS)


def test_prompts_are_put_before_queries_and_passages(model: SentenceTransformer, tmp_path: Path) -> None:
    model.prompts |= {"query": "asthma: ", "document": "gout: "}
    encoder = CachedEncoder(model, tmp_path)
    for _ in ("encoded", "from the cache"):
        for prompt, vectors in (
            ("asthma: ", encoder.encode_queries(TEXTS)),
            ("gout: ", encoder.encode_passages(TEXTS)),
        ):
            own = model.encode([prompt + text for text in TEXTS], prompt="", normalize_embeddings=True)
            np.testing.assert_allclose(vectors, own, atol=1e-3 if has_bfloat16("cpu") else 1e-5)


def test_precisions_do_not_share_vectors(
    shared_model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = {}
    for bfloat16 in (False, True):
        monkeypatch.setattr(encoder_module, "has_bfloat16", lambda device, answer=bfloat16: answer)
        vectors[bfloat16] = CachedEncoder(shared_model, tmp_path).encode_passages(TEXTS)
    assert not np.array_equal(vectors[False], vectors[True])
    assert ((vectors[False] * vectors[True]).sum(axis=1) > 0.999).all()


def test_nothing_is_encoded_twice(shared_model: SentenceTransformer, encoded: list[str], tmp_path: Path) -> None:
    first = CachedEncoder(shared_model, tmp_path).encode_passages([*TEXTS, TEXTS[0]])
    assert sorted(encoded) == sorted(TEXTS)
    np.testing.assert_array_equal(first[0], first[4])
    again = CachedEncoder(shared_model, tmp_path).encode_passages([*TEXTS[::-1], "new"])
    assert sorted(encoded) == sorted([*TEXTS, "new"])
    np.testing.assert_array_equal(again[:4], first[:4][::-1])


def test_progress_counts_every_text(shared_model: SentenceTransformer, tmp_path: Path) -> None:
    encoder = CachedEncoder(shared_model, tmp_path)
    done: list[int] = []
    encoder.encode_passages(TEXTS[:2], done.append)
    assert done == [2]
    encoder.encode_passages(TEXTS, done.append)
    assert done == [2, 2, 2]


def test_no_texts(shared_model: SentenceTransformer, tmp_path: Path) -> None:
    assert CachedEncoder(shared_model, tmp_path).encode_passages([]).shape == (0, 32)


def test_more_texts_than_a_block_or_a_query(
    shared_model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "BLOCK", 100)
    texts = [f"gout {n}" for n in range(1100)]  # more than 2 x 500, what one SELECT asks for
    encoder = CachedEncoder(shared_model, tmp_path)
    first = encoder.encode_passages(texts)
    monkeypatch.setattr(shared_model, "encode", None)
    np.testing.assert_array_equal(encoder.encode_passages(texts), first)


def test_killed_halfway_keeps_the_finished_blocks(
    shared_model: SentenceTransformer, encoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "BLOCK", 2)
    calls: list[int] = []

    def die_after_the_second(done: int) -> None:
        calls.append(done)
        if len(calls) == 2:
            raise KeyboardInterrupt

    texts = ["a long text on gout", "b long text", "c text", "d", "e"]
    with pytest.raises(KeyboardInterrupt):
        CachedEncoder(shared_model, tmp_path).encode_passages(texts, die_after_the_second)
    assert len(encoded) == 4
    CachedEncoder(shared_model, tmp_path).encode_passages(texts)
    assert sorted(encoded) == sorted(texts)


def test_models_do_not_share_vectors(
    shared_model: SentenceTransformer, model: SentenceTransformer, tmp_path: Path
) -> None:
    with torch.no_grad():
        next(model.parameters())[3:].mul_(-0.5)
    first = CachedEncoder(shared_model, tmp_path).encode_passages(TEXTS)
    other = CachedEncoder(model, tmp_path).encode_passages(TEXTS)
    assert not np.allclose(first, other, atol=1e-3)
    np.testing.assert_array_equal(CachedEncoder(shared_model, tmp_path).encode_passages(TEXTS), first)


def test_a_damaged_cache_is_named(shared_model: SentenceTransformer, tmp_path: Path) -> None:
    (tmp_path / "embeddings.sqlite").write_bytes(b"no database at all " * 300)
    with pytest.raises(InputError, match=r"embedding cache .*embeddings\.sqlite: .* it is damaged or no .*delete it"):
        CachedEncoder(shared_model, tmp_path)


def test_another_database_is_no_cache(shared_model: SentenceTransformer, tmp_path: Path) -> None:
    with sqlite3.connect(tmp_path / "embeddings.sqlite") as connection:
        connection.execute("CREATE TABLE embeddings (something TEXT)")
    with pytest.raises(InputError, match="cannot use the embedding cache"):
        CachedEncoder(shared_model, tmp_path).encode_passages(TEXTS)


def test_a_cache_that_cannot_be_written(shared_model: SentenceTransformer, tmp_path: Path) -> None:
    (tmp_path / "embeddings.sqlite").mkdir()
    with pytest.raises(InputError, match=r"cannot use the embedding cache .*; check the permissions of the file"):
        CachedEncoder(shared_model, tmp_path)
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*a file stands where a folder is needed"):
        CachedEncoder(shared_model, tmp_path / "file")
