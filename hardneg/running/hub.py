"""The model and data hub: asked once whether it is there, because its own client would retry for a minute."""

import re
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any
from urllib.parse import quote

from hardneg.running.errors import PROXY_URL_REMEDY, InputError, one_line

TIMEOUT = 5.0  # seconds to wait for the hub before a cached copy is used, or an error raised
_COMMIT = re.compile("[0-9a-f]{40}")  # what the library names a cached copy by; older versions of it by other hashes


def may_be_hub_name(name: str) -> bool:
    """Whether a model of this name would be looked for on the hub: it is no path, as far as that can be told."""
    is_path = name.startswith((".", "/", "~", "models/")) or name.count("/") > 1
    return not (is_path or Path(name).is_dir())


def hub_error(kind: str, name: str) -> str:
    """Why the hub does not answer, or "" where it does: one request per name in a process's life, no retries.

    Args:
        kind: "models" or "datasets".
        name: what is looked for, e.g. "lavita/MedQuAD".
    """
    error, _ = _ask(kind, name)
    return error


def hub_revision(name: str) -> str | None:
    """The commit of a data set that would be read: the hub's, or where it does not answer that of the cached copy.

    None where neither is known.
    """
    error, revision = _ask("datasets", name)
    return _cached_revision(name) if error else revision


@cache
def _ask(kind: str, name: str) -> tuple[str, str | None]:
    """`hub_error`, and the commit that the hub tells of."""
    from httpx2 import HTTPError, InvalidURL, UnsupportedProtocol
    from huggingface_hub import constants  # slow to import, and only hub names need it
    from huggingface_hub.utils import build_hf_headers, get_session  # type: ignore[attr-defined]  # not marked as public

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set", None
    try:
        session = get_session()
    except InvalidURL:  # whose message may quote a piece of a password
        return PROXY_URL_REMEDY, None
    except (OSError, ValueError, ImportError) as error:  # proxies or certificates of no use
        return str(error) or type(error).__name__, None
    try:
        url = f"{constants.ENDPOINT}/api/{kind}/{quote(name)}"
        answer = session.get(url, timeout=TIMEOUT, headers=build_hf_headers())  # with the user's token, if any
    except (InvalidURL, UnsupportedProtocol):
        return f"HF_ENDPOINT is no URL: {constants.ENDPOINT}", None
    except (HTTPError, OSError, ValueError) as error:
        return str(error) or type(error).__name__, None
    if not answer.is_success:  # of a 4xx its own client says more
        return f"HTTP status {answer.status_code}" if answer.is_server_error else "", None
    try:
        return "", answer.json()["sha"]
    except (ValueError, KeyError, TypeError):  # a mirror that tells less
        return "", None


def load_hub_dataset(name: str, remedy: str, subset: str | None = None, split: str | None = None) -> Any:
    """A data set of the hub at `hub_revision`, as `datasets.load_dataset` gives it.

    Args:
        name: its id.
        remedy: what else the user could do, for the error line.
        subset: its configuration.
        split: one split of it; all of them, by name, where None.

    Raises:
        InputError: there is neither a hub nor a cached copy, or the data set is not one.
    """
    import datasets  # takes a second to import, and only hub names need it

    problem, revision = _ask("datasets", name)
    try:
        with _offline(bool(problem)):  # the cached copy or nothing: no minute of retries
            found = datasets.load_dataset(name, subset, split=split, revision=revision)
    except _client_errors() as error:
        reason = problem or one_line(error)
        raise InputError(
            f"cannot load {name} from the data hub ({reason}); check the id and the network, or {remedy}"
        ) from error
    # Where a download fails, the library takes whatever copy it has, of any commit.
    parts = [found] if split else found.values()
    folders = {Path(file["filename"]).parent.name for part in parts for file in part.cache_files}
    others = sorted(filter(_COMMIT.fullmatch, folders - {revision}))
    if revision and others:
        raise InputError(
            f"the data hub has commit {revision} of {name} but could not send it, only a copy of {', '.join(others)} "
            f"is here; run again later, or {remedy}"
        )
    return found


def _cached_revision(name: str) -> str | None:
    import datasets

    try:
        with _offline(True):
            found = datasets.load_dataset_builder(name).hash or ""
    except _client_errors():  # there is no copy
        return None
    return found if _COMMIT.fullmatch(found) else None


@contextmanager
def _offline(is_offline: bool) -> Iterator[None]:
    """Keep `datasets` from asking the hub."""
    import datasets

    before = datasets.config.HF_HUB_OFFLINE
    datasets.config.HF_HUB_OFFLINE = before or is_offline
    try:
        yield
    finally:
        datasets.config.HF_HUB_OFFLINE = before


def _client_errors() -> tuple[type[Exception], ...]:
    """What `datasets` raises where it cannot read a data set, or its connection is lost."""
    from datasets.exceptions import DatasetsError
    from httpx2 import HTTPError

    return OSError, ValueError, RuntimeError, ImportError, HTTPError, DatasetsError
