"""The program as a process: what it imports, its help, Ctrl-C, a terminal, a pipe that closes, and unknown commands."""

import functools
import inspect
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import time
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from harness.cli.main import COMMANDS
from harness.sweeps.expand import expand
from tests.harness.command_line import Ask, photos, records

ROOT = Path(__file__).parents[3]
PATIENCE = 240.0
"""Seconds after which a process that should have got somewhere has hung."""


# Help is quick, because nothing heavy is imported for it


def modules_after(command: str, cwd: Path) -> set[str]:
    """Top-level modules that a command line imports, in a process of its own."""
    code = (
        "import sys\n"
        "from harness.cli.main import main\n"
        "try:\n"
        "    status = main(sys.argv[1:])\n"
        "except SystemExit as leave:\n"
        "    status = leave.code\n"
        "print('\\n', *{name.partition('.')[0] for name in sys.modules})\n"
        "sys.exit(status)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", code, *shlex.split(command)],
        cwd=cwd,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert done.returncode == 0, done.stderr
    assert "Warning" not in done.stderr
    return set(done.stdout.splitlines()[-1].split())


@pytest.mark.parametrize("command", ["--help", "run --help", "show --help", "table --help"])
def test_help_imports_nothing_heavy(command: str, tmp_path: Path) -> None:
    loaded = modules_after(command, tmp_path)
    assert "harness" in loaded
    assert not loaded & {"torch", "torchvision", "timm", "fvcore", "pandas", "numpy", "scipy"}


def test_a_table_of_records_needs_no_torch(measured: Path, tmp_path: Path) -> None:
    shutil.copytree(measured, tmp_path / "runs")
    loaded = modules_after("table --csv table.csv", tmp_path)
    assert "pandas" in loaded
    assert not loaded & {"torch", "timm", "fvcore"}


def test_help_names_every_command(ask: Ask) -> None:
    answer = ask("--help")
    assert answer.status == 0
    assert re.findall(r"• (\S+) ", answer.out) == list(COMMANDS)


def help_of(command: str) -> tuple[str, list[str]]:
    """The first line of a command's help, and the command lines that it gives as examples."""
    first, *rest = (inspect.getdoc(COMMANDS[command]) or "").splitlines()
    return first, [line.strip() for line in rest if re.match(r" +(attention-bench|torchrun) ", line)]


@pytest.mark.parametrize("command", COMMANDS)
def test_the_list_of_commands_has_a_line_each_and_their_own_help_the_examples(ask: Ask, command: str) -> None:
    everything, own = (" ".join(ask(line).out.replace("│", " ").split()) for line in ("--help", f"{command} --help"))
    first, examples = help_of(command)
    assert f"• {command} {first}" in everything
    assert first in own
    for example in examples:
        assert example not in everything
        assert example in own


@pytest.mark.parametrize("command", [name for name in COMMANDS if help_of(name)[1]])
def test_examples_can_be_typed(ask: Ask, monkeypatch: pytest.MonkeyPatch, command: str) -> None:
    called = []

    @functools.wraps(COMMANDS[command])
    def instead(*arguments: object, **options: object) -> int:
        called.append(options)
        return 0

    monkeypatch.setitem(COMMANDS, command, instead)
    _, examples = help_of(command)
    for example in examples:
        _, _, line = example.partition("attention-bench " if "attention-bench" in example else "-m harness ")
        assert line.startswith(f"{command} ")
        assert ask(line).status == 0
    assert len(called) == len(examples)


# What is no input


def test_bad_input_in_a_process_of_its_own(tmp_path: Path) -> None:
    """Nothing else reaches a person either: no warning of a library, no traceback at exit, nothing of their own files.

    Those that have the name of a library's module, or of ours, are not taken for it.
    """
    for name in ("random", "results", "attentions", "tyro"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('taken for another')")
    done = subprocess.run(
        [sys.executable, "-m", "harness", "show", "swin_t", "--attention", "fokused"],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT), "PYTHONSAFEPATH": ""},
        capture_output=True,
        text=True,
        timeout=PATIENCE,
    )
    assert (done.returncode, done.stdout) == (2, "")
    assert re.fullmatch(r"attention-bench: unknown attention 'fokused'; did you mean focused\?.*\n", done.stderr)


# In processes of their own: Ctrl-C, a terminal, a pipe that closes


INTERRUPTED = (130, -signal.SIGINT)
"""A shell says 130 of either. Python ends by the signal if it came while a library compiled code from text."""


RUN = (
    "import runpy, signal\n"
    "signal.signal(signal.SIGINT, signal.default_int_handler)\n"
    "runpy.run_module('harness', run_name='__main__')\n"
)


def start(line: str, cwd: Path, **streams: Any) -> subprocess.Popen:
    """`python -m harness` in a session of its own, and open to Ctrl-C even where tests in the background are not."""
    return subprocess.Popen(
        [sys.executable, "-c", RUN, *shlex.split(line)],
        cwd=cwd,
        env={name: value for name, value in os.environ.items() if name not in ("COLUMNS", "LINES", "NO_COLOR")}
        | {"PYTHONPATH": str(ROOT), "TERM": "xterm-256color", "PYTHONDONTWRITEBYTECODE": "1"},
        start_new_session=True,
        **streams,
    )


def wait_for_training(process: subprocess.Popen) -> None:
    """Until a cell in `runs` has trained for an epoch."""
    deadline = time.monotonic() + PATIENCE
    while not any(path.stat().st_size for path in Path("runs").glob("*/metrics.jsonl")):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_ctrl_c_saves_the_running_training_and_the_same_command_goes_on(ask: Ask, tmp_path: Path) -> None:
    photos()
    process = start("run my_sweeps.py:interrupted", tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_training(process)
    process.send_signal(signal.SIGINT)
    out, err = (stream.decode() for stream in process.communicate(timeout=PATIENCE))
    assert process.returncode in INTERRUPTED
    # Ctrl-C may come while no update runs: an evaluation is then repeated.
    where = r"(after \d+ of \d+ updates|in the evaluation of 9 images)"
    assert re.fullmatch(
        rf"attention-bench: stopped on SIGINT {where}; the same command continues with what is left to do\n", err
    )

    # Piped, progress is plain lines.
    assert "\x1b" not in out
    assert "\r" not in out
    text = re.compile(
        r"\[1/3\] deit_micro softmax\(fused=True\) costs\n(    .+\n)*    done: params_m 0\.2.*\n"
        r"\[2/3\] deit_micro num_classes=3 softmax\(fused=True\) train.*\n    global batch .*\n(    epoch .*\n)+"
    )
    assert text.fullmatch(out)

    (first,) = records()
    assert first.cell["task"]["name"] == "costs"
    assert not [path for path in Path("runs").rglob("*") if path.suffix in (".tmp", ".partial", ".damaged")]
    kept = (Path("runs") / f"{first.key}.json").stat().st_mtime_ns

    again = ask("run my_sweeps.py:interrupted")
    assert (again.status, again.err) == (0, "")
    assert "1 of 3 cells are recorded in runs already" in again.out
    assert re.search(r"    resumed after \d+ of \d+ updates\n", again.out)
    assert [record.status for record in records()] == ["done"] * 3
    assert (Path("runs") / f"{first.key}.json").stat().st_mtime_ns == kept


def test_ctrl_c_stops_cells_in_processes_of_their_own(ask: Ask, tmp_path: Path) -> None:
    photos()
    line = "run my_sweeps.py:interrupted --isolate --only train"
    process = start(line, tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    wait_for_training(process)
    os.killpg(process.pid, signal.SIGINT)  # as a terminal does
    _, err = process.communicate(timeout=PATIENCE)
    assert process.returncode in INTERRUPTED
    assert re.fullmatch(rb"attention-bench: interrupted; .*\n", err)
    assert records() == []


class Screen:
    """What stands on a terminal of a width after some output: a line is text, and moves back overwrite it."""

    def __init__(self, width: int) -> None:
        self.width, self.lines, self.row, self.column = width, [""], 0, 0

    def feed(self, text: str) -> None:
        for token in re.findall(r"\x1b\[[?\d;]*[A-Za-z]|\x1b.|.", text, re.DOTALL):
            if token.startswith("\x1b["):
                self._control(token[2:-1], token[-1])
            elif token == "\r":
                self.column = 0
            elif token == "\n":
                self._next_line()
            else:
                assert token.isprintable(), f"not for a terminal: {token!r}"
                self._put(token)

    def _control(self, numbers: str, letter: str) -> None:
        if letter == "A":
            self.row -= int(numbers or 1)
            assert self.row >= 0
        elif letter == "K":
            assert numbers == "2", "rich erases whole lines"
            self.lines[self.row] = ""
        else:
            assert letter in "mhl", f"unknown control sequence {numbers}{letter}"  # colours, and the cursor hidden

    def _put(self, character: str) -> None:
        if self.column == self.width:
            self._next_line()
            self.column = 0
        line = self.lines[self.row].ljust(self.column)
        self.lines[self.row] = line[: self.column] + character + line[self.column + 1 :]
        self.column += 1

    def _next_line(self) -> None:
        self.row += 1
        if self.row == len(self.lines):
            self.lines.append("")


def test_a_terminal_gets_a_progress_bar_that_garbles_nothing(ask: Ask, tmp_path: Path) -> None:
    """One of 96 columns: room for the table in its frame, but not for the bar beside all of a cell's name."""
    pty, termios = pytest.importorskip("pty"), pytest.importorskip("termios")
    terminal, inner = pty.openpty()
    termios.tcsetwinsize(inner, (50, 96))
    process = start("run my_sweeps.py:costs", tmp_path, stdin=inner, stdout=inner, stderr=inner)
    os.close(inner)
    output = b""
    with suppress(OSError):  # what Linux says when the other side has gone
        while part := os.read(terminal, 4096):
            output += part
    os.close(terminal)
    assert process.wait(PATIENCE) == 0
    text = output.decode()
    assert text.rfind("\x1b[?25h") > text.rfind("\x1b[?25l"), "the cursor is shown again"
    bars = [re.sub(r"\x1b\[[?\d;]*[A-Za-z]", "", part) for part in text.split("\x1b[2K")]
    for done in range(3):
        assert any(re.search(rf"━.* {done}/3 .*deit_micro", bar) for bar in bars), f"a bar at {done} of 3"

    screen = Screen(96)
    screen.feed(text)
    shown = [line.rstrip() for line in screen.lines]
    assert sum("3/3" in line for line in shown) == 1, "one bar is left, and it is full"
    assert not any(f"{done}/3" in line for line in shown for done in range(3))
    joined = "".join(screen.lines)
    for cell in expand("my_sweeps.py:costs"):
        assert joined.count(f"{cell.label}: done: params_m 0.2") == 1
    assert any(line.startswith("┏━") for line in shown)
    assert shown[-2:] == ["3 records in runs", ""]


def test_a_reader_that_goes_away_is_no_error(measured: Path, tmp_path: Path) -> None:
    """As in `attention-bench table | head -1`: nothing is said, and the status is not 0, as output was lost."""
    shutil.copytree(measured, tmp_path / "runs")
    process = start("table", tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE)
    assert process.stdout is not None
    assert process.stderr is not None
    process.stdout.close()
    err = process.stderr.read().decode()
    process.stderr.close()
    assert process.wait(PATIENCE) == 1
    assert err == ""
