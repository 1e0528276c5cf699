"""What the documents' bash blocks call: bash itself runs them, every program replaced by one that notes its call."""

import json
import re
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parent.parent
DOCUMENTS = ("README.md", "AWS_RUNBOOK.md")
PROGRAMS = (
    "cat",
    "curl",
    "git",
    "head",
    "jq",
    "ls",
    "nvidia-smi",
    "pkill",
    "python",
    "python3",
    "scp",
    "split",
    "ssh",
    "sudo",
    "tail",
    "tar",
    "tmux",
    "watch",
)
LOCAL_PROGRAMS = ("run_full_pipeline.sh", "tests/run", "vllm/bin/pip", "vllm/bin/vllm")  # in the folder, which is ~ too

_BLOCK = re.compile(r"^```(\w*)\n(.*?)^```$", re.DOTALL | re.MULTILINE)
_NOTE_CALL = """#!{python} -SE
import json, os, sys
name = os.path.relpath(sys.argv[0]).removeprefix("bin/")
call = {{"words": [name, *sys.argv[1:]], "variables": sorted(os.environ.keys() - {known})}}
with open({calls!r}, "a") as file:
    file.write(json.dumps(call) + "\\n")
"""


@dataclass(frozen=True)
class Call:
    """One program run by a document: its name and arguments as bash passes them, and the variables set for it."""

    document: str
    words: tuple[str, ...]
    variables: tuple[str, ...]


def blocks(document: str, language: str) -> list[str]:
    """The document's fenced blocks of one language ("" for none)."""
    text = (ROOT / document).read_text(encoding="utf-8")
    return [body for found, body in _BLOCK.findall(text) if found == language]


def calls(document: str, folder: Path) -> list[Call]:
    """All calls of the document's bash blocks, in order but for those in the background.

    Args:
        document: one of DOCUMENTS.
        folder: an empty folder to do it in.

    Raises:
        ValueError: bash does not accept a block, or it calls a program that is not listed above.
    """
    noted = folder / "calls.jsonl"
    environment = {"PATH": str(folder / "bin"), "HOME": str(folder)}
    known = {*environment, "PWD", "OLDPWD", "SHLVL", "_", "LC_CTYPE"}
    shim = _NOTE_CALL.format(python=sys.executable, known=known, calls=str(noted))
    for name in (*(f"bin/{name}" for name in PROGRAMS), *LOCAL_PROGRAMS):
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(shim, encoding="utf-8")
        path.chmod(0o755)
    (folder / ".venv/bin").mkdir(parents=True)
    (folder / ".venv/bin/activate").touch()
    bash = shutil.which("bash") or "bash"
    for block in blocks(document, "bash"):
        script = f"cd() {{ :; }}\n{block}\nwait\n"
        done = subprocess.run(
            [bash, "-euo", "pipefail", "-c", script],
            cwd=folder,
            env=environment,
            stderr=subprocess.PIPE,
            text=True,
            timeout=60,
        )
        if done.returncode or done.stderr:
            raise ValueError(f"{document}: bash cannot run this block: {done.stderr}\n{block}")
    records = [json.loads(line) for line in noted.read_text(encoding="utf-8").splitlines()]
    return [Call(document, tuple(record["words"]), tuple(record["variables"])) for record in records]
