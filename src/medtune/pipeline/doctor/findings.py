"""Findings of `medtune doctor`: what each says, how they are collected, and the secrets that stay out of them."""

from __future__ import annotations

import os
import re
from collections.abc import Callable, Iterable, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from medtune.errors import MedtuneError, Spelling, Text, first_line, spell_out
from medtune.runtime.terminal import one_line

if TYPE_CHECKING:
    from rich.console import Console

State = Literal["ok", "warning", "failure"]
MIB, GIB = 2**20, 2**30
# Columns of the table: the longest state, and the longest subject.
_STATE_WIDTH, _SUBJECT_WIDTH = 7, 12
_COLOURS = {"ok": "green", "warning": "yellow", "failure": "red"}
_ADDRESSES = ("HF_ENDPOINT", "HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY")
_TOKENS = ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN")


@dataclass(frozen=True, slots=True)
class Finding:
    """One thing that was looked at: whether it is in order, why, and what to do where it is not."""

    state: State
    subject: str
    reason: Text
    fix: Text = ""


def guarded(subject: str, check: Callable[[], Iterable[Finding]]) -> Iterator[Finding]:
    """The findings of `check`; what keeps it from its end is a finding too, so that no check hides the others."""
    try:
        yield from check()
    except MedtuneError as error:
        yield from findings_of(subject, error)
    except ImportError as error:
        yield Finding("failure", subject, f"cannot be imported ({first_line(error)})", "install medtune again")
    except OSError as error:
        yield Finding("failure", subject, first_line(error), "check that file, its permissions and its disk")


def findings_of(subject: str, error: MedtuneError, state: State = "failure") -> Iterator[Finding]:
    """A finding for each problem of an error."""
    return (Finding(state, subject, problem.reason, problem.fix) for problem in error.problems)


def secrets() -> set[str]:
    """What must not be shown: tokens, and passwords in the addresses of the Hub and of proxies."""
    found = {os.environ.get(name, "").strip() for name in _TOKENS}
    for name in (*_ADDRESSES, *map(str.lower, _ADDRESSES)):
        _, _, rest = os.environ.get(name, "").partition("://")
        login = rest.rpartition("@")[0]
        found.add(login.partition(":")[2] or login)
    # By huggingface_hub's rules, and without importing it: that may fail, and keeps the address it finds.
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    home = os.environ.get("HF_HOME") or f"{cache}/huggingface"
    stored = os.environ.get("HF_TOKEN_PATH") or f"{home}/token"
    with suppress(OSError):
        found.add(Path(stored).expanduser().read_text(encoding="utf-8", errors="replace").strip())
    return found - {""}


def without_secrets(finding: Finding, hidden: Iterable[str], spelling: Spelling = str) -> Finding:
    """The finding as text, with `***` in place of what is hidden and of the login in any web address."""

    def clean(text: Text) -> str:
        shown = spell_out(text, spelling)
        for secret in sorted(hidden, key=len, reverse=True):
            shown = shown.replace(secret, "***")
        return re.sub(r"(?<=://)[^\s/]*@", "***@", shown)

    return replace(finding, reason=clean(finding.reason), fix=clean(finding.fix))


def amount(size: float) -> str:
    """Bytes for people."""
    if size >= GIB:
        return f"{size / GIB:.1f} GiB"
    return f"{size / MIB:.0f} MiB" if size >= MIB else "under 1 MiB"


def print_finding(finding: Finding, console: Console) -> None:
    """In a terminal a row whose text wraps beneath itself; elsewhere one line, for files and searches."""
    reason, fix = one_line(spell_out(finding.reason)), one_line(spell_out(finding.fix))
    if not console.is_terminal:
        text = f"{finding.state}: {finding.subject}: {reason}" + (f"; {fix}" if fix else "")
        console.print(text, markup=False, highlight=False, soft_wrap=True)
        return
    from rich.table import Table
    from rich.text import Text as RichText

    row = Table.grid(padding=(0, 2, 0, 0))
    row.add_column(width=_STATE_WIDTH, style=_COLOURS[finding.state])
    row.add_column(width=_SUBJECT_WIDTH)
    row.add_column(overflow="fold")
    row.add_row(finding.state, finding.subject, RichText(reason))
    if fix:
        row.add_row("", "", RichText(f"→ {fix}", style="bold"))
    console.print(row)


def summary(found: Iterable[Finding]) -> str:
    """How many findings there are of each state."""
    states = [finding.state for finding in found]
    failures, warnings = states.count("failure"), states.count("warning")
    return f"{_count(failures, 'failure')}, {_count(warnings, 'warning')}, {states.count('ok')} in order"


def _count(number: int, word: str) -> str:
    return f"{number or 'no'} {word}{'' if number == 1 else 's'}"
