"""The page and the server from Python: they answer until they are closed, and what cannot be is an error in Python."""

from __future__ import annotations

import json
import threading
import urllib.error
import urllib.request

import pytest

import medtune

pytest.importorskip("uvicorn")
# Gradio makes event loops that it never closes; `collected` has them reported there and not in a later test.
of_gradio = pytest.mark.filterwarnings("ignore::ResourceWarning")


def fetched(url, values=None, key=None):
    headers = {"Content-Type": "application/json", **({"Authorization": f"Bearer {key}"} if key else {})}
    body = None if values is None else json.dumps(values).encode()
    with urllib.request.urlopen(urllib.request.Request(url, body, headers), timeout=60) as response:
        return response.read().decode()


def threads_of_ours():
    return [thread for thread in threading.enumerate() if thread.name.startswith("medtune-") and thread.is_alive()]


def test_the_server_answers_until_it_is_closed(finished):
    question = {"messages": [{"role": "user", "content": "What causes gout ?"}], "max_tokens": 5}
    server = medtune.serve(finished, port=0, api_key="sesame", max_new_tokens=6)
    try:
        models = json.loads(fetched(f"{server.url}/models", key="sesame"))
        assert {one["id"] for one in models["data"]} == {"tuned", "base"}
        for model in ("tuned", "base"):
            asked = {**question, "model": model}
            answer = json.loads(fetched(f"{server.url}/chat/completions", asked, "sesame"))
            assert answer["choices"][0]["message"]["role"] == "assistant"
        with pytest.raises(urllib.error.HTTPError, match="401"):
            fetched(f"{server.url}/models")
        assert finished.ask("What causes gout ?") is not None  # other calls go on meanwhile
    finally:
        server.close()
    server.close()
    finished.close()
    assert not threads_of_ours()
    with pytest.raises(urllib.error.URLError):
        fetched(f"{server.url}/models", key="sesame")


@of_gradio
def test_the_page_is_there_until_it_is_closed(finished, collected):
    with medtune.chat(finished.path, port=0, open_browser=False) as page:
        assert "<!doctype html>" in fetched(page.url).lower()
    with pytest.raises(urllib.error.URLError):
        fetched(page.url)


@of_gradio
def test_a_page_opens_the_browser(finished, collected, monkeypatch):
    opened = []
    monkeypatch.setattr("webbrowser.open", opened.append)
    with medtune.chat(str(finished.path), port=0) as page:
        assert opened == [page.url]


def test_what_cannot_be_is_said_in_words_of_python(finished, tmp_path):
    with pytest.raises(medtune.MedtuneError, match="rows: must be at least 1, got 0"):
        medtune.serve(finished, rows=0)
    with pytest.raises(medtune.MedtuneError, match="engine: must be 'medtune' or 'vllm', got 'sglang'"):
        medtune.serve(finished, engine="sglang")
    with pytest.raises(TypeError, match="row"):
        medtune.serve(finished, row=1)
    with pytest.raises(medtune.MedtuneError, match=r"others than this machine can reach it; give api_key, or MEDTUNE"):
        medtune.serve(finished, host="0.0.0.0", port=0)
    with pytest.raises(medtune.MedtuneError):
        medtune.chat(tmp_path / "nothing", port=0, open_browser=False)
    assert not threads_of_ours()


def test_vllm_is_waited_for_and_ended(finished, tmp_path, monkeypatch):
    from medtune.inference.vllm.answering import _free_port
    from stub_vllm import use_stub

    stub = use_stub(tmp_path / "stub", monkeypatch)
    with medtune.serve(finished, port=_free_port(), engine="vllm", vllm=str(stub.program), api_key="sesame") as server:
        assert stub.called["key"] == "sesame"
        assert fetched(server.url.removesuffix("/v1") + "/health") == "{}"
    assert stub.has_ended
    with pytest.raises(medtune.MedtuneError, match=r"there is no program nosuch; .* name its command with vllm PATH"):
        medtune.serve(finished, engine="vllm", vllm="nosuch")
