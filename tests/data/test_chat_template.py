"""A chat template is read once, with words in the places of question, answer and system line, within bounds."""

import pytest

from chat_tokenizers import ALL, CHATML, gemma, mistral
from medtune.data.chat_template import SYSTEM_PLACE, ChatTemplate, read_chat_template, read_example_template
from medtune.data.prompts import PromptRenderer
from medtune.errors import ModelError
from tiny_model import build_tokenizer


def read(tokenizer, *, with_system=False):
    def encode(text):
        return tokenizer(text, add_special_tokens=False).input_ids

    return read_chat_template(tokenizer, with_system=with_system, encode=encode)


def test_what_llama_3_writes_around_one_question():
    start, end = "<|start_header_id|>", "<|end_header_id|>\n\n"
    opening = f"<|begin_of_text|>{start}user{end}"
    assert read(build_tokenizer()) == ChatTemplate(opening, f"<|eot_id|>{start}assistant{end}", "", 5, "")
    system = f"<|begin_of_text|>{start}system{end}{SYSTEM_PLACE}<|eot_id|>{start}user{end}"
    assert read(build_tokenizer(), with_system=True).before_question == system


def test_what_stands_before_an_answer_and_not_in_the_prompt_is_told_apart():
    found = read(mistral())
    assert (found.before_question, found.after_question, found.before_answer) == ("<s>[INST] ", " [/INST]", " ")
    assert found.end_token_id == mistral().convert_tokens_to_ids("</s>")


@pytest.mark.parametrize("make", [gemma, mistral])
def test_without_a_system_role_the_line_goes_before_the_question(make):
    found = read(make(), with_system=True)
    assert found.system_in_question == f"{SYSTEM_PLACE}\n\n"
    assert SYSTEM_PLACE not in found.before_question
    assert read(make()).system_in_question == ""


def test_a_template_that_leaves_the_system_line_out_has_no_system_role():
    template = CHATML.replace("{% for m in messages %}", "{% for m in messages if m['role'] != 'system' %}")
    found = read(build_tokenizer(["<|im_start|>", "<|im_end|>"], template, eos_token="<|im_end|>"), with_system=True)
    assert found.system_in_question == f"{SYSTEM_PLACE}\n\n"


@pytest.mark.parametrize("make", ALL.values(), ids=ALL.keys())
def test_worked_examples_have_a_piece_between_every_two_texts(make):
    tokenizer = make()
    one = read(tokenizer)
    pieces = read_example_template(tokenizer, 2, with_system=False)
    assert len(pieces) == 6
    assert (pieces[0], pieces[-1]) == (one.before_question, one.after_question)
    assert pieces[1] == pieces[3] == one.after_question + one.before_answer
    assert pieces[2] == pieces[4]
    assert read_example_template(tokenizer, 0, with_system=False) == [one.before_question, one.after_question]


def test_a_template_that_renders_one_question_alone_takes_no_examples():
    single = "{% if messages | length > 2 %}{{ raise_exception('one') }}{% endif %}" + CHATML
    fix = r"leave few_shot out of evaluation\.controls, and retrieval and tuned_retrieval"
    with pytest.raises(ModelError, match=f"cannot render worked examples; {fix}"):
        read_example_template(build_tokenizer(chat_template=single), 1, with_system=False)


@pytest.mark.parametrize(
    ("template", "problem"),
    [
        ("{% for m in messages %}{{ m['content'] }", r"is not valid \(.* at line 1\)"),
        ("{{ 9 ** 9 ** 9 }}", "takes powers"),
        ("{{ messages.__class__.__mro__ }}", "reaches for what no template may"),
        ("{% for a in range(100000000) %}x{% endfor %}", "goes beyond what a template may"),
    ],
    ids=["syntax", "power", "sandbox", "range"],
)
def test_templates_that_are_no_templates_are_refused(template, problem):
    with pytest.raises(ModelError, match=rf"its chat template {problem}.*use the template of the model's own makers"):
        read(build_tokenizer(chat_template=template))


def test_a_template_that_goes_on_for_long_or_writes_much_is_stopped():
    loop = "{% for a in range(9999) %}{% for b in range(9999) %}{% endfor %}{% endfor %}"
    with pytest.raises(ModelError, match="its chat template takes more than"):
        read(build_tokenizer(chat_template=loop + CHATML))
    with pytest.raises(ModelError, match="writes more than 1,000,000 characters around one question"):
        read(build_tokenizer(chat_template="x" * 1_000_001 + CHATML))


def test_no_chat_template():
    with pytest.raises(ModelError, match="no chat template"):
        PromptRenderer(build_tokenizer(chat_template=None)).prompt_ids("What ?")


def test_template_without_an_end_token():
    template = "{% for m in messages %}{{ m['role'] }}: {{ m['content'] }}\n{% endfor %}"
    with pytest.raises(ModelError, match="no end token"):
        PromptRenderer(build_tokenizer(chat_template=template)).prompt_ids("What ?")


def test_template_that_drops_the_question():
    template = "{% for m in messages %}{{ m['role'] }}<|eot_id|>{% endfor %}"
    with pytest.raises(ModelError, match="cannot render"):
        PromptRenderer(build_tokenizer(chat_template=template)).prompt_ids("What ?")
