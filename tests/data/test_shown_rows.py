"""Rows as the model sees them, as `medtune data show` prints them."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from medtune.config.schema import Config, parse_config
from medtune.data.preparation import prepare_data
from medtune.data.prompts import PromptRenderer
from medtune.data.shown_rows import print_rows, rows_to_show
from medtune.errors import DataError
from medtune.model.loaded import renderer_of
from tiny_model import Tiny, write_rows


def configure(tiny: Tiny, source: Path, **sections: Any) -> Config:
    values: dict[str, Any] = {"model": {"base": str(tiny.path)}, "data": {"source": str(source)}, **sections}
    return parse_config(values, origin="test")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.csv", 40)


def test_the_demos_tokenizer_needs_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path))
    config = parse_config({"model": {"base": "medtune:demo"}, "data": {"source": "medtune:demo"}}, origin="test")
    renderer = renderer_of(config)
    assert renderer.tokenizer.decode([renderer.end_token_id]) == "<|eot_id|>"
    assert not list(tmp_path.iterdir())


def shown(config: Config, *, count: int = 2, row_id: str | None = None, **console: Any) -> str:
    prepared, renderer = prepare_data(config), renderer_of(config)
    out = StringIO()
    found = rows_to_show(prepared, config, renderer, count=count, row_id=row_id)
    print_rows(found, renderer, Console(file=out, width=80, **console))
    return out.getvalue()


def test_rows_are_printed_with_every_special_token(tiny: Tiny, rows: Path) -> None:
    config = configure(tiny, rows)
    text = shown(config)
    first = prepare_data(config).split.train[0]
    assert text.startswith("⟦ … ⟧: the loss looks at these tokens; the rest is the prompt\n")
    expected = (
        f"── train row {first.id}\n<|begin_of_text|><|start_header_id|>system<|end_header_id|>\n\n"
        f"{config.data.system_prompt}<|eot_id|><|start_header_id|>user<|end_header_id|>\n\n{first.question}<|eot_id|>"
        f"<|start_header_id|>assistant<|end_header_id|>\n\n⟦{first.answer}<|eot_id|>⟧\n"
    )
    assert expected in text
    row = PromptRenderer(tiny.tokenizer, config.data.system_prompt).encode_pairs([first])[0]
    in_loss = len(row.labels) - row.prompt_length
    assert f"⟧\n{len(row.input_ids)} tokens, {in_loss} in the loss; not cut\n" in text
    assert text.count("── train row") == 2
    assert shown(config, count=1000).count("── train row") == 32


def test_colour_takes_the_place_of_the_marks(tiny: Tiny, rows: Path) -> None:
    text = shown(configure(tiny, rows), count=1, force_terminal=True, color_system="standard")
    assert "⟦" not in text
    assert "\x1b[1;32m" in text
    assert "\x1b[2m<|begin_of_text|>" in text
    plain = shown(configure(tiny, rows), count=1, force_terminal=True, color_system="standard", no_color=True)
    assert "⟦" in plain


def test_the_text_of_a_row_is_no_markup(tiny: Tiny, tmp_path: Path) -> None:
    path = tmp_path / "rows.jsonl"
    lines = [
        json.dumps({"Question": f"[bold]Q{n}[/nope] ?", "Answer": f"[red]One[/red] two :smile: [/b] four [{n}]."})
        for n in range(20)
    ]
    path.write_text("\n".join(lines), encoding="utf-8")
    text = shown(configure(tiny, path), count=1)
    assert "[bold]Q" in text
    assert "[/nope]" in text
    assert "[red]One[/red] two :smile: [/b] four [" in text


def test_an_overlong_row_says_what_becomes_of_it(tiny: Tiny, rows: Path) -> None:
    config = configure(tiny, rows)
    prepared, renderer = prepare_data(config), renderer_of(config)
    longest = max(prepared.split.train, key=lambda pair: len(pair.answer))
    whole = len(renderer.encode_pairs([longest])[0].input_ids)
    limit = whole - 10
    cut = shown(configure(tiny, rows, training={"max_length": limit}), row_id=longest.id)
    assert f"cut from {whole} to fit training.max_length {limit}" in cut
    assert cut.count("<|eot_id|>⟧") == 1
    dropped = shown(configure(tiny, rows, training={"max_length": limit, "overlong": "drop"}), row_id=longest.id)
    assert f"not trained on: over training.max_length {limit}, and training.overlong is drop" in dropped
    tight = shown(configure(tiny, rows, training={"max_length": 16}), row_id=longest.id)
    assert "its prompt leaves no room for an answer" in tight


def test_a_row_is_found_by_its_id_in_any_part(tiny: Tiny, rows: Path) -> None:
    prepared = prepare_data(configure(tiny, rows))
    id = prepared.split.test[0].id
    text = shown(configure(tiny, rows), row_id=id)
    assert f"── test row {id}" in text
    assert text.count("── ") == 1


def test_an_id_that_cannot_be_shown_says_why(tiny: Tiny, rows: Path) -> None:
    with rows.open("a", encoding="utf-8") as file:
        file.write("causes,What causes hiccups ?,A spasm.\n")
    config = configure(tiny, rows, data={"source": str(rows), "train_limit": 3})
    prepared = prepare_data(config)
    ((_, dropped),) = prepared.dropped
    used = {pair.id for part in ("train", "validation", "test") for pair in getattr(prepared.split, part)}
    unused = next(pair.id for pair in prepared.rows if pair.id not in used)
    for id, reason in (
        (dropped.id, f"--id {dropped.id}: cleaning dropped that row (dropped short)"),
        (unused, f"--id {unused}: that row is in no split"),
        ("nope", "--id nope: no row has that id"),
    ):
        with pytest.raises(DataError) as caught:
            shown(config, row_id=id)
        assert str(caught.value).startswith(reason)
        assert len(str(caught.value).splitlines()) == 1


def test_every_learned_answer_of_a_conversation_is_marked(tiny: Tiny, tmp_path: Path) -> None:
    turns = [
        ("user", "What is {n} ?"),
        ("assistant", "It is the number {n}, as all know."),
        ("user", "And twice {n} ?"),
    ]
    lines = [
        json.dumps({"messages": [
            *({"role": role, "content": text.format(n=n)} for role, text in turns),
            {"role": "assistant", "content": f"Twice that, {2 * n}, is another number."},
        ]})
        for n in range(30)
    ]  # fmt: skip
    source = tmp_path / "rows.jsonl"
    source.write_text("\n".join(lines), encoding="utf-8")
    text = shown(configure(tiny, source), count=1)
    assert text.count("⟦") == 3
    assert "⟦It is the number" in text
    assert "⟦Twice that" in text
    assert shown(configure(tiny, source, training={"loss_on": "last"}), count=1).count("⟦") == 2
    assert "without its oldest turns, cut from" in shown(configure(tiny, source, training={"max_length": 140}), count=1)
