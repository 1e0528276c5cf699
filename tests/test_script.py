"""One clear line and exit status 2 on bad input, a good end on signals; programming errors keep their traceback."""

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from hardneg.running.script import run
from hardneg.running.signals import STOP_SIGNALS

ROOT = Path(__file__).parent.parent
MAIN = """
from hardneg.running.errors import InputError
from hardneg.running.script import run
def main():
    print('begun')
    {body}
run(main)
"""


def run_main(body: str) -> subprocess.CompletedProcess[str]:
    script = MAIN.format(body=body)
    return subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)


def test_success_is_status_0() -> None:
    done = run_main("pass")
    assert (done.returncode, done.stdout, done.stderr) == (0, "begun\n", "")


def test_bad_input_is_one_line_and_status_2() -> None:
    done = run_main("raise InputError('faq.csv is empty; export it again')")
    assert (done.returncode, done.stdout, done.stderr) == (2, "begun\n", "error: faq.csv is empty; export it again\n")


def test_a_server_that_is_away_is_one_line_and_status_75() -> None:
    done = run_main("from hardneg.running.errors import Unavailable; raise Unavailable('no server answers; start it')")
    assert (done.returncode, done.stderr) == (75, "error: no server answers; start it\n")


def test_a_place_that_one_may_not_use_is_one_line_and_status_2() -> None:
    done = run_main("raise PermissionError(13, 'Permission denied', '/root/models')")
    message = "error: cannot use /root/models: Permission denied; check the permissions, or name another place\n"
    assert (done.returncode, done.stderr) == (2, message)


@pytest.mark.parametrize(("name", "status"), [("SIGINT", 130), ("SIGTERM", 143), ("SIGHUP", 129)])
def test_a_signal_to_stop_ends_the_script_without_traceback(name: str, status: int) -> None:
    stop = f"import os, signal; os.kill(os.getpid(), signal.{name}); print('went on')"
    done = run_main(stop)
    stopped = "\nstopped; what is done is saved, run the same command again to go on\n"
    assert (done.returncode, done.stdout, done.stderr) == (status, "begun\n", stopped)


def test_a_second_signal_does_not_disturb_the_winding_up() -> None:
    body = "import os, signal\n    try: os.kill(os.getpid(), signal.SIGINT)\n"
    body += "    finally: os.kill(os.getpid(), signal.SIGTERM); print('wound up')"
    done = run_main(body)
    assert (done.returncode, done.stdout) == (130, "begun\nwound up\n")
    assert done.stderr == "\nstopped; what is done is saved, run the same command again to go on\n"


IN_A_TERMINAL = """
import os, pty, sys
child, terminal = pty.fork()
if not child:
    os.execv(sys.executable, [sys.executable, "-c", sys.argv[1]])
os.read(terminal, 5)
os.close(terminal)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""


@pytest.mark.parametrize(
    ("work", "status"),
    [("print('begun', flush=True); time.sleep(20)", 129), ("os.kill(os.getpid(), signal.SIGINT)", 130)],
)
def test_a_closed_terminal_does_not_disturb_the_winding_up(tmp_path: Path, work: str, status: int) -> None:
    """Whether that ended the work, or Ctrl-C before it."""
    script = f"""
import os, signal, sys, time
from pathlib import Path
from hardneg.running.script import run
def main():
    try:
        {work}
    finally:
        print("winding up", flush=True)
        while os.isatty(1):
            time.sleep(0.01)
        print("as a progress bar does", file=sys.stderr, flush=True)
        Path({str(tmp_path / "saved")!r}).write_text("all")
run(main)
"""
    done = subprocess.run([sys.executable, "-c", IN_A_TERMINAL, script], cwd=ROOT, timeout=15, check=False)
    assert (done.returncode, (tmp_path / "saved").read_text()) == (status, "all")


def test_a_signal_in_a_destructor_ends_the_script_too() -> None:
    doomed = "type('Doomed', (), {'__del__': lambda self: os.kill(os.getpid(), signal.SIGTERM)})()"
    done = run_main(f"import os, signal, time; {doomed}; time.sleep(10); print('went on')")
    assert (done.returncode, done.stdout) == (143, "begun\n")
    assert done.stderr.startswith("\nstopped;")


@pytest.mark.parametrize(
    ("body", "status", "words"),
    [
        ("pass", 141, ""),  # noticed at the end only, when the output is flushed
        ("print('x' * 1_000_000); print('more')", 141, ""),
        ("raise InputError('faq.csv is empty')", 2, "error: faq.csv is empty\n"),
        ("import os, signal; os.kill(os.getpid(), signal.SIGINT)", 130, "\nstopped; what is done is saved, "),
    ],
)
def test_an_output_that_nobody_reads_ends_the_script_without_traceback(body: str, status: int, words: str) -> None:
    script = MAIN.format(body=body)
    buffered = {name: value for name, value in os.environ.items() if name != "PYTHONUNBUFFERED"}
    reading, writing = os.pipe()
    os.close(reading)
    command = [sys.executable, "-c", script]
    for errors in (subprocess.PIPE, writing):  # the second as in `2>&1 | head`
        done = subprocess.run(command, stdout=writing, stderr=errors, text=True, cwd=ROOT, env=buffered, check=False)
        assert done.returncode == status
        if errors == subprocess.PIPE:
            assert done.stderr.startswith(words) and "Traceback" not in done.stderr
    os.close(writing)


@pytest.mark.parametrize(
    ("redirection", "status", "said"),
    [
        (
            ">/dev/full",
            2,
            "error: cannot write the output: No space left on device; free some disk space and run again\n",
        ),
        (">&-", 0, "shown\n"),
        (">&- 2>&-", 0, ""),
        ("2>/dev/full", 2, ""),  # a progress bar, perhaps
    ],
)
@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs the device that is always full")
def test_an_output_that_is_full_or_closed(redirection: str, status: int, said: str) -> None:
    script = (
        "import sys; from hardneg.running.script import run; run(lambda: (print('x'), sys.stderr.write('shown\\n')))"
    )
    command = ["bash", "-c", f'"$0" -c "$1" {redirection}', sys.executable, script]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stderr) == (status, said)


def test_what_the_terminal_cannot_show_is_shown_by_its_number() -> None:
    script = "from hardneg.running.script import run\nrun(lambda: print('✗ caf\\udce9'))"
    done = subprocess.run(
        [sys.executable, "-c", script],
        capture_output=True,
        cwd=ROOT,
        env=os.environ | {"PYTHONIOENCODING": "latin-1"},
        check=False,
    )
    assert (done.returncode, done.stdout) == (0, b"\\u2717 caf\\udce9\n")


def test_a_signal_that_is_ignored_stays_ignored() -> None:
    """As under nohup."""
    script = (
        "import os, signal; signal.signal(signal.SIGHUP, signal.SIG_IGN)\n"
        "from hardneg.running.script import run\n"
        "run(lambda: os.kill(os.getpid(), signal.SIGHUP))\n"
        "print('went on')"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.returncode, done.stdout, done.stderr) == (0, "went on\n", "")


def test_the_handlers_are_put_back() -> None:
    before = [signal.getsignal(signum) for signum in STOP_SIGNALS]
    run(lambda: None)
    with pytest.raises(SystemExit):
        run(lambda: os.kill(os.getpid(), signal.SIGTERM))
    assert [signal.getsignal(signum) for signum in STOP_SIGNALS] == before


def test_what_takes_long_to_import_does_not_delay_a_refusal() -> None:
    """Nor --help: these take the scripts several times as long as all the rest."""
    code = "import sys, evaluate, iterative_miner, prepare_corpus, prepare_queries, test_small_sample\n"
    code += "print({'torch', 'transformers', 'sentence_transformers', 'datasets'} & sys.modules.keys())"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, check=False)
    assert (done.stdout, done.stderr) == ("set()\n", "")


def test_other_errors_in_destructors_are_shown() -> None:
    done = run_main("type('Doomed', (), {'__del__': lambda self: 1 / 0})()")
    assert done.returncode == 0 and "ZeroDivisionError" in done.stderr


def test_programming_errors_keep_their_traceback() -> None:
    done = run_main("raise KeyError('oops')")
    assert done.returncode == 1
    assert "Traceback" in done.stderr
    assert "KeyError: 'oops'" in done.stderr


def test_a_signal_that_was_held_takes_effect_though_the_block_fails() -> None:
    """The disk is full, say, and somebody has pressed Ctrl-C."""
    body = "import os, signal\n    from hardneg.running.signals import held_signals\n    with held_signals():\n"
    body += "        os.kill(os.getpid(), signal.SIGTERM); raise InputError('no space')"
    assert run_main(body).returncode == 143
