"""Questions asked of a tuned model: what is read, refused, and written as it comes."""

import io
from dataclasses import dataclass

import pytest

from medtune.errors import ConfigError, DataError, ModelError
from medtune.inference import chat
from medtune.inference.chat import DEMO_BABBLES, NO_ADVICE, Chat, ask, read_questions
from medtune.records import Answer
from medtune.runtime.progress import lines_on_terminal


@dataclass(frozen=True)
class Echo:
    """Answers with the question, word by word, up to the cap."""

    max_new_tokens: int = 9
    is_demo: bool = False
    notices = Chat.notices

    def respond(self, question, *, use_adapter, on_text=lambda text: None):
        words = question.split()[: self.max_new_tokens]
        for word in words:
            on_text(f"{word} ")
        on_text("adapter" if use_adapter else "base")
        return Answer(question, len(words), "length" if len(words) == self.max_new_tokens else "stop")


def opened(monkeypatch, model):
    monkeypatch.setattr(Chat, "open", classmethod(lambda cls, target: model))
    return io.StringIO()


@pytest.fixture
def out(monkeypatch):
    return opened(monkeypatch, Echo())


def test_questions_are_lines_that_are_not_empty(tmp_path):
    file = tmp_path / "questions.txt"
    file.write_text("\ufeffWhat is gout ?\r\n\n  And asthma ? \n", encoding="utf-8")
    assert read_questions(file) == ["What is gout ?", "And asthma ?"]


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file"),
        (b"\n \n", "holds no question"),
        (b"\xff\x00", "not a UTF-8"),
        (b"x" * 99, "larger than 98"),
    ],
)
def test_files_without_questions_are_refused(tmp_path, monkeypatch, content, reason):
    monkeypatch.setattr(chat, "MAX_SETTINGS_BYTES", 98)
    file = tmp_path / "questions.txt"
    if content is not None:
        file.write_bytes(content)
    with pytest.raises(DataError, match=reason):
        read_questions(file)


def test_one_question_is_answered_alone_and_several_are_repeated(out):
    ask("runs/x", ["What is gout ?"], use_adapter=True, out=out)
    assert out.getvalue() == "What is gout ? adapter\n"
    out.truncate(0), out.seek(0)
    ask("runs/x", ["Gout ?", "Asth\x1b[2Jma ?"], use_adapter=False, out=out)
    text = out.getvalue()
    assert text.startswith("> Gout ?\nGout ? base\n\n> Asth")
    assert "\x1b" not in text


def logged(capsys, *questions, **options):
    with lines_on_terminal():
        ask("runs/x", list(questions), use_adapter=True, out=io.StringIO(), **options)
    return capsys.readouterr().err.splitlines()


def test_that_it_is_no_advice_is_said_once(out, capsys):
    assert logged(capsys, "Gout ?", "Acne ?") == [NO_ADVICE]


def test_an_answer_that_the_cap_cut_is_marked(out, capsys):
    cut = "cut by the cap of 3 tokens; raise --max-new-tokens"
    assert logged(capsys, "What is gout ?", "Gout ?", max_new_tokens=3) == [NO_ADVICE, cut]
    assert logged(capsys, "What is gout ?") == [NO_ADVICE]


def test_the_demos_model_is_said_to_babble(monkeypatch, capsys):
    opened(monkeypatch, Echo(is_demo=True))
    assert logged(capsys, "Gout ?") == [NO_ADVICE, DEMO_BABBLES]


def test_an_empty_question_is_refused_before_a_model_is_loaded(monkeypatch):
    monkeypatch.setattr(Chat, "open", None)
    with pytest.raises(DataError, match="the question is empty"):
        ask("runs/x", ["What ?", " "], use_adapter=True, out=io.StringIO())


def test_a_merged_model_has_no_adapter_to_leave_out(monkeypatch):
    monkeypatch.setattr(chat, "_is_merged", lambda path: True)
    with pytest.raises(ConfigError, match="--base: merged is a merged model"):
        ask("merged", ["What ?"], use_adapter=False, out=io.StringIO())


@pytest.mark.parametrize("target", ["folder", "missing/folder"])
def test_what_is_no_model_is_named(tmp_path, monkeypatch, target):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HF_HUB_OFFLINE", "1")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ModelError, match="no config.yaml" if target == "folder" else "no run directory here"):
        Chat.open(target)
