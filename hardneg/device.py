"""Where the embedding model runs: one GPU with room beside the judge's server, or the CPU."""

import ctypes
import gc
import os
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import psutil

from hardneg.errors import InputError

GIB = 2**30
HIDING = ("none", "nodevfiles", "void")  # what people and schedulers set CUDA_VISIBLE_DEVICES to for no GPU
# A 33M-parameter encoder with gradients and optimiser (0.5 GiB), the base model beside it (0.13 GiB), a CUDA context
# (0.4 GiB) and 8 gradient-cached passages of 220 tokens in 12 layers (0.7 GiB): reckoned, not measured. vLLM at
# --gpu-memory-utilization 0.9 leaves about 2 GiB of an A10G.
MIN_FREE = 1.75 * GIB
GROWTH = 3  # times its weights that a model takes more once it is trained: its gradients and AdamW's two moments
MIN_PASSAGES = 8  # whose activations are held at once, however little memory there is
# Activations of one passage in training, per layer, dimension and token: 38 MiB measured for 220 tokens in the 6 layers
# of 384 of a MiniLM under bfloat16, and some more.
ACTIVATION_BYTES = 44 * 2**20 // (6 * 384 * 220)
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # of glibc's mallopt, as malloc.h numbers them


@dataclass(frozen=True, slots=True)
class Gpu:
    """One CUDA device as the driver reports it; memory in bytes, other processes' share already taken off."""

    index: int
    uuid: str
    free: int
    total: int


def list_gpus() -> list[Gpu]:
    """The GPUs this process may use, asked of nvidia-smi so that CUDA is not yet initialised here.

    Returns:
        none where there is no driver; only those in CUDA_VISIBLE_DEVICES where that is set.
    """
    command = ["nvidia-smi", "--query-gpu=index,uuid,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        listing = subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout
    except (OSError, subprocess.SubprocessError):
        return []
    return parse_gpus(listing, os.environ.get("CUDA_VISIBLE_DEVICES"))


def parse_gpus(listing: str, visible: str | None) -> list[Gpu]:
    """Read nvidia-smi's CSV (index, uuid, free MiB, total MiB), keeping the devices named in `visible`.

    >>> parse_gpus("0, GPU-a, 100, 200", None)
    [Gpu(index=0, uuid='GPU-a', free=104857600, total=209715200)]
    >>> parse_gpus("0, GPU-a, 100, 200", "")
    []

    Raises:
        InputError: `visible` names something else than these devices, and is not one of HIDING either.
    """
    rows = [[field.strip() for field in line.split(",")] for line in listing.splitlines()]
    rows = [row for row in rows if len(row) == 4]  # not "No devices were found"
    gpus = [Gpu(int(index), uuid, _bytes(free), _bytes(total)) for index, uuid, free, total in rows]
    if visible is None:
        return gpus
    names = [name.strip() for name in visible.split(",") if name.strip()]
    names = names[: names.index("-1")] if "-1" in names else names  # which hides it and all behind it from CUDA
    kept = [gpu for gpu in gpus if str(gpu.index) in names or any(gpu.uuid.startswith(name) for name in names)]
    if gpus and names and not kept and visible.casefold() not in HIDING:
        raise InputError(
            f"CUDA_VISIBLE_DEVICES is {visible}, which names no whole GPU here: {', '.join(gpu.uuid for gpu in gpus)}; "
            "set it to one of these or its number, or pass --device cpu"
        )
    return kept


def _bytes(mebibytes: str) -> int:
    """Boards that share the host's memory report none of their own: they are taken to have enough."""
    return int(mebibytes) * 2**20 if mebibytes.isdigit() else 2**40


def choose_gpu(requested: str, gpus: Sequence[Gpu]) -> Gpu | None:
    """Choose the GPU for the embedding model.

    Args:
        requested: "auto" (the GPU with the most free memory; None where there is none), "cpu", "cuda" or "cuda:N".
        gpus: what `list_gpus` saw.

    Returns:
        the GPU, or None for the CPU.

    Raises:
        InputError: no such device, or none of the GPUs has MIN_FREE bytes free.
    """
    if requested == "cpu" or (requested == "auto" and not gpus):
        return None
    candidates = [gpu for gpu in gpus if requested in ("auto", "cuda", f"cuda:{gpu.index}")]
    if not candidates:
        seen = ", ".join(f"cuda:{gpu.index}" for gpu in gpus) or "none"
        raise InputError(f"--device {requested}: no such device here (GPUs: {seen}); use auto, cpu, cuda or cuda:N")
    best = max(candidates, key=lambda gpu: gpu.free)
    if best.free < MIN_FREE:
        seen = ", ".join(f"cuda:{gpu.index} {gpu.free / GIB:.1f} of {gpu.total / GIB:.1f} GiB" for gpu in candidates)
        raise InputError(
            f"too little free GPU memory ({seen}; {MIN_FREE / GIB:.2f} GiB needed); "
            "restart vLLM with a lower --gpu-memory-utilization (0.85), or pass --device cpu"
        )
    return best


def find_gpu(requested: str) -> Gpu | None:
    """`choose_gpu` among those of this machine, which is not asked about them where the CPU is wanted."""
    return None if requested == "cpu" else choose_gpu(requested, list_gpus())


def claim_device(requested: str) -> str:
    """Make the chosen GPU the only one this process sees, so that no library spreads over the judge's GPUs.

    Must be called before anything initialises CUDA.

    Returns:
        "cuda" or "cpu".

    Raises:
        InputError: see `choose_gpu` and `parse_gpus`.
    """
    gpu = find_gpu(requested)
    if gpu is None:
        os.environ["CUDA_VISIBLE_DEVICES"] = ""
        keep_freed_memory()
        return "cpu"
    os.environ["CUDA_VISIBLE_DEVICES"] = gpu.uuid
    import torch

    if not torch.cuda.is_available():
        raise InputError(
            f"GPU {gpu.index} is there but torch {torch.__version__} cannot use it; "
            "install a CUDA build of torch that fits the driver, or pass --device cpu"
        )
    return "cuda"


def keep_freed_memory() -> None:
    """Have the C library hand freed memory out again instead of returning it to the kernel, where it is glibc.

    Every batch's activations would otherwise be fresh pages, which the kernel has to clear: on a virtual machine that
    took a third of the time of a training step. `free_bytes` gives back what is freed by then.
    """
    _call_glibc("mallopt", M_MMAP_MAX, 0)
    _call_glibc("mallopt", M_TRIM_THRESHOLD, -1)


def _call_glibc(name: str, *arguments: int) -> None:
    """Call a function of glibc; other C libraries lack it and do without."""
    function = getattr(ctypes.CDLL(None), name, None) if sys.platform == "linux" else None
    if function is not None:
        function(*arguments)


def describe_device(device: str) -> str:
    """What `claim_device` chose, in words."""
    import torch

    if device == "cpu":
        return f"the CPU ({torch.get_num_threads()} threads)"
    return f"{torch.cuda.get_device_name(0)} ({free_bytes(device) / GIB:.1f} GiB free)"


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 faster than float32; mixed precision then takes half of the time.

    Intel's processors with AVX512-FP16 have AMX for it, and where a virtual machine hides that, AVX512-BF16 alone has
    0.6 times the speed of float32 (measured on an Emerald Rapids); on others AVX512-BF16 has twice.

    Args:
        device: "cuda" or "cpu"; any other is taken to have none.
    """
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities().get if device == "cpu" else {}.get
    return bool(has("amx_bf16") or (has("avx512_bf16") and not has("avx512_fp16")))


def passage_bytes(layers: int, dimensions: int, tokens: int) -> int:
    """Bytes of the activations of a passage of so many tokens when an encoder of these dimensions is trained."""
    return ACTIVATION_BYTES * layers * dimensions * tokens


def mini_batch_size(free: int, weights: int, passage: int) -> int:
    """How many passages to hold activations of at once; the gradient cache makes the result the same.

    Args:
        free: free memory of the device in bytes, beside the model to be trained; half of what training leaves is spent.
        weights: bytes of the model's parameters.
        passage: bytes of one passage's activations.
    """
    return max(MIN_PASSAGES, (free - GROWTH * weights) // 2 // passage)


def check_room(weights: int, passage: int, free: int) -> None:
    """Raise InputError where a GPU that holds the base model has not the memory to train another one like it.

    Args:
        weights: bytes of the model's parameters.
        passage: bytes of one passage's activations.
        free: bytes still free on the GPU.
    """
    needed = (1 + GROWTH) * weights + MIN_PASSAGES * passage
    if free < needed:
        raise InputError(
            f"too little free GPU memory ({free / GIB:.1f} GiB beside the base model; training it needs "
            f"{needed / GIB:.1f} GiB); restart vLLM with a lower --gpu-memory-utilization, or pass --device cpu"
        )


def free_bytes(device: str, cgroup: Path = Path("/sys/fs/cgroup")) -> int:
    """Free memory in bytes: of the claimed GPU for "cuda", else what machine and container can give without swapping.

    What this process has, but no longer uses, is given back first: a model that nothing refers to any more goes with
    the garbage collector only, as it refers to itself.

    Args:
        device: "cuda" or "cpu".
        cgroup: where the kernel tells of the container's limit (cgroup v2).
    """
    gc.collect()
    if device == "cuda":
        import torch

        torch.cuda.empty_cache()
        return torch.cuda.mem_get_info()[0]
    _call_glibc("malloc_trim", 0)
    available = psutil.virtual_memory().available
    try:
        limit, used = (int((cgroup / name).read_text()) for name in ("memory.max", "memory.current"))
        stat = dict(line.split() for line in (cgroup / "memory.stat").read_text().splitlines())
    except (OSError, ValueError):  # no container, or one without a limit ("max")
        return available
    files = int(stat["active_file"]) + int(stat["inactive_file"])  # the page cache, which the kernel gives back
    return min(available, max(limit - used + files, 0))
