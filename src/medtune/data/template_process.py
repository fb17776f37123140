"""Renders a chat template in a process of its own: it comes with a model, and is a program.

Run as a script by `template_renderer`: reads requests from stdin, each a line of JSON with `template`, `tokens`,
`chats`, `date` and `settings`, and writes `texts`, `reads` and `refused` for each to stdout. The caller's process keeps
its memory limit, its trace function and whatever a template could reach. Imports nothing of medtune, so that it starts
in the time that jinja2 takes to import.
"""

import json
import select
import sys
import time
from datetime import datetime
from types import FrameType
from typing import Any

from jinja2 import Environment, ext, meta, nodes
from jinja2.exceptions import SecurityError, TemplateError, TemplateSyntaxError
from jinja2.parser import Parser
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

# A template takes some hundred steps and writes some hundred characters around a question.
MAX_STEPS, MAX_SECONDS, MAX_MEMORY_BYTES = 1_000_000, 10.0, 1 << 29
MAX_CHARACTERS = 1_000_000
# Without a request for so long it ends.
IDLE_SECONDS = 10.0


class RefusedError(Exception):
    """The template did what no template may; the text says what."""


def chat_environment(date: str | None = None) -> Environment:
    """jinja2's sandbox with the names that transformers gives to chat templates; importing that takes seconds.

    `date` is what a template takes for now, at midnight: a prompt that depends on the day is another one tomorrow.
    """
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, ext.loopcontrols]
    )
    environment.filters["tojson"] = _to_json
    environment.globals |= {"dict": _PlainDict(), "namespace": _PlainNamespace, "raise_exception": _raise_exception}
    now = datetime.fromisoformat(date) if date else datetime.now()
    environment.globals["strftime_now"] = lambda form: now.strftime(form)
    return environment


class _Generation(ext.Extension):
    """`{% generation %}` marks an answer and changes nothing in the text."""

    tags = {"generation"}

    def parse(self, parser: Parser) -> nodes.Node:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.CallBlock(self.call_method("_text"), [], [], body).set_lineno(line)

    def _text(self, caller: Any) -> str:
        return str(caller())


class _PlainDict:
    """`dict`, without the methods of the type."""

    def __call__(self, *values: Any, **named: Any) -> dict[Any, Any]:
        return dict(*values, **named)

    def fromkeys(self, *values: Any) -> dict[Any, Any]:
        return dict.fromkeys(*values)


class _PlainNamespace(Namespace):
    """`namespace`, without attributes that begin with an underscore."""

    def __init__(*values: Any, **named: Any) -> None:  # an attribute may be called "self"
        self, *others = values
        attributes = dict(*others, **named)
        for name in attributes:
            _refuse_underscore(name)
        Namespace.__init__(self, attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _refuse_underscore(name)
        super().__setitem__(name, value)


def _refuse_underscore(name: Any) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace takes no attribute {name!r}.")


def _raise_exception(message: str) -> None:
    raise TemplateError(message)


def _to_json(
    value: Any, ensure_ascii: bool = False, indent: Any = None, separators: Any = None, sort_keys: bool = False
) -> str:
    return json.dumps(value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys)


def render(
    template: str,
    tokens: dict[str, Any],
    chats: list[dict[str, Any]],
    date: str | None = None,
    settings: dict[str, Any] | None = None,
) -> list[str | None]:
    """The template's text for each of `chats`, or None for one that it cannot render. Raises RefusedError.

    A chat has `messages` and `add_generation_prompt`; `tokens` are the tokenizer's special ones. `date` is an ISO date,
    None for today. `settings` are further names that the template may read, such as `enable_thinking`.
    """
    environment = chat_environment(date)
    _require_no_power(environment, template)
    deadline = time.monotonic() + MAX_SECONDS
    given = {"tools": None, "documents": None, **tokens, **(settings or {})}
    return [_render_chat(environment, template, {**given, **chat}, deadline) for chat in chats]


def names_read(template: str) -> list[str]:
    """The names that a template looks up and does not set: what can be given to it; none if it is not valid."""
    environment = chat_environment()
    try:
        found = meta.find_undeclared_variables(environment.parse(template))
    except (TemplateError, RecursionError):
        return []
    return sorted(found - environment.globals.keys())


def _require_no_power(environment: Environment, template: str) -> None:
    """A power of powers takes for ever in one step, and no template needs one."""
    try:
        power = any(kind == "operator" and sign == "**" for _, kind, sign in environment.lex(template))
    except TemplateSyntaxError as error:
        raise RefusedError(f"is not valid ({error.message} at line {error.lineno})") from None
    if power:
        raise RefusedError("takes powers")


def _render_chat(environment: Environment, template: str, values: dict[str, Any], deadline: float) -> str | None:
    sys.settrace(_bounding(deadline))
    try:
        text: str = environment.from_string(template).render(**values)
    except MemoryError:
        raise RefusedError(f"takes more than {MAX_MEMORY_BYTES >> 20:,} MiB of memory") from None
    except SecurityError as error:
        raise RefusedError(f"reaches for what no template may ({error})") from None
    except OverflowError as error:  # jinja2's own bound
        raise RefusedError(f"goes beyond what a template may ({error})") from None
    # What any expression raises that does not suit its values.
    except (TemplateError, ArithmeticError, LookupError, TypeError, ValueError, AttributeError, RecursionError):
        return None
    finally:
        sys.settrace(None)
    if len(text) > MAX_CHARACTERS:
        raise RefusedError(f"writes more than {MAX_CHARACTERS:,} characters around one question")
    return text


def _bounding(deadline: float) -> Any:
    """A trace function that raises RefusedError after `MAX_STEPS` lines of Python, or once `deadline` is past."""
    left = MAX_STEPS

    def count(frame: FrameType, event: str, argument: Any) -> Any:
        nonlocal left
        left -= 1
        if left < 0:
            raise RefusedError(f"takes more than {MAX_STEPS:,} steps")
        if time.monotonic() > deadline:
            raise RefusedError(f"takes more than {MAX_SECONDS:g} s")
        return count

    return count


def _limit_process() -> None:
    """Bound this process's memory where the system can do it, and its time, should nobody wait for it any more."""
    if sys.platform == "linux":
        import resource

        resource.setrlimit(resource.RLIMIT_AS, (MAX_MEMORY_BYTES, MAX_MEMORY_BYTES))
        resource.setrlimit(resource.RLIMIT_CPU, (2 * int(MAX_SECONDS), 2 * int(MAX_SECONDS)))


def main() -> None:
    """Answer requests until one is refused, much time was spent, or none has come for a while."""
    _limit_process()
    while _is_asked() and (line := sys.stdin.readline()):
        answer = _answer(json.loads(line))
        sys.stdout.write(json.dumps(answer) + "\n")
        sys.stdout.flush()
        if answer["refused"] or time.process_time() > MAX_SECONDS:
            break


def _is_asked() -> bool:
    # Elsewhere than on Linux a pipe may not be waited for so; it is closed when the caller ends.
    return sys.platform != "linux" or bool(select.select([sys.stdin], [], [], IDLE_SECONDS)[0])


def _answer(request: dict[str, Any]) -> dict[str, Any]:
    try:
        texts = render(**request)
        return {"texts": texts, "reads": names_read(request["template"]), "refused": None}
    except RefusedError as error:
        return {"texts": [], "reads": [], "refused": str(error)}


if __name__ == "__main__":
    main()
