"""A chat in the terminal, line by line."""

import io
import json
import os
import signal
import threading

import pytest

from medtune.inference.serving.chat.terminal import TerminalChat, typed_lines


@pytest.fixture
def chat(echo, capsys):
    out = io.StringIO()

    def run(*lines):
        TerminalChat(echo, out).run(iter(lines))
        return out.getvalue(), capsys.readouterr().err

    run.out = out
    return run


def test_questions_have_a_history_and_reset_forgets_it(chat, echo):
    out, _ = chat("one\n", "\n", "two\n", "/reset\n", "three\n")
    assert out == "tuned one\ntuned two\ntuned three\n"
    assert [prompt for _, prompt in echo.prompts] == [
        "<user> one",
        "<user> one <assistant> tuned one <user> two",
        "<user> three",
    ]


def test_who_answers_can_be_chosen(chat):
    out, err = chat("/base", "one", "/both", "two", "/tuned", "three")
    assert out == "base one\nbase:\nbase two\ntuned:\ntuned two\ntuned three\n"
    assert "base answers from here on\nbase and tuned answer from here on\ntuned answers from here on\n" in err


def test_a_merged_model_has_no_base(chat, echo):
    echo.models = ("tuned",)
    out, err = chat("/both", "one")
    assert out == "tuned one\n"
    assert "a merged model has no adapter to leave out: chat with the run that it is from" in err


def test_ends_are_said(chat):
    out, err = chat("a b c d e f g h i", "a break", "still here")
    assert "cut by the cap of 8 tokens" in err
    assert "internal error" in err
    assert out.endswith("tuned still here\n")


def test_help_lists_each_command_and_others_are_unknown(chat):
    out, err = chat("/help", "/what is this", "/quit", "never")
    assert all(name in out for name in ("/tuned", "/base", "/both", "/reset", "/save FILE", "/help", "/quit"))
    assert "/what: no such command; /help lists them" in err
    assert "never" not in out


def test_what_is_saved_are_the_turns_of_each_model(chat, tmp_path):
    file = tmp_path / "chat.jsonl"
    _, err = chat("/save", f"/save {file}", "/both", "one", f"/save {file}", f"/save {file}")
    rows = [json.loads(line) for line in file.read_text(encoding="utf-8").splitlines()]
    assert [row["model"] for row in rows] == ["tuned", "base"]
    assert rows[0]["messages"] == [{"role": "user", "content": "one"}, {"role": "assistant", "content": "tuned one"}]
    for line in ("/save needs a file", "there is nothing to save yet", f"saved to {file}", "is there already"):
        assert line in err


def test_escape_sequences_of_an_answer_are_spelled_out(chat):
    assert chat("\x1b]0;title\x07")[0] == "tuned \\x1b]0;title\\x07\n"


def interrupt_when(holds):
    """Sends Ctrl-C to this process once `holds`."""

    def send():
        while not holds():
            threading.Event().wait(0.01)
        os.kill(os.getpid(), signal.SIGINT)

    thread = threading.Thread(target=send)
    thread.start()
    return thread


def test_ctrl_c_stops_an_answer_and_where_none_is_written_it_leaves(chat, echo):
    stopping = interrupt_when(lambda: "tuned a" in chat.out.getvalue())

    def lines():
        yield "a wait b"
        stopping.join()
        echo.go.set()
        yield "next"
        leaving = interrupt_when(lambda: True)
        leaving.join()
        yield "never"

    before = signal.getsignal(signal.SIGINT)
    TerminalChat(echo, chat.out).run(lines())
    assert chat.out.getvalue().endswith("tuned next\n")
    assert signal.getsignal(signal.SIGINT) is before


def test_a_pipe_brings_its_lines_as_they_are():
    assert list(typed_lines(io.StringIO("one\ntwo"), io.StringIO())) == ["one\n", "two"]
