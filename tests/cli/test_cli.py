from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from command_line import Medtune, Result
from medtune import __version__
from medtune.config.recipes import load_recipe, read_config, shipped_recipes
from medtune.config.recipes.yaml_text import dump_config
from medtune.run_dir.directory import RunDir

HEAVY = ("torch", "transformers", "pandas", "numpy", "pyarrow", "datasets", "scipy", "trl", "peft")


@pytest.fixture
def files(tmp_path: Path) -> Path:
    """What the command lines below speak of: broken things, and a run that is only begun."""
    (tmp_path / "tagged.yaml").write_text("model: !!python/name:os.system x\n", encoding="utf-8")
    (tmp_path / "twice.yaml").write_text("seed: 1\nseed: 2\n", encoding="utf-8")
    (tmp_path / "cycle.yaml").write_text("extends: cycle.yaml\n", encoding="utf-8")
    (tmp_path / "latin.yaml").write_bytes(b"# caf\xe9\n")
    (tmp_path / "bad.yaml").write_text(
        "model: {base: x, qantization: nf4}\ndata: {source: rows.csv}\nlora: {rank: 0}\nseed: one\n", encoding="utf-8"
    )
    (tmp_path / "rows.txt").write_text("question\tanswer\n", encoding="utf-8")
    (tmp_path / "qa.csv").write_text("question,answer\n", encoding="utf-8")
    (tmp_path / "empty.txt").write_text("\n \n", encoding="utf-8")
    (tmp_path / "latin.txt").write_bytes(b"caf\xe9 ?\n")
    (tmp_path / "folder").mkdir()
    for name in ("begun", "damaged"):
        RunDir.create(tmp_path / name, load_recipe("demo"), resume=False)
    (tmp_path / "damaged" / "provenance.json").write_text('{"stages": {', encoding="utf-8")
    return tmp_path


def snapshot(folder: Path) -> dict[str, bytes]:
    return {str(path): path.read_bytes() if path.is_file() else b"" for path in folder.rglob("*")}


# Bad input ----------------------------------------------------------------------------------------------------------

# The one command that every unfinished run goes on with.
GO_ON = "`medtune run begun/config.yaml --run-dir begun --resume`"
BAD_INPUT = [
    # Recipes
    (["config", "nosuch"], ["nosuch: unknown recipe; shipped are chatdoctor, demo, "]),
    (["config", "absent.yaml"], ["absent.yaml: no such recipe file"]),
    (
        ["run", "qa.csv"],
        [
            "qa.csv: holds rows, and is no recipe; rehearse on them with `medtune run demo --set data.source=qa.csv "
            "--run-dir runs/rehearsal`, or write a recipe that has them as data.source (docs/own-data.md)"
        ],
    ),
    (["config", "folder/"], ["folder/: no such recipe file"]),
    (["config", f"{'x' * 300}.yaml"], ["xxx"]),
    (["config", "tagged.yaml"], ["tagged.yaml: YAML tags are not allowed (line 1, column 8)"]),
    (["config", "twice.yaml"], ['twice.yaml: found duplicate key "seed" (line 2, column 1)']),
    (["config", "cycle.yaml"], ["cycle.yaml: extends itself ("]),
    (["config", "latin.yaml"], ["latin.yaml: not UTF-8 text (invalid continuation byte at byte 5)"]),
    (
        ["config", "bad.yaml"],
        [
            "bad.yaml: seed: input should be a valid integer, got 'one'",
            "bad.yaml: model.qantization: unknown key; did you mean model.quantization?",
            "bad.yaml: lora.rank: input should be greater than or equal to 1, got 0",
        ],
    ),
    (["run", "nosuch"], ["nosuch: unknown recipe"]),
    (["data", "prepare", "bad.yaml", "--set", "seed=1", "--set", "lora.rank=1"], ["bad.yaml: model.qantization: "]),
    # --set
    (["config", "demo", "--set", "seed"], ["--set seed: must read key.path=value"]),
    (["config", "demo", "--set", "model.base.x=1"], ["--set model.base.x=1: base is a value, not a section"]),
    (["config", "demo", "--set", "seed=[1"], ["--set seed=[1: not valid YAML"]),
    (["config", "demo", "--set", "seed=x", "--set", "lora.r=1"], ["demo: seed: ", "demo: lora.r: unknown key"]),
    (["run", "demo", "--set", "training.epochs=0"], ["demo: training.epochs: input should be greater than 0, got 0"]),
    # Sources
    (["run", "demo", "--set", "data.source=absent.csv"], ["absent.csv: no such file or folder"]),
    (["data", "prepare", "demo", "--set", "data.source=absent.csv"], ["absent.csv: no such file or folder"]),
    (["data", "prepare", "demo", "--set", "data.source=rows.txt"], ["rows.txt: unknown kind of file"]),
    (["data", "prepare", "demo", "--set", "data.test_source=./absent"], ["./absent: no such file or folder"]),
    # Looking at rows
    (["data", "audit", "absent.csv"], ["absent.csv: no such file or folder"]),
    (["data", "audit", "rows.txt"], ["rows.txt: unknown kind of file"]),
    (["data", "audit", "rows.txt", "--recipe", "nosuch"], ["nosuch: unknown recipe"]),
    (
        ["data", "audit", "rows.txt", "--set", "data.spilt.test=1"],
        ["data audit: data.spilt: unknown key; did you mean"],
    ),
    (["data", "audit", "rows.txt", "--out", "folder"], ["--out folder: must be a file in a folder that exists"]),
    (["data", "audit", "rows.txt", "--out", "no/a.json"], ["--out no/a.json: must be a file in a folder that exists"]),
    (["data", "show", "nosuch"], ["nosuch: unknown recipe"]),
    (["data", "show", "demo", "--set", "data.source=absent.csv"], ["absent.csv: no such file or folder"]),
    (
        ["data", "show", "demo", "--set", "data.split.method=column"],
        ["demo: data: split.method column needs the column's name in data.columns.split"],
    ),
    # Run directories
    (["train", "absent"], ["absent: not a medtune run (no config.yaml)"]),
    (["train", "folder"], ["folder: not a medtune run (no config.yaml)"]),
    (["train", "rows.txt"], ["rows.txt: not a medtune run (no config.yaml)"]),
    (["train", "x" * 300], ["xxx"]),
    (["evaluate", "absent", "--model", "tuned"], ["absent: not a medtune run"]),
    (
        ["evaluate", "begun", "--model", "tuned"],
        [f"begun: the data stage is not complete; run `medtune data prepare` first, or all that is left with {GO_ON}"],
    ),
    (["evaluate", "begun", "--model", "best"], ["--model best: must be baseline, controls or tuned"]),
    (["compare", "absent"], ["absent: not a medtune run"]),
    (["report", "absent"], ["absent: not a medtune run"]),
    (["report", "begun"], [f"begun: the compare stage is not complete; run {GO_ON}, which does all that is left"]),
    (["compare", "damaged"], ["damaged/provenance.json: damaged, not JSON"]),
    (["compare", "begun"], [f"begun: the baseline stage is not complete; run {GO_ON}, which does all that is left"]),
    # Questions
    (["ask", "begun"], ["ask: give either a question or --file"]),
    (["ask", "begun", "Why ?", "--file", "empty.txt"], ["ask: give either a question or --file"]),
    (["ask", "begun", " "], ["ask: the question is empty"]),
    (["ask", "begun", "Why ?"], [f"begun: the train stage is not complete; run {GO_ON}, which does all that is left"]),
    (["ask", "begun", "--file", "absent.txt"], ["absent.txt: no such file"]),
    (["ask", "begun", "--file", "empty.txt"], ["empty.txt: holds no question"]),
    (["ask", "begun", "--file", "latin.txt"], ["latin.txt: not a UTF-8 text file"]),
    (["ask", "begun", "--file", "folder"], ["folder: not a UTF-8 text file"]),
    (["ask", "folder", "Why ?"], ["folder: neither a run directory (no config.yaml) nor an adapter"]),
    (["ask", "./absent", "Why ?"], ["./absent: no such adapter folder"]),
    (["ask", "runs/absent", "Why ?"], ["runs/absent: no run directory here; adapter runs/absent: "]),
]


@pytest.mark.parametrize(
    ("arguments", "expected"), BAD_INPUT, ids=[" ".join(arguments)[:60] for arguments, _ in BAD_INPUT]
)
def test_bad_input(medtune: Medtune, files: Path, arguments: list[str], expected: list[str]) -> None:
    before = snapshot(files)
    result = medtune(*arguments)
    assert result.status == 2
    assert result.out == ""
    assert "Traceback" not in result.err
    lines = result.err.splitlines()
    assert len(lines) == len(expected), result.err
    for line, start in zip(lines, expected, strict=True):
        assert line.startswith(f"medtune: {start}")
    assert snapshot(files) == before


@pytest.mark.parametrize(
    ("arguments", "problem"),
    [
        (["nosuch"], "No such command 'nosuch'; see `medtune --help`"),
        (["runs"], "Did you mean 'run'? see `medtune --help`"),
        (["config"], "Missing argument 'recipe'; see `medtune config --help`"),
        (["config", "demo", "surplus"], "unexpected extra argument"),
        (["config", "demo", "--nope"], "No such option: --nope"),
        (
            ["run", "demo", "--lr", "1e-4"],
            "No such option: --lr; did you mean --set training.learning_rate=…? see `medtune run --help`",
        ),
        (["plan", "demo", "--seed=3"], "No such option: --seed; did you mean --set seed=…? see `medtune plan --help`"),
        (["train", "begun", "--lr", "1e-4"], "No such option: --lr"),
        (["config", "demo", "--set"], "Option '--set' requires an argument"),
        (["evaluate", "run"], "Missing option '--model'"),
        (["data", "audit"], "Missing argument 'source'; see `medtune data audit --help`"),
        (["run", "demo", "--run-dir", "--resume"], "'--run-dir': needs a folder, and --resume is none"),
        (["merge", "run", "--to", "--dtype"], "'--to': needs a folder, and --dtype is none"),
        (["publish", "run", "--repo", "a/b", "--merged", "--dry-run"], "needs a folder, and --dry-run is none"),
        (["data", "show", "demo", "--rows", "0"], "Invalid value for '--rows'"),
    ],
)
def test_a_command_line_that_cannot_be_parsed(
    medtune: Medtune, tmp_path: Path, arguments: list[str], problem: str
) -> None:
    result = medtune(*arguments)
    assert result.status == 2
    assert result.out == ""
    assert problem in result.err.splitlines()[-1]
    assert "Traceback" not in result.err
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize(
    "arguments",
    [
        ["data", "prepare", "demo"], ["data", "audit", "rows.csv"], ["compare", "r"], ["report", "r"],
        ["score", "p.jsonl"], ["human", "export", "r"], ["merge", "r"],
        ["publish", "r", "--repo", "a/b"], ["ask", "r", "why ?"], ["plan", "demo"], ["doctor"], ["config", "demo"],
        ["recipes"],
    ],
)  # fmt: skip
@pytest.mark.parametrize("rank", ["0", "1"])
def test_commands_that_run_as_one_process_refuse_several(
    medtune: Medtune, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, arguments: list[str], rank: str
) -> None:
    """The first says so, the others are silent; nobody reads or writes anything."""
    monkeypatch.setenv("WORLD_SIZE", "2")
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr("medtune.runtime.launch._HEAD_START", 0)
    result = medtune(*arguments)
    assert (result.status, result.out) == (2, "")
    line = (
        f"medtune: `medtune {arguments[0]}` runs as one process, and 2 were launched; start it without the launcher: "
        "only `run`, `train` and `evaluate` take several\n"
    )
    assert result.err == (line if rank == "0" else "")
    assert snapshot(tmp_path) == {}


@pytest.mark.parametrize("arguments", [["--help"], ["--version"], ["evaluate", "--help"], ["data", "audit", "--help"]])
def test_several_processes_may_ask_for_help(
    medtune: Medtune, monkeypatch: pytest.MonkeyPatch, arguments: list[str]
) -> None:
    monkeypatch.setenv("WORLD_SIZE", "2")
    result = medtune(*arguments)
    assert (result.status, result.err) == (0, "")
    assert result.out


def test_a_fault_of_our_own_is_not_dressed_up(medtune: Medtune, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail() -> dict[str, str]:
        raise ZeroDivisionError

    monkeypatch.setattr("medtune.config.recipes.groups.shipped_recipes", fail)
    with pytest.raises(ZeroDivisionError):
        medtune("recipes")


# What works ---------------------------------------------------------------------------------------------------------


def test_help_names_every_command(medtune: Medtune) -> None:
    result = medtune("--help")
    assert (result.status, result.err) == (0, "")
    for command in (
        "run",
        "data",
        "train",
        "evaluate",
        "compare",
        "report",
        "score",
        "human",
        "ask",
        "recipes",
        "config",
    ):
        assert f"\n  {command} " in result.out
    assert "..." not in result.out.partition("Commands:")[2], "a summary is cut"


@pytest.mark.parametrize(
    ("command", "option"),
    [
        (["run"], "--run-dir"), (["data", "prepare"], "--set"),
        (["data", "audit"], "--out"), (["data", "show"], "--id"), (["train"], "--resume"), (["evaluate"], "--model"),
        (["compare"], "run"), (["report"], "report.html"),
        (["ask"], "--file"), (["recipes"], "shipped recipes"), (["config"], "--set"),
    ],
)  # fmt: skip
def test_every_command_has_help(medtune: Medtune, command: list[str], option: str) -> None:
    result = medtune(*command, "--help")
    assert (result.status, result.err) == (0, "")
    assert option in result.out


@pytest.mark.parametrize("command", [[], ["run"], ["data"], ["data", "audit"], ["human", "score"]])
def test_a_short_option_asks_for_help_too(medtune: Medtune, command: list[str]) -> None:
    assert medtune(*command, "-h") == medtune(*command, "--help")


@pytest.mark.parametrize(
    ("words", "number", "expected"),
    [("medtune re", 1, ["recipes", "report"]), ("medtune plan llama3-8b-8", 2, ["llama3-8b-80gb"])],
)
def test_a_shell_completes_commands_and_recipes(
    medtune: Medtune, monkeypatch: pytest.MonkeyPatch, words: str, number: int, expected: list[str]
) -> None:
    monkeypatch.setenv("_MEDTUNE_COMPLETE", "complete_bash")
    monkeypatch.setenv("COMP_WORDS", words)
    monkeypatch.setenv("COMP_CWORD", str(number))
    assert medtune().out.split() == expected


@pytest.mark.parametrize(
    ("shell", "calls", "start_file"),
    [
        ("bash", "_MEDTUNE_COMPLETE=complete_bash $1", ".bash_completions/medtune.sh"),
        ("zsh", "_MEDTUNE_COMPLETE=complete_zsh medtune", ".zfunc/_medtune"),
        ("fish", "_MEDTUNE_COMPLETE=complete_fish", ".config/fish/completions/medtune.fish"),
    ],
)
def test_completion_can_be_shown_and_installed(
    medtune: Medtune, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, shell: str, calls: str, start_file: str
) -> None:
    monkeypatch.setattr("shellingham.detect_shell", lambda: (shell, f"/bin/{shell}"))
    monkeypatch.setenv("HOME", str(tmp_path))
    result = medtune("--show-completion")
    assert (result.status, result.err) == (0, "")
    assert calls in result.out
    assert medtune("--install-completion").status == 0
    assert calls in (tmp_path / start_file).read_text(encoding="utf-8")


@pytest.mark.parametrize(
    ("shell", "settings"),
    [
        ("bash", {"COMP_WORDS": "medtune data au", "COMP_CWORD": "2"}),
        ("zsh", {"_TYPER_COMPLETE_ARGS": "medtune data au"}),
        ("fish", {"_TYPER_COMPLETE_ARGS": "medtune data au", "_TYPER_COMPLETE_FISH_ACTION": "get-args"}),
    ],
)
def test_each_shell_completes_a_subcommand_and_imports_nothing_heavy(shell: str, settings: dict[str, str]) -> None:
    """As the shell does it: in a process of its own, at every press of the key."""
    code = f"""
import sys
from medtune.__main__ import main
try:
    main()
finally:
    sys.stderr.write(" ".join(set({HEAVY}) & set(sys.modules)))
"""
    environment = {**os.environ, "_MEDTUNE_COMPLETE": f"complete_{shell}", **settings}
    result = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True, timeout=60)
    assert (result.returncode, result.stderr) == (0, "")
    assert "audit" in result.stdout
    assert "prepare" not in result.stdout


def test_version(medtune: Medtune) -> None:
    assert medtune("--version") == Result(0, f"{__version__}\n", "")


def test_recipes(medtune: Medtune) -> None:
    result = medtune("recipes")
    assert (result.status, result.err) == (0, "")
    found, lines = shipped_recipes(), result.out.splitlines()
    listed = [line.split()[0] for line in lines if line.startswith("  ")]
    assert sorted(listed) == list(found)
    for name, line in zip(listed, (line for line in lines if line.startswith("  ")), strict=True):
        assert line.endswith(f"  {found[name]}")
    assert [line for line in lines if not line.startswith("  ")][:2] == ["on any computer:", "on a laptop:"]
    assert lines[-1].startswith("gated: accept the licence")


def test_recipes_in_brief(medtune: Medtune) -> None:
    result = medtune("recipes", "--brief")
    assert (result.status, result.err) == (0, "")
    *groups, gated = result.out.splitlines()
    listed = [name for line in groups for name in line.split("  ", 1)[1].strip().split(", ")]
    assert sorted(name.removesuffix("*") for name in listed) == list(shipped_recipes())
    assert {name.removesuffix("*") for name in listed if name.endswith("*")} == {
        name for name, description in shipped_recipes().items() if "(gated)" in description
    }
    assert gated.startswith("* gated: ")


def test_config_prints_what_a_recipe_resolves_to(medtune: Medtune, tmp_path: Path) -> None:
    result = medtune("config", "demo", "--set", "lora.rank=8", "--set", "seed=3")
    assert (result.status, result.err) == (0, "")
    assert result.out == dump_config(load_recipe("demo", ["lora.rank=8", "seed=3"]))
    path = tmp_path / "resolved.yaml"
    path.write_text(result.out, encoding="utf-8")
    assert read_config(path).lora.rank == 8


def test_config_of_a_file_in_the_working_folder(medtune: Medtune, tmp_path: Path) -> None:
    (tmp_path / "mine.yaml").write_text("extends: demo\nseed: 5\n", encoding="utf-8")
    assert medtune("config", "mine.yaml").out.startswith("seed: 5\n")
