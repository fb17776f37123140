"""`medtune serve`: what is refused before a model is loaded, and how it ends."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import urllib.request

import pytest

from medtune.inference.serving import extra


@pytest.fixture
def medtune(medtune, monkeypatch):
    monkeypatch.delenv("MEDTUNE_API_KEY", raising=False)
    return medtune


def test_others_cannot_ask_without_a_key(medtune):
    result = medtune("serve", "nosuch", "--host", "0.0.0.0")
    assert result.status == 2
    assert result.err == (
        "medtune: --host 0.0.0.0: others than this machine can reach it; give --api-key, or MEDTUNE_API_KEY in the "
        "environment\n"
    )


def test_a_port_that_is_taken_is_told_before_a_model_is_loaded(medtune):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = medtune("serve", "nosuch", "--port", str(port))
    assert result.status == 2
    assert f"127.0.0.1:{port}: " in result.err
    assert "choose another with --port or --host" in result.err


def test_a_missing_extra_is_one_line(medtune, monkeypatch):
    monkeypatch.setattr(extra, "find_spec", lambda name: None if name == "uvicorn" else name)
    result = medtune("serve", "nosuch")
    assert result.status == 2
    assert result.err == 'medtune: serve: uvicorn is not installed; pip install "medtune[serve]"\n'


def test_what_is_no_model_is_told_as_ask_tells_it(medtune):
    result = medtune("serve", "nosuch/run", "--port", "0")
    assert result.status == 2
    assert "nosuch/run" in result.err


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_it_with_a_shells_status(tiny, tmp_path, number):
    command = [sys.executable, "-m", "medtune", "serve", _adapter(tiny, tmp_path), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as running:
        try:
            line = next(line for line in running.stderr if "listening on" in line)
            url = line.split("listening on ")[1].split(",")[0].removesuffix("/v1")
            with urllib.request.urlopen(f"{url}/health") as response:
                assert response.status == 200
            running.send_signal(number)
            assert running.wait(60) == 128 + number
            assert f"interrupted ({number.name})" in running.stderr.read()
        finally:
            running.kill()


def _adapter(tiny, folder):
    from peft import LoraConfig, get_peft_model

    path = folder / "adapter"
    get_peft_model(tiny.load(), LoraConfig(r=2, target_modules=["q_proj"], task_type="CAUSAL_LM")).save_pretrained(path)
    config = path / "adapter_config.json"
    values = {**json.loads(config.read_text()), "base_model_name_or_path": str(tiny.path)}
    config.write_text(json.dumps(values))
    (path / "medtune.json").write_text('{"quantization": "none"}')
    return str(path)
