"""`medtune ask` and `Run.ask`: answers from a run, an adapter or a merged model, streamed as they are written."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from contextlib import nullcontext
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from medtune.config.schema import Config
from medtune.errors import ConfigError, DataError, ModelError, Option
from medtune.model.loading import DEMO_MODEL
from medtune.model.merging.folder import record_of
from medtune.records import Answer
from medtune.run_dir.directory import RunDir
from medtune.runtime.progress import say
from medtune.runtime.terminal import harmless
from medtune.storage.hub import is_repository_name
from medtune.storage.reading import MAX_SETTINGS_BYTES

if TYPE_CHECKING:
    from medtune.model.loaded import LoadedModel

NO_ADVICE = "no medical advice: a language model writes these answers, and they may be wrong"
DEMO_BABBLES = "medtune:demo babbles by design: a million parameters show how tuning works, and know no medicine"


def read_questions(path: Path) -> list[str]:
    """One question a line, empty lines left out. Raises DataError."""
    try:
        if path.stat().st_size > MAX_SETTINGS_BYTES:
            fix = "give a text file with one question a line"
            raise DataError(path, f"larger than {MAX_SETTINGS_BYTES:,} bytes", fix)
        lines = path.read_text(encoding="utf-8-sig").split("\n")
    except FileNotFoundError:
        raise DataError(path, "no such file", "give a text file with one question a line") from None
    except (UnicodeDecodeError, IsADirectoryError):
        raise DataError(path, "not a UTF-8 text file", "give one with one question a line") from None
    questions = [line.strip() for line in lines if line.strip()]
    if not questions:
        raise DataError(path, "holds no question", "write one a line")
    return questions


def ask(
    target: str, questions: Sequence[str], *, use_adapter: bool, out: TextIO, max_new_tokens: int | None = None
) -> None:
    """Write the answer to each question to `out` as it comes, control characters spelled out. Raises MedtuneError.

    The log says once what the answers are worth, and of each that the cap, `max_new_tokens` or that of the run, has
    cut, that it is cut.
    """
    _require_text(*questions)
    if not use_adapter and _is_merged(Path(target)):
        fix = "ask the run it is from"
        raise ConfigError(Option("base"), f"{target} is a merged model, with no adapter to leave out", fix)
    chat = Chat.open(target)
    if max_new_tokens is not None:
        chat = replace(chat, max_new_tokens=max_new_tokens)
    for notice in chat.notices:
        say(notice)

    def write(text: str) -> None:
        out.write(harmless(text))
        out.flush()

    for number, question in enumerate(questions):
        if len(questions) > 1:
            out.write(f"{'' if number == 0 else chr(10)}> {harmless(question)}\n")
        answer = chat.respond(question, use_adapter=use_adapter, on_text=write)
        out.write("\n")
        out.flush()
        if answer.finish_reason == "length":
            say(f"cut by the cap of {chat.max_new_tokens} tokens; raise {Option('max_new_tokens')}")


@dataclass(frozen=True)
class Chat:
    """A tuned model that stays in memory for one question after another; each is asked by itself."""

    loaded: LoadedModel
    model: Any
    max_new_tokens: int
    is_demo: bool = False

    @property
    def notices(self) -> tuple[str, ...]:
        """What its answers are worth, for whoever reads them."""
        return (NO_ADVICE, DEMO_BABBLES) if self.is_demo else (NO_ADVICE,)

    @classmethod
    def open_for_batches(cls, target: str) -> Chat:
        """As `open`, with the model prepared to answer many at once."""
        from medtune.inference.fused_model import prepare_inference

        chat = cls.open(target)
        prepare_inference(chat.model, chat.loaded.dtype)
        return chat

    @classmethod
    def open(cls, target: str) -> Chat:
        """Load the model of a run directory, of an adapter given as a folder or a Hub id, or in a merged folder.

        Raises MedtuneError.
        """
        from medtune.model.adapters import attach_adapter
        from medtune.model.loaded import load_model

        found = Target.find(target)
        config, adapter, run = found.config, found.adapter, found.run
        loaded = load_model(config, for_training=False)
        if run is not None:
            run.require_same_base(loaded.identity)
        model = loaded.model if adapter is None else attach_adapter(loaded.model, adapter, trainable=False)
        merge = record_of(Path(target)) if adapter is None else None
        is_demo = (merge.base if merge else config.model.base) == DEMO_MODEL
        return cls(loaded, model, config.generation.max_new_tokens, is_demo)

    def answer(self, question: str, *, use_adapter: bool, on_text: Callable[[str], object] = lambda text: None) -> str:
        """The text of `respond`."""
        return self.respond(question, use_adapter=use_adapter, on_text=on_text).text

    def respond(
        self, question: str, *, use_adapter: bool, on_text: Callable[[str], object] = lambda text: None
    ) -> Answer:
        """The greedy answer, word by word to `on_text` and then whole. Raises DataError if the question is empty."""
        import torch
        from transformers import GenerationConfig, TextStreamer

        _require_text(question)
        renderer = self.loaded.renderer
        pieces: list[str] = []

        class Writer(TextStreamer):  # type: ignore[misc]
            def on_finalized_text(self, text: str, stream_end: bool = False) -> None:
                pieces.append(text)
                on_text(text)

        # Greedy and nothing else: sampling defaults that a model ships with must not leak in.
        greedy = GenerationConfig(
            do_sample=False,
            max_new_tokens=self.max_new_tokens,
            eos_token_id=list(self.loaded.end_token_ids),
            pad_token_id=renderer.tokenizer.pad_token_id,
            bos_token_id=renderer.tokenizer.bos_token_id,
        )
        prompt = torch.tensor([renderer.prompt_ids(question)], device=self.loaded.device)
        options = {"skip_prompt": True, "skip_special_tokens": True, "clean_up_tokenization_spaces": False}
        with torch.inference_mode(), nullcontext() if use_adapter else self.model.disable_adapter():
            written = self.model.generate(
                input_ids=prompt,
                attention_mask=torch.ones_like(prompt),
                generation_config=greedy,
                streamer=Writer(renderer.tokenizer, **options),
            )
        new = written[0, prompt.shape[1] :].tolist()
        is_cut = len(new) >= self.max_new_tokens and new[-1] not in self.loaded.end_token_ids
        return Answer("".join(pieces).strip(), len(new), "length" if is_cut else "stop")


def _require_text(*questions: str) -> None:
    if not all(question.strip() for question in questions):
        raise DataError("ask", "the question is empty", "write it in quotes")


def _is_merged(path: Path) -> bool:
    return os.path.isdir(path) and record_of(path) is not None


def _with_own_template(config: Config, adapter: Path) -> Config:
    """`config` with the template that the adapter was trained with, should the user's file be elsewhere by now."""
    from medtune.model.chat_templates import TEMPLATE_NAME

    if config.model.chat_template is None or not (adapter / TEMPLATE_NAME).is_file():
        return config
    model = config.model.model_copy(update={"chat_template": str(adapter / TEMPLATE_NAME)})
    return config.model_copy(update={"model": model})


@dataclass(frozen=True, slots=True)
class Target:
    """What is asked: its configuration, the adapter's folder where there is one, and the run if it is one."""

    config: Config
    adapter: Path | None
    run: RunDir | None

    @classmethod
    def find(cls, target: str) -> Target:
        """The run directory, the adapter given as a folder or a Hub id, or the merged folder. Raises MedtuneError."""
        from medtune.model.adapters import adapter_config, merged_config, resolve_adapter

        path = Path(target)
        if (path / "config.yaml").is_file():
            run = RunDir.open(path)
            run.require("train")
            return cls(_with_own_template(run.pinned_config, run.adapter_dir), run.adapter_dir, run)
        if _is_merged(path):
            return cls(merged_config(path), None, None)
        if path.is_dir() and not (path / "adapter_config.json").is_file():
            raise ModelError(
                target,
                "neither a run directory (no config.yaml) nor an adapter (no adapter_config.json), nor a merged model "
                "(no merge.json)",
            )
        try:
            adapter = resolve_adapter(target)
        except ModelError as error:
            if path.exists() or not is_repository_name(target):
                raise
            # `runs/mine` has the form of a Hub id.
            (problem,) = error.problems
            raise ModelError(target, ("no run directory here; ", problem.reason), problem.fix) from None
        return cls(adapter_config(adapter), adapter, None)
