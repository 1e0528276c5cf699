"""A stand-in for an LLM server: real HTTP on loopback, in its own process, with known answers and faults to order.

    with LLMStub(latency=0.05) as stub:
        ...  # stub.url is the endpoint; stub.configure(fault="reset", times=3); stub.stats()

What it grades is a function of the prompt (`true_probabilities`), so that a test can tell a wrong stored grade.
"""

import asyncio
import hashlib
import json
import math
import signal
import subprocess
import sys
import urllib.request
from collections import Counter
from pathlib import Path
from typing import Any

from aiohttp import web

MODEL = "stub-model"
NOWHERE = "http://127.0.0.1:9/v1"  # an endpoint where nobody listens
DEFAULTS: dict[str, Any] = {
    "model": MODEL,  # what it serves
    "answers_as": None,  # the name in its answers, where that differs
    "api_key": None,  # refuse others
    "listing": "object",  # how `/models` lists that: in an object, as a bare "list", or not at all: a status
    "max_model_len": 4096,
    "context_tokens": None,  # refuse prompts of more words than this
    "binds": ["choice", "integer", "object"],  # constraints it obeys; others it ignores
    "refuses": [],  # constraints, or "logprobs", that it takes for unknown fields: 422
    "free_text": "The passage",  # what it says unconstrained
    "knows_paris": False,  # and says that when it is asked for the capital of France
    "logprobs": True,
    "top_logprobs": 20,  # the most it takes a request for
    "digit_mass": 1.0,  # share of the probability that its log-probabilities give to the digits
    "latency": 0.0,  # seconds
    "rate": None,  # answers per second, one after the other
    "queue": None,  # with `rate`: requests that may wait; a 429 for more
    "retry_after": None,  # seconds, in 429 and 503 answers
    "fault": None,  # see _FAULTS
    "after": 0,  # sound chat requests before the first fault
    "times": None,  # how many faults; None for no end
    "every": 1,  # only every n-th request is faulty
    "only": "",  # only requests whose prompt holds this are faulty
}


def true_probabilities(prompt: str) -> tuple[float, float, float, float]:
    """What the stub thinks of a prompt: probabilities of grades 1-4, a function of its text alone."""
    weights = [1 + byte for byte in hashlib.sha256(prompt.encode()).digest()[:4]]
    weights[weights.index(max(weights))] += 60  # no ties
    total = sum(weights)
    return tuple(weight / total for weight in weights)  # type: ignore[return-value]


def true_grade(prompt: str) -> float:
    """The expected grade of `true_probabilities`."""
    return sum(grade * p for grade, p in enumerate(true_probabilities(prompt), 1))


class LLMStub:
    """Starts the server in a process of its own; a context manager."""

    def __init__(self, port: int = 0, **config: Any) -> None:
        self.config = DEFAULTS | config
        self.port = port
        self.start()

    def start(self) -> None:
        """Start (again) on the same port."""
        command = [sys.executable, str(Path(__file__).resolve()), str(self.port), json.dumps(self.config)]
        self._process = subprocess.Popen(command, stdout=subprocess.PIPE, text=True)
        self.port = int(self._process.stdout.readline())  # type: ignore[union-attr]
        self.url = f"http://127.0.0.1:{self.port}/v1"

    def kill(self) -> None:
        """End the process at once, answers under way and all."""
        self._process.send_signal(signal.SIGKILL)
        self._process.wait()
        self._process.stdout.close()  # type: ignore[union-attr]

    def configure(self, **config: Any) -> None:
        """Change the behaviour from now on; the count towards `after`, `times` and `every` starts anew."""
        self.config |= config
        self._call("POST", config)

    def stats(self) -> dict[str, Any]:
        """Counts: `chats` received, `in_flight` now, at the `peak`, `answered` (by prompt), `statuses` (of HTTP)."""
        return json.loads(self._call("GET", None))

    def _call(self, method: str, body: object) -> bytes:
        data = None if body is None else json.dumps(body).encode()
        request = urllib.request.Request(f"http://127.0.0.1:{self.port}/stub", data, method=method)
        with urllib.request.urlopen(request, timeout=10) as response:
            return response.read()

    def __enter__(self) -> "LLMStub":
        return self

    def __exit__(self, *_: object) -> None:
        if self._process.poll() is None:
            self.kill()


class _Server:
    def __init__(self, config: dict[str, Any]) -> None:
        self.config = config
        self.chats = self.in_flight = self.peak = self.waiting = 0
        self.since_configured = self.faults = 0
        self.answered: Counter[str] = Counter()
        self.statuses: Counter[str] = Counter()
        self.next_slot = 0.0

    def app(self) -> web.Application:
        app = web.Application(client_max_size=1 << 26)
        app.router.add_get("/v1/models", self.models)
        app.router.add_post("/v1/chat/completions", self.chat)
        app.router.add_get("/stub", self.get_stats)
        app.router.add_post("/stub", self.set_config)
        return app

    async def get_stats(self, _: web.Request) -> web.Response:
        names = ("chats", "in_flight", "peak", "answered", "statuses")
        return web.json_response({name: getattr(self, name) for name in names})

    async def set_config(self, request: web.Request) -> web.Response:
        self.config |= await request.json()
        self.since_configured = self.faults = 0
        return web.Response()

    async def models(self, request: web.Request) -> web.Response:
        if refusal := self._refuse_key(request):
            return refusal
        entry = {"id": self.config["model"], "object": "model", "max_model_len": self.config["max_model_len"]}
        listing = self.config["listing"]
        if isinstance(listing, int):
            return web.Response(status=listing)
        return web.json_response([entry] if listing == "list" else {"object": "list", "data": [entry]})

    async def chat(self, request: web.Request) -> web.StreamResponse:
        self.chats += 1
        self.in_flight += 1
        self.peak = max(self.peak, self.in_flight)
        try:
            response = await self._chat(request)
            self.statuses[str(response.status)] += 1
            return response
        finally:
            self.in_flight -= 1

    async def _chat(self, request: web.Request) -> web.StreamResponse:
        body = await request.json()
        config = self.config
        prompt = body["messages"][0]["content"]
        if refusal := self._refuse_key(request):
            return refusal
        if body["model"] != config["model"]:
            return _error(404, f"The model `{body['model']}` does not exist.")
        if unknown := [name for name in config["refuses"] if name in _fields(body)]:
            return web.json_response({"detail": f"extra fields not permitted: {unknown}"}, status=422)
        if body.get("top_logprobs", 0) > config["top_logprobs"]:
            return _error(400, f"top_logprobs must be between 0 and {config['top_logprobs']}")
        if config["context_tokens"] and len(prompt.split()) > config["context_tokens"]:
            return _error(400, f"This model's maximum context length is {config['context_tokens']} tokens.")
        if config["rate"] and not await self._take_turn():
            return self._busy(429)
        await asyncio.sleep(config["latency"])
        fault = self._due_fault(prompt)
        if fault is not None:
            response = await _FAULTS[fault](self, request, prompt)
            if response is not None:
                return response
        self.answered[prompt] += 1
        return web.json_response(self._completion(body, prompt, fault))

    async def _take_turn(self) -> bool:
        """Wait for one of `rate` turns per second; False where too many wait already."""
        if self.config["queue"] is not None and self.waiting >= self.config["queue"]:
            return False
        now = asyncio.get_running_loop().time()
        self.next_slot = max(self.next_slot, now) + 1 / self.config["rate"]
        self.waiting += 1
        await asyncio.sleep(self.next_slot - now)
        self.waiting -= 1
        return True

    def _due_fault(self, prompt: str) -> str | None:
        config = self.config
        if config["only"] not in prompt:
            return None
        self.since_configured += 1
        number = self.since_configured - config["after"]
        if config["fault"] is None or number <= 0 or number % config["every"]:
            return None
        if config["times"] is not None and self.faults >= config["times"]:
            return None
        self.faults += 1
        return config["fault"]

    def _refuse_key(self, request: web.Request) -> web.Response | None:
        given = request.headers.get("Authorization", "")
        if self.config["api_key"] and given != f"Bearer {self.config['api_key']}":
            return _error(401, f"Incorrect API key provided: {given}")
        return None

    def _busy(self, status: int) -> web.Response:
        headers = {} if self.config["retry_after"] is None else {"Retry-After": str(self.config["retry_after"])}
        return _error(status, "too many requests", headers)

    def _completion(self, body: dict[str, Any], prompt: str, fault: str | None = None) -> dict[str, Any]:
        probabilities = true_probabilities(prompt)
        digit = 1 + probabilities.index(max(probabilities))
        content: str | None
        before, after = "", ""
        if "structured_outputs" in body and "choice" in self.config["binds"]:
            content = str(digit)
        elif (schema := body.get("response_format")) is not None and _kind(schema) in self.config["binds"]:
            before, after = ('{"grade": ', "}") if _kind(schema) == "object" else ("", "")
            content = f"{before}{digit}{after}"
        else:
            is_asked = self.config["knows_paris"] and prompt.startswith("What is the capital of France?")
            text = "Paris" if is_asked else self.config["free_text"].replace("DIGIT", str(digit))
            content, (before, _, after) = text, text.partition(str(digit))
        content, refusal = _WORDS.get(fault or "", (content, None))
        logprobs = None
        if body.get("logprobs") and self.config["logprobs"] and fault != "no-logprobs":
            listed = tuple(self.config["digit_mass"] * p for p in probabilities)
            logprobs = {"content": _tokens(before, str(digit), after, listed, body["top_logprobs"])}
        words = len(prompt.split())
        return {
            "id": "chatcmpl-1",
            "object": "chat.completion",
            "created": 1,
            "model": "other-model" if fault == "other-model" else self.config["answers_as"] or body["model"],
            "choices": [
                {
                    "index": 0,
                    "message": {"role": "assistant", "content": content, "refusal": refusal},
                    "logprobs": logprobs,
                    "finish_reason": "stop",
                }
            ],
            "usage": {
                "prompt_tokens": words,
                "completion_tokens": 1,
                "total_tokens": words + 1,
                "prompt_tokens_details": {"cached_tokens": words // 2},
            },
        }


_WORDS: dict[str, tuple[str | None, str | None]] = {
    "refusal": (None, "I cannot help with that."),
    "score-3": ("Score: 3", None),
    "full-width": ("\uff13", None),
    "empty": ("", None),
    "five": ("5", None),
}


def _fields(body: dict[str, Any]) -> list[str]:
    """What a server may not know: the constraint's kind, and "logprobs"."""
    schema = body.get("response_format")
    kinds = ["choice" if "structured_outputs" in body else "", _kind(schema) if schema else ""]
    return [*kinds, "logprobs" if body.get("logprobs") else ""]


def _kind(response_format: dict[str, Any]) -> str:
    return response_format["json_schema"]["schema"]["type"]


def _tokens(before: str, digit: str, after: str, probabilities: tuple[float, ...], most: int) -> list[dict[str, Any]]:
    """Log-probabilities in vLLM's manner, `most` per token: over the allowed tokens, the others at -9999."""
    top: list[dict[str, Any]] = [
        {"token": str(grade), "logprob": math.log(p), "bytes": [48 + grade]} for grade, p in enumerate(probabilities, 1)
    ]
    top.sort(key=lambda entry: -entry["logprob"])
    top += [{"token": f"x{n}", "logprob": -9999.0, "bytes": [120, 48 + n % 10]} for n in range(16)]
    middle = {"token": digit, "logprob": top[0]["logprob"], "bytes": [ord(digit)], "top_logprobs": top[:most]}
    return [*_certain_token(before), middle, *_certain_token(after)]


def _certain_token(text: str) -> list[dict[str, Any]]:
    return [{"token": text, "logprob": 0.0, "bytes": None, "top_logprobs": []}] if text else []


def _error(status: int, message: str, headers: dict[str, str] | None = None) -> web.Response:
    error = {"message": message, "type": "error", "param": None, "code": status}
    return web.json_response({"error": error}, status=status, headers=headers)


async def _reset(server: _Server, request: web.Request, prompt: str) -> web.StreamResponse:
    """Half an answer, then a reset."""
    response = web.StreamResponse(headers={"Content-Type": "application/json", "Content-Length": "1000"})
    await response.prepare(request)
    await response.write(b'{"choices": [{"message": {"content": "4"')
    request.transport.abort()  # type: ignore[union-attr]
    return response


async def _drop(server: _Server, request: web.Request, prompt: str) -> web.StreamResponse:
    """A reset before any answer."""
    request.transport.abort()  # type: ignore[union-attr]
    return web.Response()


async def _latin_1(server: _Server, request: web.Request, prompt: str) -> web.StreamResponse:
    """A reason phrase as a gateway in another encoding writes it."""
    answer = b"HTTP/1.1 503 Dienst nicht verf\xfcgbar\r\nContent-Length: 0\r\nConnection: close\r\n\r\n"
    request.transport.write(answer)  # type: ignore[union-attr]
    request.transport.close()  # type: ignore[union-attr]
    return web.Response()


async def _hang(server: _Server, request: web.Request, prompt: str) -> web.StreamResponse:
    await asyncio.sleep(3600)
    return web.Response()


async def _trickle(server: _Server, request: web.Request, prompt: str) -> web.StreamResponse:
    """A byte now and then, so that no single read ever waits long."""
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    for _ in range(36_000):
        await response.write(b" ")
        await asyncio.sleep(0.1)
    return response


async def _sound(server: _Server, request: web.Request, prompt: str) -> None:
    """Answered, with `_completion` looking at the fault's name."""


def _status(status: int) -> Any:
    async def fail(server: _Server, request: web.Request, prompt: str) -> web.Response:
        if status in (429, 503):
            return server._busy(status)
        return _error(status, f"trouble; your headers were {dict(request.headers)}")

    return fail


def _error_of(status: int, message: str, code: str) -> Any:
    async def fail(server: _Server, request: web.Request, prompt: str) -> web.Response:
        return web.json_response({"error": {"message": message, "code": code}}, status=status)

    return fail


def _text(text: str, content_type: str = "application/json") -> Any:
    async def answer(server: _Server, request: web.Request, prompt: str) -> web.Response:
        return web.Response(text=text, content_type=content_type)

    return answer


_FAULTS: dict[str, Any] = {
    "reset": _reset,
    "drop": _drop,
    "latin-1": _latin_1,
    "hang": _hang,
    "trickle": _trickle,
    "invalid-json": _text('{"choices": [{"message": {"content": "4"}'),
    "nested": _text("[" * 100_000),
    "html": _text("<html>Bad gateway</html>", "text/html"),
    "json-list": _text('["4"]'),
    "empty-choices": _text('{"model": "stub-model", "choices": []}'),
    "429-within": _text('{"error": {"code": 429, "message": "slow down"}}'),
    "402-within": _text('{"error": {"code": 402, "message": "no credit"}}'),
    "429-too-large": _error_of(429, "Request too large for gpt-9 on tokens per min", "rate_limit_exceeded"),
    "no-credit": _error_of(429, "You exceeded your current quota", "insufficient_quota"),
    **{str(status): _status(status) for status in (400, 401, 403, 404, 405, 408, 429, 500, 502, 503)},
    **dict.fromkeys([*_WORDS, "no-logprobs", "other-model"], _sound),
}


async def _serve(port: int, config: dict[str, Any]) -> None:
    runner = web.AppRunner(_Server(config).app(), access_log=None)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", port, reuse_address=True, backlog=1024)
    await site.start()
    print(runner.addresses[0][1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    asyncio.run(_serve(int(sys.argv[1]), json.loads(sys.argv[2])))
