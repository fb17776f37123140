"""What may differ in the configuration of a run that is resumed."""

from __future__ import annotations

from medtune.config.changes import changed_keys, continued
from medtune.config.recipes import load_recipe


def test_changed_keys_name_the_key_and_both_values() -> None:
    old = load_recipe("demo")
    new = load_recipe(
        "demo", ["lora.rank=8", "model.revision=main", "lora.targets=[q_proj]", "model.device_map={'': cpu}"]
    )
    assert changed_keys(old, old) == []
    assert changed_keys(old, new) == [
        "lora.rank: 16 → 8",
        "lora.targets: ['q_proj', 'k_proj', 'v_proj', 'o_proj', 'gate_proj', 'up_proj', 'down_proj'] → ['q_proj']",
        "model.device_map.: None → 'cpu'",
        "model.revision: None → 'main'",
    ]


def test_a_default_that_gained_controls_is_no_change() -> None:
    old = load_recipe("demo", ["evaluation.controls=[few_shot, random_answer, nearest_question, cut_reference]"])
    new = load_recipe("demo", ["seed=3"])
    assert len(new.evaluation.controls) > len(old.evaluation.controls)
    assert changed_keys(old, new) == ["seed: 0 → 3"]
    kept = continued(old, new)
    assert kept.evaluation == old.evaluation
    assert kept.seed == 3
    assert continued(new, new) == new
    assert continued(new, old) == old
    assert len(changed_keys(new, old)) == 2
    fewer = load_recipe("demo", ["evaluation.controls=[few_shot]"])
    assert continued(fewer, new) == new
