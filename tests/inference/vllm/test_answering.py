"""Answers by vLLM: what it is sent, in what order its answers are kept, and how it fails. A stub is in its place."""

from __future__ import annotations

import json
from contextlib import contextmanager
from dataclasses import replace

import pytest

from medtune.config.schema import Config
from medtune.data.prompts import PromptRenderer
from medtune.errors import ConfigError, ModelError
from medtune.inference.decoders.greedy import Greedy
from medtune.inference.generation import plan_batches
from medtune.inference.predictions import AnswerPlan, Asked
from medtune.inference.vllm import answering, completions
from medtune.inference.vllm.answering import VllmEngine, VllmModel, answer_with_vllm
from medtune.records import Answer, AnswerLoss, QAPair
from medtune.run_dir.partial_results import PartialResults
from medtune.runtime.hardware import Choice
from medtune.runtime.interruption import Interrupted
from stub_vllm import use_stub

END, CAP, AT_ONCE, ROWS = 5, 3, 4, 14
PAIRS = [
    QAPair(f"row{n}", "causes", "What causes " + "gout " * (1 + n * n % 7) + f"{n} ?", "Acid.") for n in range(ROWS)
]
# Of vLLM 0.33.0: `EngineArgs.add_cli_args` in vllm/engine/arg_utils.py, and vllm/entrypoints/common/cli_args.py.
FLAGS = {
    "--dtype", "--enable-lora", "--generation-config", "--gpu-memory-utilization", "--host", "--lora-modules",
    "--max-lora-rank", "--max-model-len", "--max-num-seqs", "--port", "--served-model-name", "--tokenizer",
}  # fmt: skip


@pytest.fixture
def stub(tmp_path, monkeypatch):
    monkeypatch.setattr(completions, "PAUSES", (0.01, 0.01))
    return use_stub(tmp_path / "stub", monkeypatch)


@pytest.fixture
def ask(tiny, tmp_path):
    """Rows that are asked, with what an earlier process has kept of their answers."""
    renderer = PromptRenderer(tiny.tokenizer, "Be kind.")
    prompts = [renderer.prompt_ids(pair.question) for pair in PAIRS]

    def asked(cap=CAP):
        partial = PartialResults(tmp_path / "partial.jsonl", {})
        batches = plan_batches(prompts, 1)
        if partial.plan({"rows": ROWS}) is None:
            partial.begin({"batches": batches})
        losses = partial.work("losses", [list(range(ROWS))], AnswerLoss)
        losses.finish(range(ROWS), [AnswerLoss(1.0, 2)] * ROWS)
        plan = AnswerPlan(Choice("float32", ""), AT_ONCE, [list(range(ROWS))], batches)
        greedy = Greedy.of(renderer.tokenizer, [END], cap)
        work = partial.work("answers", batches, Answer)
        return Asked(PAIRS, prompts, greedy, renderer.tokenizer, plan, losses, work)

    return asked


@pytest.fixture
def model(tiny):
    return VllmModel(tiny.path, None, "float32")


def expected(asked, row, cap=CAP):
    prompt = asked.prompts[row]
    tokens = ([prompt[-1]] * (1 + len(prompt) % 3) + [END])[:cap]
    ended = tokens[-1] == END
    text = asked.tokenizer.decode(tokens[:-1] if ended else tokens, skip_special_tokens=True).strip()
    return text, len(tokens), "stop" if ended else "length"


def kept(found):
    return [(one.prediction, one.new_tokens, one.finish_reason) for one in found.predictions]


def test_the_very_token_ids_are_sent_and_answers_come_back_in_the_order_of_the_rows(stub, ask, model):
    asked = ask()
    engine = VllmEngine.find()
    assert engine.origin == {"vllm": "0.33.0"}
    answer_with_vllm(engine, model, [asked])
    found = asked.predicted()
    assert [one.id for one in found.predictions] == [pair.id for pair in PAIRS]
    assert kept(found) == [expected(asked, row) for row in range(ROWS)]
    assert {reason for _, _, reason in kept(found)} == {"stop", "length"}
    assert found.batch_size == AT_ONCE
    assert sorted(one["prompt"] for one in stub.requests) == sorted(asked.prompts)
    for one in stub.requests:
        assert one["path"] == "/v1/completions"
        assert (one["model"], one["temperature"], one["max_tokens"]) == ("base", 0, CAP)
        assert (one["stop_token_ids"], one["return_token_ids"]) == ([END], True)
    assert 1 < max(one["under_way"] for one in stub.requests) <= AT_ONCE
    assert stub.has_ended


def test_what_vllm_is_started_with(stub, ask, model, monkeypatch):
    monkeypatch.setenv("MEDTUNE_VLLM_ARGUMENTS", "--gpu-memory-utilization '0.5'")
    asked, engine = ask(), VllmEngine.find()
    assert engine.origin == {"vllm": "0.33.0 --gpu-memory-utilization 0.5"}
    answer_with_vllm(engine, model, [asked])
    argv = stub.called["argv"]
    assert argv[:2] == ["serve", str(model.base)]
    assert {word for word in argv if word.startswith("--")} <= FLAGS
    told = dict(zip(argv[2::2], argv[3::2], strict=True))  # what comes last holds, as for vLLM
    assert (told["--dtype"], told["--max-num-seqs"], told["--host"]) == ("float32", "4", "127.0.0.1")
    assert told["--gpu-memory-utilization"] == "0.5"
    assert told["--max-model-len"] == str(max(map(len, asked.prompts)) + CAP)
    assert stub.called["settings"] == {"eos_token_id": [END], "temperature": 0.0, "max_new_tokens": CAP}
    assert stub.called["usage"] == "1"
    assert stub.called["key"]
    assert stub.called["key"] not in " ".join(argv)


def test_an_adapter_is_served_and_asked_as_tuned(stub, ask, model, tmp_path):
    adapter = tmp_path / "adapter"
    adapter.mkdir()
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 24}))
    answer_with_vllm(VllmEngine.find(), replace(model, adapter=adapter), [ask()])
    argv = stub.called["argv"]
    assert argv[argv.index("--lora-modules") + 1] == f"tuned={adapter}"
    assert argv[argv.index("--max-lora-rank") + 1] == "32"
    assert {one["model"] for one in stub.requests} == {"tuned"}
    (adapter / "adapter_config.json").write_text(json.dumps({"r": 24, "use_dora": True}))
    with pytest.raises(ModelError, match=r"has DoRA, which .* beside a base; leave out generation\.engine"):
        answering.arguments(replace(model, adapter=adapter), [ask()], tmp_path, 1)


def test_a_version_that_returns_no_token_ids_is_taken_by_its_text(stub, ask, model, monkeypatch):
    monkeypatch.setenv("STUB_MODE", "old")
    asked = ask()
    answer_with_vllm(VllmEngine.find(), model, [asked])
    assert kept(asked.predicted()) == [("text of the server", *expected(asked, row)[1:]) for row in range(ROWS)]


def test_what_was_answered_before_it_stopped_is_not_asked_again(stub, ask, model, monkeypatch):
    monkeypatch.setenv("STUB_MODE", "refuses later")
    with pytest.raises(ModelError, match=r"^vLLM: refuses a question, status 400: max_tokens is too large$"):
        answer_with_vllm(VllmEngine.find(), model, [ask()])
    assert stub.has_ended
    again = ask()
    done = dict(again.answering.done)
    assert 1 <= len(done) <= 4
    stub.forget()
    monkeypatch.setenv("STUB_MODE", "")
    answer_with_vllm(VllmEngine.find(), model, [again])
    assert len(stub.requests) == ROWS - len(done)
    assert kept(again.predicted()) == [expected(again, row) for row in range(ROWS)]
    stub.forget()
    answer_with_vllm(VllmEngine.find(), model, [ask()])
    assert not (stub.folder / "called.json").exists()  # nothing is left to answer


def test_an_interruption_ends_vllm_and_keeps_what_came(stub, ask, model, monkeypatch):
    came = []

    @contextmanager
    def interrupted_bar(*args, **options):
        def on_rows(rows):
            came.append(rows)
            if len(came) == 5:
                raise Interrupted(15)

        yield on_rows

    monkeypatch.setattr(answering, "progress_bar", interrupted_bar)
    with pytest.raises(Interrupted):
        answer_with_vllm(VllmEngine.find(), model, [ask()])
    assert stub.has_ended
    assert len(ask().answering.done) == 5


def test_a_question_that_failed_is_asked_again(stub, ask, model, monkeypatch):
    monkeypatch.setenv("STUB_MODE", "fails once")
    asked = ask()
    answer_with_vllm(VllmEngine.find(), model, [asked])
    assert len(stub.requests) == ROWS + 1
    assert kept(asked.predicted()) == [expected(asked, row) for row in range(ROWS)]


@pytest.mark.parametrize(
    ("mode", "line"),
    [
        ("busy", "vLLM: status 503: the engine is asleep; the same command asks again what is not answered"),
        ("dies", "vLLM: ended with status 1: ValueError: Free memory on device is less than desired; give `vllm serve` "
                 "other arguments in MEDTUNE_VLLM_ARGUMENTS, or leave out generation.engine"),
        ("crashes", "vLLM: ended with status 1: OutOfMemoryError: CUDA out of memory; give `vllm serve` "
                    "other arguments in MEDTUNE_VLLM_ARGUMENTS, or leave out generation.engine"),
        ("aborts", "vLLM: ended an answer after 3 tokens: abort"),
    ],
)  # fmt: skip
def test_failures_are_one_line(mode, line, stub, ask, model, monkeypatch):
    monkeypatch.setenv("STUB_MODE", mode)
    with pytest.raises(ModelError) as error:
        answer_with_vllm(VllmEngine.find(), model, [ask()])
    assert str(error.value) == line


def test_a_prompt_that_it_did_not_read_as_it_was_sent_is_refused(stub, ask, model, monkeypatch):
    monkeypatch.setenv("STUB_MODE", "adds a token")
    with pytest.raises(ModelError, match=r"^vLLM: read \d+ tokens of a prompt of \d+$"):
        answer_with_vllm(VllmEngine.find(), model, [ask()])


def test_without_vllm_the_way_to_it_is_said(monkeypatch):
    monkeypatch.delenv("MEDTUNE_VLLM", raising=False)
    monkeypatch.setenv("PATH", "")
    with pytest.raises(ConfigError) as error:
        VllmEngine.find()
    assert str(error.value) == (
        "generation.engine: there is no program vllm; install it in an environment of its own, `python -m venv ~/vllm "
        "&& ~/vllm/bin/pip install vllm`, and name ~/vllm/bin/vllm in MEDTUNE_VLLM"
    )


def test_arguments_that_no_shell_would_read_are_refused(stub, monkeypatch):
    monkeypatch.setenv("MEDTUNE_VLLM_ARGUMENTS", "--dtype 'half")
    with pytest.raises(ConfigError, match="MEDTUNE_VLLM_ARGUMENTS: No closing quotation; quote it as a shell would"):
        VllmEngine.find()


def test_several_processes_do_not_each_start_one(monkeypatch):
    monkeypatch.setattr(answering, "world_size", lambda: 2)
    with pytest.raises(ConfigError, match="vllm answers one process, and several were launched; evaluate in one"):
        VllmEngine.find()


def test_a_program_that_is_not_vllm_is_said_to_be_none(monkeypatch):
    monkeypatch.setenv("MEDTUNE_VLLM", "false")
    with pytest.raises(ModelError, match="does not tell its version"):
        VllmEngine.find()


def test_nf4_is_refused_before_anything_is_run():
    values = {"model": {"base": "x/y"}, "data": {"source": "x"}, "generation": {"engine": "vllm"}}
    with pytest.raises(ValueError, match=r"vLLM has no NF4; set model\.quantization to none"):
        Config.model_validate(values)
