"""run_full_pipeline.sh: what it runs, refuses, logs and hands on.

The chain itself is tested with an interpreter that only says what it was asked to run; some refusals and a small run
from end to end use the real one.
"""

import os
import re
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import pytest

from tests.documents import calls
from tests.pipeline_clone import FAKE_PYTHON, ROOT, SCRIPT, VARIABLES, Clone, executable


@pytest.fixture
def clone(tmp_path: Path) -> Clone:
    """The script alone, with the fake interpreter."""
    return Clone.of_the_script(tmp_path)


@pytest.fixture
def real_clone(tmp_path: Path) -> Clone:
    """All of the code, with this interpreter."""
    folder = tmp_path / "clone"
    shutil.copytree(ROOT / "hardneg", folder / "hardneg", ignore=shutil.ignore_patterns("__pycache__"))
    for path in (*ROOT.glob("*.py"), ROOT / SCRIPT):
        shutil.copy(path, folder / path.name)
    return Clone(folder, sys.executable)


def error_lines(shown: str) -> list[str]:
    return [line for line in shown.splitlines() if "error:" in line]


# ---------------------------------------------------------------- arguments


def test_help_names_every_variable_that_is_read(clone: Clone) -> None:
    status, shown = clone.run("--help")
    text = (ROOT / SCRIPT).read_text(encoding="utf-8")
    assert status == 0
    code = "\n".join(line for line in text.splitlines() if not line.startswith("#"))
    set_by_bash = {"BASH_SOURCE", "PWD", "SECONDS", "STAGES"}
    exported = {"HF_HUB_OFFLINE", "TQDM_MININTERVAL"}  # not settings of the pipeline's own
    read = set(re.findall(r"\$\{?([A-Z][A-Z_]+)", code))
    assert read - set_by_bash - exported == VARIABLES
    assert {name for name in VARIABLES if f"  {name} " not in shown} == set()
    assert not (clone.folder / "logs").exists()
    command = [str(Path(clone.folder.name) / SCRIPT), "--help"]
    elsewhere = subprocess.run(command, cwd=clone.folder.parent, capture_output=True, text=True, check=True)
    assert elsewhere.stdout == shown


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--from", "nowhere"], "unknown stage 'nowhere'; stages: setup corpus queries sample train evaluate"),
        (["--to"], "unknown stage ''"),
        (["--from", "train", "--to", "corpus"], "--from train comes after --to corpus"),
        (["--qiuck"], "unknown argument --qiuck; see ./run_full_pipeline.sh --help"),
    ],
)
def test_wrong_arguments_end_with_one_line(clone: Clone, arguments: Sequence[str], message: str) -> None:
    status, shown = clone.run(*arguments)
    assert status == 2
    assert shown.startswith("error: ")
    assert message in shown
    assert shown.count("\n") == 1
    assert clone.asked() == []


def test_a_kappa_gate_needs_a_judge_that_can_be_measured(clone: Clone) -> None:
    status, shown = clone.run("--quick", MIN_KAPPA="0.2")
    assert (status, shown) == (2, "error: MIN_KAPPA needs JUDGE=llm and a GRADED set\n")


def test_a_kappa_gate_is_not_passed_by_beginning_behind_it(clone: Clone) -> None:
    status, shown = clone.run("--from", "train", MIN_KAPPA="0.2")
    assert status == 2
    assert shown.startswith("error: MIN_KAPPA is checked in stage sample") and shown.count("\n") == 1
    assert clone.asked() == []
    for without_training in (("--to", "queries"), ("--from", "evaluate")):
        assert clone.run(*without_training, MIN_KAPPA="0.2")[0] == 0


# ---------------------------------------------------------------- where it runs


@pytest.mark.parametrize("name", [SCRIPT, "tests/run", ".ci/run"])
def test_it_runs_where_it_lies(tmp_path: Path, name: str) -> None:
    """Whatever CDPATH has folders of that name, and through a link from elsewhere that is called otherwise."""
    repository = tmp_path / "my repo"
    (tmp_path / "other" / "my repo" / Path(name).parent).mkdir(parents=True)
    for script in (SCRIPT, "tests/run", ".ci/run"):
        (repository / script).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / script, repository / script)
    executable(tmp_path / "shellcheck", "#!/bin/sh\n")
    python = executable(tmp_path / "python", '#!/bin/sh\npwd -P >>"$RAN"\n')
    variables = {"PYTHON": str(python), "RAN": str(tmp_path / "ran"), "PATH": f"{tmp_path}:{os.environ['PATH']}"}
    link = tmp_path / "adapt"
    link.symlink_to(repository / name)
    for started, cdpath in ((f"my repo/{name}", str(tmp_path / "other")), (str(link), "")):
        environment = Clone(repository, python).environment | variables | {"CDPATH": cdpath}
        command = ["bash", started, "--to", "queries"]
        subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, check=True)
        ran = Path(variables["RAN"])
        assert set(ran.read_text(encoding="utf-8").splitlines()) == {str(repository.resolve())}
        ran.unlink()
    if name == SCRIPT:
        helped = subprocess.run([link, "--help"], capture_output=True, text=True, check=True).stdout
        assert "--quick" in helped


# ---------------------------------------------------------------- the chain


def test_the_full_run_is_the_runbooks(clone: Clone) -> None:
    status, _ = clone.run()
    judge = "--judge llm --llm-endpoint http://localhost:8000/v1 --llm-model Qwen/Qwen2.5-7B-Instruct"
    base = "sentence-transformers/all-MiniLM-L12-v2"
    assert status == 0
    assert clone.asked() == [
        "prepare_corpus.py --source lavita/MedQuAD --seed 42 --data-dir data",
        "prepare_queries.py --data-dir data",
        f"test_small_sample.py --num-queries 30 --num-candidates 10 --full-run 1000xx2 {judge} --graded bundled "
        f"--base-model {base} --data-dir data --seed 42 --device auto",
        f"iterative_miner.py --iterations 2 --num-queries 1000 {judge} --base-model {base} "
        "--data-dir data --output-dir models/medical-specialized --seed 42 --device auto",
        f"evaluate.py --baseline-model {base} --specialized-model models/medical-specialized/final --k 5 "
        "--data-dir data --device auto --graded bundled",
    ]


def test_quick_needs_no_server_and_leaves_the_full_runs_folders_alone(clone: Clone) -> None:
    status, _ = clone.run("--quick")
    asked = clone.asked()
    assert status == 0
    assert [command.split()[0] for command in asked] == [
        "prepare_corpus.py",
        "prepare_queries.py",
        "test_small_sample.py",
        "iterative_miner.py",
        "evaluate.py",
    ]
    assert all("--data-dir data/quick" in command for command in asked)
    assert "--output-dir models/quick " in asked[3]
    assert "--judge answer-key" in asked[2]
    assert "--judge answer-key" in asked[3]
    assert not any("--llm-endpoint" in command for command in asked)


def test_variables_reach_their_stages_and_further_flags_come_last(clone: Clone) -> None:
    """Each has a value of its own, so that none stands for another or for what it is by default."""
    variables = {
        "SOURCE": "faq.csv",
        "BASE_MODEL": "my/base",
        "LLM_ENDPOINT": "http://localhost:8000/v1 http://localhost:8001/v1",
        "LLM_MODEL": "my/llm",
        "NUM_QUERIES": "300",
        "NUM_CANDIDATES": "15",
        "ITERATIONS": "3",
        "GRADED": "people.jsonl",
        "MIN_KAPPA": "0.25",
        "DATA_DIR": "prepared",
        "OUTPUT_DIR": "adapted",
        "DEVICE": "cuda:1",
        "SEED": "7",
        "CORPUS_FLAGS": "--max-topics 40",
        "JUDGE_FLAGS": "--prompt p.txt",
        "SAMPLE_FLAGS": "--num-queries 50",
        "MINER_FLAGS": "--concurrency 128  --guard none",
        "EVALUATE_FLAGS": "--require-target",
    }
    assert variables.keys() == VARIABLES - {"PYTHON", "JUDGE"}
    status, _ = clone.run(**variables)
    endpoints = "--llm-endpoint http://localhost:8000/v1 --llm-endpoint http://localhost:8001/v1"
    judge = f"--judge llm {endpoints} --llm-model my/llm"
    assert status == 0
    assert clone.asked() == [
        "prepare_corpus.py --source faq.csv --seed 7 --data-dir prepared --max-topics 40",
        "prepare_queries.py --data-dir prepared",
        f"test_small_sample.py --num-queries 30 --num-candidates 10 --full-run 300x15x3 {judge} --graded people.jsonl "
        "--min-kappa 0.25 --base-model my/base --data-dir prepared --seed 7 --device cuda:1 --prompt p.txt "
        "--num-queries 50",
        f"iterative_miner.py --iterations 3 --num-queries 300 --num-candidates 15 {judge} --base-model my/base "
        "--data-dir prepared --output-dir adapted --seed 7 --device cuda:1 --prompt p.txt --concurrency 128 "
        "--guard none",
        "evaluate.py --baseline-model my/base --specialized-model adapted/final --k 5 --data-dir prepared "
        "--device cuda:1 --graded people.jsonl --require-target",
    ]


def test_words_of_a_variable_are_no_wildcards(clone: Clone) -> None:
    status, _ = clone.run(
        "--from", "train", "--to", "train", LLM_ENDPOINT="http://a/v1\n*", MINER_FLAGS="--prompt *.txt"
    )
    assert status == 0
    (train,) = clone.asked()
    assert "--llm-endpoint http://a/v1 --llm-endpoint * --llm-model" in train
    assert train.endswith(" --prompt *.txt")


def test_a_set_without_grades_measures_no_judge(clone: Clone) -> None:
    status, _ = clone.run("--from", "sample", GRADED="nanobeir")
    sample, _, evaluation = clone.asked()
    assert status == 0
    assert "--graded" not in sample
    assert evaluation.endswith("--graded nanobeir")


def test_a_gate_on_a_set_without_grades_is_left_to_the_sample_to_refuse(clone: Clone) -> None:
    clone.run("--from", "sample", "--to", "sample", GRADED="nanobeir", MIN_KAPPA="0.2")
    assert "--graded nanobeir --min-kappa 0.2" in clone.asked()[0]


def test_what_a_stage_left_running_holds_nothing_up(clone: Clone) -> None:
    started = time.monotonic()
    status, shown = clone.run("--quick", "--to", "corpus", LEAVE_IN="prepare_corpus.py")
    assert status == 0
    assert "total" in shown
    assert time.monotonic() - started < 30


def test_a_failing_stage_stops_the_chain_with_its_status(clone: Clone) -> None:
    status, shown = clone.run("--quick", FAIL_IN="prepare_queries.py")
    assert status == 7
    assert [command.split()[0] for command in clone.asked()] == ["prepare_corpus.py", "prepare_queries.py"]
    assert "Stopped with status 7 in stage queries" in shown


def test_commands_can_be_copied_and_everything_is_logged(clone: Clone) -> None:
    status, shown = clone.run("--quick", "--to", "queries", DATA_DIR="my data")
    (log,) = (clone.folder / "logs").glob("2*.log")
    assert (clone.folder / "logs" / "latest.log").samefile(log)
    python = clone.environment["PYTHON"]
    assert status == 0
    assert f"+ {python} prepare_queries.py --data-dir my\\ data\n" in shown
    assert log.read_text(encoding="utf-8") == shown
    rows = [line.split() for line in shown[shown.index("STAGE") :].splitlines()]
    assert [row[0] for row in rows] == ["STAGE", "setup", "preflight", "corpus", "queries", "total", "Log:"]
    assert all(row[1].isdigit() for row in rows[1:-1])


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_ends_the_stage_too(clone: Clone, name: str, status: int) -> None:
    process = clone.start("--quick", "--to", "corpus", STAY_IN="prepare_corpus.py")
    assert process.stdout is not None
    while "staying" not in process.stdout.readline():
        assert process.poll() is None
    started = time.monotonic()
    process.send_signal(signal.Signals[name])
    shown, _ = process.communicate(timeout=30)  # the pipe ends when nobody is left that writes to it
    assert time.monotonic() - started < 20
    assert process.returncode == status
    assert f"Stopped with status {status} in stage corpus" in shown


def test_a_stage_that_was_halted_is_ended_too(clone: Clone) -> None:
    process = clone.start("--quick", "--to", "corpus", STAY_IN="prepare_corpus.py")
    assert process.stdout is not None
    line = ""
    while "staying" not in line:
        assert process.poll() is None
        line = process.stdout.readline()
    os.kill(int(line.split()[-1]), signal.SIGSTOP)
    process.terminate()
    process.communicate(timeout=20)
    assert process.returncode == 143


def test_a_stage_has_no_terminal_to_wait_for(clone: Clone) -> None:
    """In the background, a question that it asked there would stop it for good."""
    process = clone.start("--quick", "--to", "corpus", READ_IN="prepare_corpus.py")
    shown, _ = process.communicate("something typed\n", timeout=20)
    assert process.returncode == 1
    assert "was told" not in shown


@pytest.mark.parametrize(("name", "status"), [("INT", 130), ("TERM", 143), ("HUP", 129)])
def test_a_signal_while_a_stage_is_being_started_reaches_it(name: str, status: int) -> None:
    """It is noted before the command has a process to send it to."""
    script = (
        "set -euo pipefail; source <(sed -n '/^pass_on()/,/^# Runs a stage/p' run_full_pipeline.sh)\n"
        "trap 'pass_on INT' INT; trap 'pass_on TERM' TERM; trap 'pass_on HUP' HUP\n"
        f"stopped_by={name}; for _ in {{1..20}}; do child=; attend sleep 60 || echo $?; done"
    )
    done = subprocess.run(["bash", "-c", script], capture_output=True, text=True, cwd=ROOT, timeout=50, check=False)
    assert done.stdout.split() == [str(status)] * 20


# ---------------------------------------------------------------- setup


def without_python(folder: Path, fakes: dict[str, str]) -> str:
    """A PATH with the tools that the script uses and these interpreters only."""
    folder.mkdir()
    for tool in (
        "bash",
        "cat",
        "cmp",
        "cp",
        "date",
        "dirname",
        "mkdir",
        "readlink",
        "rm",
        "sed",
        "sh",
        "sleep",
        "tee",
        "ln",
        "touch",
    ):
        found = shutil.which(tool)
        assert found is not None
        (folder / tool).symlink_to(found)
    for name, text in fakes.items():
        executable(folder / name, text)
    return str(folder)


def test_an_old_python_is_one_clear_line(clone: Clone, tmp_path: Path) -> None:
    del clone.environment["PYTHON"]
    old = '#!/bin/sh\n[ "$1" = --version ] && echo Python 3.9.1 && exit\nexit 1\n'
    status, shown = clone.run("--to", "setup", PATH=without_python(tmp_path / "bin", {"python3": old}))
    assert status == 2
    assert error_lines(shown) == [
        "error: no Python 3.10 or newer with venv here (Python 3.9.1); install python3 and python3-venv"
    ]
    assert not (clone.folder / ".venv").exists()


def test_requirements_are_installed_once_and_again_when_they_change(clone: Clone, tmp_path: Path) -> None:
    del clone.environment["PYTHON"]
    path = without_python(tmp_path / "bin", {"python3.12": FAKE_PYTHON, "python3": FAKE_PYTHON})
    install = "-m pip install -r requirements.txt"
    assert clone.run("--to", "setup", PATH=path)[0] == 0
    assert clone.asked() == ["-m venv --clear .venv", install]
    assert clone.run("--to", "setup", PATH=path)[0] == 0
    assert clone.asked() == ["-m venv --clear .venv", install]
    with (clone.folder / "requirements.txt").open("a", encoding="utf-8") as requirements:
        requirements.write("# changed\n")
    assert clone.run("--to", "setup", PATH=path)[0] == 0
    assert clone.asked() == ["-m venv --clear .venv", install, install]


def test_an_environment_without_pip_gets_it_and_is_kept(clone: Clone, tmp_path: Path) -> None:
    del clone.environment["PYTHON"]
    without_pip = FAKE_PYTHON.replace(
        "case $* in",
        'case $* in\n"-m pip --version") test -e .venv/pip; exit ;;\n"-m ensurepip") touch .venv/pip ;;',
    )
    (clone.folder / ".venv" / "bin").mkdir(parents=True)
    executable(clone.folder / ".venv" / "bin" / "python", without_pip)
    (clone.folder / ".venv" / "requirements.installed").write_bytes((ROOT / "requirements.txt").read_bytes())
    path = without_python(tmp_path / "bin", {"python3": FAKE_PYTHON})
    assert clone.run("--to", "setup", PATH=path)[0] == 0
    assert clone.asked() == ["-m ensurepip", "-m pip install -r requirements.txt"]


# ---------------------------------------------------------------- refusals


def assert_refused(clone: Clone, message: str, *arguments: str, **variables: str) -> None:
    """Refused in the preflight: status 2, one line, nothing run, nothing written."""
    status, shown = clone.run(*arguments, **variables)
    assert status == 2, shown
    assert len(error_lines(shown)) == 1
    assert message in error_lines(shown)[0]
    assert "Traceback" not in shown
    assert "\n+ " not in f"\n{shown}"
    assert not (clone.folder / "data").exists()
    assert not (clone.folder / "models").exists()


def test_an_interpreter_without_the_packages_is_one_clear_line(real_clone: Clone, tmp_path: Path) -> None:
    bare = executable(tmp_path / "bare-python", f'#!/bin/sh\nexec "{sys.executable}" -S "$@"\n')
    assert_refused(real_clone, "has no package", "--quick", PYTHON=str(bare))


def test_a_password_in_an_endpoint_is_refused_before_it_is_shown(real_clone: Clone) -> None:
    secret = {"LLM_ENDPOINT": "http://me:hunter2@localhost/v1", "MINER_FLAGS": "--judge-batch batch.jsonl"}
    only_training = ("--from", "train", "--to", "train")
    assert_refused(real_clone, "OPENAI_API_KEY", *only_training, BASE_MODEL="all-MiniLM-L6-v2", **secret)
    assert not [log for log in (real_clone.folder / "logs").iterdir() if "hunter2" in log.read_text(encoding="utf-8")]


def test_a_wrong_flag_is_refused_before_the_first_stage(real_clone: Clone) -> None:
    message = "evaluate.py: unrecognized arguments: --requiretarget"
    assert_refused(real_clone, message, "--quick", EVALUATE_FLAGS="--requiretarget")


# ---------------------------------------------------------------- end to end


def test_a_small_run_from_end_to_end_goes_on_where_it_was(real_clone: Clone, tmp_path: Path) -> None:
    variables = small_run(tmp_path / "tiny")
    status, shown = real_clone.run("--quick", **variables)
    assert status == 0, shown
    assert "SUCCESS CRITERIA CHECK" in shown
    assert (real_clone.folder / "models/quick/final/modules.json").exists()
    if shutil.which("jq"):
        assert_jq_filters_find_something(real_clone.folder, tmp_path / "runbook")
    weights = real_clone.folder / "models/quick/iteration_0/model.safetensors"
    trained = weights.stat().st_mtime_ns
    status, shown = real_clone.run("--quick", "--from", "train", "--to", "train", **variables)
    assert status == 0, shown
    assert weights.stat().st_mtime_ns == trained


def assert_jq_filters_find_something(clone: Path, folder: Path) -> None:
    """The runbook's jq commands on this run's results."""
    folder.mkdir()
    commands = [call.words for call in calls("AWS_RUNBOOK.md", folder) if call.words[0] == "jq"]
    assert commands
    for command in commands:
        words = [word.replace("models/medical-specialized", "models/quick") for word in command]
        done = subprocess.run([words[0], "-e", *words[1:]], cwd=clone, capture_output=True, text=True)
        assert done.returncode == 0, (words, done.stdout, done.stderr)


def small_run(model: Path) -> dict[str, str]:
    """Settings of a run of seconds: 12 topics of the sample, and a tiny model made for it."""
    from hardneg.corpus.sources import read_rows
    from tests.tiny_model import build_tiny_model

    rows = read_rows("sample", {})
    build_tiny_model(model, [text for row in rows for text in (row.question, row.answer)])
    return {
        "BASE_MODEL": str(model),
        "CORPUS_FLAGS": "--max-topics 12 --val-fraction 0.25 --test-fraction 0.25",
        "NUM_QUERIES": "20",
        "NUM_CANDIDATES": "5",
        "GRADED": "",
        "MINER_FLAGS": "--guard none",
        "OMP_NUM_THREADS": "1",  # more threads than free cores make so small a model far slower
    }
