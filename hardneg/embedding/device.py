"""Where the embedding model runs: one GPU with room beside the judge's server, or the CPU."""

import os
import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from hardneg.embedding.memory import GIB, free_bytes, keep_freed_memory
from hardneg.running.errors import InputError, one_line

NO_GPU = "No devices were found"  # nvidia-smi's words
NO_DRIVER_REMEDY = "restart the machine, or pass --device cpu (DEVICE=cpu to the pipeline), as where it has no GPU"
DEVICE_FILE = Path("/dev/nvidiactl")  # which NVIDIA's driver shows with any GPU
NO_TOOL_REMEDY = "install it, or start the container with NVIDIA_DRIVER_CAPABILITIES=compute,utility"
HIDING = ("none", "nodevfiles", "void")  # what people and schedulers set CUDA_VISIBLE_DEVICES to for no GPU
LAUNCHER_VARIABLES = ("RANK", "LOCAL_RANK", "WORLD_SIZE", "MASTER_ADDR", "MASTER_PORT")
# A 33M-parameter encoder with gradients and optimiser (0.5 GiB), the base model beside it (0.13 GiB), a CUDA context
# (0.4 GiB) and 8 gradient-cached passages of 220 tokens in 12 layers (0.7 GiB): reckoned, not measured.
MIN_FREE = 1.75 * GIB


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
        none where there is no nvidia-smi, or no GPU; only those in CUDA_VISIBLE_DEVICES where that is set.

    Raises:
        InputError: nvidia-smi fails, as after a driver update without a restart; that does not mean there is no GPU.
    """
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    if visible is not None and not _named_in(visible):
        return []
    command = ["nvidia-smi", "--query-gpu=index,uuid,memory.free,memory.total", "--format=csv,noheader,nounits"]
    try:
        asked = subprocess.run(command, capture_output=True, text=True, timeout=30)
    except OSError:
        return []
    except subprocess.TimeoutExpired:
        raise InputError(f"nvidia-smi does not answer; {NO_DRIVER_REMEDY}") from None
    if asked.returncode and NO_GPU not in asked.stdout + asked.stderr:
        words = one_line(asked.stdout or asked.stderr) or f"status {asked.returncode}"
        raise InputError(f"nvidia-smi fails ({words}); {NO_DRIVER_REMEDY}")
    return parse_gpus(asked.stdout, visible)


def parse_gpus(listing: str, visible: str | None) -> list[Gpu]:
    """Read nvidia-smi's CSV (index, uuid, free MiB, total MiB), keeping the devices named in `visible`.

    >>> parse_gpus("0, GPU-a, 100, 200", None)
    [Gpu(index=0, uuid='GPU-a', free=104857600, total=209715200)]
    >>> parse_gpus("0, GPU-a, 100, 200", "")
    []

    Raises:
        InputError: `visible` names something else than these devices.
    """
    rows = [[field.strip() for field in line.split(",")] for line in listing.splitlines()]
    rows = [row for row in rows if len(row) == 4]  # not NO_GPU
    gpus = [Gpu(int(index), uuid, _bytes(free), _bytes(total)) for index, uuid, free, total in rows]
    if visible is None:
        return gpus
    names = _named_in(visible)
    kept = [gpu for gpu in gpus if str(gpu.index) in names or any(gpu.uuid.startswith(name) for name in names)]
    if gpus and names and not kept:
        raise InputError(
            f"CUDA_VISIBLE_DEVICES is {visible}, which names no whole GPU here: {', '.join(gpu.uuid for gpu in gpus)}; "
            "set it to one of these or its number, or pass --device cpu"
        )
    return kept


def _named_in(visible: str) -> list[str]:
    """The devices that CUDA_VISIBLE_DEVICES leaves visible, as it names them."""
    names = [name.strip() for name in visible.split(",") if name.strip()]
    names = names[: names.index("-1")] if "-1" in names else names  # which hides it and all behind it from CUDA
    return [] if visible.strip().casefold() in HIDING else names


def _bytes(mebibytes: str) -> int:
    """Boards that share the host's memory report none of their own: they are taken to have enough."""
    return int(mebibytes) * 2**20 if mebibytes.isdigit() else 2**40


def choose_gpu(requested: str, gpus: Sequence[Gpu]) -> Gpu | None:
    """Choose the GPU for the embedding model.

    Args:
        requested: "auto" (the GPU with the most free memory; None where there is none), "cuda" or "cuda:N".
        gpus: what `list_gpus` saw.

    Returns:
        the GPU, or None for the CPU.

    Raises:
        InputError: no such device, or none of the GPUs has MIN_FREE bytes free.
    """
    if requested == "auto" and not gpus:
        return None
    candidates = [gpu for gpu in gpus if requested in ("auto", "cuda", f"cuda:{gpu.index}")]
    if not candidates:
        seen = ", ".join(f"cuda:{gpu.index}" for gpu in gpus) or "none"
        remedy = ("" if gpus else _what_hides_gpus()) or "; use auto, cpu, cuda or cuda:N"
        raise InputError(f"--device {requested}: no such device here (GPUs: {seen}){remedy}")
    best = max(candidates, key=lambda gpu: gpu.free)
    if best.free < MIN_FREE:
        seen = ", ".join(f"cuda:{gpu.index} {gpu.free / GIB:.1f} of {gpu.total / GIB:.1f} GiB" for gpu in candidates)
        raise InputError(
            f"too little free GPU memory ({seen}; {MIN_FREE / GIB:.2f} GiB needed); "
            "restart vLLM with a lower --gpu-memory-utilization, or pass --device cpu"
        )
    return best


def find_gpu(requested: str) -> Gpu | None:
    """`choose_gpu` among this machine's GPUs; nvidia-smi is not run where the CPU is wanted."""
    return None if requested == "cpu" else choose_gpu(requested, list_gpus())


def claim_device(requested: str) -> str:
    """Make the chosen GPU the only one this process sees, so that no library spreads over the judge's GPUs.

    Must be called before anything initialises CUDA. It also forgets what a launcher of several processes, as torchrun,
    has set: training would wait for the others, or leave out its last batch.

    Returns:
        "cuda" or "cpu".

    Raises:
        InputError: see `choose_gpu` and `parse_gpus`.
    """
    for name in LAUNCHER_VARIABLES:
        os.environ.pop(name, None)
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


def describe_device(device: str) -> str:
    """What `claim_device` chose, in words, and the remedy where there is a GPU that it could not have found."""
    import torch

    if device == "cpu":
        return f"the CPU ({torch.get_num_threads()} threads){_what_hides_gpus()}"
    return f"{torch.cuda.get_device_name(0)} ({free_bytes(device) / GIB:.1f} GiB free)"


def _what_hides_gpus() -> str:
    """To be added where none was found: what kept one from being found, and the remedy; empty where nothing did."""
    if not DEVICE_FILE.exists() or shutil.which("nvidia-smi"):
        return ""
    return f"; {DEVICE_FILE} is there but not nvidia-smi, by which a GPU is found: {NO_TOOL_REMEDY}"


def has_bfloat16(device: str) -> bool:
    """Whether the device multiplies bfloat16 faster than float32; mixed precision then takes half of the time.

    Intel's processors with AVX512-FP16 have AMX for it, and where a virtual machine hides that, AVX512-BF16 alone has
    0.6 times the speed of float32 (measured on an Emerald Rapids); on others AVX512-BF16 has twice.

    Args:
        device: "cuda" or "cpu".
    """
    import torch

    if device == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    has = torch.cpu.get_capabilities().get
    return bool(has("amx_bf16") or (has("avx512_bf16") and not has("avx512_fp16")))
