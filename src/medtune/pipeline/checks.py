"""What can be checked before any long work: inputs that are not there, and rows that will not fit."""

import os
import re
from importlib.metadata import PackageNotFoundError, version
from importlib.util import find_spec
from pathlib import Path
from typing import Any

from packaging.version import Version

from medtune.config.schema import Config
from medtune.config.training import ALL_LINEAR
from medtune.data.large.source_files import open_file, streamed_files
from medtune.data.prompts import PromptRenderer
from medtune.data.sources import check_source
from medtune.data.training_rows import encode_for_training, require_sound_rows
from medtune.errors import Command, ConfigError, ModelError, Option, first_line
from medtune.evaluation.encoder import BUNDLED_ENCODER, resolve_encoder
from medtune.evaluation.metrics import needs_encoder, require_known
from medtune.evaluation.metrics.bleu_tokenizer import require_tokenizer
from medtune.model.adapters import resolve_adapter
from medtune.model.demo_model import demo_shape
from medtune.model.known import known_model
from medtune.model.loaded import load_renderer, renderer_of, require_embedded_tokens
from medtune.model.loading import DEMO_MODEL, model_of_shape, model_without_weights, require_weights, resolve_base
from medtune.model.stored_weights import check_quantization
from medtune.pipeline.engines import check_engine
from medtune.records import QAPair
from medtune.run_dir.directory import RunDir
from medtune.runtime.hardware import choose_device
from medtune.storage.hub import fetch_snapshot
from medtune.training.trackers.services import REQUIRED

# How many of the longest questions, with the turns before them, are encoded: characters tell tokens well enough to find
# the longest among them.
LONGEST_QUESTIONS = 50
# Above this many parameters a training on a CPU takes days.
LARGE_FOR_CPUS = 1_000_000_000


def check_inputs(config: Config) -> None:
    """Raises MedtuneError for what would fail later: a source, model, adapter, encoder, optimiser, package …"""
    check_trackers(config)
    check_engine(config)
    require_known(config.evaluation.metrics)
    require_tokenizer(config.evaluation.bleu_tokenizer)
    files = streamed_files(config.data)
    for path in files:
        open_file(path, config.data)
    for source in config.data.all_sources if not files else ():
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
    train = sorted(run_dir.read_split("train"), key=_characters, reverse=True)[:LONGEST_QUESTIONS]
    training = config.training
    encoded = encode_for_training(
        renderer, train, max_length=training.max_length, overlong="cut", loss_on=training.loss_on
    )
    require_sound_rows(encoded.rows, renderer)
    test = sorted(run_dir.read_split("test"), key=_characters, reverse=True)[:LONGEST_QUESTIONS]
    longest = max(map(len, renderer.pair_prompts(test)))
    positions, cap = _positions(path), config.generation.max_new_tokens
    if positions is not None and longest + cap > positions:
        problem = f"{cap} and the longest prompt of {longest} tokens exceed the model's context of {positions}"
        raise ConfigError("generation.max_new_tokens", problem, f"lower it to {positions - longest} or less")


def _characters(pair: QAPair) -> int:
    return len(pair.question) + sum(len(turn.content) for turn in pair.turns)


def check_trackers(config: Config) -> None:
    """Raises ModelError for a tracker whose package is missing, or older than its extra allows."""
    for name in config.training.report_to:
        package, least = REQUIRED[name]
        fix = f'`pip install "medtune[{name}]"` or leave it out'
        if find_spec(name) is None:
            raise ModelError("training.report_to", f"{name} is not installed", fix)
        try:
            found = version(package)
        except PackageNotFoundError:  # as of mlflow before 2.0, which has no such part
            found = "0"
        if Version(found) < Version(least):
            raise ModelError("training.report_to", f"{name} needs {package} {least} or later", fix)


def check_encoder(name: str) -> None:
    """Raises ModelError if BERTScore's encoder cannot be had; of one from the Hub no weights are fetched."""
    try:
        resolve_encoder(name, lambda repo: fetch_snapshot(repo, weights=False))
    except ModelError as error:
        (problem,) = error.problems
        bundled = ("take the encoder in the package, ", Option("set", f"evaluation.bertscore_model={BUNDLED_ENCODER}"))
        fix = (problem.fix, ", or ", bundled) if problem.fix else bundled
        raise ModelError(problem.what, problem.problem, fix) from None


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
    renderer = load_renderer(config, path)
    check_quantization(path, config.model)
    positions = _positions(path)
    if positions is not None and config.training.max_length > positions:
        problem = f"{config.training.max_length} exceeds the model's context of {positions} tokens"
        raise ConfigError("training.max_length", problem)
    model = model_without_weights(path, "bfloat16", config.model.base)
    require_embedded_tokens(renderer, model.get_input_embeddings().num_embeddings, config.model.base)
    _check_targets(config, model)
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
    """The layers that get an adapter or are trained whole, looked up in the model's shape: no weights are read."""
    import torch

    lora, base = config.lora, config.model.base
    linear = {name: module for name, module in model.named_modules() if isinstance(module, torch.nn.Linear)}
    head = model.get_output_embeddings()
    # TRL's trainer computes losses from the head's weight, so that an adapter on it would learn nothing.
    trained = [name for name, module in linear.items() if module is not head]
    names = {name.rsplit(".", 1)[-1] for name in trained}
    listed = () if isinstance(lora.targets, str) else lora.targets
    if missing := [target for target in listed if target.rsplit(".", 1)[-1] not in names]:
        fix = f"set lora.targets to [{', '.join(sorted(names))}] or some of these, or to {ALL_LINEAR}"
        raise ModelError("lora.targets", f"{', '.join(missing)} not in {base}", fix)
    if isinstance(lora.targets, str) and lora.targets != ALL_LINEAR:
        matched = [name for name, _ in model.named_modules() if re.fullmatch(lora.targets, name)]
        if others := [name for name in matched if name not in trained] or ([] if matched else ["no module"]):
            problem = f"the pattern {lora.targets} matches {others[0]} of {base}, which is no linear layer inside it"
            raise ModelError("lora.targets", problem, f"the whole name of one is {trained[0]}")
    whole = {part for name, _ in model.named_parameters() for part in name.split(".")}
    if missing := [name for name in lora.modules_to_save if name.rsplit(".", 1)[-1] not in whole]:
        fix = "embeddings and head are often embed_tokens and lm_head"
        raise ModelError("lora.modules_to_save", f"{', '.join(missing)} not in {base}", fix)
    count = model.config.get_text_config().num_hidden_layers
    if beyond := [number for number in lora.layers or () if number >= count]:
        raise ModelError("lora.layers", f"{base} has no layer {beyond[0]}", f"its layers are 0 to {count - 1}")
