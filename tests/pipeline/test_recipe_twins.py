"""Every recipe of a real model, with a tiny random twin of it: prepared, asked, trained, planned for and merged."""

from __future__ import annotations

import json
from datetime import date
from pathlib import Path
from typing import Any

import pytest

from medtune.config.recipes import load_recipe, override, shipped_recipes
from medtune.config.recipes.groups import GROUPS, OTHER_SETS
from medtune.config.schema import Config
from medtune.errors import ModelError
from medtune.inference.chat import Chat
from medtune.model.chat_templates import TEMPLATE_NAME
from medtune.model.loaded import renderer_of
from medtune.model.quantization import FORMATS
from medtune.pipeline import run as pipeline
from medtune.pipeline.merge import merge_stage
from medtune.pipeline.plan import forecast, row_sizes
from medtune.run_dir.directory import RunDir
from medtune.run_dir.lock import release_locks
from medtune.runtime.gpus import described_gpu
from recipe_twins import TWINS
from tiny_model import write_rows

STAGES = ("data", "baseline", "train", "tuned")


def twin_config(name: str, folder: Path, **more: Any) -> Config:
    """The recipe itself, in all that has no part in size."""
    values = {
        "model.base": str(TWINS[name].save(folder / "base")), "model.dtype": "float32",
        "data.source": str(write_rows(folder / "rows.csv", 24)), "data.split": {"test": 0.2, "validation": 0.1},
        "data.prompt_date": "2026-11-30",
        "training.max_steps": 3, "training.effective_batch_rows": 4, "training.max_length": 256,
        "training.learning_rate": 1e-2, "generation.max_new_tokens": 6,
        "evaluation.metrics": ["perplexity"], "evaluation.controls": [],
    }  # fmt: skip
    return load_recipe(name, values | more)


def test_every_recipe_of_these_years_has_a_twin() -> None:
    older = {"demo", "smollm2-135m", *(name for name in shipped_recipes() if name.startswith("llama3-"))}
    assert {load_recipe(name).model.base for name in GROUPS[OTHER_SETS]} == {load_recipe("smollm2-135m").model.base}
    assert TWINS.keys() == shipped_recipes().keys() - older - {*GROUPS[OTHER_SETS]}


@pytest.mark.parametrize("name", TWINS)
def test_a_twin_goes_the_whole_way(name: str, tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    config = twin_config(name, tmp_path)
    run_dir = pipeline.start_run(config, tmp_path / "run", resume=False)
    for stage in STAGES:
        pipeline.perform(stage, run_dir)
    log = capfd.readouterr().err
    because = TWINS[name].because
    expected = f"layer by layer as they are ({because})" if because else "adapters: fused into 3 decoder layers"
    assert expected in log
    require_like_prompts(run_dir, config)
    found = forecast(config, tmp_path / "base", described_gpu("t4"), row_sizes(config))
    assert found.step.plan.fused == (not because)
    record = merge_stage(run_dir, tmp_path / "merged", dtype="float32", measure=True)
    assert record.measured is not None
    # Beside the same adapter on the 16-bit base, which the merge begins from.
    assert record.measured.rounding is not None
    assert record.measured.rounding.max < 1e-5
    assert record.measured.within_bound
    release_locks()
    answered = Chat.open(str(tmp_path / "merged")).respond("What causes gout ?", use_adapter=True)
    assert 1 <= answered.new_tokens <= 6


def require_like_prompts(run_dir: RunDir, config: Config) -> None:
    """One fingerprint for training, baseline and tuned, whose prompts are those of transformers."""
    records = run_dir.stage_records
    assert len({records[stage]["prompts_sha256"] for stage in STAGES[1:]}) == 1
    renderer = renderer_of(run_dir.pinned_config)
    messages = [
        {"role": "system", "content": config.data.system_prompt.strip()},
        {"role": "user", "content": "What causes gout ?"},
    ]
    official = renderer.tokenizer.apply_chat_template(
        messages, add_generation_prompt=True, tokenize=False, **config.model.template_settings
    )
    for form in ("%d %B %Y", "%d %b %Y"):
        official = official.replace(date.today().strftime(form), config.data.prompt_date.strftime(form))
    assert renderer.tokenizer.decode(renderer.prompt_ids("What causes gout ?")) == official


def losses_of(run_dir: RunDir) -> list[float]:
    rows = map(json.loads, run_dir.history_file.read_text(encoding="utf-8").splitlines())
    return [row["loss"] for row in rows if "loss" in row]


def test_a_base_that_is_published_in_4_bit_trains_as_one_that_is_packed_when_it_is_loaded(tmp_path: Path) -> None:
    """As bitsandbytes' NF4 folders are published: packed weights, and `quantization_config` in config.json."""
    from transformers import AutoModelForCausalLM

    config = twin_config("mistral-7b", tmp_path, **{"model.quantization": "nf4"})
    packed, base = tmp_path / "packed", Path(config.model.base)
    model = AutoModelForCausalLM.from_pretrained(
        base, quantization_config=FORMATS["nf4"].loading_config("bfloat16"), device_map={"": "cpu"}
    )
    model.save_pretrained(packed)
    TWINS["mistral-7b"].tokenizer().save_pretrained(packed)
    stored = json.loads((packed / "config.json").read_text())["quantization_config"]
    assert (stored["quant_method"], stored["bnb_4bit_quant_type"]) == ("bitsandbytes", "nf4")
    losses = []
    for number, folder in enumerate((base, packed)):
        run = pipeline.start_run(override(config, {"model.base": str(folder)}), tmp_path / f"run{number}", resume=False)
        pipeline.perform("data", run)
        pipeline.perform("train", run)
        release_locks()
        losses.append(losses_of(run))
    assert len(losses[0]) == 3
    assert losses[1] == pytest.approx(losses[0], rel=1e-4)


def test_a_base_without_a_template_takes_a_file_and_its_adapter_brings_it_along(tmp_path: Path) -> None:
    template = tmp_path / "mine.jinja"
    config = twin_config("llama3.2-1b", tmp_path, **{"model.chat_template": str(template)})
    (Path(config.model.base) / TEMPLATE_NAME).rename(template)
    run_dir = pipeline.start_run(config, tmp_path / "run", resume=False)
    for stage in STAGES:
        pipeline.perform(stage, run_dir)
    release_locks()
    assert "|chat_template:mine.jinja" in run_dir.scores_file("tuned").read_text(encoding="utf-8")
    template.unlink()
    prompts = [
        Chat.open(str(folder)).loaded.renderer.prompt_ids("What causes gout ?")
        for folder in (run_dir.path, run_dir.adapter_dir)
    ]
    assert prompts[0] == prompts[1]
    with pytest.raises(ModelError, match=r"mine\.jinja: no such template and no such file; give a jinja file or one"):
        renderer_of(run_dir.pinned_config)
