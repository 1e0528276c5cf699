"""Encodes each text once for the same weights: embeddings are kept on disk."""

import hashlib
import sqlite3
from collections.abc import Callable, Iterator, Sequence
from contextlib import closing, contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from hardneg.embedding.device import has_bfloat16
from hardneg.embedding.models import fingerprint, prompts_of
from hardneg.running.errors import explain_memory_errors, explain_os_errors
from hardneg.running.sqlite_wal import BUSY_SECONDS, explain_sqlite_errors, write_ahead

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BLOCK = 1024  # texts encoded between two commits to the cache


class CachedEncoder:
    """A model whose embeddings are kept on disk, so that no text is encoded twice under the same weights."""

    def __init__(self, model: "SentenceTransformer", folder: Path) -> None:
        """
        Args:
            model: the embedding model; its weights must not change while this encoder is in use. It runs in bfloat16
                where the hardware multiplies that (cosine with the float32 embedding: above 0.9999).
            folder: where the cache is, one file that all models and stages share.

        Raises:
            InputError: the cache cannot be opened.
        """
        self.model = model
        self._bfloat16 = has_bfloat16(model.device.type)
        self.fingerprint = fingerprint(model)
        self._cached_under = self.fingerprint + (" bfloat16" if self._bfloat16 else "")
        self._path = folder / "embeddings.sqlite"
        with explain_os_errors(self._path, "write"):
            folder.mkdir(parents=True, exist_ok=True)
        with self._connection() as connection:
            connection.execute(
                "CREATE TABLE IF NOT EXISTS embeddings"
                " (weights TEXT, text_sha BLOB, vector BLOB, PRIMARY KEY (weights, text_sha))"
            )

    @contextmanager
    def _connection(self) -> Iterator[sqlite3.Connection]:
        otherwise = "it is damaged or no embedding cache; delete it, it only saves time"
        with (
            explain_sqlite_errors(f"the embedding cache {self._path}", otherwise),
            closing(sqlite3.connect(self._path, timeout=BUSY_SECONDS)) as connection,
            connection,
        ):
            write_ahead(connection)
            yield connection

    def encode_queries(self, texts: Sequence[str], progress: Callable[[int], object] | None = None) -> np.ndarray:
        """Embed questions, each after the model's prompt for them if it has one; otherwise as `encode_passages`."""
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
        if not keys:
            return np.empty((0, self.model.get_embedding_dimension() or 0), np.float32)
        # Normalised here, in float32: in bfloat16 the lengths would be up to 0.2% off.
        found = np.stack([vectors[key] for key in keys])
        found /= np.maximum(np.linalg.norm(found, axis=1, keepdims=True), np.finfo(np.float32).tiny)
        return found

    def _run(self, encode: Callable[..., np.ndarray], texts: list[str]) -> np.ndarray:
        import torch

        mixed = torch.autocast(self.model.device.type, torch.bfloat16, enabled=self._bfloat16)
        with explain_memory_errors("embedding"), mixed:
            return encode(texts, show_progress_bar=False).astype(np.float32)

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
