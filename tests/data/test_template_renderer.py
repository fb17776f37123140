"""The process that renders templates: started once, replaced when it ends, and never asked by two."""

from __future__ import annotations

import json
import os
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from medtune.data import template_process, template_renderer
from medtune.data.prompts import PromptRenderer
from medtune.data.template_renderer import ask_renderer
from medtune.errors import ModelError
from tiny_model import build_tokenizer


@pytest.fixture(autouse=True)
def ended() -> Iterator[None]:
    """No process and no answer of another test."""
    template_renderer._PLACE.end()
    ask_renderer.cache_clear()
    yield
    template_renderer._PLACE.end()


def asked(template: str) -> str:
    chat = {"messages": [{"role": "user", "content": "Why ?"}], "add_generation_prompt": True}
    request = {"template": template, "tokens": {}, "chats": [chat], "date": None, "settings": {}}
    return json.dumps(request)


def process_id() -> int:
    renderer = template_renderer._PLACE.renderer
    assert renderer is not None
    return renderer.process.pid


def test_one_process_for_all_templates_rows_and_renderers() -> None:
    template = build_tokenizer().chat_template
    texts = [
        PromptRenderer(build_tokenizer(chat_template=template + comment)).prompt_ids("Why ?")
        for comment in ("", "{# another #}")
    ]
    first = process_id()
    assert texts[0] == texts[1]
    assert [ask_renderer(asked(f"{n}"))["texts"] for n in range(20)] == [[f"{n}"] for n in range(20)]
    assert process_id() == first


def test_threads_get_their_own_answers() -> None:
    found: dict[int, object] = {}
    threads = [
        threading.Thread(target=lambda n=n: found.update({n: ask_renderer(asked(f"thread {n}"))["texts"]}))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == {n: [f"thread {n}"] for n in range(8)}


def test_one_that_was_ended_is_replaced() -> None:
    ask_renderer(asked("a"))
    killed = process_id()
    os.kill(killed, 9)
    assert ask_renderer(asked("b"))["texts"] == ["b"]
    assert process_id() != killed


def test_it_ends_by_itself_and_is_started_again(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    script = tmp_path / "impatient.py"
    source = Path(template_process.__file__).read_text(encoding="utf-8")
    script.write_text(source.replace("IDLE_SECONDS = 10.0", "IDLE_SECONDS = 0.1"), encoding="utf-8")
    monkeypatch.setattr(template_process, "__file__", str(script))
    ask_renderer(asked("a"))
    renderer = template_renderer._PLACE.renderer
    assert renderer is not None
    assert renderer.process.wait(10) == 0
    assert ask_renderer(asked("b"))["texts"] == ["b"]
    assert process_id() != renderer.process.pid


def test_a_template_that_is_refused_was_its_last() -> None:
    ask_renderer(asked("a"))
    renderer = template_renderer._PLACE.renderer
    assert renderer is not None
    assert "takes powers" in ask_renderer(asked("{{ 2 ** 3 }}"))["refused"]
    assert renderer.process.wait(10) == 0
    assert ask_renderer(asked("b"))["texts"] == ["b"]


def test_a_fork_starts_its_own() -> None:
    ask_renderer(asked("a"))
    first, (reading, writing) = process_id(), os.pipe()
    child = os.fork()
    if child == 0:
        answer = ask_renderer(asked("in the fork"))["texts"][0]
        os.write(writing, f"{answer} {process_id()}".encode())
        template_renderer._PLACE.end()
        os._exit(0)
    os.waitpid(child, 0)
    text, other = os.read(reading, 100).decode().rsplit(" ", 1)
    os.close(reading)
    os.close(writing)
    assert (text, int(other) != first) == ("in the fork", True)
    assert ask_renderer(asked("b"))["texts"] == ["b"]
    assert process_id() == first


def test_an_interruption_leaves_no_answer_for_the_next(monkeypatch: pytest.MonkeyPatch) -> None:
    ask_renderer(asked("a"))
    first = process_id()
    whole = template_renderer._Renderer.answer

    def interrupted(renderer: template_renderer._Renderer, request: str) -> str:
        whole(renderer, request)
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(template_renderer._Renderer, "answer", interrupted)
        with pytest.raises(KeyboardInterrupt):
            ask_renderer(asked("never seen"))
    assert ask_renderer(asked("b"))["texts"] == ["b"]
    assert process_id() != first


def test_a_step_that_never_ends_is_ended(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_renderer, "_PROCESS_SECONDS", 1.5)
    endless = "{% set n = namespace(x=3) %}{% for i in range(60) %}{% set n.x = n.x * n.x %}{% endfor %}"
    began = time.monotonic()
    with pytest.raises(ModelError, match="its chat template takes more than 10 s; "):
        PromptRenderer(build_tokenizer(chat_template=endless)).prompt_ids("?")
    assert time.monotonic() - began < 10
    assert ask_renderer(asked("b"))["texts"] == ["b"]


def test_a_process_that_dies_is_an_error_of_the_template(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(template_process, "__file__", "/nowhere/template_process.py")
    with pytest.raises(ModelError, match=r"its chat template ends the process that renders it \(status 2\); "):
        PromptRenderer(build_tokenizer(chat_template="{# ends #}")).prompt_ids("Why ?")
