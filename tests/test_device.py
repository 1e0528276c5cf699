"""Choosing a GPU from numbers, as nvidia-smi reports them; no GPU is needed."""

import os
import stat
import subprocess
from pathlib import Path

import pytest
import torch

from hardneg.embedding.device import (
    MIN_FREE,
    Gpu,
    choose_gpu,
    claim_device,
    describe_device,
    find_gpu,
    has_bfloat16,
    list_gpus,
)
from hardneg.embedding.device import parse_gpus as parse
from hardneg.embedding.memory import GIB
from hardneg.running.errors import InputError

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


def test_the_cpu_where_there_is_nothing_else() -> None:
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
        ("none", []),
        ("void", []),
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


def test_without_nvidia_smi_or_a_gpu_there_is_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    for stream in (1, 2):
        install_nvidia_smi(tmp_path, monkeypatch, f"echo No devices were found >&{stream}; exit 6")
        assert list_gpus() == []
    monkeypatch.setenv("PATH", str(tmp_path / "nothing"))
    assert list_gpus() == []


def test_a_driver_that_fails_is_not_taken_for_none(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The run would take the CPU, and the night."""
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    words = "Failed to initialize NVML: Driver/library version mismatch"
    install_nvidia_smi(tmp_path, monkeypatch, f"echo {words}; exit 18")
    with pytest.raises(InputError, match=rf"nvidia-smi fails \({words}\); restart the machine, or pass --device cpu"):
        list_gpus()
    install_nvidia_smi(tmp_path, monkeypatch, "echo Segmentation fault >&2; exit 139")
    with pytest.raises(InputError, match=r"nvidia-smi fails \(Segmentation fault\)"):
        list_gpus()
    install_nvidia_smi(tmp_path, monkeypatch, "exit 9")
    with pytest.raises(InputError, match=r"nvidia-smi fails \(status 9\)"):
        find_gpu("auto")
    assert find_gpu("cpu") is None
    for hidden in ("", " ", "-1", "NoDevFiles"):
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", hidden)
        assert find_gpu("auto") is None


def test_a_driver_that_hangs_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    install_nvidia_smi(tmp_path, monkeypatch, "exec sleep 60")
    run = subprocess.run
    monkeypatch.setattr(subprocess, "run", lambda *words, timeout, **rest: run(*words, timeout=timeout / 300, **rest))
    with pytest.raises(InputError, match="nvidia-smi does not answer; restart the machine, or pass --device cpu"):
        list_gpus()


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


def test_the_device_in_words(monkeypatch: pytest.MonkeyPatch) -> None:
    assert describe_device("cpu") == f"the CPU ({torch.get_num_threads()} threads)"
    monkeypatch.setattr("torch.cuda.get_device_name", lambda _: "NVIDIA A10G")
    monkeypatch.setattr("torch.cuda.mem_get_info", lambda: (2 * GIB, 23 * GIB))
    assert describe_device("cuda") == "NVIDIA A10G (2.0 GiB free)"


def test_a_gpu_that_nothing_finds_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """As in a container that was given the driver's libraries without its tools."""
    monkeypatch.setattr("hardneg.embedding.device.DEVICE_FILE", tmp_path)
    monkeypatch.setenv("PATH", "")
    words = f"{tmp_path} is there but not nvidia-smi, by which a GPU is found: install it, or start"
    assert words in describe_device("cpu")
    with pytest.raises(InputError, match=f"--device cuda: no such device here .GPUs: none.; {words}"):
        find_gpu("cuda")
    install_nvidia_smi(tmp_path, monkeypatch, "exit 0")
    assert "nvidia-smi" not in describe_device("cpu")


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
    ],
)
def test_bfloat16_only_where_it_is_faster(
    device: str, capabilities: dict[str, bool], cuda: bool, expected: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("torch.cpu.get_capabilities", lambda: capabilities)
    monkeypatch.setattr("torch.cuda.is_bf16_supported", lambda including_emulation: cuda or including_emulation)
    assert has_bfloat16(device) is expected


def test_what_a_launcher_of_several_processes_has_set_is_forgotten(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each script is one process: with WORLD_SIZE=2, training would wait for the other."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    for name in ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"):
        monkeypatch.setenv(name, "2")
    assert claim_device("cpu") == "cpu"
    assert not {"RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT"} & os.environ.keys()
