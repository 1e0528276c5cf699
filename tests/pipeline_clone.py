"""A clone of the repository to run run_full_pipeline.sh in, with an interpreter that only says what it should run."""

import os
import shutil
import stat
import subprocess
from pathlib import Path

ROOT = Path(__file__).parent.parent
SCRIPT = "run_full_pipeline.sh"
SETTINGS = (ROOT / SCRIPT).read_text(encoding="utf-8").split("# Environment variables", 1)[1].split("\n\n", 1)[0]
VARIABLES = {line.split()[1] for line in SETTINGS.splitlines()[1:] if line.startswith("#   ") and line[4].isupper()}

# Takes `venv` and `pip` for done; fails in the script that FAIL_IN names, stays a while in that of STAY_IN, leaves
# a process behind in that of LEAVE_IN, and reads its input in that of READ_IN.
FAKE_PYTHON = """#!/bin/sh
echo "python was asked to run: $*" >>"$RAN"
case $* in
"$LEAVE_IN"*) sleep 60 & ;;
*"-m venv"*) mkdir -p .venv/bin && cp "$0" .venv/bin/python ;;
"$FAIL_IN"*) exit 7 ;;
"$READ_IN"*) read -r answer && echo "was told $answer" ;;
"$STAY_IN"*) echo "staying as $$" && exec sleep 60 ;;
esac
"""


def executable(path: Path, text: str) -> Path:
    path.write_text(text, encoding="utf-8")
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    return path


class Clone:
    """A copy of the repository's code, with a clean environment to run its pipeline in."""

    def __init__(self, folder: Path, python: str | Path | None) -> None:
        self.folder = folder
        self.ran = folder / "ran.txt"
        inherited = {name: value for name, value in os.environ.items() if name not in VARIABLES}
        nowhere = dict.fromkeys(("FAIL_IN", "STAY_IN", "LEAVE_IN", "READ_IN"), "none")
        self.environment = inherited | {"RAN": str(self.ran)} | nowhere
        if python is not None:
            self.environment["PYTHON"] = str(python)

    def start(self, *arguments: str, **variables: str) -> "subprocess.Popen[str]":
        return subprocess.Popen(
            [str(self.folder / SCRIPT), *arguments],
            env=self.environment | variables,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            start_new_session=True,
        )

    def run(self, *arguments: str, **variables: str) -> tuple[int, str]:
        """Exit status and everything shown."""
        process = self.start(*arguments, **variables)
        shown, _ = process.communicate(timeout=400)
        return process.returncode, shown

    def asked(self) -> list[str]:
        """What the fake interpreter was asked to run; preflight and probing of the interpreter left out."""
        lines = self.ran.read_text(encoding="utf-8").splitlines() if self.ran.exists() else []
        commands = [line.removeprefix("python was asked to run: ") for line in lines]
        return [
            command
            for command in commands
            if not command.startswith(("-m hardneg.preflight", "-c ", "-m pip --version"))
        ]

    @classmethod
    def of_the_script(cls, folder: Path) -> "Clone":
        """The script alone, with the fake interpreter."""
        for name in (SCRIPT, "requirements.txt"):
            shutil.copy(ROOT / name, folder / name)
        return cls(folder, executable(folder / "python", FAKE_PYTHON))
