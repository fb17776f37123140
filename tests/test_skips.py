"""A machine of CI skips no more than one without data has to."""

from __future__ import annotations

import pytest

from skips import MOST_SKIPPED, surplus_skips


def test_as_many_as_are_allowed_and_no_more() -> None:
    allowed = [f"Skipped: {reason}" for reason, count in MOST_SKIPPED.items() for _ in range(count)]
    assert surplus_skips([]) == surplus_skips(allowed) == {}
    assert surplus_skips([*allowed, allowed[0]]) == {next(iter(MOST_SKIPPED)): 40}
    assert surplus_skips([*allowed, "Skipped: no time"]) == {"no time": 1}


@pytest.mark.parametrize(("ci", "status"), [("true", 1), ("", 0)])
def test_a_surplus_fails_the_session_on_ci(ci: str, status: int, pytester: pytest.Pytester, monkeypatch) -> None:
    monkeypatch.setenv("CI", ci)
    pytester.makepyfile("import pytest\n\ndef test_it():\n    pytest.skip('no time')\n")
    pytester.makeconftest("from skips import pytest_sessionfinish\n")
    done = pytester.runpytest_inprocess("-p", "no:cacheprovider")
    assert done.ret == status
    assert ("no time" in done.stdout.str()) == bool(status)
