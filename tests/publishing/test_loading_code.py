"""The Python on a card runs as it is there, and asks as the run asked."""

import ast
import re
from contextlib import redirect_stdout
from datetime import date
from io import StringIO

import pytest

from medtune.data.prompts import PromptRenderer
from medtune.model.loaded import load_tokenizer
from medtune.model.loading import DEMO_MODEL
from medtune.model.quantization import NF4, PLAIN
from medtune.publishing.loading_code import QUESTION, Target, example_messages, loading_code, printed_dates
from medtune.publishing.model_card import build_card
from medtune.run_dir.directory import RunDir
from older_runs import forget_checksums


def test_the_code_of_the_card_answers(finished_run, tiny, monkeypatch):
    """As it stands there, in the run directory, with the folder of the base beside it."""
    expected = finished_run.read_predictions("tuned")[0]
    (code,) = re.findall(r"^```python\n(.*?)^```$", build_card(finished_run), re.M | re.S)
    code = code.replace("What are the symptoms of gout ?", expected.question)
    monkeypatch.chdir(finished_run.path)
    code = code.replace(f'base = "{tiny.path.name}"', f"base = {str(tiny.path)!r}")
    out = StringIO()
    with redirect_stdout(out):
        exec(compile(code, "card", "exec"), {})
    assert out.getvalue().strip() == expected.prediction.strip()


@pytest.mark.parametrize(("merged", "needed"), [(True, False), (False, True)])
def test_only_an_adapter_needs_the_model_that_is_built_on_the_spot(merged, needed):
    target = Target("owner/demo", merged=merged, base=DEMO_MODEL, storage=NF4, dtype="bfloat16")
    assert ("build_demo_model" in loading_code(target, [], 8)) is needed


def test_the_code_names_classes_and_settings_of_what_it_loads():
    hub = loading_code(Target("owner/adapter", merged=False, base=None, storage=NF4, dtype="float16"), [], 8)
    assert (
        "from peft import AutoPeftModelForCausalLM\nfrom transformers import AutoTokenizer, BitsAndBytesConfig" in hub
    )
    assert "    bnb_4bit_compute_dtype=torch.float16,\n" in hub
    assert 'from_pretrained("owner/adapter", dtype=torch.float16, device_map="auto", quantization_config=' in hub
    plain = loading_code(
        Target("owner/adapter", merged=False, base='my "base"', storage=PLAIN, dtype="bfloat16"), [], 8
    )
    assert "quantization" not in plain
    assert 'base = "my \\"base\\""  # the folder that holds the base model' in plain
    merged = loading_code(Target("owner/whole", merged=True, base=None, storage=NF4, dtype="bfloat16"), [], 512)
    assert "peft" not in merged
    assert "quantization" not in merged
    assert "max_new_tokens=512, do_sample=False" in merged
    thoughtless = loading_code(
        Target("owner/adapter", merged=True, base=None, storage=NF4, dtype="float16"),
        [],
        8,
        {},
        {"enable_thinking": False},
    )
    assert '    messages, add_generation_prompt=True, return_dict=True, return_tensors="pt",\n' in thoughtless
    assert "    enable_thinking=False,\n)\n" in thoughtless
    for code in (hub, plain, merged, thoughtless):
        ast.parse(code)


def test_the_question_is_asked_with_the_runs_system_line(finished_run, reconfigured):
    question = {"role": "user", "content": QUESTION}
    system = {"role": "system", "content": finished_run.config.data.system_prompt.strip()}
    assert example_messages(finished_run) == [system, question]
    assert example_messages(reconfigured(data={"system_prompt": " "})) == [question]


def test_a_template_that_prints_the_day_prints_that_of_the_run(copied_run):
    template = copied_run.adapter_dir / "chat_template.jinja"
    assert printed_dates(copied_run) == {}
    dated = """{{ strftime_now("%d %b %Y") }}, {{ strftime_now( '%Y-%m-%d' ) }}"""
    template.write_text(template.read_text(encoding="utf-8").replace("{{ bos_token }}", "{{ bos_token }}" + dated, 1))
    copied_run.update_provenance(prompt_date="2024-07-26")
    forget_checksums(copied_run)
    run = RunDir(copied_run.path)
    (code,) = re.findall(r"^```python\n(.*?)^```$", build_card(run), re.M | re.S)
    # All but the model.
    lines = [line for line in code.splitlines() if line.startswith(("tokenizer", "messages", "from transformers"))]
    names = {}
    exec("\n".join(lines).replace(f'"{run.adapter_dir.name}"', repr(str(run.adapter_dir))), names)
    ids = names["tokenizer"].apply_chat_template(names["messages"], add_generation_prompt=True)["input_ids"]
    renderer = PromptRenderer(load_tokenizer(run.adapter_dir), run.config.data.system_prompt, date(2024, 7, 26))
    assert ids == renderer.prompt_ids(QUESTION)
    assert "26 Jul 2024, 2024-07-26" in names["tokenizer"].decode(ids)
    run.update_provenance(prompt_date=None)  # as an older version left it
    assert printed_dates(RunDir(run.path)) == {}


def test_a_template_that_takes_parts_is_given_them(copied_run):
    template = copied_run.adapter_dir / "chat_template.jinja"
    text = template.read_text(encoding="utf-8")
    changed = re.sub(r"(\w+)(\['content'\]|\.content)", r"\1\2[0].text", text)
    assert changed != text
    template.write_text(changed, encoding="utf-8")
    question = example_messages(RunDir(copied_run.path))[-1]
    assert question == {"role": "user", "content": [{"type": "text", "text": QUESTION}]}
