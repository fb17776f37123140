"""The configuration: a frozen, typed schema that is checked once, at the edge, with every problem reported together."""

from __future__ import annotations

import re
from collections.abc import Iterable
from datetime import date
from typing import Annotated, Any, Literal

from pydantic import Field, JsonValue, ValidationError, model_validator

from medtune.config.evaluation import EvaluationSection, GenerationSection
from medtune.config.section import PositiveInt, Section, in_plain_words
from medtune.config.sources import ColumnsSection, SourceSection, SplitSection, TableSection
from medtune.config.suggestions import suggest_key
from medtune.config.training import LoraSection, TrainingSection
from medtune.errors import ConfigError, Option, Problem, show_value

DEFAULT_SYSTEM_PROMPT = (
    "You are a careful medical information assistant. Answer the question clearly and factually for a general reader."
)


class ModelSection(Section):
    """The base model and how it is loaded."""

    base: Annotated[str, Field(min_length=1)]
    """Hub id or local folder of the base chat model, or `medtune:demo` for the model that is built on the spot."""
    revision: str | None = None
    """Branch, tag or commit of a Hub model; none takes the default branch, and its commit is recorded."""
    adapter: str | None = None
    """Hub id or local folder of an existing LoRA adapter to start from, or only to evaluate."""
    chat_template: str | None = None
    """The chat template, where the tokenizer's own will not do: the name of one of several that it has, `alpaca`,
    `chatml`, `gemma`, `llama3`, `mistral`, `phi3`, or a jinja file. None takes the tokenizer's, or for a base without
    one that of `model.adapter`."""
    template_settings: dict[str, JsonValue] = {}
    """What the chat template reads besides the messages, such as `{enable_thinking: false}` for Qwen 3 and SmolLM3."""
    quantization: Literal["nf4", "none"] = "nf4"
    """`nf4`: bitsandbytes 4-bit NormalFloat with double quantisation. `none`: 16- or 32-bit weights (plain LoRA)."""
    kbit_preparation: Literal["lean", "peft"] = "lean"
    """`lean` freezes the base and lifts nothing; `peft` is `prepare_model_for_kbit_training`, which lifts every
    16-bit parameter to float32 (2.1 GB more on LLaMA-3-8B)."""
    dtype: Literal["auto", "bfloat16", "float16", "float32"] = "auto"
    """Compute dtype. `auto` takes bfloat16 where the hardware has it natively, else float16 on a GPU and float32 on
    a CPU; the choice and its reason are logged."""
    device_map: str | dict[str, int | str] | None = None
    """Placement for inference, as in transformers (`auto`, `balanced` … or module to device). None puts the model on
    one device. Training always keeps it on one device a process."""
    max_memory: dict[int | str, str] | None = None
    """Per-device limit for `device_map`, such as `{0: 14GiB, cpu: 24GiB}`."""

    @model_validator(mode="after")
    def _leave_messages_to_rows(self) -> ModelSection:
        if taken := {"messages", "add_generation_prompt"} & self.template_settings.keys():
            raise ValueError(f"template_settings sets {', '.join(sorted(taken))}, which come from the rows")
        return self

    @model_validator(mode="after")
    def _limit_only_what_is_mapped(self) -> ModelSection:
        if self.max_memory is not None and self.device_map is None:
            raise ValueError("max_memory limits a device_map; set model.device_map too, for example to auto")
        return self


class DataSection(Section):
    """Where question-answer rows come from and how they are split."""

    source: Annotated[str, Field(min_length=1)]
    """A Hub data set, a local table (CSV, TSV, JSONL, JSON, any of them gzipped, Parquet, Excel), a folder of such
    tables, of MedQuAD XML or of `save_to_disk`, or `medtune:demo`."""
    revision: str | None = None
    """Branch, tag or commit of a Hub data set."""
    hub_config: str | None = None
    """Which configuration of a Hub data set that has several."""
    hub_split: str | None = None
    """Which splits of a Hub data set or of a `save_to_disk` folder, such as `train` or `train+validation`; none takes
    all. Where rows come from named splits, `data.columns.split: split` finds the name."""
    sources: Annotated[tuple[SourceSection, ...], Field(strict=False)] = ()
    """Several sources in place of `data.source`: a list with `source`, and any of `name`, `weight`, `columns`,
    `revision`, `hub_config` and `hub_split`."""
    columns: ColumnsSection = ColumnsSection()
    """Column names of `source` and `test_source`."""
    table: TableSection = TableSection()
    """How table files are written, where what medtune finds is not right."""
    min_answer_words: Annotated[int, Field(ge=0)] | None = None
    """Rows with a shorter answer are dropped; where a script has no blanks, characters count. None takes 5, and refuses
    rows of which over half would go."""
    system_prompt: str = DEFAULT_SYSTEM_PROMPT
    """The system line of every prompt; empty for none."""
    markup: Literal["remove", "keep"] = "remove"
    """End tokens, role markers, repeated prompts and `<think>` that are written out in questions and answers: `remove`
    leaves them out, counted by kind; `keep` learns them as plain text, counted as well."""
    html: Literal["text", "keep"] = "text"
    """HTML in questions and answers: `text` makes it plain text, paragraphs and list items as lines; `keep` leaves the
    tags and entities. Both are counted. "A < B" and "<5 mg" are no HTML."""
    prompt_date: Annotated[date | None, Field(strict=False)] = None
    """The date, such as 2024-07-26, for chat templates that print one (LLaMA 3.2's does), at midnight. None takes the
    day on which the run was made, for all of its prompts: baseline and tuned must see the same ones."""
    test_source: str | None = None
    """Replaces the test split with all rows of this source; training rows of its groups are removed and counted."""
    stream: Literal["auto", True, False] = "auto"
    """Whether Parquet and JSONL are read without ever holding all rows in memory; `auto` does so where they take more
    than 1 GiB."""
    near_duplicate_limit: Annotated[int, Field(ge=0)] = 2_000_000
    """Different answers of streamed data up to which near-duplicates are looked for; of more, equal ones alone join."""
    train_limit: PositiveInt | None = None
    """Train on a seeded random sample of this many rows; a smaller sample is a subset of a larger one."""
    split: SplitSection = SplitSection()
    """How the three splits are made."""

    @model_validator(mode="before")
    @classmethod
    def _take_the_first_source(cls, values: Any) -> Any:
        """`source` is the first of `sources`: what has room for one name shows that."""
        if not isinstance(values, dict) or values.get("source") is not None or not values.get("sources"):
            return values
        first = values["sources"][0] if isinstance(values["sources"], list | tuple) else None
        return {**values, "source": first.get("source") if isinstance(first, dict) else "?"}

    @property
    def all_sources(self) -> tuple[SourceSection, ...]:
        """Every source of training rows, one or several."""
        return self.sources or (
            SourceSection(
                source=self.source, revision=self.revision, hub_config=self.hub_config, hub_split=self.hub_split
            ),
        )

    @property
    def named(self) -> str:
        """What counts and messages call the sources."""
        return " + ".join(source.label for source in self.all_sources)

    @model_validator(mode="after")
    def _have_one_way_to_name_sources(self) -> DataSection:
        if self.sources and self.source != self.sources[0].source:
            raise ValueError("data.source and data.sources are both set; give one of them")
        if self.sources and (self.revision or self.hub_config or self.hub_split):
            raise ValueError("with data.sources, revision, hub_config and hub_split belong to each source of the list")
        names = [source.label for source in self.sources]
        if twice := next((name for name in names if names.count(name) > 1), None):
            raise ValueError(f"two of data.sources are called {twice}; give each a name of its own")
        return self

    @model_validator(mode="after")
    def _name_the_split_column(self) -> DataSection:
        if self.split.method == "column" and self.columns.split is None:
            raise ValueError("split.method column needs the column's name in data.columns.split")
        if self.split.method == "column" and self.test_source is not None:
            raise ValueError("test_source replaces a test split that data.split.method column already gives; set one")
        return self


class Config(Section):
    """Everything a run depends on."""

    seed: Annotated[int, Field(ge=0, lt=2**32)] = 0
    """Seeds the split, the samples, the order of rows and the adapter's first weights."""
    model: ModelSection
    """The base model and how it is loaded."""
    data: DataSection
    """Where rows come from and how they are split."""
    lora: LoraSection = LoraSection()
    """The adapter."""
    training: TrainingSection = TrainingSection()
    """Optimisation."""
    generation: GenerationSection = GenerationSection()
    """How answers are written."""
    evaluation: EvaluationSection = EvaluationSection()
    """What is measured."""

    @model_validator(mode="after")
    def _start_on_a_fitting_base(self) -> Config:
        start, packed = self.lora.init, self.model.quantization != "none"
        if start.startswith("pissa") and packed:
            raise ValueError(
                f"lora.init {start} takes directions out of the base's own weights, which NF4 has no room for; set "
                "model.quantization to none"
            )
        if start == "loftq" and not packed:
            raise ValueError("lora.init loftq makes up for what NF4 loses; set model.quantization to nf4")
        if start == "loftq" and self.training.weights == "sharded":
            raise ValueError("lora.init loftq needs whole weights; set training.weights to anything but sharded")
        return self

    @model_validator(mode="after")
    def _answer_as_losses_are_measured(self) -> Config:
        if self.generation.engine == "vllm" and self.model.quantization != "none":
            raise ValueError(
                "generation.engine vllm answers with the weights as they are stored: vLLM has no NF4; set "
                "model.quantization to none"
            )
        return self


def parse_config(values: dict[str, Any], *, origin: str) -> Config:
    """Check `values` against the schema.

    Raises ConfigError with one line a problem, each naming `origin`, the key, the value and what would be right.
    """
    try:
        return Config.model_validate(values)
    except ValidationError as error:
        problems = error.errors(include_url=False)
        # A list whose items are wrong is not too short besides.
        lists = {problem["loc"][:-1] for problem in problems}
        found = [
            _describe(problem, origin)
            for problem in problems
            if problem["type"] != "too_short" or problem["loc"] not in lists
        ]
        raise ConfigError.together(dict.fromkeys(found)) from None


def _describe(problem: Any, origin: str) -> Problem:
    kind = problem["type"]
    if kind == "extra_forbidden":
        return Problem(f"{origin}: {_dotted(problem['loc'])}", "unknown key", suggest_key(Config, problem["loc"]))
    # A union reports one problem a member, with the member's type as the path's last part; the key is what matters.
    path = _dotted(part for part in problem["loc"] if part not in _UNION_TAGS and "[" not in str(part))
    what = f"{origin}: {path}"
    if kind == "missing":
        return Problem(what, "missing", ("give it in the recipe or with ", Option("set", f"{path}=…")))
    fix = "write the number without quotes" if kind in _NUMBERS and _is_number(problem["input"]) else ""
    return Problem(what, f"{in_plain_words(problem)}, got {show_value(problem['input'])}", fix)


_UNION_TAGS = {"list", "str", "int", "float", "constrained-int"}
_NUMBERS = {"int_type", "float_type"}
# As YAML and Python write it.
_NUMBER = re.compile(r"[+-]?(\d+\.?\d*|\.\d+)(e[+-]?\d+)?", re.I)


def _is_number(value: object) -> bool:
    return isinstance(value, str) and _NUMBER.fullmatch(value) is not None


def _dotted(parts: Iterable[int | str]) -> str:
    # A key may hold anything, line breaks too; a problem is one line.
    shown = ".".join(str(part) if str(part).isprintable() else repr(part) for part in parts)
    return shown if len(shown) <= 120 else f"{shown[:117]}..."
