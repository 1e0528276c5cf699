"""Whether the hub answers, asked of real HTTP servers on loopback."""

import json
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from threading import Thread
from types import SimpleNamespace

import datasets
import pytest
from huggingface_hub import constants
from huggingface_hub.utils import close_session  # type: ignore[attr-defined]  # documented, but not marked as public

from hardneg.embedding.models import load_model
from hardneg.running.errors import PROXY_URL_REMEDY, InputError
from hardneg.running.hub import _ask, hub_error, hub_revision, load_hub_dataset

COMMIT = "c0ffee00" * 5
BODIES = {"mirror": b"<html>", "terse": b'{"id": "a/b"}'}  # of what tells no commit


class Hub(BaseHTTPRequestHandler):
    """Answers with the status that the name ends with, and tells its commit unless the name asks for less."""

    def do_GET(self) -> None:
        status = self.path.rsplit("-", 1)[-1]
        if "mine" in self.path and self.headers["Authorization"] != "Bearer hf_mine":
            status = "401"
        if status == "nonsense":
            self.wfile.write(b"SSH-2.0-OpenSSH\r\n")
            return
        body = next((BODIES[kind] for kind in BODIES if kind in self.path), json.dumps({"sha": COMMIT}).encode())
        self.send_response(int(status))
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Nothing."""


@pytest.fixture(scope="module")
def url() -> Iterator[str]:
    with HTTPServer(("127.0.0.1", 0), Hub) as server:
        Thread(target=server.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()


@pytest.fixture(autouse=True)
def online(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """A hub to ask, by a client of this test's own, which reads the variables for proxies when it is made."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    for name in ("ALL_PROXY", "HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
        monkeypatch.delenv(name.lower(), raising=False)
    _ask.cache_clear()
    close_session()
    yield
    _ask.cache_clear()
    close_session()


@pytest.mark.parametrize(
    ("name", "silence"),
    [
        ("a/b-200", ""),
        ("a/b-404", ""),  # the hub's own client says what that means
        ("a/b-401", ""),
        ("a/b-503", "HTTP status 503"),
    ],
)
def test_what_the_hub_answers(url: str, name: str, silence: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    assert hub_error("models", name) == silence


def test_the_commit_of_a_data_set(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    assert hub_revision("a/b-200") == COMMIT
    assert [hub_revision(name) for name in ("a/b-404", "a/b-503", "mirror/b-200", "terse/b-200")] == [None] * 4
    assert hub_error("datasets", "mirror/b-200") == hub_error("datasets", "terse/b-200") == ""


def test_a_data_set_is_read_at_the_commit_that_was_told(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Or it is an error: where a download fails, `datasets` takes whatever copy it has."""
    asked, copy = [], COMMIT

    def load_dataset(*_: object, revision: str | None, **__: object) -> dict[str, SimpleNamespace]:
        asked.append(revision)
        return {"train": SimpleNamespace(cache_files=[{"filename": f"/cache/0.0.0/{copy}/b-train.arrow"}])}

    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.setattr(datasets, "load_dataset", load_dataset)
    load_hub_dataset("a/b-200", "")
    copy = "0" * 40
    load_hub_dataset("a/b-503", "")
    assert asked == [COMMIT, None]
    with pytest.raises(
        InputError, match=f"has commit {COMMIT} of a/b-200 but could not send it, only a copy of 0{{40}} "
    ):
        load_hub_dataset("a/b-200", "name a file")
    copy = "0" * 64  # as older versions of the library named what they read, of a commit that nobody knows
    load_hub_dataset("a/b-200", "")


def test_a_data_set_for_those_who_may_see_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    monkeypatch.delenv("HF_TOKEN", raising=False)
    assert hub_revision("mine/b-200") is None
    _ask.cache_clear()
    monkeypatch.setenv("HF_TOKEN", "hf_mine")
    assert hub_revision("mine/b-200") == COMMIT


def test_what_is_no_hub(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", url)
    assert hub_error("datasets", "a/b-nonsense")
    for endpoint in ("nowhere", "ftp://nowhere", ""):
        monkeypatch.setattr(constants, "ENDPOINT", endpoint)
        assert hub_error("models", f"a/b {endpoint}") == f"HF_ENDPOINT is no URL: {endpoint}"


def test_a_hub_behind_a_proxy_is_asked_through_it(url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", url)
    monkeypatch.setattr(constants, "ENDPOINT", "http://hub.invalid")
    assert hub_error("models", "a/b-503") == "HTTP status 503"


@pytest.mark.parametrize(
    ("variable", "value"),
    [("ALL_PROXY", "socks5://127.0.0.1:9"), ("ALL_PROXY", "socks4://127.0.0.1:9"), ("SSL_CERT_FILE", "none.pem")],
)
def test_what_the_client_cannot_use_is_a_reason(variable: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, value)
    monkeypatch.setattr(constants, "ENDPOINT", "https://127.0.0.1:9")
    with pytest.raises(InputError, match=r"model a/b cannot be loaded \(.+\)"):
        load_model("a/b", "cpu")


def test_a_proxy_that_is_no_url_is_told_without_its_password(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("ALL_PROXY", "http://me:hunter2#x@127.0.0.1:9")
    assert hub_error("models", "a/b") == PROXY_URL_REMEDY


def test_a_hub_that_is_switched_off(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    assert hub_error("models", "a/b-200") == "HF_HUB_OFFLINE is set"


def test_one_data_set_that_cannot_be_had_does_not_send_the_next_offline(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(constants, "ENDPOINT", "http://127.0.0.1:9")
    before = datasets.config.HF_HUB_OFFLINE
    with pytest.raises(InputError, match=r"cannot load a/b from the data hub \(.+\); .*, or name a file"):
        load_hub_dataset("a/b", "name a file")
    assert datasets.config.HF_HUB_OFFLINE is before
