"""A base model ready for use, with its tokenizer, its renderer and the choices that were made for this hardware."""

import re
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.config.schema import Config
from medtune.data.prompts import PromptRenderer
from medtune.errors import ModelError, Option, first_line
from medtune.model.adapter_fit import fit_adapter, match_vocabulary
from medtune.model.adapters import own_tokenizer, resolve_adapter
from medtune.model.chat_templates import TEMPLATE_NAME, give_template
from medtune.model.loading import DEMO_MODEL, ModelFiles, base_identity, load_base_model, resolve_base
from medtune.model.sharding import ShardedWeights
from medtune.records import QAPair
from medtune.runtime.hardware import Choice, choose_device, choose_dtype
from medtune.runtime.progress import say

_RESERVED = re.compile(r"<\|reserved_special_token_(\d+)\|>")
_BROKEN_FILES = (OSError, ValueError, LookupError, TypeError, AttributeError, RecursionError)
_NAMED = ("<|finetune_right_pad_id|>", "<pad>", "[PAD]", "<|pad|>", "<|padding|>")


@dataclass(frozen=True, slots=True)
class LoadedModel:
    """A frozen base model; `model` may have an adapter. `choices` maps device, dtype and attention to choices.

    `shards` holds its weights where processes share them out. `identity` tells it from any other base, also where
    `revision`, its commit on the Hub, is None.
    """

    model: Any
    renderer: PromptRenderer
    end_token_ids: list[int]
    revision: str | None
    identity: str
    choices: Mapping[str, Choice]
    shards: ShardedWeights | None = None

    @property
    def device(self) -> str:
        """Where inputs go."""
        return self.choices["device"].value

    @property
    def positions(self) -> int | None:
        """How many tokens the model can read, where its configuration says."""
        positions = getattr(self.model.config.get_text_config(), "max_position_embeddings", None)
        return int(positions) if positions else None

    @property
    def dtype(self) -> str:
        """The compute dtype."""
        return self.choices["dtype"].value


def load_model(config: Config, *, for_training: bool, shared: bool = False) -> LoadedModel:
    """Load the base model as `config` says, telling the user each choice and its reason. Raises ModelError.

    For training it sits on one device; otherwise `model.device_map` may spread it, and it can score answers. `shared`
    has the processes of the launch share out its packed weights.
    """
    from transformers import GenerationConfig

    from medtune.model.answer_loss import add_answer_loss
    from medtune.model.attention import attention_path

    device = choose_device()
    dtype = choose_dtype(config.model.dtype, device.value)
    choices = {"device": device, "dtype": dtype, "attention": attention_path(device.value, dtype.value)}
    files = resolve_base(config.model.base, config.model.revision)
    renderer = load_renderer(config, files.path)
    if notes := renderer.template_notes:
        choices["chat template"] = Choice(config.model.chat_template or "the tokenizer's", "; ".join(notes))
    for name, choice in choices.items():
        say(f"{name}: {choice.value} ({choice.reason})")
    load = _load_shared if shared else _load_whole
    model, shards = load(config, files, device.value, dtype.value, for_training)
    if config.model.adapter is not None:
        adapter = resolve_adapter(config.model.adapter)
        match_vocabulary(model, adapter, fit_adapter(model, adapter).rows)
    require_embedded_tokens(renderer, model.get_input_embeddings().num_embeddings, config.model.base)
    ends = end_token_ids(renderer, model)
    set_pad_token(renderer.tokenizer, ends, model.get_input_embeddings().num_embeddings)
    # What a model ships with (sampling, temperature, repetition penalty) would fill every gap of a later config.
    model.generation_config = GenerationConfig(eos_token_id=ends, pad_token_id=renderer.tokenizer.pad_token_id)
    if not for_training:
        add_answer_loss(model)
    identity = base_identity(config.model.base, files)
    return LoadedModel(model, renderer, ends, files.revision, identity, choices, shards)


def _load_whole(
    config: Config, files: ModelFiles, device: str, dtype: str, for_training: bool
) -> tuple[Any, ShardedWeights | None]:
    return load_base_model(files, config.model, device=device, dtype=dtype, split=not for_training), None


def _load_shared(
    config: Config, files: ModelFiles, device: str, dtype: str, for_training: bool
) -> tuple[Any, ShardedWeights | None]:
    from medtune.model.sharded_loading import load_in_shards

    in_host = config.training.embeddings != "device"
    return load_in_shards(files, config.model, device=device, dtype=dtype, embeddings_in_host=in_host)


def load_renderer(config: Config, path: Path) -> PromptRenderer:
    """The renderer of the tokenizer in `path`, or of that which `model.adapter` brings.

    Raises ModelError if its chat template is missing or unfit.
    """
    return _renderer_for(_adapter_tokenizer(config, path) or load_tokenizer(path), config)


def _renderer_for(tokenizer: Any, config: Config) -> PromptRenderer:
    data = config.data
    origin = give_template(tokenizer, config.model)
    settings = config.model.template_settings
    renderer = PromptRenderer(tokenizer, data.system_prompt, data.prompt_date, settings, origin)
    # Reading the template is what can fail; better now than after the model has been loaded.
    _ = renderer.end_token_id
    return renderer


def _adapter_tokenizer(config: Config, path: Path) -> Any:
    """The tokenizer and chat template that `model.adapter` was trained with, if they are not the base's in `path`."""
    own = own_tokenizer(config.model.adapter)
    if own is None:
        return None
    base = load_tokenizer(path)
    tokenizer = load_tokenizer(own) if (own / "tokenizer.json").is_file() else load_tokenizer(path)
    if (own / TEMPLATE_NAME).is_file():
        tokenizer.chat_template = (own / TEMPLATE_NAME).read_text(encoding="utf-8")
    tokenizer.chat_template = tokenizer.chat_template or base.chat_template
    brought = {
        "tokenizer": tokenizer.get_vocab() != base.get_vocab(),
        "chat template": tokenizer.chat_template != base.chat_template,
    }
    if not any(brought.values()):
        return None
    say(f"{' and '.join(name for name, is_other in brought.items() if is_other)}: the adapter's own, not the base's")
    return tokenizer


def renderer_of(config: Config) -> PromptRenderer:
    """The renderer of the recipe's model; no weights are loaded. Raises ModelError."""
    if config.model.base == DEMO_MODEL:
        from medtune.model.demo_model import build_demo_tokenizer

        return _renderer_for(build_demo_tokenizer(), config)
    return load_renderer(config, resolve_base(config.model.base, config.model.revision, weights=False).path)


def load_tokenizer(path: Path) -> Any:
    """The fast tokenizer in `path`, padding on the left. Raises ModelError."""
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(path, trust_remote_code=False, padding_side="left")
    except Exception as error:
        # The tokenizers library raises nothing narrower for a file that is not one of its own.
        if type(error) is not Exception and not isinstance(error, _BROKEN_FILES):
            raise
        fix = "give a model with its tokenizer files"
        raise ModelError(path, f"no usable tokenizer ({first_line(error)})", fix) from None
    if not tokenizer.is_fast:
        raise ModelError(path, "only fast tokenizers are supported", "convert it to tokenizer.json")
    return tokenizer


def require_embedded_tokens(renderer: PromptRenderer, rows: int, base: str) -> None:
    """Raises ModelError, naming them, if texts or the chat template become tokens past the `rows` of the embeddings.

    A special token past them that the template does not write is never looked up: texts cannot become it. Rows added
    for the others would stay as they began, since adapters leave embeddings and head as they are: a model could never
    write such an end token.
    """
    past = {id: token for token, id in renderer.tokenizer.get_vocab().items() if id >= rows}
    if not past:
        return
    added = renderer.tokenizer.added_tokens_decoder
    written = {id for row in renderer.encode_pairs([QAPair("", "", "?", "?")]) for id in row.input_ids}
    used = [id for id in sorted(past) if id in written or id not in added or not added[id].special]
    if used:
        shown = ", ".join(f"{past[id]} ({id})" for id in used[:5]) + (f" … ({len(used)} in all)" if used[5:] else "")
        problem = (
            f"its embeddings have {rows:,} rows, and its tokenizer or chat template writes tokens past them: {shown}"
        )
        fix = ("give it a template whose tokens it has, such as ", Option("set", "model.chat_template=alpaca"))
        raise ModelError(base, problem, (fix, ", or a model saved with rows for them, and trained on them"))


def set_pad_token(tokenizer: Any, end_token_ids: Collection[int], embedding_rows: int) -> None:
    """Give `tokenizer` a padding token that is none of `end_token_ids`, without adding one to the vocabulary.

    In this order: its own, if fit; `<|finetune_right_pad_id|>` (LLaMA 3.1 and later); other tokens named for padding;
    the first `<|reserved_special_token_N|>` (LLaMA 3.0); the unknown token; any other special token; any token.
    Raises ModelError if the vocabulary holds nothing but end tokens.
    """
    vocabulary: dict[str, int] = tokenizer.get_vocab()

    def fits(token: str | None) -> bool:
        return token in vocabulary and vocabulary[token] not in end_token_ids and vocabulary[token] < embedding_rows

    reserved = sorted((int(m[1]), token) for token in vocabulary if (m := _RESERVED.fullmatch(token)))
    special = [t for t in tokenizer.all_special_tokens if t != tokenizer.bos_token]
    candidates = [tokenizer.pad_token, *_NAMED, *(t for _, t in reserved), tokenizer.unk_token, *special, *vocabulary]
    chosen = next((token for token in candidates if fits(token)), None)
    if chosen is None:
        raise ModelError(tokenizer.name_or_path, "no token is left for padding besides the end tokens")
    if tokenizer.pad_token != chosen:
        tokenizer.pad_token = chosen


def end_token_ids(renderer: PromptRenderer, model: Any) -> list[int]:
    """Every token that ends an answer: the chat template's, the tokenizer's and the model's generation config's."""
    listed = model.generation_config.eos_token_id
    listed = listed if isinstance(listed, list) else [listed]
    ids = {renderer.end_token_id, renderer.tokenizer.eos_token_id, *listed} - {None}
    return sorted(ids)
