"""Asks the model and data hub once whether it is there: its own client would retry for a minute."""

import http.client
import urllib.error
import urllib.request
from urllib.parse import quote

TIMEOUT = 5.0  # seconds the hub may take to answer before a cached copy, or an error, is next


def hub_silence(kind: str, name: str) -> str:
    """Why the hub does not answer, or "" where it does: one request, no retries.

    Args:
        kind: "models" or "datasets".
        name: what is looked for, e.g. "lavita/MedQuAD".
    """
    from huggingface_hub import constants  # slow to import, and only hub names need it

    if constants.HF_HUB_OFFLINE:
        return "HF_HUB_OFFLINE is set"
    try:
        with urllib.request.urlopen(f"{constants.ENDPOINT}/api/{kind}/{quote(name)}", timeout=TIMEOUT):
            return ""
    except urllib.error.HTTPError as error:  # it answered; what a 4xx means the hub's own client says better
        return f"HTTP status {error.code}" if error.code >= 500 else ""
    except http.client.HTTPException as error:
        return f"no sensible answer: {type(error).__name__}"
    except OSError as error:
        return str(getattr(error, "reason", error))
