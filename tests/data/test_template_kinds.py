"""Chat templates as models of these years have them: each trains and answers with one prompt, or is refused truly."""

import pytest

from chat_tokenizers import CHATML
from medtune.data.prompts import PromptRenderer
from medtune.data.training_rows import encode_for_training, require_sound_rows
from medtune.errors import ModelError
from medtune.records import IGNORED, QAPair
from tiny_model import build_tokenizer

TOKENS = ["<|endoftext|>", "<|im_start|>", "<|im_end|>", "<think>", "</think>"]
PAIR = QAPair("1", "", "What causes gout ?", "Uric acid.")
# Qwen 3: without thinking an empty thought is in the prompt, otherwise it is before the answer of a last turn.
QWEN3 = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% if m.role == 'assistant' and loop.last %}"
    "<think>\n\n</think>\n\n{% endif %}{{ m.content }}<|im_end|>\n{% endfor %}{% if add_generation_prompt %}"
    "<|im_start|>assistant\n{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n"
    "{% endif %}{% endif %}"
)
OPEN_THOUGHT = CHATML.replace("<|im_start|>assistant\n{% endif %}", "<|im_start|>assistant\n<think>\n{% endif %}")
PARTS = (
    "{% for m in messages %}<|im_start|>{{ m.role }}\n{% for part in m.content %}{% if part.type == 'text' %}"
    "{{ part.text }}{% endif %}{% endfor %}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


def renderer_for(template, settings=(), system="", tokens=TOKENS):
    tokenizer = build_tokenizer(list(tokens), template, eos_token="<|im_end|>", pad_token="<|endoftext|>")
    return PromptRenderer(tokenizer, system, settings=dict(settings))


def prompt_and_answer(renderer, pair=PAIR):
    """Both texts of a training row, which begins with the generation prompt token for token."""
    encoded = encode_for_training(renderer, [pair], max_length=512, overlong="cut")
    require_sound_rows(encoded.rows, renderer)
    (row,) = encoded.rows
    prompt = row.input_ids[: row.prompt_length]
    assert prompt == renderer.prompt_ids(pair.question)
    assert row.labels == [IGNORED] * len(prompt) + row.input_ids[len(prompt) :]
    return renderer.tokenizer.decode(prompt), renderer.tokenizer.decode(row.input_ids[len(prompt) :])


def test_an_empty_thought_is_learned_where_the_prompt_does_not_hold_it():
    """What people ask for at https://github.com/QwenLM/Qwen3/issues/1420."""
    renderer = renderer_for(QWEN3)
    prompt, answer = prompt_and_answer(renderer)
    assert prompt.endswith("<|im_start|>assistant\n")
    assert answer == "<think>\n\n</think>\n\nUric acid.<|im_end|>"
    (note,) = renderer.template_notes
    assert "model.template_settings.enable_thinking=false" in note


def test_without_thinking_the_empty_thought_is_in_the_prompt_of_training_and_answers():
    """Training without it while answers had it: https://github.com/hiyouga/LlamaFactory/issues/9092."""
    renderer = renderer_for(QWEN3, {"enable_thinking": False}, system="Be kind.")
    prompt, answer = prompt_and_answer(renderer)
    assert prompt.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    assert answer == "Uric acid.<|im_end|>"
    assert renderer.template_notes == ("with enable_thinking: false",)
    examples = renderer.tokenizer.decode(renderer.prompt_ids("Why ?", [PAIR]))
    assert examples.endswith("<|im_start|>assistant\n<think>\n\n</think>\n\n")
    official = renderer.tokenizer.apply_chat_template(
        [{"role": "system", "content": "Be kind."}, {"role": "user", "content": "Why ?"}],
        add_generation_prompt=True, enable_thinking=False, return_dict=False,
    )  # fmt: skip
    assert renderer.prompt_ids("Why ?") == official


@pytest.mark.parametrize("end", ["<think>\n", "<think>"])
def test_a_thought_that_the_prompt_opens_is_closed_before_the_answer(end):
    """Else an answer is learned as a thought: https://github.com/hiyouga/LlamaFactory/issues/6987."""
    renderer = renderer_for(OPEN_THOUGHT.replace("<think>\n", end))
    prompt, answer = prompt_and_answer(renderer)
    assert prompt.endswith(f"assistant\n{end}")
    assert (prompt + answer).endswith("<think>\n\n</think>\n\nUric acid.<|im_end|>")
    assert "opens a thought, which training closes" in renderer.template_notes[0]


def test_a_template_that_closes_the_thought_itself_does_so_once():
    template = QWEN3.replace("{% if enable_thinking is defined and enable_thinking is false %}", "{% if true %}")
    template = template.replace("<think>\n\n</think>\n\n{% endif %}{% endif %}", "<think>\n{% endif %}{% endif %}")
    prompt, answer = prompt_and_answer(renderer_for(template))
    assert prompt.endswith("<think>\n")
    assert answer == "\n</think>\n\nUric acid.<|im_end|>"


@pytest.mark.parametrize("blank", [" ", "\n", "\n\n"])
def test_blanks_before_the_end_token_are_learned_as_the_template_writes_them(blank):
    """LLaMA 2 and its kin end an answer with a blank and `</s>`."""
    template = CHATML.replace("{{ m['content'] }}<|im_end|>", "{{ m['content'] }}" + blank + "<|im_end|>")
    renderer = renderer_for(template)
    assert prompt_and_answer(renderer)[1] == f"Uric acid.{blank}<|im_end|>"
    assert repr(blank) in renderer.template_notes[0]


def test_content_as_parts_is_given_to_templates_that_take_it_so():
    """Templates of models of text and images: a list of parts, of which text is one."""
    renderer = renderer_for(PARTS, system="Be kind.")
    prompt, answer = prompt_and_answer(renderer)
    plain, _ = prompt_and_answer(renderer_for(CHATML, system="Be kind."))
    assert (prompt, answer) == (plain, "Uric acid.<|im_end|>")
    assert "as parts" in renderer.template_notes[0]
    assert "Uric acid." in renderer.tokenizer.decode(renderer.prompt_ids("Why ?", [PAIR]))


def test_templates_that_take_tools_get_none_unless_they_are_set():
    template = "{% if tools %}<|im_start|>tools\n{{ tools | tojson }}<|im_end|>\n{% endif %}" + CHATML
    assert prompt_and_answer(renderer_for(template)) == prompt_and_answer(renderer_for(CHATML))
    assert '[{"name": "search"}]' in prompt_and_answer(renderer_for(template, {"tools": [{"name": "search"}]}))[0]


def test_a_date_may_be_given_as_a_setting():
    """LLaMA 3.2's template prints `date_string` where there is one."""
    template = "{% if not date_string is defined %}{% set date_string = strftime_now('%d %b %Y') %}{% endif %}"
    renderer = renderer_for(f"{template}{{{{ date_string }}}}\n{CHATML}", {"date_string": "26 Jul 2024"})
    assert prompt_and_answer(renderer)[0].startswith("26 Jul 2024\n")


def test_a_setting_that_the_template_does_not_read_is_refused():
    problem = r"model\.template_settings: the chat template reads no enable_thinkin; it reads enable_thinking"
    with pytest.raises(ModelError, match=problem):
        renderer_for(QWEN3, {"enable_thinkin": False}).prompt_ids("Why ?")
    with pytest.raises(ModelError, match="reads no thoughts; it reads none"):
        renderer_for(CHATML, {"thoughts": 1}).prompt_ids("Why ?")


def test_several_templates_without_a_default_are_named():
    renderer = renderer_for({"rag": CHATML, "tool_use": CHATML})
    problem = r"several chat templates \(rag, tool_use\), and none is the default; choose one: --set model\.chat_templ"
    with pytest.raises(ModelError, match=problem):
        renderer.prompt_ids("Why ?")
