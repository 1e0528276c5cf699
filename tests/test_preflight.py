"""What the pipeline refuses before its first stage; the stages' commands are the script's own."""

import json
import re
from collections.abc import Callable
from contextlib import nullcontext
from pathlib import Path
from types import SimpleNamespace

import pytest

import prepare_corpus
from hardneg.corpus.sources import source_version
from hardneg.judging.judgment_store import sha256_text
from hardneg.learning.run_folder import claimed
from hardneg.measuring.graded import open_graded
from hardneg.preflight import check_disk, preflight
from hardneg.running.errors import InputError, Unavailable
from hardneg.running.files import write_json
from iterative_miner import JUDGE_PROMPT, parse_arguments, stated_configuration
from tests.llm_stub import MODEL, NOWHERE, LLMStub
from tests.pipeline_clone import Clone

NOBODY = {"LLM_ENDPOINT": NOWHERE, "BASE_MODEL": "all-MiniLM-L6-v2"}  # no server, and a model that is packaged
Check = Callable[..., None]


@pytest.fixture
def check(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Checks, in this process, what the pipeline would under these arguments and variables."""
    clone = Clone.of_the_script(tmp_path)
    monkeypatch.chdir(clone.folder)

    def check(*arguments: str, **variables: str) -> None:
        assert clone.run(*arguments, **variables)[0] == 0  # the fake interpreter refuses nothing
        (asked,) = re.findall(r"-m hardneg\.preflight (\d+) (.+)", clone.ran.read_text(encoding="utf-8"))[-1:]
        preflight(int(asked[0]), *asked[1].split())

    return check


def test_refuses_a_server_that_does_not_answer(check: Check, tmp_path: Path) -> None:
    with pytest.raises(InputError, match=f"no LLM server answers at {NOWHERE}"):
        check(SOURCE="sample", **NOBODY)
    assert not (tmp_path / "data").exists()


def test_refuses_a_model_that_is_not_served(check: Check) -> None:
    with LLMStub() as stub:
        with pytest.raises(InputError, match=f"it serves {MODEL}"):
            check("--from", "train", LLM_ENDPOINT=stub.url, LLM_MODEL="another", BASE_MODEL="all-MiniLM-L6-v2")
        assert stub.stats()["chats"] == 0


@pytest.mark.parametrize(
    ("stage", "flags"),
    [
        ("train", {"MINER_FLAGS": "--judge-results results.jsonl"}),
        ("sample", {"SAMPLE_FLAGS": "--stored-only"}),
    ],
)
def test_what_asks_nobody_needs_no_server(check: Check, tmp_path: Path, stage: str, flags: dict[str, str]) -> None:
    (tmp_path / "results.jsonl").touch()
    check("--from", stage, "--to", stage, **flags, **NOBODY)


def test_the_sample_needs_no_server_where_judgments_are_stored(check: Check, tmp_path: Path) -> None:
    """It may be that all of its pairs are among them; test_small_sample.py finds out."""
    (tmp_path / "data").mkdir()
    (tmp_path / "data" / "judgments.sqlite").touch()
    check("--from", "sample", "--to", "sample", **NOBODY)
    with pytest.raises(InputError, match="no LLM server answers"):
        check("--from", "sample", "--to", "train", **NOBODY)


@pytest.mark.parametrize(
    ("found", "message"),
    [
        ({}, ""),
        ({"seed": 41}, "holds a run of another configuration (seed: 41 there, 42 now)"),
        ({"source": "faq.csv"}, "(source: faq.csv there, sample now)"),
        ({"guard_sha256": "of another guard"}, "(guard_sha256: of another guard there, "),
    ],
)
def test_refuses_another_runs_folder(check: Check, tmp_path: Path, found: dict[str, object], message: str) -> None:
    folder = a_quick_run(tmp_path / "models", found)
    with pytest.raises(InputError, match=re.escape(message)) if message else nullcontext():
        check("--quick", OUTPUT_DIR=str(folder))


def a_quick_run(folder: Path, found: dict[str, object]) -> Path:
    """The output folder of a quick run with an iteration in it, with some settings changed."""
    run = {"seed": 42, "source": "sample", "guard_sha256": open_graded("bundled").sha256}
    run |= stated_configuration(parse_arguments(["--judge", "answer-key", "--base-model", "all-MiniLM-L6-v2"]))
    write_json(folder / "run.json", run | {"num_queries": 200, "num_candidates": 20} | found)
    (folder / "iteration_0").mkdir()
    return folder


def test_refuses_another_prompt_before_a_server_is_asked(check: Check, tmp_path: Path) -> None:
    (tmp_path / "p.txt").write_text("Question: {query} Passage: {passage}", encoding="utf-8")
    by_an_llm = stated_configuration(parse_arguments([])) | {"base_model": "all-MiniLM-L6-v2"}
    by_an_llm |= {
        "source": "sample",
        "llm_model": "Qwen/Qwen2.5-7B-Instruct",
        "prompt_sha256": sha256_text(JUDGE_PROMPT),
    }
    folder = str(a_quick_run(tmp_path / "models", by_an_llm | {"num_queries": 1000, "num_candidates": 50}))
    with pytest.raises(Unavailable, match="no LLM server answers"):
        check(SOURCE="sample", OUTPUT_DIR=folder, **NOBODY)
    with pytest.raises(InputError, match=r"another configuration \(prompt_sha256: "):
        check(SOURCE="sample", OUTPUT_DIR=folder, JUDGE_FLAGS="--prompt p.txt", **NOBODY)


def test_refuses_a_folder_that_another_process_works_in(check: Check, tmp_path: Path) -> None:
    folder = tmp_path / "models"
    with claimed(folder, {}), pytest.raises(InputError, match="another process is at work on"):
        check("--quick", OUTPUT_DIR=str(folder))


def test_refuses_to_replace_the_corpus_of_a_run_that_is_to_go_on(check: Check, tmp_path: Path) -> None:
    folder = a_quick_run(tmp_path / "models", {"corpus_sha256": "a1"})
    flags = ["--source", "sample", "--val-fraction", "0.2", "--test-fraction", "0.3"]
    made = {"sha256": "a1", "arguments": vars(prepare_corpus.parse_arguments(flags))}
    write_json(tmp_path / "data" / "quick" / "manifest.json", {"corpus": made})
    check("--quick", OUTPUT_DIR=str(folder))
    check("--quick", OUTPUT_DIR=str(tmp_path / "other"), CORPUS_FLAGS="--chunk-chars 500")
    check("--quick", "--from", "train", OUTPUT_DIR=str(folder), CORPUS_FLAGS="--chunk-chars 500")
    with pytest.raises(InputError, match=r"would replace \(chunk_chars: 1000 there, 500 now; val_fraction: 0\.2 there"):
        check("--quick", OUTPUT_DIR=str(folder), CORPUS_FLAGS="--chunk-chars 500")
    for older in ({}, {"seed": 42}):  # manifests that lack what a setting was then
        write_json(tmp_path / "data" / "quick" / "manifest.json", {"corpus": {"sha256": "a1", "arguments": older}})
        check("--quick", OUTPUT_DIR=str(folder), CORPUS_FLAGS="--chunk-chars 500")
    write_json(tmp_path / "data" / "quick" / "manifest.json", {"corpus": made | {"sha256": "another run's"}})
    check("--quick", OUTPUT_DIR=str(folder), CORPUS_FLAGS="--chunk-chars 500")  # training will say what is wrong
    (tmp_path / "foreign").mkdir()
    (tmp_path / "foreign" / "notes").touch()
    only_exports = {"MINER_FLAGS": "--export-judgments all.jsonl", "OUTPUT_DIR": str(tmp_path / "foreign")}
    check("--quick", "--to", "train", **only_exports)


@pytest.mark.parametrize(("source", "file"), [("faq.csv", "faq.csv"), ("pages", "pages/1.xml")])
def test_refuses_to_replace_the_corpus_of_a_run_by_another_content_of_its_source(
    check: Check, tmp_path: Path, source: str, file: str
) -> None:
    """As where a nightly export has the name of the last one."""
    folder = a_quick_run(tmp_path / "models", {"corpus_sha256": "a1", "source": source})
    (tmp_path / file).parent.mkdir(exist_ok=True)
    (tmp_path / file).write_text("So.", encoding="utf-8")
    flags = ["--source", source, "--val-fraction", "0.2", "--test-fraction", "0.3"]
    made = {"sha256": "a1", "arguments": vars(prepare_corpus.parse_arguments(flags))}
    manifest = tmp_path / "data" / "quick" / "manifest.json"
    run = {"SOURCE": source, "OUTPUT_DIR": str(folder)}
    write_json(manifest, {"corpus": made | {"source_version": source_version(str(tmp_path / source))}})
    check("--quick", **run)
    (tmp_path / file).write_text("Because.", encoding="utf-8")
    refused = f"{source} has changed since data/quick was prepared .*; go on with that by --from train, or choose"
    with pytest.raises(InputError, match=refused):
        check("--quick", **run)
    check("--quick", "--from", "train", **run)
    check("--quick", **run | {"OUTPUT_DIR": str(tmp_path / "other")})
    for unknown in ({"source_version": None}, {}):  # as of a mirror that tells no commit, of an older manifest
        write_json(manifest, {"corpus": made | unknown})
        check("--quick", **run)


def test_refuses_to_replace_the_corpus_of_a_run_by_a_later_commit_of_the_hub_s_data_set(
    check: Check, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder = a_quick_run(tmp_path / "models", {"corpus_sha256": "a1", "source": "own/faq"})
    flags = ["--source", "own/faq", "--val-fraction", "0.2", "--test-fraction", "0.3"]
    made = {"sha256": "a1", "arguments": vars(prepare_corpus.parse_arguments(flags)), "source_version": "c0ffee"}
    write_json(tmp_path / "data" / "quick" / "manifest.json", {"corpus": made})
    run = {"SOURCE": "own/faq", "OUTPUT_DIR": str(folder)}
    for revision in ("c0ffee", None):  # None: neither hub nor copy, of which the corpus stage will tell
        monkeypatch.setattr("hardneg.corpus.sources.hub_revision", {"own/faq": revision}.get)
        check("--quick", **run)
    monkeypatch.setattr("hardneg.corpus.sources.hub_revision", {"own/faq": "later"}.get)
    with pytest.raises(InputError, match="own/faq has changed since data/quick was prepared from it"):
        check("--quick", **run)


@pytest.mark.parametrize(
    ("variables", "message"),
    [
        ({"EVALUATE_FLAGS": "--k ten"}, "evaluate.py: argument --k: invalid int value: 'ten'; see --help"),
        (
            {"CORPUS_FLAGS": "-h"},
            "prepare_corpus.py: --help ends it at once; run python prepare_corpus.py --help by",
        ),
        ({"MINER_FLAGS": "--no-such-flag"}, "iterative_miner.py: unrecognized arguments: --no-such-flag; see --help"),
        (
            {"JUDGE_FLAGS": "--stored-only"},
            "test_small_sample.py: --stored-only cannot be used with --judge answer-key",
        ),
        ({"BASE_MODEL": "models/none"}, "model folder models/none does not exist"),
        ({"JUDGE": "llm", "SAMPLE_FLAGS": "--concurrency 5000"}, "concurrency 5000 is outside 1 to 1,000"),
        ({"DEVICE": "cuda:99"}, "--device cuda:99: no such device"),
        ({"GRADED": "none"}, "cannot read none"),
        ({"MINER_FLAGS": "--guard none.jsonl"}, "cannot read none.jsonl"),
        (
            {"MINER_FLAGS": "--dry-run"},
            "an earlier run's model would be evaluated, or none; stop before",
        ),
        ({"MINER_FLAGS": "--export-judgments all.jsonl"}, "with --to train"),
        (
            {"JUDGE": "llm", "SAMPLE_FLAGS": "--stored-only --prompt p.txt", "MINER_FLAGS": "--stored-only"},
            "--prompt must be the same for both stages that judge; give it in JUDGE_FLAGS",
        ),
        ({"MINER_FLAGS": "--judge llm"}, "--judge must be the same for both stages that judge; give it in JUDGE"),
        (
            {"JUDGE": "llm", "SAMPLE_FLAGS": "--llm-model other"},
            "--llm-model must be the same for both stages that judge; give it in LLM_MODEL",
        ),
        (
            {"MINER_FLAGS": "--base-model other"},
            "--base-model must be the same for both stages that judge; give it in BASE_MODEL",
        ),
        (
            {"EVALUATE_FLAGS": "--baseline-model other"},
            "--baseline-model other must be written exactly as --base-model all-Mini",
        ),
        ({"EVALUATE_FLAGS": "--output p.txt/r.json"}, "cannot write p.txt/r.json"),
        ({"SAMPLE_FLAGS": "--output-file ."}, ". is a folder; name a file"),
        ({"SAMPLE_FLAGS": "--output-file models/quick/s.json"}, "models/quick/s.json is in --output-dir models/quick"),
        ({"EVALUATE_FLAGS": "--output models/quick/a/e.json"}, "models/quick/a/e.json is in --output-dir models/quick"),
        ({"DATA_DIR": "models/quick/data"}, "--data-dir models/quick/data is in --output-dir models/quick"),
        (
            {"JUDGE": "llm", "SAMPLE_FLAGS": "--stored-only", "MINER_FLAGS": "--judge-results none.jsonl"},
            "cannot read none.jsonl",
        ),
        (
            {"MINER_FLAGS": "--positives judge"},
            "--positives must be the same for both stages that judge; give it in JUDGE_FLAGS",
        ),
        ({"CORPUS_FLAGS": "--data-dir other"}, "--data-dir must be the same for all stages; give it in DATA_DIR"),
        ({"MINER_FLAGS": "--output-dir other"}, "is not in --output-dir other, so what is trained would not be"),
        ({"GRADED": "useless.jsonl"}, "useless.jsonl: no question in it has answers of different grades"),
    ],
)
def test_refuses_early_what_would_fail_late(
    check: Check, tmp_path: Path, variables: dict[str, str], message: str
) -> None:
    row = {"question_id": 1, "question": "Why?", "answer_title": "", "answer": "So.", "grade": 1}
    (tmp_path / "useless.jsonl").write_text(json.dumps(row), encoding="utf-8")
    (tmp_path / "p.txt").write_text("Question: {query} Passage: {passage}", encoding="utf-8")
    with pytest.raises(InputError) as refused:
        check("--quick", **variables)
    assert message in str(refused.value)


@pytest.mark.parametrize(
    "variables",
    [
        {"OUTPUT_DIR": "./models//quick/", "EVALUATE_FLAGS": "--specialized-model models/quick/iteration_0/"},
        {"MINER_FLAGS": "--output-dir {here}/models/quick --data-dir {here}/data/quick/"},
    ],
)
def test_folders_may_be_written_in_different_ways(check: Check, tmp_path: Path, variables: dict[str, str]) -> None:
    check("--quick", **{name: value.format(here=tmp_path) for name, value in variables.items()})


def test_refuses_a_full_disk(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    free = SimpleNamespace(total=2**40, free=4.9 * 2**30)
    monkeypatch.setattr("shutil.disk_usage", lambda _: free)
    check("--quick")
    with pytest.raises(
        InputError, match=r"^the disk of data has 4\.9 GiB free, a run needs 5 GiB; free some or use another$"
    ):
        check(JUDGE="answer-key", BASE_MODEL="all-MiniLM-L6-v2")


def test_every_folder_that_a_stage_writes_to_needs_a_disk_with_room(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    free = {tmp_path / "data": 7 * 2**30, tmp_path / "models": 5 * 2**30}
    for folder in free:
        folder.mkdir()
    monkeypatch.setattr("shutil.disk_usage", lambda place: SimpleNamespace(total=2**40, free=free[place]))
    miner = parse_arguments(["--data-dir", str(tmp_path / "data"), "--output-dir", str(tmp_path / "models")])
    check_disk(miner, 5)  # exactly enough
    with pytest.raises(InputError, match=r"models has 5\.0 GiB free, a run needs 6 GiB"):
        check_disk(miner, 6)
    with pytest.raises(InputError, match=r"data has 7\.0 GiB free, a run needs 8 GiB"):
        check_disk(miner, 8)


def test_what_trains_nothing_needs_no_room(check: Check, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("shutil.disk_usage", lambda _: SimpleNamespace(total=2**40, free=2**20))
    check("--quick", "--from", "evaluate")
    check("--quick", "--to", "queries")
    check("--quick", "--to", "train", MINER_FLAGS="--dry-run")
    with pytest.raises(InputError, match="a run needs"):
        check("--quick", "--from", "train")
