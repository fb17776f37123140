"""A tuned model and its base on one set of weights, answering many requests at once as they come.

    with Engine.open("runs/demo") as engine:
        prompt = engine.chat_prompt([Turn("user", "What causes gout ?")])
        answering = engine.submit(prompt, model="base", options=Options(max_new_tokens=64))
        for piece in answering:
            print(piece.text, end="", flush=True)

`submit` returns at once, from any thread; `Answering` says how to wait for pieces, or to be called when there are some,
and how to cancel. Without options an answer is token for token that of `medtune ask`, whatever is answered beside it.
Requests to each model are decoded together, and join those that are under way as rows become free; where both models
are asked they take turns of a few steps. A model without an adapter to switch off, such as a merged one, is `tuned`.
"""

from __future__ import annotations

import copy
import sys
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

from medtune.errors import DataError, first_line
from medtune.inference.batch_size import MAX_BATCH
from medtune.inference.serving.answering import Answering, EngineError, Options, PromptTooLongError, QueueFullError
from medtune.inference.serving.lane import Lane, Request
from medtune.inference.serving.limits import Limits
from medtune.records import QAPair, Turn
from medtune.runtime.hardware import release_memory
from medtune.runtime.progress import say

if TYPE_CHECKING:
    from medtune.inference.chat import Chat
    from medtune.inference.serving.slots import Slots

ServedModel = Literal["tuned", "base"]
# Steps between two looks at who joins, leaves or was cancelled, and turns of one model while the other waits.
STEPS_A_LOOK = {"cpu": 1, "cuda": 8}
LOOKS_A_TURN = 4


@dataclass(frozen=True, slots=True)
class Load:
    """What the engine is doing: requests answered and waiting now, and tokens written since it began, by model."""

    running: dict[str, int]
    waiting: dict[str, int]
    tokens: dict[str, int]


class Engine:
    """See the module. `Engine.open` makes one; `close`, or the end of a `with` block, ends it and frees the model."""

    def __init__(self, chat: Chat, limits: Limits) -> None:
        from peft import PeftModel

        self.chat = chat
        self.limits = limits
        self.renderer = chat.loaded.renderer
        self.max_new_tokens = limits.new_tokens or chat.max_new_tokens
        # Another thread's decoding and the renderer's encoding must not share one: a tokenizer is changed while used.
        self._text_tokenizer = copy.deepcopy(self.renderer.tokenizer)
        self._encoding = threading.Lock()
        self._model: Any = chat.model
        has_adapter = isinstance(chat.model, PeftModel)
        self.models: tuple[ServedModel, ...] = ("tuned", "base") if has_adapter else ("tuned",)
        self._lanes = self._make_lanes()
        self._work = threading.Condition()
        self._is_closing = False
        self._thread = threading.Thread(target=self._serve, name="medtune-engine", daemon=True)
        self._thread.start()

    @classmethod
    def open(cls, target: str, limits: Limits | None = None) -> Engine:
        """Load a run's model, an adapter's or a merged one, as `medtune ask` takes them. Raises MedtuneError."""
        from medtune.inference.chat import Chat

        return cls(Chat.open_for_batches(target), limits or Limits())

    def chat_prompt(self, turns: Sequence[Turn]) -> list[int]:
        """Token ids of a conversation that ends with the user, in the run's template and with its system prompt.

        A system turn at its beginning replaces that prompt. Raises DataError for another order, and ModelError for a
        conversation that the template refuses.
        """
        spoken = [turn.role for turn in turns[turns[:1] != [] and turns[0].role == "system" :]]
        if len(spoken) % 2 == 0 or spoken != ["user", "assistant"] * (len(spoken) // 2) + ["user"]:
            problem = "must be user and assistant by turns, the user first and last, after at most one system turn"
            raise DataError("messages", problem)
        if not turns[-1].content.strip():
            raise DataError("messages", "the last one is empty")
        with self._encoding:
            row = QAPair("", "", turns[-1].content, "", turns=tuple(turns[:-1]))
            return self.renderer.pair_prompts([row])[0]

    def text_prompt(self, text: str) -> list[int]:
        """Token ids of `text` as it is, special tokens that it spells included, after a BOS where the model has one."""
        with self._encoding:
            ids: list[int] = self.renderer.tokenizer(text).input_ids
        return ids

    def submit(
        self,
        prompt_ids: Sequence[int],
        *,
        model: str = "tuned",
        options: Options | None = None,
        on_news: Callable[[], object] = lambda: None,
    ) -> Answering:
        """Have `prompt_ids` answered; see `Answering` for `on_news`.

        Raises DataError for a request past the limits, QueueFullError where too many wait, and EngineError once the
        engine has ended.
        """
        options = options or Options()
        # The run's cap, or less where the model cannot read as much after the prompt.
        room = (self.chat.loaded.positions or sys.maxsize) - len(prompt_ids)
        cap = options.max_new_tokens or max(1, min(self.chat.max_new_tokens, self.max_new_tokens, room))
        self._check(prompt_ids, model, cap)
        answering = Answering(len(prompt_ids), on_news)
        request = Request(list(prompt_ids), options, cap, self._text_tokenizer, answering)
        with self._work:
            if self._is_closing:
                raise EngineError("the server is stopping")
            waiting = sum(len(lane.waiting) for lane in self._lanes.values())
            if waiting >= self.limits.waiting:
                raise QueueFullError(waiting, seconds=1 + waiting // self.limits.rows)
            self._lanes[model].waiting.append(request)
            self._work.notify_all()
        return answering

    @property
    def load(self) -> Load:
        """What it is doing at this moment."""
        lanes = self._lanes.items()
        return Load(
            {name: len(lane.live) for name, lane in lanes},
            {name: len(lane.waiting) for name, lane in lanes},
            {name: lane.tokens_written for name, lane in lanes},
        )

    def close(self) -> None:
        """End it: what is under way fails with EngineError. Returns when the model's memory is free again."""
        with self._work:
            self._is_closing = True
            self._work.notify_all()
        self._thread.join()
        self._model = None
        release_memory()

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def _check(self, prompt_ids: Sequence[int], model: str, cap: int) -> None:
        if model not in self.models:
            raise DataError("model", f"{model} is not one of {', '.join(self.models)}")
        if not prompt_ids:
            raise DataError("prompt", "is empty")
        if len(prompt_ids) > self.limits.prompt_tokens:
            problem = f"has {len(prompt_ids)} tokens, and may have {self.limits.prompt_tokens}"
            raise PromptTooLongError("prompt", problem)
        vocabulary = self.chat.loaded.model.get_input_embeddings().num_embeddings
        if not all(0 <= id < vocabulary for id in prompt_ids):
            raise DataError("prompt", f"token ids must be from 0 to {vocabulary - 1}")
        if not 0 < cap <= self.max_new_tokens:
            raise DataError("max_tokens", f"must be from 1 to {self.max_new_tokens}")
        positions = self.chat.loaded.positions
        if positions and len(prompt_ids) + cap > positions:
            raise DataError("max_tokens", f"{cap} and {len(prompt_ids)} of the prompt are past {positions} positions")

    def _make_lanes(self) -> dict[str, Lane]:
        from medtune.inference.generation import choose_batch_size, unwrapped

        device = self.chat.loaded.device.split(":")[0]
        plain = unwrapped(self._model)
        if device == "cpu":
            rows = self.limits.rows
        else:
            # Each model has buffers of its own; what is chosen takes half of the memory, all that is free.
            longest, cap = self.limits.prompt_tokens * len(self.models), self.max_new_tokens * len(self.models)
            fitting = choose_batch_size(plain, longest_prompt=longest, max_new_tokens=cap)
            rows = min(fitting, self.limits.rows, MAX_BATCH["cuda"])
        say(f"answers at once: {rows} for each of {' and '.join(self.models)}")
        self._steps = STEPS_A_LOOK.get(device, 1)
        ends = frozenset(self.chat.loaded.end_token_ids)
        return {name: Lane(self._make_slots(plain, rows), rows, ends) for name in self.models}

    def _make_slots(self, model: Any, rows: int) -> Slots:
        from medtune.inference.decoders.static import static_cache_obstacle
        from medtune.inference.serving.slots import GrowingSlots
        from medtune.inference.serving.static_slots import StaticSlots

        pad_token_id = self.renderer.tokenizer.pad_token_id
        if static_cache_obstacle(model) is not None:
            return GrowingSlots(model, pad_token_id)
        span = self.limits.prompt_tokens + self.max_new_tokens
        return StaticSlots(
            model, pad_token_id, rows=rows, span=span, slack=span // 4, steps_per_look=self._steps, graphs=True
        )

    def _serve(self) -> None:
        """The engine's thread: it alone uses the model."""
        import torch

        device = torch.device(self.chat.loaded.device)
        with ExitStack() as stack:
            stack.enter_context(torch.no_grad())
            if device.type == "cuda":
                stack.enter_context(torch.cuda.device(device))
            while self._wait_for_work():
                for name, lane in self._lanes.items():
                    if lane.live or lane.waiting:
                        with self._switched_to(name):
                            self._take_turn(name)
            for lane in self._lanes.values():
                lane.stop(EngineError("the server has stopped"))

    def _take_turn(self, name: str) -> None:
        lane, others = self._lanes[name], [lane for other, lane in self._lanes.items() if other != name]
        looks = 0
        try:
            while (lane.live or lane.waiting) and not self._is_closing:
                lane.turn(self._steps)
                looks += 1
                if looks >= LOOKS_A_TURN and any(other.live or other.waiting for other in others):
                    return
        except Exception as error:  # one model's failure must not end the other's service
            say(f"answers of {name} failed: {first_line(error)}")
            lane.stop(EngineError("internal error"))

    def _wait_for_work(self) -> bool:
        with self._work:
            self._work.wait_for(
                lambda: self._is_closing or any(lane.live or lane.waiting for lane in self._lanes.values())
            )
            return not self._is_closing

    @contextmanager
    def _switched_to(self, name: str) -> Iterator[None]:
        if name == "tuned":
            yield
            return
        with self._model.disable_adapter():
            yield
