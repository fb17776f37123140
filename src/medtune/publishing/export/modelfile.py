"""Ollama's Modelfile: the model's file or folder, its template in Go's form, and how the run generates.

Ollama strips nothing from a text, so that prompts equal medtune's for texts without blanks at their ends.
"""

from collections.abc import Iterable
from dataclasses import dataclass

from medtune.data.chat_template import SYSTEM_PLACE
from medtune.errors import ModelError
from medtune.publishing.export.chat_layout import ChatLayout, Opening


@dataclass(frozen=True, slots=True)
class Generation:
    """How a run answers: end tokens as text, the cap in new tokens, the context in tokens, the system prompt."""

    end_tokens: tuple[str, ...]
    cap: int
    context: int
    system_prompt: str


def go_template(layout: ChatLayout, *, bos: str) -> str:
    """`layout` as a template of Go's text/template, over the `.System` and `.Messages` that Ollama passes.

    `bos` is the text that Ollama puts before a prompt by itself and the template therefore leaves out; empty for none.
    """
    with_system, without_system = (_without_bos(o, bos) for o in (layout.with_system, layout.without_system))
    # The system prompt is a message too: two of them are a chat of one question.
    start = _either(
        ".System",
        _either("le (len .Messages) 2", _literal(with_system.only), _literal(with_system.first)),
        _either("le (len .Messages) 1", _literal(without_system.only), _literal(without_system.first)),
    )
    last = _either("$.System", _literal(with_system.last), _literal(without_system.last))
    generation, before_answer = _literal(layout.generation), _literal(layout.before_answer)
    user = "{{ .Content }}" + _either("eq $left 1", generation, before_answer)
    answer = (
        "{{ .Content }}{{ if eq $left 2 }}" + last + "{{ else if gt $left 2 }}"
        + _literal(layout.before_question) + "{{ end }}"
    )  # fmt: skip
    return (
        start + "{{ range $place, $message := .Messages }}{{ $left := len (slice $.Messages $place) }}"
        '{{ if eq .Role "user" }}' + user + '{{ else if eq .Role "assistant" }}' + answer + "{{ end }}{{ end }}"
    )


def modelfile(source: str, template: str, generation: Generation, notes: Iterable[str]) -> str:
    """The Modelfile for the model at `source`, a path beside it. Raises ModelError for a system prompt of `\"\"\"`."""
    lines = [*(f"# {note}" for note in notes), f"FROM {source}", f'TEMPLATE """{template}"""']
    if generation.system_prompt:
        if '"""' in generation.system_prompt:
            raise ModelError("data.system_prompt", 'holds """, which a Modelfile cannot quote', "leave it out")
        lines.append(f'SYSTEM """{generation.system_prompt}"""')
    lines += [f"PARAMETER stop {_quoted(token)}" for token in generation.end_tokens]
    # Greedy as medtune answers: Ollama would sample, and penalise what is repeated.
    parameters = {
        "temperature": 0, "repeat_penalty": 1, "num_predict": generation.cap, "num_ctx": generation.context,
    }  # fmt: skip
    return "\n".join([*lines, *(f"PARAMETER {name} {value}" for name, value in parameters.items())]) + "\n"


def _without_bos(opening: Opening, bos: str) -> Opening:
    return Opening(opening.first.removeprefix(bos), opening.only.removeprefix(bos), opening.last)


def _either(condition: str, yes: str, no: str) -> str:
    return yes if yes == no else f"{{{{ if {condition} }}}}{yes}{{{{ else }}}}{no}{{{{ end }}}}"


def _literal(text: str) -> str:
    """Text that a template writes as it is, with the system prompt in its place."""
    # What opens an action, and what ends the template's quotation in a Modelfile, are written as Go's strings.
    escaped = text.replace("{", '{{ "{" }}').replace('"""', '{{ "\\x22\\x22\\x22" }}')
    return escaped.replace(SYSTEM_PLACE, "{{ $.System }}")


def _quoted(token: str) -> str:
    return f'"{token}"' if '"' not in token else f'"""{token}"""'
