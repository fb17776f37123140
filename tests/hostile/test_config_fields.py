"""Every key of the configuration, out of its range or of another type, and the line that says so."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from command_line import Medtune
from hostile.cases import matches, snapshot
from medtune.config.schema import Config
from medtune.config.section import Section

INTEGER, NUMBER, TEXT = (f"input should be a valid {kind}" for kind in ("integer", "number", "string"))
SECTION, LIST = "must be a section of keys", "must be a list"
AT_LEAST_1, ABOVE_0 = "input should be greater than or equal to 1", "input should be greater than 0"
HALF_A_PAIR = "holds half of a surrogate pair, which is no character; leave it out"
NO_TEXT = "string should have at least 1 character"

# Key, value in YAML, and what follows "recipe.yaml: KEY: ".
FIELDS: list[tuple[str, str, str]] = [
    ("seed", "-1", "input should be greater than or equal to 0, got -1"),
    ("seed", "4294967296", "input should be less than 4294967296, got 4294967296"),
    ("seed", "one", f"{INTEGER}, got 'one'"),
    ("seed", "1.5", f"{INTEGER}, got 1.5"),
    ("model", "3", f"{SECTION}, got 3"),
    ("model.base", "''", f"{NO_TEXT}, got ''"),
    ("model.base", "3", f"{TEXT}, got 3"),
    ("model.revision", "3", f"{TEXT}, got 3"),
    ("model.adapter", "[a]", f"{TEXT}, got ['a']"),
    ("model.quantization", "int8", "must be 'nf4' or 'none', got 'int8'"),
    ("model.chat_template", "3", f"{TEXT}, got 3"),
    ("model.template_settings", "3", "input should be a valid dictionary, got 3"),
    ("data.columns.messages", "5", f"{TEXT}, got 5"),
    ("data.markup", "drop", "must be 'remove' or 'keep', got 'drop'"),
    ("data.html", "drop", "must be 'text' or 'keep', got 'drop'"),
    ("model.kbit_preparation", "fat", "must be 'lean' or 'peft', got 'fat'"),
    ("model.dtype", "float8", "must be 'auto', 'bfloat16', 'float16' or 'float32', got 'float8'"),
    ("model.device_map", "3", f"{TEXT}, got 3"),
    ("model.max_memory", "3", "input should be a valid dictionary, got 3"),
    ("data", "[]", f"{SECTION}, got []"),
    ("data.source", "''", f"{NO_TEXT}, got ''"),
    ("data.source", "7", f"{TEXT}, got 7"),
    ("data.revision", "7", f"{TEXT}, got 7"),
    ("data.hub_config", "7", f"{TEXT}, got 7"),
    ("data.hub_split", "7", f"{TEXT}, got 7"),
    ("data.sources", "7", "must be a list, got 7"),
    ("data.table", "x", f"{SECTION}, got 'x'"),
    ("data.table.separator", "ab", "string should have at most 1 character, got 'ab'"),
    ("data.table.encoding", "rot13", "must be an encoding of text that Python knows, such as utf-8, utf-16, cp1252 or "
     "latin-1, got 'rot13'"),
    ("data.table.sheet", "7", f"{TEXT}, got 7"),
    ("data.table.quotes", "none", "must be 'checked', 'trusted' or 'literal', got 'none'"),
    ("data.min_answer_words", "-1", "input should be greater than or equal to 0, got -1"),
    ("data.stream", "maybe", "must be 'auto', True or False, got 'maybe'"),
    ("data.near_duplicate_limit", "-1", "input should be greater than or equal to 0, got -1"),
    ("data.split.most_rows", "0", "input should be greater than or equal to 1, got 0"),
    ("data.columns", "x", f"{SECTION}, got 'x'"),
    *[(f"data.columns.{name}", "5", f"{TEXT}, got 5")
      for name in ("question", "context", "answer", "qtype", "id", "document_id", "focus", "source", "split")],
    ("data.system_prompt", "1", f"{TEXT}, got 1"),
    ("data.system_prompt", '"a \\ud800"', f"{HALF_A_PAIR}, got 'a \\ud800'"),
    ("data.prompt_date", "soon", "input should be a valid date or datetime, input is too short, got 'soon'"),
    ("data.prompt_date", "true", "input should be a valid date, got True"),
    ("data.test_source", "1", f"{TEXT}, got 1"),
    ("data.train_limit", "0", f"{AT_LEAST_1}, got 0"),
    ("data.split", "random", f"{SECTION}, got 'random'"),
    ("data.split.method", "sorted", "must be 'grouped', 'random' or 'column', got 'sorted'"),
    ("data.split.validation", "0", f"{ABOVE_0}, got 0"),
    ("data.split.validation", "0.5", "input should be less than 0.5, got 0.5"),
    ("data.split.test", "0.9", "input should be less than 0.9, got 0.9"),
    ("data.split.test", "-0.1", f"{ABOVE_0}, got -0.1"),
    ("lora", "16", f"{SECTION}, got 16"),
    ("lora.rank", "0", f"{AT_LEAST_1}, got 0"),
    ("lora.rank", "1025", "input should be less than or equal to 1024, got 1025"),
    ("lora.alpha", "0", f"{ABOVE_0}, got 0"),
    ("lora.alpha", ".nan", "input should be a finite number, got nan"),
    ("lora.dropout", "1", "input should be less than 1, got 1"),
    ("lora.targets", "[]", "must hold at least 1 item, got []"),
    ("lora.targets", "q_proj", f"{LIST}, got 'q_proj'"),
    ("lora.targets", "'(q_proj'", "'(q_proj' is no regular expression (missing ), unterminated subpattern at position "
     "0), got '(q_proj'"),
    ("lora.layers", "[]", "must hold at least 1 item, got []"),
    ("lora.layers", "16-31", f"{LIST}, got '16-31'"),
    ("lora.rank_pattern", "8", "input should be a valid dictionary, got 8"),
    ("lora.rank_pattern", "{'[': 8}", "'[' is no regular expression (unterminated character set at position 0), "
     "got {'[': 8}"),
    ("lora.alpha_pattern", "8", "input should be a valid dictionary, got 8"),
    ("lora.rslora", "1", "input should be a valid boolean, got 1"),
    ("lora.dora", "all", "input should be a valid boolean, got 'all'"),
    ("lora.init", "olora", "must be 'default', 'gaussian', 'pissa', 'pissa_niter_4', 'pissa_niter_16' or 'loftq', got "
     "'olora'"),
    ("lora.modules_to_save", "lm_head", f"{LIST}, got 'lm_head'"),
    ("training", "fast", f"{SECTION}, got 'fast'"),
    ("training.epochs", "0", f"{ABOVE_0}, got 0"),
    ("training.epochs", "1001", "input should be less than or equal to 1000, got 1001"),
    ("training.max_steps", "0", f"{AT_LEAST_1}, got 0"),
    ("training.learning_rate", "0", f"{ABOVE_0}, got 0"),
    ("training.learning_rate", ".inf", "input should be a finite number, got inf"),
    ("training.learning_rate", "'2e-4'", f"{NUMBER}, got '2e-4'; write the number without quotes"),
    ("training.loss_on", "first", "must be 'all' or 'last', got 'first'"),
    ("training.schedule", "zigzag", "must be 'cosine', 'linear', 'constant', 'constant_with_warmup', 'inverse_sqrt' or "
     "'polynomial', got 'zigzag'"),
    ("training.warmup_ratio", "1", "input should be less than 1, got 1"),
    ("training.weight_decay", "-1", "input should be greater than or equal to 0, got -1"),
    ("training.max_grad_norm", "0", f"{ABOVE_0}, got 0"),
    ("training.max_gradient_spike", "1", "input should be greater than 1, got 1"),
    ("training.push_checkpoints_to", "a b", "must be a Hub repository of the form owner/name, got 'a b'"),
    ("training.optimizer", "''", f"{NO_TEXT}, got ''"),
    ("training.effective_batch_rows", "0", f"{AT_LEAST_1}, got 0"),
    ("training.tokens_per_micro_batch", "true", f"{INTEGER}, got True"),
    ("training.max_length", "15", "input should be greater than or equal to 16, got 15"),
    ("training.overlong", "keep", "must be 'cut' or 'drop', got 'keep'"),
    ("training.checkpointing", "true", f"{INTEGER}, got True"),
    ("training.embeddings", "disk", "must be 'auto', 'device' or 'host', got 'disk'"),
    ("training.memory_gib", "0", f"{ABOVE_0}, got 0"),
    ("training.memory_gib", "1e308", "input should be less than or equal to 1000000, got 1e+308"),
    ("training.host_memory_gib", "-1", f"{ABOVE_0}, got -1"),
    ("training.host_memory_gib", "1e7", "input should be less than or equal to 1000000, got 10000000.0"),
    ("training.fused_adapters", "1", "input should be a valid boolean, got 1"),
    ("training.weights", "int4", "must be 'auto', 'nf4', 'dequantized' or 'sharded', got 'int4'"),
    ("training.checkpoint_steps", "0", f"{AT_LEAST_1}, got 0"),
    ("training.validation_limit", "0", f"{AT_LEAST_1}, got 0"),
    ("training.keep_checkpoints", "0", f"{AT_LEAST_1}, got 0"),
    ("training.keep", "all", "must be 'best' or 'last', got 'all'"),
    ("training.early_stopping_patience", "0", f"{AT_LEAST_1}, got 0"),
    ("training.report_to", "tensorboard", f"{LIST}, got 'tensorboard'"),
    ("generation", "true", f"{SECTION}, got True"),
    ("generation.max_new_tokens", "0", f"{AT_LEAST_1}, got 0"),
    ("generation.max_new_tokens", "32769", "input should be less than or equal to 32768, got 32769"),
    ("generation.decoding", "sample", "must be 'greedy', got 'sample'"),
    ("generation.batch_size", "true", f"{INTEGER}, got True"),
    ("generation.engine", "sglang", "must be 'medtune' or 'vllm', got 'sglang'"),
    ("evaluation", "none", f"{SECTION}, got 'none'"),
    ("evaluation.max_examples", "0", f"{AT_LEAST_1}, got 0"),
    ("evaluation.metrics", "bleu", f"{LIST}, got 'bleu'"),
    ("evaluation.metrics", "[]", "must hold at least 1 item, got []"),
    ("evaluation.controls", "few_shot", f"{LIST}, got 'few_shot'"),
    ("evaluation.primary", "[]", "must hold at least 1 item, got []"),
    ("evaluation.margins", "0.1", "input should be a valid dictionary, got 0.1"),
    ("evaluation.resamples", "199", "input should be greater than or equal to 200, got 199"),
    ("evaluation.retrieved", "0", f"{AT_LEAST_1}, got 0"),
    ("evaluation.retrieved", "9", "input should be less than or equal to 8, got 9"),
    ("evaluation.resamples", "100001", "input should be less than or equal to 100000, got 100001"),
    ("evaluation.bleu_tokenizer", "spm",
     "must be 'auto', '13a', 'zh', 'intl', 'char', 'ja-mecab' or 'ko-mecab', got 'spm'"),
    ("evaluation.rouge_tokenizer", "13a", "must be 'auto', 'a-z0-9' or 'unicode-words', got '13a'"),
    ("evaluation.answers", "stripped", "must be 'separated' or 'raw', got 'stripped'"),
    ("evaluation.bertscore_model", "''", f"{NO_TEXT}, got ''"),
]  # fmt: skip
# What several keys make together, and what a list or a section holds; then all lines.
TOGETHER: list[tuple[str, str]] = [
    ("evaluation.primary=[bleu, rouge1, rouge2, rougeL]",
     "evaluation.primary: tuple should have at most 3 items after validation, not 4, got […"),
    ("evaluation.primary=[meteor]",
     "evaluation: primary names meteor, which metrics does not; add it there, got {…"),
    ("evaluation.margins={bleu: 0}", "evaluation.margins.bleu: input should be greater than 0, got 0"),
    ("evaluation.controls=[magic]", "evaluation.controls.0: must be 'few_shot', … 'tuned_retrieval', got 'magic'"),
    ("training.report_to=[x]", "training.report_to.0: must be 'tensorboard', 'mlflow', 'wandb' or 'trackio', got 'x'"),
    ("lora.targets=['']", f"lora.targets.0: {NO_TEXT}, got ''"),
    ("data.split={validation: 0.4, test: 0.8}",
     "data.split: validation and test together must leave at least 0.1 of the rows for training, got {…"),
    ("data.split={method: column}",
     "data: split.method column needs the column's name in data.columns.split, got {…"),
    ("model.max_memory={0: 14GiB}",
     "model: max_memory limits a device_map; set model.device_map too, for example to auto, got {…"),
    ("training.learning_rat=3", "training.learning_rat: unknown key; did you mean training.learning_rate?"),
]  # fmt: skip


SECTIONS = ("model", "data", "data.columns", "data.table", "data.split", "lora", "training", "generation", "evaluation")
LEAVES = [case for case in FIELDS if case[0] not in SECTIONS]


def fields(section: type[Section] = Config, prefix: str = "") -> Iterator[str]:
    for name, field in section.model_fields.items():
        yield f"{prefix}{name}"
        if isinstance(field.annotation, type) and issubclass(field.annotation, Section):
            yield from fields(field.annotation, f"{prefix}{name}.")


def test_every_key_has_a_case() -> None:
    assert set(fields()) == {key for key, _, _ in FIELDS}


@pytest.mark.parametrize(("key", "value", "expected"), FIELDS, ids=[f"{key}={value}" for key, value, _ in FIELDS])
def test_a_key_out_of_range(key: str, value: str, expected: str, medtune: Medtune, workspace) -> None:
    result = medtune("config", "recipe.yaml", "--set", f"{key}={value}")
    assert (result.status, result.out) == (2, "")
    first, *others = result.err.splitlines()
    assert first == f"medtune: recipe.yaml: {key}: {expected}"
    # Where a key may be of two kinds, a second line says what the other would take.
    assert len(others) <= 1
    assert all(line.startswith(f"medtune: recipe.yaml: {key}: ") for line in others)


@pytest.mark.parametrize(("override", "expected"), TOGETHER, ids=[override for override, _ in TOGETHER])
def test_keys_that_do_not_go_together(override: str, expected: str, medtune: Medtune, workspace) -> None:
    result = medtune("config", "recipe.yaml", "--set", override)
    assert (result.status, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert matches(line, f"medtune: recipe.yaml: {expected}")


def test_a_metric_that_is_not_known(medtune: Medtune, workspace) -> None:
    """Which metrics there are is known above the configuration's layer; a run is refused as early as for other keys."""
    result = medtune("run", "recipe.yaml", "--set", "evaluation.metrics=[meteor]")
    assert (result.status, result.out) == (2, "")
    (line,) = result.err.splitlines()
    assert matches(line, "medtune: evaluation.metrics: meteor is unknown; known are bleu, … perplexity")


def test_a_run_is_not_begun_with_any_of_them(medtune: Medtune, workspace) -> None:
    before = snapshot(workspace)
    overrides = [part for key, value, _ in LEAVES for part in ("--set", f"{key}={value}")]
    result = medtune("run", "recipe.yaml", "--run-dir", "new", *overrides)
    assert result.status == 2
    named = {line.removeprefix("medtune: recipe.yaml: ").split(": ")[0] for line in result.err.splitlines()}
    assert named == {key for key, _, _ in LEAVES}
    assert snapshot(workspace) == before
