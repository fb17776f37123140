"""Models of others: chat templates that reach for Python or never end, code beside the weights, broken files."""

from __future__ import annotations

from pathlib import Path

import pytest

from command_line import Medtune
from hostile import inputs
from hostile.cases import MARK, Refused, parametrize, refused, require_refused, snapshot
from hostile.inputs import own_model

SHOW = "data show recipe.yaml --rows 1"
TEMPLATE = "model/chat_template.jinja"
MAKERS = "use the template of the model's own makers"
CANNOT = "model: its chat template cannot render one question and one answer"


def _template(extra: str) -> inputs.Maker:
    """The model's own template with something behind it."""

    def make(workspace: Path) -> None:
        path = workspace / TEMPLATE
        path.write_text(path.read_text(encoding="utf-8") + extra.replace("MARK", str(workspace / MARK)))

    return own_model(make)


def _reaches(what: str, extra: str, attribute: str) -> Refused:
    return refused(what, _template(extra), SHOW, "model: its chat template reaches for what no template may (access "
                   f"to attribute {attribute} object is unsafe.); {MAKERS}")  # fmt: skip


def _beyond(what: str, extra: str, bound: str) -> Refused:
    return refused(what, _template(extra), SHOW, f"model: its chat template {bound}; {MAKERS}")


MEMORY = "takes more than 512 MiB of memory"
TEMPLATES = [
    _reaches("reaches for `__class__`", "{{ ''.__class__.__mro__[1].__subclasses__() }}", "'__class__' of 'str'"),
    _reaches("reaches for `os` through `__globals__`",
             "{{ cycler.__init__.__globals__.os.system('touch MARK') }}", "'__init__' of 'type'"),
    _reaches("reaches for its own machinery", "{{ self.__init__.__globals__ }}", "'__init__' of 'TemplateReference'"),
    _reaches("changes the messages", "{{ messages.append(1) }}", "'append' of 'list'"),
    refused("imports a module", _template("{% import 'os' as os %}{{ os.system('touch MARK') }}"), SHOW, CANNOT),
    refused("includes a file", _template("{% include '/etc/passwd' %}"), SHOW, CANNOT),
    _beyond("counts to 10¹²", "{% for i in range(1000000000000) %}{% endfor %}", "goes beyond what a template may "
            "(Range too big. The sandbox blocks ranges larger than MAX_RANGE (100000).)"),
    _beyond("loops in loops", "{% for i in range(99999) %}{% for j in range(99999) %}{% endfor %}{% endfor %}",
            "takes more than 1,000,000 steps"),
    _beyond("takes a power of a power", "{{ 9**9**9 }}", "takes powers"),
    _beyond("writes 10 GB at once", "{{ 'a' * 10000000000 }}", MEMORY),
    _beyond("pads to 10 GB", "{{ 'a'|center(10000000000) }}", MEMORY),
    _beyond("doubles a text sixty times", "{% set n = namespace(s='aaaaaaaa') %}{% for i in range(60) %}"
            "{% set n.s = n.s ~ n.s %}{% endfor %}{{ n.s }}", MEMORY),
    _beyond("writes 2 MB", "{{ 'a' * 2000000 }}", "writes more than 1,000,000 characters around one question"),
    refused("calls itself without end", _template("{% macro m() %}{{ m() }}{% endmacro %}{{ m() }}"), SHOW, CANNOT),
    refused("adds a number and a text", _template("{{ 1 + 'a' }}"), SHOW, CANNOT),
    refused("divides by zero", _template("{{ 1 // 0 }}"), SHOW, CANNOT),
    refused("is cut off", _template("{% for"), SHOW, CANNOT),
    refused("is empty", own_model(inputs.file(TEMPLATE, "")), SHOW,
            "model: its tokenizer has no chat template; use the model's chat (instruct) variant, or give it a "
            "template: --set model.chat_template=NAME (a jinja file, alpaca, chatml, llama3 …)"),
    refused("leaves the question out", own_model(inputs.file(TEMPLATE, "hello")), SHOW, CANNOT),
]  # fmt: skip


def _remote_code(name: str, **settings: object) -> inputs.Maker:
    """Code beside the weights, named as the Hub's models name theirs."""

    def make(workspace: Path) -> None:
        (workspace / "model" / "planted.py").write_text(f"open({str(workspace / MARK)!r}, 'w').close()\n")

    return own_model(make, inputs.edit_json(f"model/{name}", lambda values: values.update(settings)))


RUN = "run recipe.yaml --run-dir new"
CODE = (
    "The repository model contains custom code which must be executed to correctly load the model. You can inspect "
    "the repository content at …"
)
TOKENIZER = "model: no usable tokenizer ({}); give a model with its tokenizer files"
MODELS = [
    refused("code for the model", _remote_code("config.json", model_type="planted", auto_map={
            "AutoConfig": "planted.Planted", "AutoModelForCausalLM": "planted.Planted"}), RUN, f"model: …{CODE}"),
    refused("code for the tokenizer", _remote_code("tokenizer_config.json", tokenizer_class="Planted",
            auto_map={"AutoTokenizer": ["planted.Planted", "planted.Planted"]}), RUN, TOKENIZER.format(CODE)),
    refused("pickled weights alone", own_model(inputs.remove("model/model.safetensors"),
            inputs.torch_saved("model/pytorch_model.bin")), RUN,
            "model: no .safetensors weights in it; pickled weights are never loaded, convert them"),
    refused("a config.json that is no JSON", own_model(inputs.file("model/config.json", "{")), RUN,
            TOKENIZER.format("It looks like the config file at 'model/config.json' is not a valid JSON file.")),
    refused("a config.json that is a list", own_model(inputs.file("model/config.json", "[]")), RUN,
            TOKENIZER.format("…argument after ** must be a mapping, not list")),
    refused("a tokenizer.json that is no JSON", own_model(inputs.file("model/tokenizer.json", "junk")), RUN,
            TOKENIZER.format("Expecting value: line 1 column 1 (char 0)")),
    refused("a tokenizer.json without a tokenizer", own_model(inputs.file("model/tokenizer.json", "{}")), RUN,
            TOKENIZER.format("…")),
    refused("a tokenizer.json nested 100,000 deep", own_model(inputs.file("model/tokenizer.json", "[" * 100_000)), RUN,
            TOKENIZER.format("maximum recursion depth exceeded…")),
    refused("a tokenizer.json of another kind",
            own_model(inputs.edit_json("model/tokenizer.json", lambda values: values.update(model={"type": "Evil"}))),
            RUN, TOKENIZER.format("…")),
]  # fmt: skip

CASES: dict[str, list[Refused]] = {"Chat templates": TEMPLATES, "Models": MODELS}


@parametrize(TEMPLATES)
def test_a_template(case: Refused, medtune: Medtune, workspace) -> None:
    require_refused(case, medtune, workspace)


@parametrize(MODELS)
def test_a_model(case: Refused, medtune: Medtune, workspace) -> None:
    require_refused(case, medtune, workspace)


@pytest.mark.parametrize(
    "extra",
    ["{{ ''|attr('__class__') }}", "{{ lipsum.__globals__ }}", "{{ '{0.__class__}'.format('') }}", "{# **never** #}"],
)
def test_what_the_sandbox_leaves_empty_changes_nothing(extra: str, medtune: Medtune, workspace) -> None:
    """Unsafe attributes come out as nothing where they are only looked at; comments may hold what they like."""
    expected = medtune("data", "show", "recipe.yaml", "--rows", "1").out
    _template(extra)(workspace)
    result = medtune("data", "show", "recipe.yaml", "--rows", "1")
    assert (result.status, result.out) == (0, expected)
    assert MARK not in snapshot(workspace)


def test_code_beside_a_model_that_transformers_knows_is_not_run(medtune: Medtune, workspace) -> None:
    _remote_code("config.json", auto_map={"AutoConfig": "planted.P", "AutoModelForCausalLM": "planted.P"})(workspace)
    # Of a run that did not note which base it had: another one would not be loaded at all.
    provenance = workspace / "run" / "provenance.json"
    provenance.write_text(provenance.read_text(encoding="utf-8").replace("base_identity", "older"), encoding="utf-8")
    assert medtune("ask", "run", "Why ?").status == 0
    assert MARK not in snapshot(workspace)


def test_weights_that_are_junk(medtune: Medtune, workspace) -> None:
    """They are read at the first stage that needs them; what came before stays."""
    before = snapshot(workspace / "run")
    own_model(inputs.file("model/model.safetensors", "junk"))(workspace)
    result = medtune("ask", "run", "Why ?")
    assert result.status == 2
    assert result.err.splitlines()[-1] == (
        "medtune: model: cannot be loaded (Error while deserializing header: header too small)"
    )
    assert snapshot(workspace / "run") == before
