"""A random two-layer BERT as a sentence-transformers folder, built offline: real encoding and training in seconds."""

from collections.abc import Sequence
from pathlib import Path
from tempfile import TemporaryDirectory

import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Transformer
from sentence_transformers.sentence_transformer.modules import Normalize, Pooling
from tokenizers.normalizers import BertNormalizer
from tokenizers.pre_tokenizers import BertPreTokenizer
from transformers import BertConfig, BertModel, BertTokenizer

SPECIAL_TOKENS = ("[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]")


def build_tiny_model(
    folder: Path, texts: Sequence[str], dimension: int = 32, max_seq_length: int = 64, seed: int = 0
) -> Path:
    """Build and save a model with random weights and a vocabulary of the words and characters of `texts`.

    Word embeddings far larger than those of the positions make it a bag-of-words model: better than chance, far
    from good.

    Args:
        folder: where to save; created.
        texts: whose words the model knows.
        dimension: of the embeddings; a multiple of 4.
        max_seq_length: in tokens.
        seed: of the weights.

    Returns:
        `folder`.
    """
    tokenizer = BertTokenizer(vocab=vocabulary(texts), model_max_length=max_seq_length)
    config = BertConfig(
        vocab_size=len(tokenizer),
        hidden_size=dimension,
        num_hidden_layers=2,
        num_attention_heads=4,
        intermediate_size=2 * dimension,
        max_position_embeddings=max_seq_length,
    )
    with torch.random.fork_rng(), TemporaryDirectory() as bert:
        torch.manual_seed(seed)
        model = BertModel(config)
        with torch.no_grad():
            model.embeddings.word_embeddings.weight.mul_(10)
        model.save_pretrained(bert)
        tokenizer.save_pretrained(bert)
        modules = [Transformer(bert), Pooling(dimension, "mean"), Normalize()]
    SentenceTransformer(modules=modules, device="cpu").save_pretrained(str(folder), create_model_card=False)
    return folder


def vocabulary(texts: Sequence[str]) -> dict[str, int]:
    """Every word of `texts` as BERT splits them, and their characters for other words; the same in every process.

    (Training a WordPiece vocabulary breaks ties at random, which makes another model of it each time.)
    """
    split, normaliser = BertPreTokenizer(), BertNormalizer()
    words = {word for text in texts for word, _ in split.pre_tokenize_str(normaliser.normalize_str(text))}
    characters = {character for word in words for character in word}
    pieces = sorted(words | characters | {f"##{character}" for character in characters})
    return {piece: number for number, piece in enumerate([*SPECIAL_TOKENS, *pieces])}
