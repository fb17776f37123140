"""A tiny model with a random adapter, an engine over it, and its server on a free port."""

from __future__ import annotations

import threading

import pytest
from served import QUESTIONS, wait_until

from medtune.data.prompts import PromptRenderer
from medtune.inference.chat import Chat
from medtune.model.loaded import LoadedModel
from medtune.runtime.hardware import Choice

CAP = 24


@pytest.fixture(scope="session")
def chat(tiny):
    import torch
    from peft import LoraConfig, get_peft_model

    model = tiny.load()
    model.lm_head.weight.data[5] *= 1.5  # some answers end by themselves
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(1)
        config = LoraConfig(
            r=4, lora_alpha=64, target_modules=["q_proj", "v_proj", "down_proj"], init_lora_weights=False
        )
        adapted = get_peft_model(model, config).eval()
    values = {"device": "cpu", "dtype": "float32", "attention": "sdpa"}
    choices = {name: Choice(value, "test") for name, value in values.items()}
    loaded = LoadedModel(model, PromptRenderer(tiny.tokenizer, "Be kind."), [5], None, "tiny", choices)
    return Chat(loaded, adapted, CAP)


@pytest.fixture(scope="session")
def expected(chat):
    """What `medtune ask` answers, by model and question; all of it before an engine has the model."""
    known = {
        (model, question): chat.respond(question, use_adapter=model == "tuned")
        for model in ("tuned", "base")
        for question in QUESTIONS
    }
    return lambda model, question: known[model, question]


@pytest.fixture
def make_engine(chat, expected):
    from medtune.inference.serving.engine import Engine
    from medtune.inference.serving.limits import Limits

    made = []

    def make(**limits):
        made.append(Engine(chat, Limits(**limits)))
        return made[-1]

    yield make
    for engine in made:
        engine.close()


@pytest.fixture
def start_server(make_engine):
    """A function that starts a server; it gives its port and the server."""
    pytest.importorskip("uvicorn")
    from medtune.inference.serving.address import Address, bind
    from medtune.inference.serving.app import Service
    from medtune.inference.serving.limits import Bounds
    from medtune.inference.serving.server import GracefulServer

    started = []

    def start(*, key=None, bounds=None, grace=5, **limits):
        address = Address(port=0, key=key, grace=grace)
        listener = bind(address)
        server = GracefulServer(Service(make_engine(**limits), Bounds(**(bounds or {}))), address)
        thread = threading.Thread(target=server.run, kwargs={"sockets": [listener]})
        thread.start()
        started.append((server, thread))
        wait_until(lambda: server.started)
        return listener.getsockname()[1], server

    yield start
    for server, thread in started:
        server.stop()
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()


@pytest.fixture
def port(start_server):
    """That of a server with tight bounds, which has to go on serving whatever it was sent."""
    from raw_http import is_serving

    bounds = {"body_bytes": 20_000, "header_seconds": 0.5, "body_seconds": 0.7, "connections": 60}
    port, _ = start_server(bounds=bounds)
    yield port
    assert is_serving(port)
