"""The command as a process: its exit statuses, its streams, and what it imports."""

from __future__ import annotations

import os
import shlex
import subprocess
import sys
import time
from importlib.metadata import entry_points
from pathlib import Path

import pytest

from command_line import command_runner
from medtune.__main__ import main

HEAVY = ("torch", "transformers", "pandas", "numpy", "pyarrow", "datasets", "scipy", "trl", "peft")


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


def python(*arguments: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, *arguments], cwd=cwd, capture_output=True, text=True, encoding="utf-8", timeout=60
    )


def test_the_command_is_the_module() -> None:
    (script,) = entry_points(group="console_scripts", name="medtune")
    assert script.load() is main


def test_bad_input_in_a_process_of_its_own(tmp_path: Path) -> None:
    done = python("-m", "medtune", "config", "demo", "--set", "lora.rnak=1", "--set", "seed=-1", cwd=tmp_path)
    assert done.returncode == 2
    assert done.stdout == ""
    assert done.stderr.splitlines() == [
        "medtune: demo: seed: input should be greater than or equal to 0, got -1",
        "medtune: demo: lora.rnak: unknown key; did you mean lora.rank?",
    ]
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ["--help"],
        ["run", "--help"],
        ["--version"],
        ["recipes"],
        ["config", "demo"],
        ["data", "--help"],
        ["data", "audit", "--help"],
    ],
)
def test_what_answers_at_once_imports_nothing_heavy(tmp_path: Path, arguments: list[str]) -> None:
    code = (
        "import sys\nfrom medtune.__main__ import main\n"
        f"sys.argv = ['medtune', *{arguments!r}]\n"
        "try:\n    main()\nexcept SystemExit as end:\n    assert not end.code\n"
        f"print([name for name in {HEAVY!r} if name in sys.modules], file=sys.stderr)"
    )
    done = python("-c", code, cwd=tmp_path)
    assert done.returncode == 0
    assert done.stdout
    assert done.stderr.strip() == "[]"


def test_help_takes_half_a_second_at_most(tmp_path: Path) -> None:
    def best_of_five(*arguments: str) -> float:
        seconds = []
        for _ in range(5):
            began = time.perf_counter()
            assert python(*arguments, cwd=tmp_path).returncode == 0
            seconds.append(time.perf_counter() - began)
        return min(seconds)

    assert best_of_five("-m", "medtune", "--help") < best_of_five("-c", "pass") + 0.5


@pytest.mark.skipif(os.name != "posix", reason="closes a stream as a POSIX shell does")
@pytest.mark.parametrize("closed", [">&-", "2>&-", ">&- 2>&-"])
def test_output_that_the_caller_has_closed(tmp_path: Path, closed: str) -> None:
    command = f"{shlex.quote(sys.executable)} -m medtune recipes {closed}"
    done = subprocess.run(["sh", "-c", command], cwd=tmp_path, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert bool(done.stdout) == (closed == "2>&-")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
@pytest.mark.parametrize("redirected", ["stdout", "stderr"])
def test_output_to_a_full_disk(tmp_path: Path, redirected: str) -> None:
    arguments = ["config", "demo"] if redirected == "stdout" else ["config", "nowhere"]
    with open("/dev/full", "w") as full:
        streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, redirected: full}
        command = [sys.executable, "-m", "medtune", *arguments]
        done = subprocess.run(command, cwd=tmp_path, text=True, check=False, **streams)
    assert done.returncode == 2
    if redirected == "stdout":
        (line,) = done.stderr.splitlines()
        assert line == (
            "medtune: the disk, or where output goes: no space left on the device; make room, then try again"
        )


def test_only_a_terminal_gets_errors_in_lines_that_end_at_words(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    medtune = command_runner(monkeypatch, capsys)
    monkeypatch.setenv("COLUMNS", "30")
    whole = medtune("config", "demo", "--set", "lora.rnak=1", "--set", "seed=-1").err
    assert len(whole.splitlines()) == 2
    monkeypatch.setattr(sys.stderr, "isatty", lambda: True)
    shown = medtune("config", "demo", "--set", "lora.rnak=1", "--set", "seed=-1").err
    assert max(map(len, shown.splitlines())) <= 30
    assert shown.split() == whole.split()
    assert "\nmedtune: demo: lora.rnak:" in shown  # each error begins a line
    unknown = medtune("nosuch").err
    assert "\n`medtune --help`\n" in unknown or unknown.endswith("`medtune --help`\n")
