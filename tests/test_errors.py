"""Messages of one line, whatever an error or a value holds."""

import pytest

from medtune import errors
from medtune.errors import HubError, HubUnavailableError, MedtuneError, first_line, show_value


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("\n\n  no room  \nand more"), "no room"),
        (ValueError(), "ValueError"),
        (KeyError("a\nb"), r"'a\nb'"),
        (ValueError(" \n\t"), "ValueError"),
    ],
)
def test_the_first_line_of_what_a_library_says(error, line):
    assert first_line(error) == line


@pytest.mark.parametrize(
    ("value", "shown"),
    [("text", "'text'"), (1.5, "1.5"), (None, "None"), ({"a": [1, 2]}, "{'a': [1, 2]}")],
)
def test_a_short_value_is_shown_as_it_is(value, shown):
    assert show_value(value) == shown


LONG = {"text": "x" * 1000, "list": list(range(1000)), "mapping": {str(n): n for n in range(99)}, "digits": 10**5000}


@pytest.mark.parametrize("value", LONG.values(), ids=LONG)
def test_a_long_value_takes_eighty_characters_at_most(value):
    assert 0 < len(show_value(value)) <= 80
    assert "\n" not in show_value(value)


def test_a_value_that_grows_by_aliases_is_not_written_out():
    value = ["x"]
    for _ in range(60):
        value = [value, value]
    assert len(show_value(value)) <= 80


def test_every_problem_that_a_user_can_mend_is_caught_as_one():
    kinds = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, Exception)]
    assert len(kinds) > 5
    assert all(issubclass(kind, MedtuneError) for kind in kinds)


def test_a_hub_out_of_reach_says_when_to_come_back():
    error = HubUnavailableError("busy; try later", "429 Too Many Requests", 30)
    assert isinstance(error, HubError)
    assert (str(error), error.reason, error.seconds) == ("busy; try later", "429 Too Many Requests", 30)
    assert HubUnavailableError("gone", "timed out").seconds == 0
