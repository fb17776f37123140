"""`medtune serve` under load, beside offline batches and beside another server; prints a JSON line for each load.

    serve_load.py --model RUN_OR_DIR [--clients 1 16 64] [--seconds 60] [--new 128] [--questions 64]
                  [--models tuned base] [--peer transformers] [--quantization none]

RUN_OR_DIR: a run, an adapter, a merged folder, or a model's folder, which gets an adapter of random weights first.
Every question is answered by every model in batches first, as the evaluation does; then clients ask the server the same
questions, half of them streaming, and each compares its answer with the one from the batch. `ratio` is the server's
tokens a second over those of the batches. In 16 bit some answers differ from the batch's in their last tokens; they are
`mixed_up` only where they are the answer to another question or of the other model. `--peer transformers` gives the
base model to `transformers serve` as well, with continuous batching, and asks only for that model of both.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from reporting import note, print_measurement
from serve_clients import Load, Tally, ask_for

CONDITIONS = ("gout", "asthma", "eczema", "migraine", "shingles", "acne", "anemia", "a stroke", "hives", "the flu")
FORMS = (
    "What causes {} ?", "What are the symptoms of {} ?", "How is {} treated ?", "How can I prevent {} ?",
    "Who gets {} ?", "I have had {} for three weeks and nothing that I tried has helped so far. What should I do now ?",
)  # fmt: skip
START_SECONDS = 900


def main() -> None:
    """Offline first, then each server with each number of clients."""
    arguments = parse()
    if arguments.offline:
        with redirect_stdout(sys.stderr):
            found = answer_offline(arguments)
        arguments.offline.write_text(json.dumps(found), encoding="utf-8")
        return
    with tempfile.TemporaryDirectory() as folder:
        place = Path(folder)
        plain = is_plain(Path(arguments.model))
        target = str(random_adapter(arguments, place / "adapter")) if plain else arguments.model
        offline = place / "offline.json"
        command = [sys.executable, __file__, *sys.argv[1:], "--model", target, "--offline", str(offline)]
        subprocess.run(command, check=True, stdout=sys.stderr)
        batches = json.loads(offline.read_text(encoding="utf-8"))
        expected = {(model, question): text for model, question, text in batches.pop("answers")}
        jobs = [(model, question) for question in questions(arguments.questions) for model in arguments.models]
        note(f"offline: {batches}")
        with serving(medtune_command(target, arguments)) as port:
            names = {model: model for model in arguments.models}
            measure("medtune", Load(port, jobs, expected, arguments.new, names), arguments, batches)
        if arguments.peer:
            folder_of_base = batches["base"]
            with serving(peer_command(folder_of_base)) as port:
                names = {"base": folder_of_base}
                measure(arguments.peer, Load(port, jobs, {}, arguments.new, names), arguments, batches)


def parse() -> argparse.Namespace:
    """The arguments; `--peer` leaves the base model alone."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True)
    parser.add_argument("--clients", type=int, nargs="+", default=[64])
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--new", type=int, default=128)
    parser.add_argument("--questions", type=int, default=64)
    parser.add_argument("--models", nargs="+", choices=["tuned", "base"], default=["tuned", "base"])
    parser.add_argument("--peer", choices=["transformers"])
    parser.add_argument("--quantization", choices=["none", "nf4"], default="none", help="of a model without adapter")
    parser.add_argument("--offline", type=Path, help=argparse.SUPPRESS)
    arguments = parser.parse_args()
    if arguments.peer:
        arguments.models = ["base"]
    return arguments


def questions(count: int) -> list[str]:
    """As many, all of them different."""
    found = [form.format(condition) for form in FORMS for condition in CONDITIONS]
    return [found[number % len(found)] + f" ({number})" * (number >= len(found)) for number in range(count)]


def is_plain(path: Path) -> bool:
    """Whether the folder holds a model, and nothing that names an adapter, a run or a merge."""
    others = ("adapter_config.json", "config.yaml", "merge.json")
    return (path / "config.json").is_file() and not any((path / name).is_file() for name in others)


def random_adapter(arguments: argparse.Namespace, folder: Path) -> Path:
    """An adapter of rank 16 on all projections, as training would leave it, with weights of no meaning."""
    import torch
    from peft import LoraConfig, get_peft_model
    from safetensors.torch import save_file
    from transformers import AutoConfig, AutoModelForCausalLM

    targets = ["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"]
    lora = LoraConfig(r=16, lora_alpha=16, target_modules=targets, task_type="CAUSAL_LM")
    config = AutoConfig.from_pretrained(arguments.model)
    if hasattr(config, "quantization_config"):
        del config.quantization_config
    with torch.device("meta"):
        model = get_peft_model(AutoModelForCausalLM.from_config(config), lora)
    torch.manual_seed(0)
    weights = {
        name.replace(".default", ""): torch.randn(parameter.shape) * 0.02
        for name, parameter in model.named_parameters()
        if "lora_" in name
    }
    folder.mkdir()
    save_file(weights, folder / "adapter_model.safetensors")
    lora.base_model_name_or_path = str(Path(arguments.model).resolve())
    lora.save_pretrained(folder)
    settings = {"quantization": arguments.quantization, "max_new_tokens": arguments.new, "system_prompt": ""}
    (folder / "medtune.json").write_text(json.dumps(settings), encoding="utf-8")
    return folder


def answer_offline(arguments: argparse.Namespace) -> dict[str, Any]:
    """Every model's answers in the batches that the evaluation would take, and how fast they came."""
    from medtune.runtime.process import prepare_process

    prepare_process()
    from contextlib import nullcontext

    from medtune.inference.chat import Chat, Target
    from medtune.inference.decoders.greedy import Greedy
    from medtune.inference.generation import answer_batches, choose_batch_size, plan_batches
    from medtune.model.loading import resolve_base
    from medtune.records import Answer
    from medtune.run_dir.partial_results import BatchWork

    chat = Chat.open_for_batches(arguments.model)
    asked, tokenizer = questions(arguments.questions), chat.loaded.renderer.tokenizer
    prompts = [chat.loaded.renderer.prompt_ids(question) for question in asked]
    longest = max(map(len, prompts))
    batch = choose_batch_size(chat.model, longest_prompt=longest, max_new_tokens=arguments.new)
    greedy = Greedy.of(tokenizer, chat.loaded.end_token_ids, arguments.new)
    answers: list[tuple[str, str, str]] = []
    tokens, seconds = 0, 0.0
    for model in arguments.models:
        with chat.model.disable_adapter() if model == "base" else nullcontext():
            few = BatchWork(plan_batches(prompts[:2], 2), Answer)
            answer_batches(chat.model, tokenizer, prompts[:2], greedy, few)
            took = []
            for _ in range(2):  # what else the machine does must not make the batches look slow
                work = BatchWork(plan_batches(prompts, batch), Answer)
                began = time.monotonic()
                answer_batches(chat.model, tokenizer, prompts, greedy, work)
                took.append(time.monotonic() - began)
            seconds += min(took)
        done = work.in_order()
        tokens += sum(answer.new_tokens for answer in done)
        answers += [(model, question, answer.text) for question, answer in zip(asked, done, strict=True)]
    config = Target.find(arguments.model).config.model
    base = str(resolve_base(config.base, config.revision).path)
    figures = {"offline_tokens_per_second": round(tokens / seconds, 1), "offline_batch": min(batch, len(prompts))}
    return {**figures, "device": chat.loaded.device, "dtype": chat.loaded.dtype, "base": base, "answers": answers}


def medtune_command(target: str, arguments: argparse.Namespace) -> list[str]:
    """`medtune serve` with room for all clients."""
    rows = str(max(64, *arguments.clients))
    options = ["--rows", rows, "--max-new-tokens", str(arguments.new), "--timeout", "3600"]
    return [sys.executable, "-m", "medtune", "serve", target, *options]


def peer_command(base: str) -> list[str]:
    """transformers' own server, as its documentation starts it for many clients."""
    code = "from transformers.cli.transformers import main; main()"
    return [sys.executable, "-c", code, "serve", base, "--continuous-batching"]


@contextmanager
def serving(command: list[str]) -> Iterator[int]:
    """A server on a free port, once it answers."""
    with socket.create_server(("127.0.0.1", 0)) as free:
        port: int = free.getsockname()[1]
    environment = {**os.environ, "HF_HUB_OFFLINE": "1"}
    child = subprocess.Popen([*command, "--host", "127.0.0.1", "--port", str(port)], stdout=sys.stderr, env=environment)
    try:
        _wait_for(child, port)
        yield port
    finally:
        child.terminate()
        try:
            child.wait(60)
        except subprocess.TimeoutExpired:
            child.kill()
            child.wait()


def _wait_for(child: subprocess.Popen[bytes], port: int) -> None:
    end = time.monotonic() + START_SECONDS
    while time.monotonic() < end:
        if child.poll() is not None:
            raise SystemExit(f"the server ended with status {child.returncode}")
        try:
            with urllib.request.urlopen(f"http://127.0.0.1:{port}/health", timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.3)
    raise SystemExit("the server did not answer")


def measure(server: str, load: Load, arguments: argparse.Namespace, batches: dict[str, Any]) -> None:
    """A line for each number of clients."""
    for clients in arguments.clients:
        tally = asyncio.run(ask_for(load, clients, arguments.seconds, warm_up=min(10.0, arguments.seconds / 2)))
        for problem in sorted(set(tally.problems))[:5]:
            note(problem)
        print_measurement(
            benchmark="serve_load", server=server, clients=clients, seconds=arguments.seconds,
            models=arguments.models, new=arguments.new, **batches, **figures_of(tally, arguments.seconds, batches),
        )  # fmt: skip


def figures_of(tally: Tally, seconds: float, batches: dict[str, Any]) -> dict[str, Any]:
    """What a line says."""
    rate = tally.tokens / seconds
    return {
        "requests": tally.requests,
        "errors": tally.errors,
        "mixed_up": tally.mixed_up,
        "differing": tally.differing,
        "tokens_per_second": round(rate, 1),
        "ratio": round(rate / batches["offline_tokens_per_second"], 3),
        "p50_seconds": _quantile(tally.seconds, 50),
        "p95_seconds": _quantile(tally.seconds, 95),
        "p50_first_text_seconds": _quantile(tally.first_text, 50),
        "p95_first_text_seconds": _quantile(tally.first_text, 95),
    }


def _quantile(values: list[float], percent: int) -> float | None:
    if len(values) < 2:
        return round(values[0], 3) if values else None
    return round(statistics.quantiles(values, n=100, method="inclusive")[percent - 1], 3)


if __name__ == "__main__":
    main()
