"""README.md and AWS_RUNBOOK.md: every command is one that the scripts accept, every name one that exists."""

import importlib
import json
import re
import shutil
import subprocess
from pathlib import Path
from urllib.parse import urlsplit

import pytest

import hardneg
from tests.documents import DOCUMENTS, ROOT, Call, blocks, calls

SCRIPTS = ("prepare_corpus.py", "prepare_queries.py", "test_small_sample.py", "iterative_miner.py", "evaluate.py")
PIPELINE = (ROOT / "run_full_pipeline.sh").read_text(encoding="utf-8")
VARIABLES = set(re.findall(r"^#   ([A-Z_]+) ", PIPELINE, re.MULTILINE))
OTHER_VARIABLES = {"HARDNEG_DATA", "CUDA_VISIBLE_DEVICES", "OPENAI_API_KEY", "VLLM_USE_FLASHINFER_SAMPLER"}
VLLM_FLAGS = {
    "serve": {"--port", "--tensor-parallel-size", "--gpu-memory-utilization", "--host", "--max-model-len"},
    "run-batch": {"-i", "-o", "--model", "--max-model-len", "--tensor-parallel-size"},
}


@pytest.fixture(scope="module")
def all_calls(tmp_path_factory: pytest.TempPathFactory) -> list[Call]:
    return [call for document in DOCUMENTS for call in calls(document, tmp_path_factory.mktemp("document"))]


def of(all_calls: list[Call], *programs: str) -> list[Call]:
    found = [call for call in all_calls if call.words[0] in programs]
    assert found
    return found


def python_calls(all_calls: list[Call], *names: str) -> list[Call]:
    return [call for call in of(all_calls, "python", "python3") if call.words[1] in names]


@pytest.mark.parametrize("script", SCRIPTS)
def test_scripts_accept_their_flags(all_calls: list[Call], script: str) -> None:
    module = importlib.import_module(Path(script).stem)
    found = python_calls(all_calls, script)
    assert found
    for call in found:
        try:
            module.parse_arguments(list(call.words[2:]))
        except SystemExit as end:
            assert end.code == 0, call


def test_python_runs_nothing_else(all_calls: list[Call]) -> None:
    rest = [call for call in of(all_calls, "python", "python3") if call.words[1] not in SCRIPTS]
    for call in rest:
        if call.words[1] == "-c":
            compile(call.words[2], "document", "exec")
        else:
            assert call.words[1:3] == ("-m", "venv"), call


def test_the_pipeline_accepts_its_flags_and_variables(all_calls: list[Call]) -> None:
    for call in of(all_calls, "run_full_pipeline.sh"):
        command = [str(ROOT / "run_full_pipeline.sh"), *call.words[1:], "--help"]
        assert subprocess.run(command, capture_output=True).returncode == 0, call
        assert set(call.variables) <= VARIABLES, call
    assert {variable for call in all_calls for variable in call.variables} <= VARIABLES | OTHER_VARIABLES


def test_the_tests_that_are_named_exist(all_calls: list[Call]) -> None:
    for call in of(all_calls, "tests/run"):
        assert all((ROOT / word).exists() for word in call.words[1:]), call


def test_vllm_serves_on_ports_that_the_scripts_ask(all_calls: list[Call]) -> None:
    ports = set()
    for call in of(all_calls, "vllm/bin/vllm"):
        words = call.words[3:] if call.words[1] == "serve" else call.words[2:]  # `serve` names the model first
        flags = dict(zip(words[::2], words[1::2], strict=True))
        assert flags.keys() <= VLLM_FLAGS[call.words[1]], call
        ports |= {flags["--port"]} if "--port" in flags else set()
    asked = {urlsplit(word).port for call in all_calls for word in call.words if word.startswith("http://localhost:")}
    assert {str(port) for port in asked} == ports


def test_requests_by_hand_are_json(all_calls: list[Call]) -> None:
    bodies = [call.words[call.words.index("-d") + 1] for call in of(all_calls, "curl") if "-d" in call.words]
    assert bodies
    assert all(json.loads(body)["messages"][0]["role"] == "user" for body in bodies)


@pytest.mark.skipif(shutil.which("jq") is None, reason="jq is not installed")
def test_jq_filters_compile(all_calls: list[Call]) -> None:
    """That they find something is checked on real results, in test_run_full_pipeline.py."""
    for call in of(all_calls, "jq"):
        done = subprocess.run(["jq", call.words[1]], input="null", capture_output=True, text=True)
        assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("document", DOCUMENTS)
def test_variables_named_in_the_text_are_read(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    named = {name for name in re.findall(r"`([A-Z][A-Z_]{3,})(?:=[^`]*)?`", text) if not is_constant(name)}
    assert named <= VARIABLES | OTHER_VARIABLES


def is_constant(name: str) -> bool:
    """Whether it is a name in one of the scripts instead."""
    return any(
        re.search(rf"^{name}\b", (ROOT / script).read_text(encoding="utf-8"), re.MULTILINE) for script in SCRIPTS
    )


def test_the_file_tree_is_the_repositorys() -> None:
    (tree,) = [block for block in blocks("README.md", "") if "iterative_miner.py" in block]
    named, folder = set(), ""
    for indent, name in re.findall(r"^([│ ]*)[├└]── (\S+)", tree, re.MULTILINE):
        named.add(folder + name if indent else name)
        folder = name if not indent and name.endswith("/") else folder
    missing = {name for name in named if not (ROOT / name).exists()}
    assert missing == set()
    files = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True, check=True).stdout
    listed = files.split("\0")
    top = {name.split("/")[0] + ("/" if "/" in name else "") for name in listed if name and not name.startswith(".")}
    assert "hardneg/" in top
    assert top <= named


def layers() -> dict[str, list[str]]:
    """The package's folders with their modules, as its docstring has them."""
    _, *told = re.split(r"^(\w+)$", hardneg.__doc__ or "", flags=re.MULTILINE)
    folders = zip(told[::2], told[1::2], strict=True)
    return {folder: re.findall(r"^    (\w+)  ", modules, re.MULTILINE) for folder, modules in folders}


def test_the_package_tells_of_all_its_modules() -> None:
    told = sorted((folder, module) for folder, modules in layers().items() for module in modules)
    assert told == sorted((path.parent.name, path.stem) for path in (ROOT / "hardneg").glob("*/[a-z]*.py"))


def test_each_folder_uses_only_those_above_it() -> None:
    folders = list(layers())
    assert len(folders) == 6
    for place, folder in enumerate(folders):
        for path in (ROOT / "hardneg" / folder).glob("*.py"):
            used = set(re.findall(r"(?:from|import) hardneg\.(\w+)", path.read_text(encoding="utf-8")))
            assert used <= set(folders[: place + 1]), path


@pytest.mark.parametrize("document", DOCUMENTS)
def test_scripts_functions_and_links_exist(document: str) -> None:
    text = (ROOT / document).read_text(encoding="utf-8")
    for script, function in re.findall(r"(\w+\.py):(\w+)\(\)", text):
        assert re.search(rf"^def {function}\(", (ROOT / script).read_text(encoding="utf-8"), re.MULTILINE), function
    for script in re.findall(r"`([\w/]+\.(?:py|sh))`", text):
        assert (ROOT / script).exists(), script
    for target in re.findall(r"\]\((?!https?:)([^)#]+)", text):
        assert (ROOT / target).exists(), target
    headings = {title.lower().replace(" ", "-") for title in re.findall(r"^#+ ([\w ]+)$", text, re.MULTILINE)}
    assert set(re.findall(r"\]\(#([^)]+)", text)) <= headings


@pytest.mark.parametrize("document", DOCUMENTS)
def test_the_judgments_are_copied_with_their_log(document: str) -> None:
    """After a kill the latest ones are in judgments.sqlite-wal alone."""
    text = (ROOT / document).read_text(encoding="utf-8")
    assert re.findall(r"(?:\bcopy\s+`|\bscp .*/)judgments\.sqlite(.)", text) == ["*"]


def test_the_runbook_has_its_seven_phases() -> None:
    text = (ROOT / "AWS_RUNBOOK.md").read_text(encoding="utf-8")
    assert re.findall(r"^## Phase (\d)", text, re.MULTILINE) == list("1234567")
    assert "\n## Troubleshooting\n" in text
    assert "\n## Timeline\n" in text
