"""A small reader of Go's text/template: what Ollama would write for messages, by the language's own definition.

It knows text, fields, variables, strings, `if`, `else if`, `range`, `len`, `slice` and comparisons
(https://pkg.go.dev/text/template), and fails on anything else. No package of the index renders Go templates here.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

_ACTION = re.compile(r"\{\{(- )?\s*(.*?)\s*( -)?\}\}", re.DOTALL)
_TOKEN = re.compile(r'\s*("(?:[^"\\]|\\.)*"|\(|\)|\$?\.?[\w.]+|\$\.?[\w.]*)')
_ESCAPES = re.compile(r"\\x([0-9a-f]{2})|\\(.)")


def render_like_ollama(template: str, messages: list[dict[str, str]]) -> str:
    """As Ollama does: system messages are collected, and stay among the messages (template/template.go, `collate`)."""
    system = "\n\n".join(message["content"] for message in messages if message["role"] == "system")
    fields = [{"Role": message["role"], "Content": message["content"]} for message in messages]
    return render(template, {"System": system, "Messages": fields})


def render(template: str, data: dict[str, Any]) -> str:
    pieces = list(_pieces(template))
    nodes, rest = _parse(pieces, 0)
    assert rest == len(pieces), "an end without a beginning"
    return "".join(_write(nodes, data, {"$": data}))


@dataclass
class _Branch:
    condition: str | None
    nodes: list[Any] = field(default_factory=list)


@dataclass
class _If:
    branches: list[_Branch]


@dataclass
class _Range:
    names: tuple[str, str]
    over: str
    nodes: list[Any]


def _pieces(template: str) -> Iterator[tuple[bool, str]]:
    position = 0
    for action in _ACTION.finditer(template):
        assert not action[1], "trimming is not read here"
        assert not action[3], "trimming is not read here"
        yield False, template[position : action.start()]
        yield True, action[2]
        position = action.end()
    yield False, template[position:]


def _parse(pieces: list[tuple[bool, str]], at: int) -> tuple[list[Any], int]:
    nodes: list[Any] = []
    while at < len(pieces):
        is_action, text = pieces[at]
        if is_action and (text == "end" or text.split(" ")[0] == "else"):
            return nodes, at
        if is_action and text.startswith("if "):
            branches = [_Branch(text.removeprefix("if "))]
            branches[0].nodes, at = _parse(pieces, at + 1)
            while pieces[at][1] != "end":
                otherwise = pieces[at][1].removeprefix("else").strip()
                branches.append(_Branch(otherwise.removeprefix("if ") if otherwise else None))
                branches[-1].nodes, at = _parse(pieces, at + 1)
            nodes.append(_If(branches))
        elif is_action and text.startswith("range "):
            found = re.fullmatch(r"range (\$\w+), (\$\w+) := (.+)", text)
            assert found, text
            inner, at = _parse(pieces, at + 1)
            assert pieces[at][1] == "end"
            nodes.append(_Range((found[1], found[2]), found[3], inner))
        else:
            nodes.append((is_action, text))
        at += 1
    return nodes, at


def _write(nodes: list[Any], dot: Any, variables: dict[str, Any]) -> Iterator[str]:
    for node in nodes:
        if isinstance(node, _If):
            for branch in node.branches:
                if branch.condition is None or _value(branch.condition, dot, variables):
                    yield from _write(branch.nodes, dot, dict(variables))
                    break
        elif isinstance(node, _Range):
            for place, item in enumerate(_value(node.over, dot, variables)):
                yield from _write(node.nodes, item, {**variables, node.names[0]: place, node.names[1]: item})
        elif not node[0]:
            yield node[1]
        elif assigned := re.fullmatch(r"(\$\w+) := (.+)", node[1]):
            variables[assigned[1]] = _value(assigned[2], dot, variables)
        else:
            yield str(_value(node[1], dot, variables))


def _value(expression: str, dot: Any, variables: dict[str, Any]) -> Any:
    tokens = _TOKEN.findall(expression)
    assert "".join(tokens) == re.sub(r"\s+(?=(?:[^\"]*\"[^\"]*\")*[^\"]*$)", "", expression), expression
    value, rest = _pipeline(tokens, dot, variables)
    assert not rest, expression
    return value


def _pipeline(tokens: list[str], dot: Any, variables: dict[str, Any]) -> tuple[Any, list[str]]:
    head, *rest = tokens
    if head not in _FUNCTIONS:
        value, rest = _operand(tokens, dot, variables)
        return value, rest
    arguments = []
    while rest and rest[0] != ")":
        value, rest = _operand(rest, dot, variables)
        arguments.append(value)
    return _FUNCTIONS[head](*arguments), rest


def _operand(tokens: list[str], dot: Any, variables: dict[str, Any]) -> tuple[Any, list[str]]:
    head, *rest = tokens
    if head == "(":
        value, rest = _pipeline(rest, dot, variables)
        assert rest[0] == ")"
        return value, rest[1:]
    if head.startswith('"'):
        return _ESCAPES.sub(lambda found: chr(int(found[1], 16)) if found[1] else found[2], head[1:-1]), rest
    if head.isdecimal():
        return int(head), rest
    if head.startswith("$."):
        return variables["$"][head[2:]], rest
    if head.startswith("$"):
        return variables[head], rest
    assert head.startswith("."), head
    return dot[head[1:]], rest


_FUNCTIONS = {
    "len": len,
    "slice": lambda items, start: items[start:],
    "eq": lambda a, b: a == b,
    "gt": lambda a, b: a > b,
    "le": lambda a, b: a <= b,
}
