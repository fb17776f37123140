"""A program in vLLM's place: it tells a version and its health, and completes prompts of token ids.

An answer is the prompt's last id, and its number of tokens modulo 3 times once more, then the end token: whose prompt
was whose can be seen in it.
"""

from __future__ import annotations

import json
import stat
import sys
from pathlib import Path

PROGRAM = """#!{python}
import http.server, json, os, signal, sys, threading, time
if sys.argv[1:] == ["-v"]:
    print("INFO of some library")
    print(os.environ.get("STUB_VERSION", "0.33.0"))
    sys.exit()
place = os.environ["STUB_PLACE"]
mode = os.environ.get("STUB_MODE", "")
def value(flag):
    return sys.argv[sys.argv.index(flag) + 1]
folder = value("--tokenizer")
seen = {{"argv": sys.argv[1:], "key": os.environ["VLLM_API_KEY"], "usage": os.environ["VLLM_NO_USAGE_STATS"],
        "settings": json.load(open(os.path.join(folder, "generation_config.json")))}}
json.dump(seen, open(place + "/called.json", "w"))
if mode == "dies":
    print("(EngineCore pid=7) ERROR 12-01 ValueError: Free memory on device is less than desired")
    print("RuntimeError: Engine core initialization failed. See root cause above.")
    sys.exit(1)
signal.signal(signal.SIGTERM, lambda *rest: (open(place + "/ended", "w").close(), os._exit(0)))
lock = threading.Lock()
count = under_way = 0
class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    def do_GET(self):
        self.reply(200 if self.path == "/health" else 404, {{}})
    def do_POST(self):
        global count, under_way
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        with lock:
            count += 1
            number = count
            under_way += 1
            with open(place + "/requests.jsonl", "a") as file:
                file.write(json.dumps({{**body, "path": self.path, "under_way": under_way}}) + "\\n")
        time.sleep(0.002 * (number % 3))
        status, answer = self.complete(body, number)
        with lock:
            under_way -= 1
        self.reply(status, answer)
    def complete(self, body, number):
        if self.headers["Authorization"] != "Bearer " + os.environ["VLLM_API_KEY"]:
            return 401, {{"error": {{"message": "Unauthorized"}}}}
        if mode == "refuses" or (mode == "refuses later" and number > 4):
            return 400, {{"error": {{"message": "max_tokens is\\ntoo large", "type": "BadRequestError", "code": 400}}}}
        if mode == "busy" or (mode == "fails once" and number == 1):
            return 503, {{"object": "error", "message": "the engine is asleep"}}
        if mode == "crashes":
            print("torch.OutOfMemoryError: CUDA out of memory", flush=True)
            os._exit(1)
        prompt, cap = body["prompt"], body["max_tokens"]
        whole = [prompt[-1]] * (1 + len(prompt) % 3) + [body["stop_token_ids"][0]]
        tokens = whole[:cap]
        reason = "stop" if tokens == whole else "length"
        choice = {{"index": 0, "text": " text of the server ", "finish_reason": reason}}
        if mode == "aborts":
            choice["finish_reason"] = "abort"
        if mode != "old":
            choice["token_ids"] = tokens
        read = len(prompt) + (mode == "adds a token")
        return 200, {{"choices": [choice], "usage": {{"prompt_tokens": read, "completion_tokens": len(tokens)}}}}
    def reply(self, status, values):
        content = json.dumps(values).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)
    def log_message(self, *rest):
        pass
http.server.ThreadingHTTPServer(("127.0.0.1", int(value("--port"))), Handler).serve_forever()
"""


class StubVllm:
    """What the program was called with, and asked."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "vllm"
        self.program.write_text(PROGRAM.format(python=sys.executable))
        self.program.chmod(self.program.stat().st_mode | stat.S_IXUSR)

    @property
    def called(self) -> dict:
        return json.loads((self.folder / "called.json").read_text())

    @property
    def requests(self) -> list[dict]:
        file = self.folder / "requests.jsonl"
        return [json.loads(line) for line in file.read_text().splitlines()] if file.is_file() else []

    @property
    def has_ended(self) -> bool:
        return (self.folder / "ended").is_file()

    def forget(self) -> None:
        for name in ("called.json", "requests.jsonl", "ended"):
            (self.folder / name).unlink(missing_ok=True)


def use_stub(folder: Path, monkeypatch) -> StubVllm:
    """The stub, named as vLLM's command in the environment."""
    folder.mkdir()
    monkeypatch.setenv("MEDTUNE_VLLM", str(StubVllm(folder).program))
    monkeypatch.setenv("STUB_PLACE", str(folder))
    return StubVllm(folder)
