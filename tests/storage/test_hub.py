"""Models, adapters and data sets from a Hub, over real HTTP against a loopback one, as a user runs it.

HF_ENDPOINT is read when huggingface_hub is imported, and importing it with torch takes seconds: so a process for each
environment, and the cases of one environment in one process.
"""

from __future__ import annotations

import csv
import io
import json
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import huggingface_hub
import pytest

from forked import UNCONNECTED, fork
from hub_server import HubServer
from medtune.errors import MedtuneError
from medtune.run_dir.layout import STAGE_NAMES
from medtune.storage import hub
from tiny_model import build_tiny_model, write_rows

pytestmark = pytest.mark.slow  # several processes, each with an environment of its own

TOKEN = "hf_loopback"
RECIPE = """
model:
  base: owner/tiny
data:
  source: owner/medqa
  split: {validation: 0.2, test: 0.2}
training:
  max_steps: 2
  effective_batch_rows: 4
  max_length: 256
generation:
  max_new_tokens: 8
evaluation:
  metrics: [bleu, rougeL, exact_match, perplexity]
"""
# Runs `medtune` once for each case, without the price of starting Python.
DRIVER = """
import contextlib, io, json, sys, time, traceback
from medtune.__main__ import main

for arguments in json.loads(sys.argv[1]):
    sys.argv = ["medtune", *arguments]
    errors, start, status = io.StringIO(), time.perf_counter(), 0
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(io.StringIO()):
        try:
            main()
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
            status = 1
    print(json.dumps([status, errors.getvalue(), time.perf_counter() - start]))
"""


@dataclass(frozen=True)
class Outcome:
    status: int
    errors: str
    seconds: float
    run_dir: Path

    @property
    def problem(self) -> str:
        """The one line that a user is shown."""
        assert self.status == 2, self.errors
        assert "Traceback" not in self.errors
        assert not self.run_dir.exists()
        lines = [line for line in self.errors.splitlines() if line.startswith("medtune: ")]
        assert len(lines) == 1, self.errors
        return lines[0].removeprefix("medtune: ")


# What is set on top of the recipe, and what the line must say: the thing, what is wrong with it, the fix.
ONLINE_PROBLEMS: dict[str, tuple[list[str], list[str]]] = {
    "gated model": (
        ["model.base=owner/gated"],
        ["model owner/gated: gated", "accept its licence", "hf auth login", "HF_TOKEN"],
    ),
    "private model": (["model.base=owner/private"], ["model owner/private: not on the Hub, or private", "HF_TOKEN"]),
    "unknown model": (["model.base=owner/nothing"], ["model owner/nothing: not on the Hub", "check the name"]),
    "unknown model revision": (
        ["model.revision=v9"],
        ["model owner/tiny at v9: no such revision", "check model.revision"],
    ),
    "no name of a repository": (["model.base=not a name!"], ["model not a name!", "owner/name"]),
    "name too long for a file": ([f"model.base={'x' * 300}"], ["owner/name"]),
    "pickled model": (["model.base=owner/pickled"], ["model owner/pickled: no .safetensors", "convert"]),
    "model of a broken Hub": (["model.base=owner/broken"], ["model owner/broken: the Hub answered 500", "try again"]),
    "model of a busy Hub": (["model.base=owner/busy"], ["model owner/busy: the Hub answered 429", "wait"]),
    "Hub that hangs up": (["model.base=owner/rude"], ["model owner/rude: the Hub cannot be reached", "network"]),
    "Hub that never answers": (["model.base=owner/mute"], ["model owner/mute: the Hub cannot be reached", "network"]),
    "no Hub at all": (["model.base=owner/page"], ["model owner/page: what answered is not the Hub", "HF_ENDPOINT"]),
    "gated data set": (["data.source=owner/gated"], ["data set owner/gated: gated", "accept its licence", "HF_TOKEN"]),
    "unknown data set": (["data.source=owner/nothing"], ["data set owner/nothing: not on the Hub", "check the name"]),
    "unknown data revision": (
        ["data.revision=v9"],
        ["data set owner/medqa at v9: no such revision", "data.revision"],
    ),
    "data set of a broken Hub": (
        ["data.source=owner/broken"],
        ["data set owner/broken: the Hub answered 500", "try again"],
    ),
    "data set without the columns": (
        ["data.columns.answer=reply"],
        ["owner/medqa: no column 'reply'", "qtype, Question, Answer", "data.columns.answer"],
    ),
    "data set with code": (["data.source=owner/script"], ["data set owner/script: cannot be loaded", "script.py"]),
    "data set without a table": (["data.source=owner/empty"], ["data set owner/empty: cannot be loaded", "CSV"]),
    "ragged data set": (
        ["data.source=owner/ragged"],
        ["data set owner/ragged: cannot be loaded", "column names don't match", "CSV"],
    ),
    "two configurations": (
        ["data.source=owner/two"],
        ["data set owner/two: cannot be loaded", "Config name is missing", "--set data.hub_config="],
    ),
    "unknown configuration": (
        ["data.source=owner/two", "data.hub_config=c"],
        ["data set owner/two: cannot be loaded", "'c' not found", "'a', 'b'", "--set data.hub_config="],
    ),
    "unknown split": (
        ["data.source=owner/two", "data.hub_config=a", "data.hub_split=train+dev"],
        ["data set owner/two: no split 'dev'; it has train", "--set data.hub_split=train"],
    ),
    "unknown test source": (["data.test_source=owner/nothing"], ["data set owner/nothing: not on the Hub"]),
    "unknown adapter": (["model.adapter=owner/nothing"], ["adapter owner/nothing: not on the Hub"]),
    "adapter that is a model": (["model.adapter=owner/tiny"], ["owner/tiny: no adapter_config.json", "PEFT"]),
    "pickled adapter": (["model.adapter=owner/old"], ["owner/old: no adapter_model.safetensors", "convert it in its"]),
}


@dataclass
class Session:
    """The processes of this file: where they write, and the Hub they ask."""

    folder: Path
    server: HubServer
    commits: dict[str, str]

    @property
    def recipe(self) -> Path:
        return self.folder / "recipe.yaml"

    def environment(self, home: str, **settings: str) -> dict[str, str]:
        """Nothing of the machine's own Hub settings, token or proxy."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
        return {
            **kept,
            "HF_ENDPOINT": self.server.url,
            "HF_HOME": str(self.folder / home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_ETAG_TIMEOUT": "3",
            **settings,
        }

    def medtune(self, name: str, *overrides: str, home: str, **settings: str) -> Outcome:
        """`python -m medtune run`, with the Hub's cache in `home`."""
        run_dir = self.folder / "runs" / name
        start = time.perf_counter()
        given = arguments(self.recipe, run_dir, overrides)
        environment = self.environment(home, **settings)
        done = fork("medtune", *given, environment=environment, imported=UNCONNECTED).finish()
        return Outcome(done.returncode, done.stderr, time.perf_counter() - start, run_dir)

    def medtune_many(self, cases: dict[str, list[str]], home: str, **settings: str) -> dict[str, Outcome]:
        """The same for several cases in one process."""
        runs = {name: self.folder / "runs" / name for name in cases}
        given = [arguments(self.recipe, runs[name], overrides) for name, overrides in cases.items()]
        environment = self.environment(home, **settings)
        process = fork(self.folder / "driver.py", json.dumps(given), environment=environment, imported=UNCONNECTED)
        done = process.finish()
        assert done.returncode == 0, done.stderr
        rows = [json.loads(line) for line in done.stdout.splitlines()]
        return {name: Outcome(*row, runs[name]) for name, row in zip(cases, rows, strict=True)}


def arguments(recipe: Path, run_dir: Path, overrides: tuple[str, ...] | list[str]) -> list[str]:
    settings = [part for override in overrides for part in ("--set", override)]
    return ["run", str(recipe), "--run-dir", str(run_dir), *settings]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("hub")
    model = {path.name: path.read_bytes() for path in build_tiny_model(folder / "model").iterdir()}
    table = write_rows(folder / "rows.csv").read_bytes()
    card = b"# A model\n"
    pickles = {"pytorch_model.bin": b"never", "weights.pt": b"never", "modeling_tiny.py": b"never"}
    copies = {"checkpoint-1/model.safetensors": b"never", "original/consolidated.safetensors": b"never"}
    with HubServer(frozenset({TOKEN})) as server:
        commits = {
            "model": server.add("models", "owner/tiny", {**model, **pickles, **copies, "README.md": card}),
            "data": server.add("datasets", "owner/medqa", {"train.csv": table, "README.md": b"# Rows\n"}),
        }
        old = server.repos["datasets", "owner/medqa"]
        commits["old data"] = old.commit({"train.csv": written([["Question", "Answer"], ["Old ?", "Old."]])}, "old")
        server.add("models", "owner/gated", model, gated=True)
        server.add("models", "owner/private", model, private=True)
        server.add("models", "owner/pickled", {"config.json": model["config.json"], "pytorch_model.bin": b"never"})
        server.add("models", "owner/old", {"adapter_config.json": b"{}", "adapter_model.bin": b"never"})
        server.add("models", "owner/page", model)
        server.add("datasets", "owner/gated", {"train.csv": table, "README.md": b"# Rows\n"}, gated=True)
        server.add("datasets", "owner/script", {"script.py": b"never", "train.csv": table})
        server.add("datasets", "owner/empty", {"README.md": b"# Nothing\n"})
        server.add("datasets", "owner/ragged", {"a.csv": table, "b.csv": written([["Other"], ["1"]])})
        configurations = "".join(f"- config_name: {name}\n  data_files: {name}.csv\n" for name in "ab")
        server.add(
            "datasets",
            "owner/two",
            {"a.csv": table, "b.csv": table, "README.md": f"---\nconfigs:\n{configurations}---\n".encode()},
        )
        # Served while it is checked and first loaded (9 requests), then gone.
        server.add("models", "owner/leaving", server.repos["models", "owner/tiny"].commits[commits["model"]])
        server.fail("/api/models/owner/leaving", 503, after=11)
        # What huggingface_hub's own retries get over.
        server.fail("/owner/leaving/resolve/", 500, times=1)
        server.fail("owner/broken", 500)
        server.fail("owner/busy", 429)
        server.fail("owner/rude", "hang up")
        server.fail("owner/mute", "hang")
        server.fail("owner/page", "web page")
        (folder / "recipe.yaml").write_text(RECIPE)
        (folder / "driver.py").write_text(DRIVER)
        yield Session(folder, server, commits)


def written(rows: list[list[str]]) -> bytes:
    text = io.StringIO()
    csv.writer(text).writerows(rows)
    return text.getvalue().encode()


# The same with HF_HUB_OFFLINE=1, where the model and the data set at `main` are in the cache.
OFFLINE_PROBLEMS: dict[str, tuple[list[str], list[str]]] = {
    "offline, uncached model": (
        ["model.base=owner/gated"],
        ["model owner/gated: not in the local cache", "HF_HUB_OFFLINE", "unset it"],
    ),
    "offline, uncached data set": (
        ["data.source=owner/two"],
        ["data set owner/two: not in the local cache", "HF_HUB_OFFLINE", "unset it"],
    ),
    "offline, uncached revision": (
        ["data.revision=v9"],
        ["data set owner/medqa at v9: not in the local cache", "HF_HUB_OFFLINE"],
    ),
    "offline, rows of another revision": (
        ["data.revision=old"],
        ["data set owner/medqa: its rows at commit", "not in the local cache", "HF_HUB_OFFLINE", "data.revision"],
    ),
}


@dataclass(frozen=True)
class Outcomes:
    online: Outcome
    offline: Outcome
    unreachable: Outcome
    problems: dict[str, Outcome]


@pytest.fixture(scope="module")
def outcomes(session: Session) -> Outcomes:
    """Every process of this file, two at a time."""
    with ThreadPoolExecutor(2) as pool:
        problems = pool.submit(session.medtune_many, overrides_of(ONLINE_PROBLEMS), home="problems")
        online = pool.submit(session.medtune, "online", "model.base=owner/leaving", home="cache").result()
        unreachable = pool.submit(session.medtune, "unreachable", home="empty", HF_ENDPOINT="http://127.0.0.1:9")
        found = problems.result()
        session.server.stop()
        know_revision(session.folder / "cache", "old", session.commits["old data"])
        offline = pool.submit(session.medtune, "offline", "model.base=owner/leaving", home="cache", HF_HUB_OFFLINE="1")
        found |= session.medtune_many(overrides_of(OFFLINE_PROBLEMS), home="cache", HF_HUB_OFFLINE="1")
        return Outcomes(online, offline.result(), unreachable.result(), found)


def know_revision(home: Path, revision: str, commit: str) -> None:
    """Let the cache know a revision of the data set whose rows it lacks."""
    cache = home / "hub" / "datasets--owner--medqa"
    (cache / "refs" / revision).write_text(commit)
    (cache / "snapshots" / commit).mkdir()


def overrides_of(problems: dict[str, tuple[list[str], list[str]]]) -> dict[str, list[str]]:
    return {name: overrides for name, (overrides, _) in problems.items()}


def test_a_run_from_the_hub_records_what_it_was_made_of(session, outcomes):
    assert outcomes.online.status == 0, outcomes.online.errors
    provenance = json.loads((outcomes.online.run_dir / "provenance.json").read_text())
    assert provenance["model"] == {"base": "owner/leaving", "revision": session.commits["model"]}
    assert provenance["data"]["revision"] == session.commits["data"]
    assert set(provenance["stages"]) == set(STAGE_NAMES)


def test_a_run_goes_on_when_the_hub_leaves(session, outcomes):
    assert f"owner/leaving: taken from the local cache at {session.commits['model']}" in outcomes.online.errors
    assert "the Hub answered 503" in outcomes.online.errors
    assert "cache" not in outcomes.offline.errors


def test_no_pickle_no_code_and_no_second_copy_is_asked_for(session, outcomes):
    asked = session.server.files_asked_for("models", "owner/leaving")
    assert {"config.json", "tokenizer.json", "model.safetensors"} <= asked
    assert {Path(name).suffix for name in asked} <= {".json", ".jinja", ".safetensors"}
    assert not any("/" in name for name in asked)
    for name in ("owner/pickled", "owner/old"):
        assert not {Path(file).suffix for file in session.server.files_asked_for("models", name)} - {".json"}


def test_a_model_that_is_no_adapter_is_not_downloaded_as_one(session, outcomes):
    """The check of an adapter asks for its two files alone, before anything large."""
    assert "model.safetensors" not in session.server.files_asked_for("models", "owner/tiny")


def test_offline_a_second_run_works_from_the_cache(session, outcomes):
    assert outcomes.offline.status == 0, outcomes.offline.errors
    first, second = (
        json.loads((run.run_dir / "provenance.json").read_text()) for run in (outcomes.online, outcomes.offline)
    )
    assert second["model"] == first["model"]
    assert second["data"] == first["data"]


@pytest.mark.parametrize("name", [*ONLINE_PROBLEMS, *OFFLINE_PROBLEMS])
def test_a_problem_is_one_line_that_names_the_thing_and_the_fix(name, outcomes):
    problem = outcomes.problems[name].problem
    for part in ({**ONLINE_PROBLEMS, **OFFLINE_PROBLEMS})[name][1]:
        assert part in problem


def test_a_hub_that_never_answers_is_given_up_after_its_time_limit(outcomes):
    assert 3 <= outcomes.problems["Hub that never answers"].seconds < 12


def test_an_unreachable_hub_is_said_at_once(outcomes):
    assert "data set owner/medqa: the Hub cannot be reached" in outcomes.unreachable.problem
    assert "check the network and HF_ENDPOINT" in outcomes.unreachable.problem
    assert outcomes.unreachable.seconds < 30, "a new process on a busy machine; by itself it takes 5 s"


@pytest.mark.parametrize(
    ("value", "problem"),
    [
        ("http://proxy:8080", None),
        ("proxy:8080", None),
        ("https://user:secret@proxy:8080", None),
        ("ftp://proxy", "HTTPS_PROXY: not a proxy's address"),
        ("http://proxy:port", "HTTPS_PROXY: not a proxy's address"),
        ("http://user:secret@[::1", "HTTPS_PROXY: not a proxy's address"),
        ("socks5://proxy:1080", "HTTPS_PROXY: a SOCKS proxy needs another package"),
    ],
)
def test_a_proxy_that_no_request_can_go_through_is_named(monkeypatch, value, problem):
    monkeypatch.setattr(hub, "find_spec", lambda name: None)
    monkeypatch.setattr(huggingface_hub, "is_offline_mode", lambda: False)
    monkeypatch.setenv("HTTPS_PROXY", value)
    if problem is None:
        hub.check_settings()
        return
    with pytest.raises(MedtuneError, match=problem) as caught:
        hub.check_settings()
    assert "secret" not in str(caught.value)


def test_weights_in_the_cache_are_whole_or_not_there(tmp_path):
    assert not hub._holds_whole_weights(tmp_path)
    (tmp_path / "model-1.safetensors").touch()
    assert hub._holds_whole_weights(tmp_path)
    index = tmp_path / "model.safetensors.index.json"
    index.write_text('{"weight_map": {"a": "model-1.safetensors", "b": "model-2.safetensors"}}')
    assert not hub._holds_whole_weights(tmp_path)
    (tmp_path / "model-2.safetensors").touch()
    assert hub._holds_whole_weights(tmp_path)
    index.write_text('{"weight_map": []}')
    assert not hub._holds_whole_weights(tmp_path)
