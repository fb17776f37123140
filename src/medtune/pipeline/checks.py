"""What can be checked before any long work: inputs that are not there, and rows that will not fit."""

import os
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from medtune.config.schema import Config
from medtune.data.prompts import PromptRenderer
from medtune.data.sources import check_source
from medtune.data.training_rows import encode_for_training, require_sound_rows
from medtune.errors import Command, ConfigError, ModelError, Option, first_line
from medtune.evaluation.encoder import resolve_encoder
from medtune.evaluation.metrics import needs_encoder, require_known
from medtune.evaluation.metrics.bleu_tokenizer import require_tokenizer
from medtune.model.adapters import resolve_adapter
from medtune.model.demo_model import demo_shape
from medtune.model.known import known_model
from medtune.model.loaded import load_renderer, renderer_of
from medtune.model.loading import DEMO_MODEL, model_of_shape, model_without_weights, require_weights, resolve_base
from medtune.run_dir.directory import RunDir
from medtune.runtime.hardware import choose_device
from medtune.storage.hub import fetch_snapshot

# How many of the longest questions are encoded: characters tell tokens well enough to find the longest among them.
LONGEST_QUESTIONS = 50
# Above this many parameters a training on a CPU takes days.
LARGE_FOR_CPUS = 1_000_000_000


def check_inputs(config: Config) -> None:
    """Raises MedtuneError for what would fail later: a source, model, adapter, encoder, optimiser, package …"""
    check_trackers(config)
    require_known(config.evaluation.metrics)
    require_tokenizer(config.evaluation.bleu_tokenizer)
    for source in config.data.all_sources:
        check_source(source, source.columns or config.data.columns, config.data.table)
    if config.data.test_source is not None:
        check_source(config.data.test_source, config.data.columns, config.data.table)
    if config.model.adapter is not None:
        resolve_adapter(config.model.adapter)
    if needs_encoder(config.evaluation.metrics):
        check_encoder(config.evaluation.bertscore_model)
    check_optimizer(config.training.optimizer)
    if config.model.base == DEMO_MODEL:
        _check_targets(config, model_of_shape(demo_shape(), "bfloat16", DEMO_MODEL))
    else:
        check_model(config)


def require_gpu(config: Config, run_dir: RunDir) -> None:
    """Raises ModelError if the model is too large to be trained without a GPU, and none is here.

    Not where the training is complete. A model of the shipped recipes is known, of any other its config.json is read.
    """
    if config.model.base == DEMO_MODEL or run_dir.is_complete("train") or choose_device().value != "cpu":
        return
    known = known_model(config.model)
    parameters = known.parameters if known else _parameters(config)
    if parameters > LARGE_FOR_CPUS:
        problem = f"{parameters / 1e9:.1f} billion parameters take a CPU days, and no CUDA GPU is visible"
        fix = ("begin with ", Command("run", "demo"), ", or insist with ", Option("on_cpu"))
        raise ModelError(config.model.base, problem, fix)


def _parameters(config: Config) -> int:
    path = resolve_base(config.model.base, config.model.revision, weights=False).path
    return sum(weight.numel() for weight in model_without_weights(path, "bfloat16", config.model.base).parameters())


def check_rows(config: Config, run_dir: RunDir) -> None:
    """Raises MedtuneError if training would refuse the rows with the longest questions, or generation lacks room."""
    path = resolve_base(config.model.base, config.model.revision, weights=False).path
    renderer = load_renderer(config, path)
    train = sorted(run_dir.read_split("train"), key=lambda pair: -len(pair.question))[:LONGEST_QUESTIONS]
    encoded = encode_for_training(renderer, train, max_length=config.training.max_length, overlong="cut")
    require_sound_rows(encoded.rows, renderer)
    test = sorted(run_dir.read_split("test"), key=lambda pair: -len(pair.question))[:LONGEST_QUESTIONS]
    longest = max(len(renderer.prompt_ids(pair.question)) for pair in test)
    positions, cap = _positions(path), config.generation.max_new_tokens
    if positions is not None and longest + cap > positions:
        problem = f"{cap} and the longest prompt of {longest} tokens exceed the model's context of {positions}"
        raise ConfigError("generation.max_new_tokens", problem, f"lower it to {positions - longest} or less")


def check_trackers(config: Config) -> None:
    """Raises ModelError for a tracker whose package is missing."""
    for name in config.training.report_to:
        if find_spec(name) is None:
            raise ModelError("training.report_to", f"{name} is not installed", f"`pip install {name}` or leave it out")


def check_encoder(name: str) -> None:
    """Raises ModelError if BERTScore's encoder cannot be had; of one from the Hub no weights are fetched."""
    resolve_encoder(name, lambda repo: fetch_snapshot(repo, weights=False))


def check_optimizer(name: str) -> None:
    """Raises ConfigError if transformers knows no such optimiser."""
    from transformers.training_args import OptimizerNames

    known = [optimizer.value for optimizer in OptimizerNames]
    if name != "auto" and name not in known:
        raise ConfigError("training.optimizer", f"{name} is unknown", f"transformers has {', '.join(known)}")


def check_model(config: Config) -> Path:
    """The folder of the base model, with config.json at least; of a Hub model no weights are fetched.

    Raises MedtuneError if the model cannot be had, or does not suit the recipe.
    """
    path = resolve_base(config.model.base, config.model.revision, weights=False).path
    if os.path.isdir(config.model.base):  # of a Hub model the weights come later
        require_weights(path)
    load_renderer(config, path)
    positions = _positions(path)
    if positions is not None and config.training.max_length > positions:
        problem = f"{config.training.max_length} exceeds the model's context of {positions} tokens"
        raise ConfigError("training.max_length", problem)
    _check_targets(config, model_without_weights(path, "bfloat16", config.model.base))
    return path


def renderer_and_context(config: Config) -> tuple[PromptRenderer, int | None]:
    """The renderer of the recipe's model, and how many tokens it reads, where its configuration says.

    A Hub model is asked for once. Raises ModelError.
    """
    if config.model.base == DEMO_MODEL:
        return renderer_of(config), int(demo_shape().max_position_embeddings)
    path = resolve_base(config.model.base, config.model.revision, weights=False).path
    return load_renderer(config, path), _positions(path)


def _positions(path: Path) -> int | None:
    """How many tokens the model reads, each row by itself; None where its configuration does not say."""
    from transformers import AutoConfig

    try:
        text = AutoConfig.from_pretrained(path, trust_remote_code=False).get_text_config()
    except (OSError, ValueError, KeyError) as error:
        raise ModelError(path, f"its config.json cannot be used ({first_line(error)})") from None
    rope = getattr(text, "rope_parameters", None) or {}
    if rope.get("rope_type") in ("dynamic", "longrope"):
        # Beyond it every row's angles depend on the longest of its pack or batch.
        own = rope.get("original_max_position_embeddings")
        positions = own or getattr(text, "original_max_position_embeddings", None) or text.max_position_embeddings
    else:
        positions = getattr(text, "max_position_embeddings", None)
    return int(positions) if positions else None


def _check_targets(config: Config, model: Any) -> None:
    """The layers that get an adapter, looked up in the model's shape: no weights are read."""
    import torch

    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    head = model.get_output_embeddings()
    names = {name.rsplit(".", 1)[-1] for name, module in linear.items() if module is not head}
    missing = [target for target in config.lora.targets if target.rsplit(".", 1)[-1] not in names]
    if missing:
        fix = f"set lora.targets to [{', '.join(sorted(names))}] or some of these"
        raise ModelError("lora.targets", f"{', '.join(missing)} not in {config.model.base}", fix)
