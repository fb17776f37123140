"""Progress as a bar, as a line where no bar can be drawn, and as events for a program that listens."""

from io import StringIO

import pytest
from rich.console import Console

from medtune.runtime import progress as module
from medtune.runtime.progress import (
    Progress,
    listening,
    progress_bar,
    say,
    stage_progress,
    tell_skipped,
    times,
)


@pytest.fixture(autouse=True)
def own_console():
    """Made for the standard error of this test, and not kept for the next."""
    module.console.cache_clear()
    yield
    module.console.cache_clear()


def test_where_no_bar_can_be_drawn_a_line_at_the_end_says_how_long_it_took(capsys):
    with progress_bar("Training", 10, 4, unit="steps") as update:
        update(5, "7 tok/s")
        assert capsys.readouterr().err == ""
        update(1, "9 tok/s")
    out, err = capsys.readouterr()
    assert out == "", "standard output is for results"
    assert err.startswith("Training: 10/10 in 0.")
    assert err.endswith(" s 9 tok/s\n")


def test_where_no_bar_can_be_drawn_a_line_a_minute_says_how_far_it_has_come(capsys, monkeypatch):
    clock = [1000.0]
    monkeypatch.setattr(module.time, "monotonic", lambda: clock[0])
    with progress_bar("Training", 10, 4, unit="steps") as advance:
        for seconds in (40, 40, 40, 100, 40):
            clock[0] += seconds
            advance(1, "7 tok/s, loss 2.500")
        clock[0] += 100
        advance(1, "7 tok/s, loss 2.400")
    assert capsys.readouterr().err.splitlines() == [
        "Training: 6/10 steps, 1:20 elapsed, 2:40 left; 7 tok/s, loss 2.500",
        "Training: 8/10 steps, 3:40 elapsed, 1:50 left; 7 tok/s, loss 2.500",
        "Training: 10/10 in 360.0 s 7 tok/s, loss 2.400",
    ]


def test_a_terminal_with_a_bar_gets_no_such_line(terminal, monkeypatch):
    monkeypatch.setattr(module, "LINE_SECONDS", 0)
    with module.lines_on_terminal(), progress_bar("Reading", 3) as advance:
        advance(1)
    assert "Reading: 1/3" not in terminal.getvalue()


def test_nor_does_who_listens(capsys, monkeypatch):
    monkeypatch.setattr(module, "LINE_SECONDS", 0)
    with listening(lambda progress: None), progress_bar("Reading", 3) as advance:
        advance(1)
    assert capsys.readouterr().err == ""


def test_work_that_breaks_off_has_no_such_line(capsys):
    def work():
        with progress_bar("Reading", 3) as advance:
            advance(1)
            raise KeyError

    with pytest.raises(KeyError):
        work()
    assert capsys.readouterr().err == ""


def test_a_listener_hears_all_and_nothing_is_printed(capsys):
    heard = []
    with listening(heard.append):
        with stage_progress("train"), progress_bar("Training", 3, 1, unit="steps") as update:
            update(2, "fast")
        with progress_bar("Reading", 2) as advance:
            advance(2)
        tell_skipped("baseline")
    assert heard == [
        Progress("train", "", 0, 1, "stages"),
        Progress("train", "Training", 1, 3, "steps"),
        Progress("train", "Training", 3, 3, "steps", "fast"),
        Progress("train", "", 1, 1, "stages"),
        Progress("", "Reading", 0, 2, "rows"),
        Progress("", "Reading", 2, 2, "rows"),
        Progress("baseline", "", 1, 1, "stages", "complete, skipped"),
    ]
    assert capsys.readouterr().err == ""


def test_a_stage_that_fails_never_ends_and_leaves_no_trace():
    heard = []
    with listening(heard.append):
        with pytest.raises(ValueError), stage_progress("train"):
            raise ValueError
        with progress_bar("Reading", 1):
            pass
    assert [(event.stage, event.done) for event in heard] == [("train", 0), ("", 0)]


def test_listening_ends_with_its_block(capsys):
    heard = []
    with listening(heard.append):
        pass
    with progress_bar("Reading", 1) as advance:
        advance(1)
    assert heard == []
    assert "Reading: 1/1" in capsys.readouterr().err


def test_a_message_is_text_and_not_markup(capsys):
    say("[bold]\x1b[31m " + "long " * 60)
    assert capsys.readouterr().err == r"[bold]\x1b[31m " + "long " * 60 + "\n"


def test_of_several_processes_only_the_first_speaks(capsys, monkeypatch):
    monkeypatch.setenv("RANK", "1")
    say("hello")
    with progress_bar("Reading", 1):
        pass
    assert capsys.readouterr().err == ""


@pytest.mark.parametrize(
    ("elapsed", "left", "done", "shown"),
    [
        (12.9, 40.2, False, "0:12 elapsed, 0:40 left"),
        (3799, 13800, False, "1:03:19 elapsed, 3:50:00 left"),
        (None, None, False, "-:-- elapsed, -:-- left"),
        (61, 0, True, "1:01 elapsed"),
    ],
)
def test_both_times_of_a_bar_say_what_they_are(elapsed, left, done, shown):
    assert times(elapsed, left, is_done=done) == shown


@pytest.fixture
def terminal(monkeypatch):
    """A terminal of eighty columns in place of standard error."""
    out = StringIO()
    shown = Console(file=out, force_terminal=True, width=80, highlight=False, color_system=None)
    monkeypatch.setattr(module, "console", lambda: shown)
    return out


def test_a_bar_gives_way_to_its_labels(terminal, monkeypatch):
    monkeypatch.setattr(module, "times", lambda *seconds, is_done: "1:03:20 elapsed, 3:50:00 left")
    with progress_bar("Training", 6400, 300, unit="steps") as advance:
        advance(100, "23,456 tok/s, loss 1.234")
    last = terminal.getvalue().replace("\x1b[2K", "\r").split("\r")[-1].splitlines()[0]
    assert last.startswith("Training ")
    assert last.endswith(" 400/6400 23,456 tok/s, loss 1.234 1:03:20 elapsed, 3:50:00 left")


def test_a_long_message_breaks_between_words_and_a_command_not_at_all(terminal):
    message = "the adapter is merged into a folder of a very long name " * 3
    with module.lines_on_terminal():
        say(message)
        say(f"next: {message}", verbatim=True)
    lines = terminal.getvalue().splitlines()
    assert " ".join(lines[:-1]).split() == message.split()
    assert max(map(len, lines[:-1])) <= 80
    assert lines[-1] == f"next: {message}"
