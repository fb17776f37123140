"""What a wrong key was meant to be: one of another section, what another tool calls it, or a close spelling."""

import difflib
from collections import defaultdict
from collections.abc import Iterator, Sequence

from medtune.config.section import Section

# What transformers, PEFT, TRL and their users call them.
OTHER_TOOLS = {
    "base_model": "model.base", "model_name": "model.base", "model_name_or_path": "model.base",
    "load_in_4bit": "model.quantization", "torch_dtype": "model.dtype",
    "dataset": "data.source", "dataset_name": "data.source", "topic": "data.columns.focus",
    "r": "lora.rank", "lora_r": "lora.rank", "lora_rank": "lora.rank", "lora_alpha": "lora.alpha",
    "lora_dropout": "lora.dropout", "target_modules": "lora.targets", "lora_target": "lora.targets",
    "use_rslora": "lora.rslora", "use_dora": "lora.dora", "init_lora_weights": "lora.init",
    "layers_to_transform": "lora.layers", "additional_target": "lora.modules_to_save",
    "lr": "training.learning_rate", "num_epochs": "training.epochs", "num_train_epochs": "training.epochs",
    "batch": "training.effective_batch_rows", "batch_size": "training.effective_batch_rows",
    "train_batch_size": "training.effective_batch_rows", "effective_batch_size": "training.effective_batch_rows",
    "per_device_train_batch_size": "training.effective_batch_rows",
    "gradient_accumulation_steps": "training.effective_batch_rows",
    "max_seq_len": "training.max_length", "max_seq_length": "training.max_length", "cutoff_len": "training.max_length",
    "steps": "training.max_steps", "warmup": "training.warmup_ratio", "warmup_steps": "training.warmup_ratio",
    "lr_scheduler": "training.schedule", "lr_scheduler_type": "training.schedule", "scheduler": "training.schedule",
    "optim": "training.optimizer", "gradient_checkpointing": "training.checkpointing",
    "save_steps": "training.checkpoint_steps", "eval_steps": "training.checkpoint_steps",
    "max_tokens": "generation.max_new_tokens",
}  # fmt: skip


def suggest_key(schema: type[Section], path: Sequence[str]) -> str:
    """What to do about the unknown key at `path`, the last of whose parts its section does not have."""
    *parents, key = path
    section = schema
    for parent in parents:
        section = _section(section, parent) or section
    places = defaultdict(list)
    for name in _keys(schema):
        places[name.rsplit(".", 1)[-1]].append(name)
    found = [OTHER_TOOLS[key]] if key in OTHER_TOOLS else []
    found += sorted(places.get(key, []), key=lambda name: name.count("."))
    found = found or [".".join([*parents, near]) for near in difflib.get_close_matches(key, section.model_fields, n=1)]
    found = found or [
        name for near in difflib.get_close_matches(key, places, n=1, cutoff=0.75) for name in places[near]
    ]
    if found:
        return f"did you mean {' or '.join(found)}?"
    return f"known keys here: {', '.join(section.model_fields)}"


def keys_for_option(schema: type[Section], option: str) -> list[str]:
    """The keys that an option such as `--lr` or `--learning-rate` was meant for; none where it was meant for none."""
    name = option.lstrip("-").replace("-", "_")
    known = list(_keys(schema))
    sections = {key.rpartition(".")[0] for key in known}
    keys = [key for key in known if key.rpartition(".")[2] == name and key not in sections]
    return list(dict.fromkeys([*([OTHER_TOOLS[name]] if name in OTHER_TOOLS else []), *keys]))


def _keys(section: type[Section], prefix: str = "") -> Iterator[str]:
    for name in section.model_fields:
        yield f"{prefix}{name}"
        if (inner := _section(section, name)) is not None:
            yield from _keys(inner, f"{prefix}{name}.")


def _section(section: type[Section], name: str) -> type[Section] | None:
    annotation = section.model_fields[name].annotation
    return annotation if isinstance(annotation, type) and issubclass(annotation, Section) else None
