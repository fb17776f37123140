"""OpenAI's own client on a server of this machine, and a model that takes its time."""

import time
import urllib.request

import pytest

from medtune.inference.serving.slots import GrowingSlots

openai = pytest.importorskip("openai")


def client(port, key="any", **more):
    return openai.OpenAI(base_url=f"http://127.0.0.1:{port}/v1", api_key=key, max_retries=0, timeout=60, **more)


def ask(api, question, model="tuned", **more):
    return api.chat.completions.create(model=model, messages=[{"role": "user", "content": question}], **more)


def slowly(monkeypatch, seconds=0.05):
    """A model that takes its time for each step."""
    run = GrowingSlots.run
    monkeypatch.setattr(GrowingSlots, "run", lambda self, *rest: time.sleep(seconds) or run(self, *rest))


def get(port, path, **headers):
    request = urllib.request.Request(f"http://127.0.0.1:{port}{path}", headers=headers)
    with urllib.request.urlopen(request, timeout=20) as response:
        return response.status, response.headers, response.read().decode()
