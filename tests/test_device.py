"""Choosing a GPU from numbers, as nvidia-smi reports them; no GPU is needed."""

import os
import platform
import stat
import subprocess
import sys
import weakref
from pathlib import Path

import psutil
import pytest
import torch

from hardneg.device import (
    GIB,
    MIN_FREE,
    Gpu,
    check_room,
    choose_gpu,
    claim_device,
    describe_device,
    find_gpu,
    free_bytes,
    has_bfloat16,
    list_gpus,
    mini_batch_size,
    passage_bytes,
)
from hardneg.device import parse_gpus as parse
from hardneg.errors import InputError
from hardneg.models import load_model

# four A10G beside vLLM with --tensor-parallel-size 4 --gpu-memory-utilization 0.9: index, uuid, free MiB, total MiB
BESIDE_VLLM = """\
0, GPU-11111111-aaaa, 1904, 23028
1, GPU-22222222-bbbb, 2106, 23028
2, GPU-33333333-cccc, 2106, 23028
3, GPU-11113333-dddd, 1600, 23028
"""


def gpus(*free_gib: float) -> list[Gpu]:
    return [Gpu(index, f"GPU-{index}", int(free * GIB), 24 * GIB) for index, free in enumerate(free_gib)]


def test_the_freest_gpu_beside_vllm() -> None:
    chosen = choose_gpu("auto", parse(BESIDE_VLLM, None))
    assert chosen == Gpu(1, "GPU-22222222-bbbb", 2106 * 2**20, 23028 * 2**20)
    assert choose_gpu("cuda", gpus(2, 1, 20)) == gpus(2, 1, 20)[2]


def test_a_gpu_by_number() -> None:
    assert choose_gpu("cuda:2", gpus(20, 20, 2)) == gpus(20, 20, 2)[2]
    with pytest.raises(InputError, match=r"--device cuda:4: no such device here \(GPUs: cuda:0, cuda:1\)"):
        choose_gpu("cuda:4", gpus(20, 20))


@pytest.mark.parametrize("requested", ["cuda", "cuda:0", "mps", "gpu"])
def test_a_device_that_is_not_there(requested: str) -> None:
    with pytest.raises(InputError, match=rf"--device {requested}: no such device here \(GPUs: none\); use auto, cpu"):
        choose_gpu(requested, [])


def test_the_cpu_where_asked_or_where_there_is_nothing_else() -> None:
    assert choose_gpu("cpu", gpus(20)) is None
    assert choose_gpu("auto", []) is None


def test_all_too_full_is_refused_with_the_figures() -> None:
    with pytest.raises(InputError) as caught:
        choose_gpu("auto", gpus(0.5, 1.2))
    message = str(caught.value)
    assert "cuda:0 0.5 of 24.0 GiB, cuda:1 1.2 of 24.0 GiB; 1.75 GiB needed" in message
    assert "--gpu-memory-utilization" in message and "--device cpu" in message and "\n" not in message
    with pytest.raises(InputError, match=r"\(cuda:0 0\.5 of 24\.0 GiB; 1\.75"):
        choose_gpu("cuda:0", gpus(0.5, 20))  # the free one was not asked for


def test_exactly_enough_is_enough() -> None:
    enough = Gpu(0, "GPU-0", int(MIN_FREE), 24 * GIB)
    assert choose_gpu("auto", [enough]) is enough
    with pytest.raises(InputError):
        choose_gpu("auto", [Gpu(0, "GPU-0", int(MIN_FREE) - 1, 24 * GIB)])


@pytest.mark.parametrize(
    ("visible", "kept"),
    [
        (None, [0, 1, 2, 3]),
        ("", []),
        ("1,3", [1, 3]),
        ("3, 0", [0, 3]),
        ("GPU-33333333-cccc", [2]),
        ("GPU-1111", [0, 3]),
        ("GPU-2,GPU-33333333-cccc", [1, 2]),
        ("-1", []),
        ("2,-1,3", [2]),
        ("NoDevFiles", []),
    ],
)
def test_only_visible_devices(visible: str | None, kept: list[int]) -> None:
    assert [gpu.index for gpu in parse(BESIDE_VLLM, visible)] == kept


def test_no_gpu_listed() -> None:
    assert parse("", None) == parse("\n", "0") == parse("No devices were found\n", None) == []


@pytest.mark.parametrize("visible", ["7", "MIG-5a5a5a5a-1111", "cuda:0"])
def test_visible_devices_that_are_no_whole_gpu_are_not_taken_for_none(visible: str) -> None:
    with pytest.raises(InputError, match=f"^CUDA_VISIBLE_DEVICES is {visible}, .* GPU-1111.*--device cpu$"):
        parse(BESIDE_VLLM, visible)


def test_memory_that_the_driver_does_not_report() -> None:
    """Boards with memory shared with the CPU report [N/A]: enough, as far as that tells."""
    assert parse("0, GPU-a, [N/A], [N/A]", None) == [Gpu(0, "GPU-a", 2**40, 2**40)]


def install_nvidia_smi(folder: Path, monkeypatch: pytest.MonkeyPatch, script: str) -> None:
    program = folder / "nvidia-smi"
    program.write_text(f"#!/bin/sh\n{script}\n")
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("PATH", f"{folder}{os.pathsep}{os.environ['PATH']}")


def test_the_driver_is_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_nvidia_smi(tmp_path, monkeypatch, "echo 0, GPU-a, 20000, 23028; echo 1, GPU-b, 2000, 23028")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "1")
    assert [gpu.uuid for gpu in list_gpus()] == ["GPU-b"]
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    assert [gpu.uuid for gpu in list_gpus()] == ["GPU-a", "GPU-b"]


def test_where_the_cpu_is_wanted_the_driver_is_not_asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_nvidia_smi(tmp_path, monkeypatch, "echo 0, GPU-a, 20000, 23028")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "7")
    assert find_gpu("cpu") is None
    with pytest.raises(InputError, match="CUDA_VISIBLE_DEVICES is 7"):
        find_gpu("auto")


def test_a_driver_that_fails_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_nvidia_smi(tmp_path, monkeypatch, "echo NVIDIA-SMI has failed; exit 9")
    assert list_gpus() == []
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert list_gpus() == []


def test_claiming_hides_the_other_gpus(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    install_nvidia_smi(tmp_path, monkeypatch, "echo 0, GPU-a, 2000, 23028; echo 1, GPU-b, 20000, 23028")
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.setattr("torch.cuda.is_available", lambda: True)
    assert claim_device("auto") == "cuda" and os.environ["CUDA_VISIBLE_DEVICES"] == "GPU-b"
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    with pytest.raises(InputError, match=r"GPU 1 is there but torch .* cannot use it; install a CUDA build"):
        claim_device("auto")
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "0,1")
    assert claim_device("cpu") == "cpu" and os.environ["CUDA_VISIBLE_DEVICES"] == ""


@pytest.mark.parametrize(("free_gib", "expected"), [(0, 8), (0.5, 8), (1.25, 14), (2, 23), (3, 34), (8, 93), (24, 279)])
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
    check_room(weights, passage, free)
    at_once = mini_batch_size(free - weights, weights, passage)
    assert 5 * weights + at_once * passage <= total_gib * GIB
    assert at_once >= 8


def test_room_to_train_a_model_beside_its_base() -> None:
    """What MIN_FREE leaves beside a context and a MiniLM-L12 is enough for that, and not for a larger model."""
    left = MIN_FREE - 0.4 * GIB - 4 * 33e6
    check_room(int(4 * 33e6), passage_bytes(12, 384, 220), int(left))
    with pytest.raises(InputError, match=r"too little free GPU memory \(1\.2 GiB beside .* it needs 3\.0 GiB"):
        check_room(int(4 * 110e6), passage_bytes(12, 768, 220), int(left))


def test_the_device_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_device("cpu") == f"the CPU ({torch.get_num_threads()} threads)"
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "NVIDIA A10G")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (2 * GIB, 23 * GIB))
    assert describe_device("cuda") == "NVIDIA A10G (2.0 GiB free)"


def test_free_memory_of_the_machine_and_of_the_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    assert 0 < free_bytes("cpu") <= psutil.virtual_memory().total
    free = [1]
    monkeypatch.setattr("torch.cuda.empty_cache", lambda: free.append(3))
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (free[-1], 10))
    assert free_bytes("cuda") == 3


def test_a_model_that_is_no_longer_used_gives_its_memory_back(tiny_model: Path) -> None:
    """Its card refers to it, and it to its card."""
    model = weakref.ref(load_model(str(tiny_model), "cpu"))
    free_bytes("cpu")
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


@pytest.mark.parametrize(
    ("device", "capabilities", "cuda", "expected"),
    [
        ("cpu", {"avx512_bf16": True}, False, True),
        ("cpu", {"avx512_bf16": True, "avx512_fp16": True}, False, False),
        ("cpu", {"avx512_bf16": True, "avx512_fp16": True, "amx_bf16": True}, False, True),
        ("cpu", {"avx512_bf16": False}, True, False),
        ("cpu", {}, True, False),
        ("cuda", {}, True, True),
        ("cuda", {"avx512_bf16": True}, False, False),
        ("mps", {"avx512_bf16": True}, True, False),
    ],
)
def test_bfloat16_only_where_it_is_faster(
    device: str, capabilities: dict[str, bool], cuda: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: cuda)
    assert has_bfloat16(device) is expected


NEW_PAGES = """
import resource, sys
import torch
from hardneg.device import claim_device

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
from hardneg.device import claim_device, free_bytes

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
