"""How findings are collected and printed, and the secrets that stay out of them."""

from __future__ import annotations

import io

import pytest
from rich.console import Console

from medtune.errors import DataError, ModelError, Option, Problem
from medtune.pipeline.doctor.findings import (  # fmt: skip
    Finding,
    amount,
    findings_of,
    guarded,
    print_finding,
    secrets,
    summary,
    without_secrets,
)

LONG = Finding("failure", "model", "a reason that takes more than the width of a terminal to say, and so wraps", "mend")


def printed(finding: Finding, *, terminal: bool, width: int = 60) -> list[str]:
    out = io.StringIO()
    print_finding(finding, Console(file=out, force_terminal=terminal, width=width, color_system=None))
    return out.getvalue().splitlines()


def test_an_error_is_a_finding_a_line_with_its_fix_last():
    error = DataError.together(
        [Problem("a.csv", "no column 'x'; it has y", ("name yours with ", Option("set"))), Problem("b.csv", "gone")]
    )
    assert [without_secrets(finding, ()) for finding in findings_of("data", error)] == [
        Finding("failure", "data", "a.csv: no column 'x'; it has y", "name yours with --set"),
        Finding("failure", "data", "b.csv: gone"),
    ]


@pytest.mark.parametrize(
    ("error", "reason"),
    [
        (ModelError("gone", fix="check the name"), "gone"),
        (ModuleNotFoundError("No module named 'trl'"), "cannot be imported (No module named 'trl')"),
        (PermissionError(13, "Permission denied"), "[Errno 13] Permission denied"),
    ],
)
def test_what_keeps_a_check_from_its_end_is_a_finding_beside_those_it_made(error, reason):
    def check():
        yield Finding("ok", "model", "here")
        raise error

    first, second = guarded("model", check)
    assert first.state == "ok"
    assert (second.state, second.subject, second.reason) == ("failure", "model", reason)
    assert second.fix


def test_a_bug_is_no_finding():
    with pytest.raises(ZeroDivisionError):
        list(guarded("model", lambda: [Finding("ok", "model", str(1 / 0))]))


def test_secrets_of_the_environment_and_of_the_stored_login_are_known(monkeypatch, tmp_path):
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN", "HF_TOKEN_PATH", "https_proxy", "HTTPS_PROXY", "ALL_PROXY"):
        monkeypatch.delenv(name, raising=False)
    (tmp_path / "token").write_text("hf_stored\n")
    monkeypatch.setenv("HF_HOME", str(tmp_path))
    monkeypatch.setenv("HF_TOKEN", " hf_given ")
    monkeypatch.setenv("HF_ENDPOINT", "https://user:p@ss/word@hub.example:8443/path")
    monkeypatch.setenv("HTTPS_PROXY", "http://onlytoken@proxy.example")
    found = secrets()
    assert {"hf_given", "hf_stored", "p@ss/word", "onlytoken"} <= found
    assert "" not in found
    assert "user" not in found


def test_secrets_are_starred_out_of_reason_and_fix():
    finding = Finding("warning", "Hub", "https://me:odd/pw@hub.example said hf_abcdef", "hf_abc, http://x@proxy")
    clean = without_secrets(finding, {"hf_abc", "hf_abcdef", "odd/pw"})
    assert clean.reason == "https://***@hub.example said ***"
    assert clean.fix == "***, http://***@proxy"


def test_outside_a_terminal_a_finding_is_one_line():
    assert printed(LONG, terminal=False) == [f"failure: model: {LONG.reason}; mend"]
    assert printed(Finding("ok", "GPU", "here [bold]x"), terminal=False) == ["ok: GPU: here [bold]x"]


@pytest.mark.parametrize("terminal", [True, False])
def test_no_control_character_reaches_the_terminal(terminal):
    said = "\n".join(printed(Finding("failure", "model", "is \x1b[2Jbad", "mend \x07it"), terminal=terminal))
    assert "\\x1b[2Jbad" in said
    assert "\\x07it" in said
    assert "\x1b[2J" not in said
    assert "\x07" not in said


def test_in_a_terminal_text_wraps_beneath_itself():
    lines = printed(LONG, terminal=True)
    assert lines[0].startswith("failure  model         a reason that takes")
    assert lines[1].startswith(" " * 23 + "width")
    assert lines[-1].strip() == "→ mend"
    assert max(map(len, lines)) <= 60


def test_the_last_line_counts():
    found = [Finding("ok", "a", "."), Finding("failure", "b", "."), Finding("warning", "c", "."), LONG]
    assert summary(found) == "2 failures, 1 warning, 1 in order"
    assert summary(found[:1]) == "no failures, no warnings, 1 in order"


def test_amounts():
    assert amount(9000) == "under 1 MiB"
    assert (amount(20 * 2**20), amount(2**30), amount(16.1 * 2**30)) == ("20 MiB", "1.0 GiB", "16.1 GiB")
