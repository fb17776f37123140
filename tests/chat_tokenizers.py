"""Small tokenizers with the chat templates of four families, and rows to render with them."""

from dataclasses import replace

from hypothesis import strategies as st

from medtune.data.prompts import PromptRenderer
from medtune.records import QAPair
from tiny_model import build_tokenizer

CHATML = (
    "{% for m in messages %}<|im_start|>{{ m['role'] }}\n{{ m['content'] }}<|im_end|>\n{% endfor %}"
    "{% if add_generation_prompt %}<|im_start|>assistant\n{% endif %}"
)


GEMMA = (
    "{{ bos_token }}{% if messages[0]['role'] == 'system' %}{{ raise_exception('no system role') }}{% endif %}"
    "{% for m in messages %}<start_of_turn>{{ 'model' if m['role'] == 'assistant' else m['role'] }}\n"
    "{{ m['content'] | trim }}<end_of_turn>\n{% endfor %}"
    "{% if add_generation_prompt %}<start_of_turn>model\n{% endif %}"
)


MISTRAL = (
    "{{ bos_token }}{% for m in messages %}{% if m['role'] == 'user' %}[INST] {{ m['content'] }} [/INST]"
    "{% elif m['role'] == 'assistant' %} {{ m['content'] }}{{ eos_token }}"
    "{% else %}{{ raise_exception('only user and assistant roles') }}{% endif %}{% endfor %}"
)


QUESTIONS = ["What causes gout ?", "  Why?\nReally?  ", "<|eot_id|>", "What is <|begin_of_text|> in a text ?", "été ?"]


def pair(question="What causes gout ?", answer="Uric acid.\nCrystals form.", row_id="r1"):
    return QAPair(row_id, "causes", question, answer)


def chatml():
    return build_tokenizer(["<|endoftext|>", "<|im_start|>", "<|im_end|>"], CHATML, eos_token="<|im_end|>")


def gemma():
    tokens = ["<pad>", "<bos>", "<eos>", "<start_of_turn>", "<end_of_turn>"]
    return build_tokenizer(tokens, GEMMA, bos_token="<bos>", eos_token="<eos>", pad_token="<pad>")


def mistral():
    tokens = ["<s>", "</s>", "<unk>"]
    return build_tokenizer(tokens, MISTRAL, bos_token="<s>", eos_token="</s>", unk_token="<unk>")


ALL = {"llama3": build_tokenizer, "chatml": chatml, "gemma": gemma, "mistral": mistral}


SPELLED = ["<|eot_id|>", "<|begin_of_text|>", "<|im_end|>", "<start_of_turn>", "<bos>", "</s>"]


WORDS = ["Uric acid", "gout ?", " ", "\n", "<|", "|>", "[INST]", "été", "😀"]


TEXT = st.lists(st.sampled_from([*WORDS, *SPELLED]) | st.text(max_size=8), max_size=8).map("".join)


ROWS = st.lists(st.builds(pair, TEXT, TEXT), max_size=6).map(
    lambda rows: [replace(row, id=f"r{place}") for place, row in enumerate(rows)]
)


RENDERERS = {
    (name, system): PromptRenderer(make(), system) for name, make in ALL.items() for system in ("", "Say </s> kindly.")
}


LONG = "First things first. " + "Second sentence here. " * 10 + "Last"
