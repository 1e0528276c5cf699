"""Memory that is free, and that training takes, from numbers injected and from this machine."""

import platform
import subprocess
import sys
import weakref
from pathlib import Path

import psutil
import pytest
from sentence_transformers import SentenceTransformer
from sentence_transformers.sentence_transformer.modules import StaticEmbedding

from hardneg.embedding.device import MIN_FREE
from hardneg.embedding.memory import (
    GIB,
    activation_bytes,
    check_room,
    free_bytes,
    give_back,
    mini_batch_size,
    passage_bytes,
    sizes_to_try,
)
from hardneg.embedding.models import load_model
from hardneg.running.errors import InputError


@pytest.mark.parametrize(("free_gib", "expected"), [(0, 1), (0.5, 5), (1.25, 14), (2, 23), (3, 34), (8, 93), (24, 279)])
def test_mini_batch_size(free_gib: float, expected: int) -> None:
    passage = passage_bytes(6, 384, 220)
    assert passage == pytest.approx(44 * 2**20, rel=1e-3)  # what the figures above are reckoned with
    assert mini_batch_size(int(free_gib * GIB), 0, passage) == expected


def test_a_larger_model_holds_fewer_passages_at_once() -> None:
    """A model of 12 layers of 768 dimensions has four times the activations of MiniLM's 6 of 384, and twice the tokens
    twice as many."""
    assert passage_bytes(6, 384, 440) == 2 * passage_bytes(6, 384, 220)
    large, small = passage_bytes(12, 768, 220), passage_bytes(6, 384, 220)
    assert mini_batch_size(16 * GIB, 0, large) == mini_batch_size(4 * GIB, 0, small) == 46


@pytest.mark.parametrize(("parameters", "total_gib"), [(471e6, 12), (33e6, 4), (568e6, 23)])
def test_what_training_takes_fits_beside_the_passages(parameters: float, total_gib: int) -> None:
    """Two copies of the weights, gradients, two moments, and the passages held at once: LaBSE on a card of 12 GiB."""
    weights, passage = int(4 * parameters), passage_bytes(12, 768, 220)
    free = total_gib * GIB - weights
    check_room(free, weights, passage)
    at_once = mini_batch_size(free - weights, weights, passage)
    assert 5 * weights + at_once * passage <= total_gib * GIB
    assert at_once >= 8


def test_long_passages_fit_one_by_one() -> None:
    """A model of the size of ModernBERT-base with passages of 4,096 tokens, on an A10G that nothing else uses."""
    weights, passage = int(4 * 149e6), passage_bytes(22, 768, 4096)
    check_room(20 * GIB, weights, passage)
    assert mini_batch_size(20 * GIB - weights, weights, passage) == 1


def test_room_to_train_a_model_beside_its_base() -> None:
    """What MIN_FREE leaves beside a context and a MiniLM-L12 is enough for that, and not for a larger model."""
    left = MIN_FREE - 0.4 * GIB - 4 * 33e6
    check_room(int(left), int(4 * 33e6), passage_bytes(12, 384, 220))
    with pytest.raises(InputError, match=r"too little free GPU memory \(1\.2 GiB beside .* it needs 1\.8 GiB"):
        check_room(int(left), int(4 * 110e6), passage_bytes(12, 768, 220))


def test_half_of_what_training_leaves_is_for_passages() -> None:
    assert mini_batch_size(1000, 100, 7) == 50  # of 1000 - 3 * 100


def test_room_for_one_passage_is_enough() -> None:
    check_room(47, 10, 7)  # four times the weights, and a passage
    with pytest.raises(InputError, match="too little free GPU memory"):
        check_room(46, 10, 7)


def test_all_passages_at_once_are_tried_where_they_just_fit() -> None:
    assert sizes_to_try(15, rows=5, columns=3) == [15, 5, 2, 1]
    assert sizes_to_try(14, rows=5, columns=3) == [5, 2, 1]
    assert sizes_to_try(0, rows=5, columns=3) == []


def test_free_memory_of_the_machine_and_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < free_bytes("cpu") <= psutil.virtual_memory().total
    free = [1]
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: free.append(3))  # which gives back what is cached
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (free[-1], 10))
    assert free_bytes("cuda") == 3


def test_a_model_that_is_no_longer_used_gives_its_memory_back(tiny_model: Path) -> None:
    """Its card refers to it, and it to its card."""
    model = weakref.ref(load_model(str(tiny_model), "cpu"))
    give_back("cpu")
    assert model() is None


def write_cgroup(folder: Path, limit: str, used: int) -> Path:
    (folder / "memory.max").write_text(f"{limit}\n")
    (folder / "memory.current").write_text(f"{used}\n")
    (folder / "memory.stat").write_text("anon 900\nfile 1000\ninactive_file 700\nactive_file 200\n")
    return folder


@pytest.mark.parametrize(("limit", "used", "expected"), [("5000", 2000, 3900), ("2000", 2950, 0)])
def test_free_memory_of_a_container(tmp_path: Path, limit: str, used: int, expected: int) -> None:
    assert free_bytes("cpu", write_cgroup(tmp_path, limit, used)) == expected


@pytest.mark.parametrize("limit", ["max", str(2**62)])
def test_a_container_without_a_limit_of_its_own(tmp_path: Path, limit: str) -> None:
    assert free_bytes("cpu", write_cgroup(tmp_path, limit, 0)) > 2**28


def test_activations_follow_the_layers_and_the_longest_passage(model: SentenceTransformer) -> None:
    """It reads up to 64 tokens."""
    as_one_word, as_many_words = "acetylcholinesterase", "gout in a toe"
    assert len(as_one_word) > len(as_many_words)

    def tokens(text: str) -> int:
        return len(model.tokenizer(text)["input_ids"])

    both = [as_one_word, as_many_words]
    most = max(map(tokens, both))
    assert activation_bytes(model, both, ["gout"]) == passage_bytes(2, 32, most)
    assert activation_bytes(model, ["gout"], both) == passage_bytes(2, 32, most)
    assert activation_bytes(model, ["gout " * 100], ["gout"]) == passage_bytes(2, 32, 64)
    model.prompts.update(query="asthma: ", document="asthma, gout: ")
    assert activation_bytes(model, ["gout"], ["gout"]) == passage_bytes(2, 32, tokens("asthma, gout: gout"))
    static = SentenceTransformer(modules=[StaticEmbedding(model.tokenizer.backend_tokenizer, embedding_dim=8)])
    assert 0 < activation_bytes(static, both, both) < activation_bytes(model, both, both)


NEW_PAGES = """
import resource, sys
import torch
from hardneg.embedding.device import claim_device

def pages():
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt

if sys.argv[1] == "kept":
    claim_device("cpu")
for step in range(20):
    if step == 10:
        before = pages()
    torch.ones(2**24)  # 64 MiB
print(pages() - before)
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="it is glibc that gives freed memory back")
def test_on_the_cpu_freed_memory_is_used_again() -> None:
    def pages(memory: str) -> int:
        command = [sys.executable, "-c", NEW_PAGES, memory]
        return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)

    assert pages("kept") < pages("given back") / 100


FREED_MEMORY = """
import psutil, torch
from hardneg.embedding.device import claim_device
from hardneg.embedding.memory import free_bytes

claim_device("cpu")
taken = torch.ones(2**26)  # 256 MiB
above = torch.ones(2**20)  # which keeps the heap from shrinking
resident = psutil.Process().memory_info().rss
del taken
free_bytes("cpu")
print(resident - psutil.Process().memory_info().rss)
"""


def test_freed_memory_counts_as_free() -> None:
    done = subprocess.run([sys.executable, "-c", FREED_MEMORY], capture_output=True, text=True, check=True)
    assert int(done.stdout) > 200 * 2**20
