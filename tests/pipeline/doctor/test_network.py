"""The Hub's lines, as a user sees them: over real HTTP against a loopback Hub, in a process for each environment."""

from __future__ import annotations

import csv
import json
import os
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import pytest

from forked import UNCONNECTED, fork
from hub_server import HubServer
from tiny_model import build_tiny_model, write_rows

pytestmark = pytest.mark.slow  # several processes, each with an environment of its own

TOKEN = "hf_loopbackSecret1234567890"
STRANGER = "hf_strangerSecret1234567890"
PASSWORD = "pass-Secret-word"
RECIPE = """
model: {base: owner/tiny}
data: {source: owner/medqa}
training: {max_length: 256}
generation: {max_new_tokens: 8}
evaluation: {metrics: [bleu, rougeL]}
"""
# Runs `medtune doctor` for each case, without the price of starting Python. The token is read at every request.
DRIVER = """
import contextlib, io, json, os, sys, traceback
from medtune.__main__ import main

if os.environ.get("LIMIT"):
    from medtune.storage import hub_access
    hub_access.time_limit.__wrapped__.__defaults__ = (float(os.environ["LIMIT"]),)
if os.environ.get("FETCH"):
    from medtune.storage.hub import fetch_snapshot
    fetch_snapshot(os.environ["FETCH"])
for token, arguments in json.loads(sys.argv[1]):
    os.environ.pop("HF_TOKEN", None)
    os.environ.update({"HF_TOKEN": token} if token else {})
    sys.argv = ["medtune", "doctor", *arguments]
    out, errors, status = io.StringIO(), io.StringIO(), 0
    with contextlib.redirect_stderr(errors), contextlib.redirect_stdout(out):
        try:
            main()
        except SystemExit as end:
            status = end.code
        except BaseException:
            traceback.print_exc()
            status = 1
    print(json.dumps([status or 0, out.getvalue(), errors.getvalue()]))
"""


@dataclass(frozen=True)
class Outcome:
    status: int
    out: str
    errors: str

    def line(self, subject: str) -> str:
        """The line about `subject`, from its state on."""
        found = [line for line in self.out.splitlines() if line.split(": ")[1:2] == [subject]]
        assert len(found) == 1, self.out + self.errors
        return found[0]


@dataclass(frozen=True)
class Case:
    """What is asked of a Hub that is there, and what must come of it."""

    token: str | None
    recipe: bool
    overrides: tuple[str, ...]
    status: int
    subject: str
    parts: tuple[str, ...]


CASES = {
    "without a token": Case(None, False, (), 0, "token", ("ok: token: none", "hf auth login")),
    "the Hub answers": Case(None, False, (), 0, "Hub", ("ok: Hub: 127.0.0.1:",)),
    "a good token": Case(TOKEN, False, (), 0, "token", ("ok: token: that of HF_TOKEN is good: user ada, read",)),
    "a bad token": Case(STRANGER, False, (), 2, "token", ("failure: token: the token of HF_TOKEN", "401", "hf auth")),
    "a token with a letter too many": Case(
        f"{TOKEN}é", False, (), 0, "Hub", ("warning: Hub: HF_TOKEN, or the stored token: holds", "copy it again")
    ),
    "a good model": Case(
        None, True, (), 0, "model", ("ok: model: owner/tiny at ", "open to all; licence mit; ", " in the cache")
    ),
    "good data": Case(
        None, True, (), 0, "data", ("ok: data: owner/medqa: 40 rows with an answer; columns Question and Answer",)
    ),
    "the sum on disk": Case(None, True, (), 0, "disk", ("ok: disk: ", " download of owner/tiny", " 3 checkpoints")),
    "memory of a CPU": Case(None, True, (), 0, "memory", ("ok: memory: ", "needed on the CPU", "free")),
    "a gated model without a token": Case(
        None, True, ("model.base=owner/gated",), 2, "model", ("failure: model: model owner/gated: gated", "licence")
    ),
    "a gated model that this token may read": Case(
        TOKEN, True, ("model.base=owner/gated",), 0, "model", ("ok: model: owner/gated", "gated, and this token has")
    ),
    # By now its configuration is in the cache, which must not pass for access to its weights.
    "a gated model that another token may not": Case(
        STRANGER, True, ("model.base=owner/gated",), 2, "model", ("failure: model: model owner/gated: gated",)
    ),
    "an unknown model": Case(
        None, True, ("model.base=owner/nothing",), 2, "model", ("failure: model: ", "not on the Hub", "check the name")
    ),
    "nothing is predicted of it": Case(
        None, True, ("model.base=owner/nothing",), 2, "memory", ("warning: memory: neither memory nor disk",)
    ),
    "a model of a broken Hub": Case(
        None, True, ("model.base=owner/broken",), 2, "model", ("failure: model: ", "the Hub answered 500", "try again")
    ),
    "a gated data set": Case(
        STRANGER, True, ("data.source=owner/gated",), 2, "data", ("failure: data: data set owner/gated: gated",)
    ),
    "missing columns": Case(
        None, True, ("data.columns.answer=reply",), 2, "data", ("failure: data: owner/medqa: no column 'reply'",)
    ),
    "an encoder that is gone": Case(
        None, True, ("evaluation.metrics=[bertscore_f1]", "evaluation.bertscore_model=owner/none"), 2, "BERTScore",
        ("failure: BERTScore: ", "owner/none: not on the Hub"),
    ),
    "an adapter that is gone": Case(
        None, True, ("model.adapter=owner/none",), 2, "adapter", ("failure: adapter: ", "owner/none: not on the Hub"),
    ),
    "a bad token that is not needed": Case(
        STRANGER, True,
        ("model.base=medtune:demo", "data.source=medtune:demo"), 0, "token", ("warning: token: ", "401"),
    ),
}  # fmt: skip


@dataclass
class Session:
    """The processes of this file: where they write, and the Hub they ask."""

    folder: Path
    server: HubServer

    def doctor(self, calls: list[tuple[str | None, list[str]]], home: str, **settings: str) -> list[Outcome]:
        """One process; nothing of the machine's own Hub settings, token or proxy."""
        kept = {name: value for name, value in os.environ.items() if not name.startswith(("HF_", "HUGGING"))}
        kept = {name: value for name, value in kept.items() if not name.lower().endswith("_proxy")}
        environment = {
            **kept,
            "HF_ENDPOINT": self.server.url,
            "HF_HOME": str(self.folder / home),
            "HF_HUB_DISABLE_XET": "1",
            "HF_HUB_ETAG_TIMEOUT": "3",
            **settings,
        }
        work = self.folder / f"work-{home}"
        work.mkdir(exist_ok=True)
        process = fork(
            self.folder / "driver.py", json.dumps(calls), environment=environment, cwd=work, imported=UNCONNECTED
        )
        done = process.finish()
        assert done.returncode == 0, done.stderr
        return [Outcome(*json.loads(line)) for line in done.stdout.splitlines()]

    def arguments(self, *overrides: str) -> list[str]:
        return [str(self.folder / "recipe.yaml"), *(part for one in overrides for part in ("--set", one))]


@pytest.fixture(scope="module")
def session(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Session]:
    folder = tmp_path_factory.mktemp("doctor")
    model = {path.name: path.read_bytes() for path in build_tiny_model(folder / "model").iterdir()}
    table = write_rows(folder / "rows.csv").read_bytes()
    assert next(csv.reader(table.decode().splitlines())) == ["qtype", "Question", "Answer"]
    (folder / "recipe.yaml").write_text(RECIPE)
    (folder / "driver.py").write_text(DRIVER)
    with HubServer(frozenset({TOKEN})) as server:
        larger = {
            "more.safetensors": bytes(4 << 20),
            "pickled.bin": bytes(9 << 20),
            "old/x.safetensors": bytes(9 << 20),
        }
        server.add("models", "owner/tiny", {**model, **larger}, tags=("license:mit",))
        server.add("models", "owner/gated", model, gated=True)
        server.add("models", "owner/broken", model)
        server.add("models", "owner/cached", model)
        server.add("datasets", "owner/medqa", {"train.csv": table, "README.md": b"# Rows\n"})
        server.add("datasets", "owner/gated", {"train.csv": table, "README.md": b"# Rows\n"}, gated=True)
        server.fail("owner/broken", 500)
        yield Session(folder, server)


@dataclass(frozen=True)
class Outcomes:
    cases: dict[str, Outcome]
    down: list[Outcome]
    no_address: list[Outcome]
    broken: Outcome
    mute: Outcome
    offline: list[Outcome]
    half_down: Outcome


@pytest.fixture(scope="module")
def outcomes(session: Session) -> Outcomes:
    """Every process of this file, two at a time."""
    nothing: list[str] = ["demo"]
    with ThreadPoolExecutor(2) as pool:
        calls = [(case.token, session.arguments(*case.overrides) if case.recipe else []) for case in CASES.values()]
        cases = pool.submit(session.doctor, calls, "cache", FETCH="owner/cached")
        down = pool.submit(
            session.doctor,
            [(TOKEN, []), (TOKEN, nothing), (TOKEN, session.arguments())],
            "empty",
            HF_ENDPOINT=f"http://ada:{PASSWORD}@127.0.0.1:9",
        )
        no_address = pool.submit(
            session.doctor,
            [(TOKEN, []), (TOKEN, session.arguments())],
            "no-address",
            HF_ENDPOINT=f"http://ada:{PASSWORD}/more@127.0.0.1:9",
        )
        found = dict(zip(CASES, cases.result(), strict=True))
        unreachable, unusable = down.result(), no_address.result()
        offline = pool.submit(
            session.doctor,
            [(None, session.arguments()), (None, session.arguments("model.base=owner/broken"))],
            "cache",
            HF_HUB_OFFLINE="1",
        )
        session.server.fail("/api/models?limit", 500, times=1)
        session.server.fail("/api/models/owner/cached", 503)
        session.server.fail("/api/whoami-v2", "hang")
        broken, half_down, mute = session.doctor(
            [(None, []), (None, session.arguments("model.base=owner/cached")), (TOKEN, [])], "cache", LIMIT="2"
        )
    return Outcomes(found, unreachable, unusable, broken, mute, offline.result(), half_down)


@pytest.mark.parametrize("name", CASES)
def test_each_line_has_its_state_reason_and_fix(name, outcomes):
    case, outcome = CASES[name], outcomes.cases[name]
    assert outcome.status == case.status, outcome.out + outcome.errors
    for part in case.parts:
        assert part in outcome.line(case.subject)
    assert "Traceback" not in outcome.errors


def test_one_failure_hides_no_other(outcomes):
    """A model that is gone, and everything else that was asked for."""
    subjects = [line.split(": ")[1] for line in outcomes.cases["an unknown model"].out.splitlines() if ": " in line]
    assert subjects == [
        "Python", "packages", "GPU", "bitsandbytes", "precision", "attention", "host memory", "Hub", "token", "recipe",
        "model", "data", "memory", "output",
    ]  # fmt: skip


def test_the_download_is_what_the_cache_lacks(session, outcomes):
    """Sizes come from the Hub's list of files: weights are not fetched, nor are files that a run never takes."""
    assert "model.safetensors" not in session.server.files_asked_for("models", "owner/tiny")
    assert "(4 MiB download of owner/tiny + " in outcomes.cases["the sum on disk"].line("disk")
    assert "under 1 MiB of 4 MiB in the cache" in outcomes.cases["a good model"].line("model")


def test_a_hub_that_is_down_is_a_failure_only_where_it_is_needed(outcomes):
    machine, demo, needed = outcomes.down
    assert (machine.status, demo.status, needed.status) == (0, 0, 2)
    for outcome in outcomes.down:
        assert "warning: Hub: 127.0.0.1:9: the Hub cannot be reached" in outcome.line("Hub")
    assert "check the network and HF_ENDPOINT" in needed.line("model")
    assert needed.line("data").startswith("failure: data: data set owner/medqa: the Hub cannot be reached")


def test_a_hub_that_answers_with_errors_is_a_warning(outcomes):
    assert outcomes.broken.status == 0
    assert "warning: Hub: " in outcomes.broken.line("Hub")
    assert "the Hub answered 500" in outcomes.broken.line("Hub")


def test_a_hub_that_never_answers_is_given_up(outcomes):
    """The library would wait for ever for whose token it is."""
    assert outcomes.mute.status == 2
    assert "failure: token: the token of HF_TOKEN: the Hub cannot be reached" in outcomes.mute.line("token")


def test_a_model_in_the_cache_does_while_the_hub_is_down(outcomes):
    assert outcomes.half_down.status == 0, outcomes.half_down.out
    line = outcomes.half_down.line("model")
    assert line.startswith("warning: model: owner/cached: taken from the local cache at ")
    assert "the Hub answered 503" in line
    assert outcomes.half_down.errors == "", "what was overheard is in the line alone"


def test_offline_is_said_and_the_cache_alone_is_used(outcomes):
    from_cache, uncached = outcomes.offline
    assert "HF_HUB_OFFLINE is set" in from_cache.line("Hub")
    assert from_cache.line("data").startswith("ok: data: owner/medqa: 40 rows")
    assert uncached.status == 2
    assert "not in the local cache, and HF_HUB_OFFLINE forbids" in uncached.line("model")


def test_an_address_that_is_none_is_said_for_every_use_of_it(outcomes):
    machine, needed = outcomes.no_address
    assert (machine.status, needed.status) == (2, 2)
    assert machine.line("Hub").startswith("failure: Hub: HF_ENDPOINT is no web address; unset it")
    for subject in ("model", "data"):
        assert "HF_ENDPOINT: no web address; unset it" in needed.line(subject)


def test_no_secret_is_printed_or_written(session, outcomes):
    everything = [*outcomes.cases.values(), *outcomes.down, *outcomes.no_address, *outcomes.offline]
    everything += [outcomes.broken, outcomes.mute, outcomes.half_down]
    texts = [text for outcome in everything for text in (outcome.out, outcome.errors)]
    texts += [path.read_bytes().decode("latin-1") for path in session.folder.rglob("*") if path.is_file()]
    assert len(texts) > 50
    for secret in (TOKEN, STRANGER, PASSWORD, "Secret"):
        assert not [text for text in texts if secret in text]
    # The server did get them, so there was something to keep.
    assert {request.token for request in session.server.requests} >= {TOKEN, STRANGER}
