"""What would stop a run of the pipeline hours later, found before its first stage: a wrong flag, no disk, no judge.

    python -m hardneg.preflight GIB SCRIPT FLAG... ";" SCRIPT FLAG... ";"

GIB is the disk space that the run needs, and what follows are its stages as run_full_pipeline.sh is about to run them.
"""

import importlib
import sys
import tempfile
from argparse import Namespace
from collections.abc import Sequence
from contextlib import redirect_stdout
from itertools import groupby
from pathlib import Path
from types import ModuleType

from hardneg.running.errors import InputError, Unavailable
from hardneg.running.files import free_disk
from hardneg.running.script import run

# Flags that both stages that judge must be given alike, and the variable that gives them to both.
SHARED_FLAGS = {
    "judge": "JUDGE",
    "llm_model": "LLM_MODEL",
    "prompt": "JUDGE_FLAGS",
    "positives": "JUDGE_FLAGS",
    "base_model": "BASE_MODEL",
}

# Scripts and all that they need are imported where they are used, so that `main` can say which package is missing.


def preflight(gib_needed: int, *words: str) -> None:
    """Check the stages of a run.

    Args:
        gib_needed: free disk space in GiB, where a model is to be trained.
        words: the stages' commands, each a script, its flags and a ";".

    Raises:
        InputError: a stage would refuse its flags or its input, or two do not go together.
    """
    commands = [list(command) for is_end, command in groupby(words, lambda word: word == ";") if not is_end]
    stages = {command[0]: parse(command) for command in commands}
    check_together(stages)
    if miner := stages.get("iterative_miner.py"):
        check_disk(miner, gib_needed)
    for script, args in stages.items():
        if check := getattr(script_of(script), "check_beforehand", None):
            check(args)
    for script, args in stages.items():  # last: a server may be waited for, anything else not
        if "judge" in args and args.judge == "llm":
            check_judge(script, args)


def parse(command: Sequence[str]) -> Namespace:
    """A stage's flags, as its script reads them. Raises InputError where it refuses them, or would only print help."""
    script, *flags = command
    try:
        with redirect_stdout(None):  # of help, which would be this program's
            return script_of(script).parse_arguments(flags)
    except InputError as error:
        raise InputError(f"{script}: {error}") from None
    except SystemExit:
        raise InputError(f"{script}: --help ends it at once; run python {script} --help by itself") from None


def script_of(name: str) -> ModuleType:
    """A script as a module. Its `check_beforehand`, if it has one, is called with its flags: it raises InputError where
    the script would refuse its input, as far as that can be told before the stages before it have run."""
    return importlib.import_module(Path(name).stem)


def check_together(stages: dict[str, Namespace]) -> None:
    """Raise InputError where stages do not go together; `stages`: flags by script."""
    judging = [args for args in stages.values() if "judge" in args]
    for name, variable in SHARED_FLAGS.items():
        if len({getattr(args, name) for args in judging}) > 1:
            flag = "--" + name.replace("_", "-")
            raise InputError(f"{flag} must be the same for both stages that judge; give it in {variable}")
    if len({args.data_dir.resolve() for args in stages.values()}) > 1:
        raise InputError(
            "--data-dir must be the same for all stages; give it in DATA_DIR (run evaluate.py yourself to evaluate on "
            "other data)"
        )
    if "iterative_miner.py" in stages:
        check_training(stages)


def check_training(stages: dict[str, Namespace]) -> None:
    """Raise InputError where the stages around the training do not go with it, or its folder is not free."""
    from hardneg.learning.run_folder import check_apart
    from iterative_miner import check_output_dir, ends_before_judging

    corpus, sample = stages.get("prepare_corpus.py"), stages.get("test_small_sample.py")
    miner, evaluation = stages["iterative_miner.py"], stages.get("evaluate.py")
    report, evaluated = sample.output_file if sample else None, evaluation.output if evaluation else None
    check_apart(miner.output_dir, {"--output-file": report, "--output": evaluated})
    if evaluation and evaluation.baseline_model != miner.base_model:
        raise InputError(
            f"--baseline-model {evaluation.baseline_model} must be written exactly as --base-model {miner.base_model}, "
            "so that the gain is the training's; give the model in BASE_MODEL (run evaluate.py yourself to compare "
            "with another)"
        )
    if evaluation and ends_before_judging(miner):
        raise InputError(
            "--dry-run, --judge-batch and --export-judgments train nothing: an earlier run's model would be "
            "evaluated, or none; stop before, with --to train"
        )
    if evaluation and miner.output_dir.resolve() not in Path(evaluation.specialized_model).resolve().parents:
        raise InputError(
            f"--specialized-model {evaluation.specialized_model} is not in --output-dir {miner.output_dir}, so what is "
            "trained would not be evaluated; give the folder in OUTPUT_DIR"
        )
    check_output_dir(miner, corpus.source if corpus else None)
    if corpus and not miner.export_judgments:
        check_corpus(corpus, miner)


def check_corpus(corpus: Namespace, miner: Namespace) -> None:
    """Raise InputError where the first stage would replace the data that the run in --output-dir goes on with."""
    from hardneg.corpus.artifacts import read_manifest
    from hardneg.corpus.sources import source_version
    from hardneg.learning.run_folder import run_of

    made_by = run_of(miner.output_dir)
    if made_by is None or not (corpus.data_dir / "manifest.json").exists():
        return
    made = read_manifest(corpus.data_dir)["corpus"]
    before, now = made.get("arguments", {}), vars(corpus)
    same_flags = [name for name in now if name in before and name != "data_dir"]  # an older manifest may lack some
    changed = [name for name in same_flags if before[name] != now[name]]
    if made.get("sha256") != made_by.get("corpus_sha256"):
        return  # training will say what is wrong
    if changed:
        differences = "; ".join(f"{name}: {before[name]} there, {now[name]} now" for name in changed)
        raise InputError(
            f"{miner.output_dir} holds a run on the corpus in {corpus.data_dir}, which these settings would replace "
            f"({differences}); choose another DATA_DIR and OUTPUT_DIR, or delete {miner.output_dir}"
        )
    known, found = made.get("source_version"), source_version(corpus.source)
    if known and found and found != known:
        raise InputError(
            f"{corpus.source} has changed since {corpus.data_dir} was prepared from it, and would replace the corpus "
            f"of the run in {miner.output_dir}; go on with that by --from train, or choose another DATA_DIR and "
            "OUTPUT_DIR"
        )


def check_disk(miner: Namespace, gib_needed: int) -> None:
    """Raise InputError where a folder that training is to write to has less than `gib_needed` GiB free."""
    from iterative_miner import trains

    if not trains(miner):
        return
    for folder in (miner.data_dir, miner.output_dir):
        free = free_disk(folder) / 2**30
        if free < gib_needed:
            raise InputError(
                f"the disk of {folder} has {free:.1f} GiB free, a run needs {gib_needed} GiB; free some or use another"
            )


def check_judge(script: str, args: Namespace) -> None:
    """Raise InputError where an LLM judge is not well described or, if its server is to be asked, does not answer."""
    from hardneg.judging.judgment_store import JUDGMENTS
    from iterative_miner import asks_server, open_llm_judge

    with tempfile.TemporaryDirectory() as folder:
        without_data = Namespace(**vars(args) | {"data_dir": Path(folder)})  # no data folder before there are data
        judge = open_llm_judge(without_data)
        if args.stored_only or (script == "iterative_miner.py" and not asks_server(args)):
            return
        try:
            judge.check()
        except Unavailable:
            if script == "iterative_miner.py" or not (args.data_dir / JUDGMENTS).exists():
                raise  # the small-sample test may find all that it asks stored


def main() -> None:
    """The command line."""
    gib_needed, *words = sys.argv[1:]
    try:
        preflight(int(gib_needed), *words)
    except ModuleNotFoundError as error:
        remedy = "install requirements.txt into it, or leave PYTHON unset"
        raise InputError(f"{sys.executable} has no package {error.name}; {remedy}") from error


if __name__ == "__main__":
    run(main)
