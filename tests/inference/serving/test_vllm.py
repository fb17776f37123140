"""vLLM as a child: what it is called with, and that signals, status and key reach it. vLLM itself is not run."""

from __future__ import annotations

import json
import os
import signal
import stat
import subprocess
import sys
import urllib.request
from pathlib import Path

import pytest
from served import wait_until

from medtune.errors import ConfigError, ModelError
from medtune.inference.chat import Target
from medtune.inference.serving.address import Address
from medtune.inference.serving.limits import Limits
from medtune.inference.serving.vllm import ServedFiles, arguments, serve_with_vllm, with_system_prompt, write_files
from medtune.inference.vllm import adapters

# Of vLLM 0.33.0: `EngineArgs.add_cli_args` in vllm/engine/arg_utils.py.
ENGINE_FLAGS = {
    "--enable-lora", "--generation-config", "--max-lora-rank", "--max-model-len", "--max-num-queued-reqs",
    "--max-num-seqs", "--served-model-name", "--tokenizer",
}  # fmt: skip
# Of vLLM 0.33.0: fields of `BaseFrontendArgs` and `FrontendArgs` in vllm/entrypoints/common/cli_args.py.
FRONTEND_FLAGS = {"--chat-template", "--default-chat-template-kwargs", "--host", "--lora-modules", "--port"}

# Stands where vLLM would: notes how it was called, answers /health, and ends with 7 on SIGTERM.
STUB = """#!{python}
import http.server, json, os, signal, sys
place = os.environ["STUB_PLACE"]
folder = sys.argv[sys.argv.index("--tokenizer") + 1]
json.dump({{"argv": sys.argv[1:], "key": os.environ.get("VLLM_API_KEY"), "files": sorted(os.listdir(folder)),
           "template": open(os.path.join(folder, "served.jinja")).read()}}, open(place + ".part", "w"))
signal.signal(signal.SIGTERM, lambda *rest: os._exit(7))
class Handler(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200), self.end_headers(), self.wfile.write(b"ok")
    def log_message(self, *rest):
        pass
server = http.server.HTTPServer(("127.0.0.1", 0), Handler)
os.rename(place + ".part", place)
open(place + ".port", "w").write(str(server.server_port))
if os.environ.get("STUB_STATUS"):
    sys.exit(int(os.environ["STUB_STATUS"]))
server.serve_forever()
"""


@pytest.fixture
def adapter(tiny, tmp_path):
    from peft import LoraConfig, get_peft_model

    folder = tmp_path / "adapter"
    lora = LoraConfig(r=24, rank_pattern={"v_proj": 40}, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM")
    get_peft_model(tiny.load(), lora).save_pretrained(folder)
    config = folder / "adapter_config.json"
    config.write_text(json.dumps({**json.loads(config.read_text()), "base_model_name_or_path": str(tiny.path)}))
    settings = {"system_prompt": 'Say "aah" {{ now }}.', "quantization": "none", "max_new_tokens": 33}
    (folder / "medtune.json").write_text(json.dumps(settings))
    return folder


@pytest.fixture
def stub(tmp_path, monkeypatch):
    program, place = tmp_path / "vllm", tmp_path / "called.json"
    program.write_text(STUB.format(python=sys.executable))
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    monkeypatch.setenv("STUB_PLACE", str(place))
    return program, place


def value(argv, flag):
    return argv[argv.index(flag) + 1]


def test_every_flag_is_one_of_vllms(adapter, tmp_path):
    folder = tmp_path / "files"
    folder.mkdir()
    files = write_files(Target.find(str(adapter)), Limits(), folder)
    argv = arguments(files, Address(port=81), Limits(prompt_tokens=100))
    used = {word for word in argv if word.startswith("--")}
    assert used <= ENGINE_FLAGS | FRONTEND_FLAGS
    assert argv[:2] == ["serve", str(files.base)]
    assert value(argv, "--served-model-name") == "base"
    assert value(argv, "--lora-modules") == f"tuned={adapter}"
    assert value(argv, "--max-lora-rank") == "64"  # the next that there is above 40
    assert value(argv, "--max-model-len") == "133"
    assert (value(argv, "--host"), value(argv, "--port")) == ("127.0.0.1", "81")
    settings = json.loads((folder / "generation_config.json").read_text())
    assert settings == {"eos_token_id": [5], "temperature": 0.0, "max_new_tokens": 33}


def test_the_template_begins_with_the_runs_system_prompt_unless_there_is_another(tiny):
    system = 'Say "aah" {{ now }} {% if %} 🫀.'
    tokenizer = tiny.tokenizer
    template = with_system_prompt(tokenizer.chat_template, system)
    user = {"role": "user", "content": "Gout ?"}

    def rendered(messages, template=None):
        return tokenizer.apply_chat_template(
            messages, chat_template=template, tokenize=False, add_generation_prompt=True
        )

    assert rendered([user], template) == rendered([{"role": "system", "content": system}, user])
    own = [{"role": "system", "content": "Be brief."}, user]
    assert rendered(own, template) == rendered(own)
    assert with_system_prompt("x", " ") == "x"


def test_a_merged_model_is_served_as_tuned(tmp_path):
    (tmp_path / "generation_config.json").write_text('{"max_new_tokens": 9}')
    files = ServedFiles(tmp_path, None, 0, tmp_path, {"enable_thinking": False}, 50)
    argv = arguments(files, Address(), Limits())
    assert value(argv, "--served-model-name") == "tuned"
    assert "--enable-lora" not in argv
    assert value(argv, "--max-model-len") == "50"
    assert json.loads(value(argv, "--default-chat-template-kwargs")) == {"enable_thinking": False}
    with pytest.raises(ConfigError, match=r"rank 600.*512 at most"):
        arguments(ServedFiles(tmp_path, tmp_path, 600, tmp_path, {}, None), Address(), Limits())


def test_without_its_program_the_fix_is_said(adapter, monkeypatch):
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError, match="there is no program vllm; install it in an environment of its own"):
        serve_with_vllm(str(adapter), Address(), Limits(), None)
    with pytest.raises(ConfigError, match="others than this machine"):
        serve_with_vllm(str(adapter), Address(host="0.0.0.0"), Limits(), None)


def test_the_childs_status_is_handed_on_and_its_key_is_no_argument(adapter, stub, monkeypatch):
    program, place = stub
    monkeypatch.setenv("STUB_STATUS", "3")
    assert serve_with_vllm(str(adapter), Address(key="sesame"), Limits(), str(program)) == 3
    called = json.loads(place.read_text())
    assert called["key"] == "sesame"
    assert "sesame" not in " ".join(called["argv"])
    assert {"served.jinja", "tokenizer.json", "generation_config.json"} <= set(called["files"])
    assert called["template"].startswith("{%- if messages")
    assert not Path(value(called["argv"], "--tokenizer")).exists()


@pytest.mark.slow
def test_signals_reach_the_child(adapter, stub):
    program, place = stub
    command = [sys.executable, "-m", "medtune", "serve", str(adapter), "--engine", "vllm", "--vllm", str(program)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, env=dict(os.environ)) as running:
        try:
            port = Path(f"{place}.port")
            wait_until(lambda: port.is_file() and port.read_text(), seconds=120)
            with urllib.request.urlopen(f"http://127.0.0.1:{port.read_text()}/health") as response:
                assert response.read() == b"ok"
            running.send_signal(signal.SIGTERM)
            assert running.wait(60) == 128 + signal.SIGTERM
            assert "interrupted (SIGTERM)" in running.stderr.read()
        finally:
            running.kill()


def test_ranks_are_in_order():
    assert list(adapters.LORA_RANKS) == sorted(adapters.LORA_RANKS)


def test_an_adapter_that_vllm_does_not_serve_beside_a_base_is_refused():
    with pytest.raises(ModelError, match="has DoRA, layers trained whole, which vLLM does not serve beside a base"):
        adapters.require_served({"use_dora": True, "modules_to_save": ["lm_head"]}, Path("adapter"), "merge it")
    adapters.require_served({"r": 600, "use_dora": False, "modules_to_save": None}, Path("adapter"), "merge it")
