"""What a server's list of models and its faults are taken to say; whole probes are in test_llm_judge."""

from typing import Any

import pytest

from hardneg.judging.faults import Unreachable
from hardneg.judging.probing import _max_model_len, _served, _unreachable
from hardneg.running.errors import InputError

URL = "http://localhost/v1"


def test_a_model_is_found_by_its_name_and_by_an_alias() -> None:
    """llama.cpp lists what `--alias` names; null and no list at all are no aliases."""
    bare, null, named = {"id": "a"}, {"id": "b", "aliases": None}, {"id": "/models/c.gguf", "aliases": ["qwen", "c"]}
    listing = {"data": [bare, null, named]}
    assert [_served(listing, URL, name) for name in ("a", "b", "c", "/models/c.gguf")] == [bare, null, named, named]


@pytest.mark.parametrize(
    ("listing", "names"),
    [
        ({"data": [{"id": f"m{number}"} for number in range(10)]}, "m0, m1, m2, m3, m4, m5, m6, m7, m8, m9: name"),
        ({"data": [{"id": f"m{number}"} for number in range(300)]}, "m0, .*, m9 and 290 others: name"),
        ([{"id": "m0"}, "m1", None], "m0: name"),
        ({"data": []}, "nothing: name"),
        ({"data": None}, "nothing: name"),
        ({"error": "no"}, "nothing: name"),
        ("qwen", "nothing: name"),
    ],
)
def test_what_is_listed_instead_is_named(listing: object, names: str) -> None:
    with pytest.raises(InputError, match=f"^{URL} does not serve qwen; it serves {names} that, or start"):
        _served(listing, URL, "qwen")


@pytest.mark.parametrize(
    ("entry", "length"),
    [
        ({"max_model_len": 4096}, 4096),
        ({"meta": {"n_ctx": 512}}, 512),
        ({"max_model_len": None, "meta": {"n_ctx": 512}}, 512),
        ({"max_model_len": 4096, "meta": {"n_ctx": 512}}, 4096),
        ({"max_model_len": 1}, 1),
        ({"max_model_len": -1}, None),
        ({"max_model_len": "4096"}, None),
        ({"meta": {}}, None),
        ({"meta": None}, None),
        ({"meta": "512"}, None),
        ({}, None),
    ],
)
def test_the_context_length_by_whatever_name_a_server_has_for_it(entry: dict[str, Any], length: int | None) -> None:
    assert _max_model_len(entry) == length


@pytest.mark.parametrize(("url", "port"), [("http://gpu-1:9000/v1", 9000), ("http://gpu-1/v1", 8000)])
def test_the_command_that_starts_a_server_has_the_port_of_its_address(url: str, port: int) -> None:
    said = _unreachable(url, Unreachable("refused"), "qwen")
    assert said.startswith(
        f"no LLM server answers at {url} (refused); start it (`vllm serve qwen --port {port}`) and wait"
    )
