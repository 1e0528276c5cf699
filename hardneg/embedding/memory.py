"""How much memory there is, and what training takes of it."""

import ctypes
import gc
import heapq
import sys
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING

import psutil

from hardneg.embedding.models import prompts_of
from hardneg.running.errors import InputError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

GIB = 2**30
GROWTH = 3  # training takes so many times the weights in addition: gradients and AdamW's two moments
# Activations of one passage in training, per layer, dimension and token: 38 MiB measured for 220 tokens in the 6 layers
# of 384 of a MiniLM under bfloat16, and some more.
ACTIVATION_BYTES = 44 * 2**20 // (6 * 384 * 220)
LONGEST = 100  # texts, the longest by characters, among which the longest by tokens is looked for
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt, as malloc.h numbers them


def free_bytes(device: str, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Free memory in bytes: of the claimed GPU for "cuda", else what machine and container can give without swapping.

    What this process no longer uses is given back first (see `give_back`).

    Args:
        device: "cuda" or "cpu".
        cgroup: where the kernel tells of the container's limit (cgroup v2).
    """
    give_back(device)
    if device == "cuda":
        import torch

        return torch.cuda.mem_get_info()[0]
    available = psutil.virtual_memory().available
    try:
        limit, used = (int((cgroup / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return available
    files = int(stat["active_file"]) + int(stat["inactive_file"])  # the page cache, which the kernel gives back
    return min(available, max(limit - used + files, 0))


def give_back(device: str) -> None:
    """Return the memory that this process no longer uses: to the GPU's other processes for "cuda", else to the kernel.

    A model that nothing refers to any more goes with the garbage collector only, as it refers to itself.
    """
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
    else:
        _call_glibc("malloc_trim", 0)


def keep_freed_memory() -> None:
    """Have the C library hand freed memory out again instead of returning it to the kernel, where it is glibc.

    Every batch's activations would otherwise be fresh pages, which the kernel has to clear: on a virtual machine that
    took a third of the time of a training step. `give_back` returns what is free by then.
    """
    _call_glibc("mallopt", M_MMAP_MAX, 0)
    _call_glibc("mallopt", M_TRIM_THRESHOLD, -1)


def _call_glibc(name: str, *arguments: int) -> None:
    """Call a function of glibc; other C libraries lack it and do without."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)


def weight_bytes(model: "SentenceTransformer") -> int:
    """Bytes of the model's parameters."""
    return sum(parameter.nbytes for parameter in model.parameters())


def activation_bytes(model: "SentenceTransformer", passages: Iterable[str], queries: Iterable[str]) -> int:
    """Bytes of activations (`passage_bytes`) in training of the longest of these texts.

    Next to none without a transformer.
    """
    if model.config is None:
        return passage_bytes(1, 1, 1)
    config = model.config.get_text_config()
    of_queries, of_passages = prompts_of(model)
    texts = [of_passages + text for text in heapq.nlargest(LONGEST, passages, key=len)]
    texts += [of_queries + text for text in heapq.nlargest(LONGEST, queries, key=len)]
    tokens = max(map(len, model.tokenizer(texts, truncation=False, verbose=False)["input_ids"]))
    return passage_bytes(config.num_hidden_layers, config.hidden_size, min(tokens, model.max_seq_length or tokens))


def passage_bytes(layers: int, dimensions: int, tokens: int) -> int:
    """Bytes of the activations of a passage of so many tokens when an encoder of these dimensions is trained."""
    return ACTIVATION_BYTES * layers * dimensions * tokens


def mini_batch_size(free: int, weights: int, passage: int) -> int:
    """How many passages to hold activations of at once; with the gradient cache that affects rounding only.

    Args:
        free: free memory of the device in bytes, beside the model to be trained; half of what training leaves is spent.
        weights: bytes of the model's parameters.
        passage: bytes of one passage's activations.
    """
    return max(1, (free - GROWTH * weights) // 2 // passage)


def sizes_to_try(most: int, rows: int, columns: int) -> list[int]:
    """How many passages of a training step to hold activations of at once, the most first.

    All of them if `most` allows that. Otherwise the gradient cache cuts each column by itself, so that nothing above
    the number of a column's rows makes a difference.

    >>> sizes_to_try(500, rows=32, columns=5), sizes_to_try(100, rows=32, columns=5), sizes_to_try(9, 32, 5)
    ([160, 32, 16, 8, 4, 2, 1], [32, 16, 8, 4, 2, 1], [9, 4, 2, 1])
    """
    sizes = [rows * columns] if most >= rows * columns else []
    size = min(most, rows)
    while size:
        sizes.append(size)
        size //= 2
    return sizes


def check_room(free: int, weights: int, passage: int) -> None:
    """Raise InputError if a GPU that holds the base model has no room to train a copy of it.

    One passage at a time has to fit.

    Args:
        free: bytes still free on the GPU.
        weights: bytes of the model's parameters.
        passage: bytes of one passage's activations.
    """
    needed = (1 + GROWTH) * weights + passage
    if free < needed:
        raise InputError(
            f"too little free GPU memory ({free / GIB:.1f} GiB beside the base model; training it needs "
            f"{needed / GIB:.1f} GiB); restart vLLM with a lower --gpu-memory-utilization, or pass --device cpu"
        )
