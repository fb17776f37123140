"""The page: what its buttons do. Each browser tab has a `PageSession` on the server."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable, Mapping
from typing import TYPE_CHECKING, Any

import gradio as gr

from medtune.errors import DataError, MedtuneError
from medtune.evaluation.human.rubric import RATING_COLUMNS
from medtune.inference.serving.answering import Options
from medtune.inference.serving.chat import page_html
from medtune.inference.serving.chat.page_parts import (
    Controls,
    Picker,
    QuestionBox,
    Rating,
    line,
    seen,
    switched_off,
    switched_on,
    text,
)
from medtune.inference.serving.chat.page_session import PageSession
from medtune.inference.serving.chat.run_questions import RunQuestions

if TYPE_CHECKING:
    from medtune.inference.serving.chat.blind_sheet import BlindSheet
    from medtune.inference.serving.chat.settings import ChatSettings
    from medtune.inference.serving.engine import Engine

# Test questions listed at once, and pages whose answers are written at the same time.
MOST_FOUND = 8
MOST_PAGES = 16
_PRIVATE: dict[str, Any] = {"api_visibility": "private", "show_progress": "hidden"}

Update = Mapping[Any, Any]


class Page:
    """What the page shows of an engine, and of a run's questions where there are any.

    Without a `sheet` nothing can be rated blind.
    """

    def __init__(
        self, engine: Engine, questions: RunQuestions, sheet: BlindSheet | None, settings: ChatSettings
    ) -> None:
        self.engine = engine
        self.questions = questions
        self.sheet = sheet
        self.settings = settings
        self.sessions: dict[str, PageSession] = {}

    def blocks(self, title: str) -> gr.Blocks:
        """The page as Gradio's Blocks."""
        blind, chat = self.settings.blind, self.engine.chat
        with gr.Blocks(title=f"medtune chat: {title}", analytics_enabled=False) as blocks:
            text(page_html.header(title), "mt-header")
            with gr.Row():
                with gr.Column(scale=3, min_width=320):
                    self.picker = Picker(len(self.questions.rows), self._found(""))
                    self.talk = text(page_html.talk([]), "mt-talk")
                    self.rating = Rating()
                    self.box = QuestionBox(blind=blind)
                    self.controls = Controls(
                        chat.max_new_tokens,
                        self.engine.max_new_tokens,
                        blind=blind,
                        can_blind=self.sheet is not None,
                        rater=self.settings.rater,
                    )
                with gr.Column(scale=2, min_width=320):
                    self.beside = text(self._nothing_beside(), "mt-beside")
            self._connect()
            blocks.unload(self._leave)
        return blocks

    def _connect(self) -> None:
        box, controls = self.box, self.controls
        given = [box.question, controls.temperature, controls.cap, controls.blind, controls.rater]
        changed = [self.talk, self.beside, box.status, box.question, box.ask, box.stop, controls.blind]
        changed += self.rating.parts
        for event in (box.ask.click, box.question.submit):
            event(self._ask, given, changed, concurrency_limit=MOST_PAGES, concurrency_id="ask", **_PRIVATE)
        box.stop.click(self._stop, queue=False, **_PRIVATE)
        changed = [*changed, self.picker.folder, self.picker.found]
        box.new.click(self._begin, None, changed, queue=False, **_PRIVATE)
        self.rating.next.click(self._next, list(self.rating.given.values()), changed, queue=False, **_PRIVATE)
        self.picker.search.change(self._search, self.picker.search, self.picker.found, queue=False, **_PRIVATE)
        self.picker.found.input(self._pick, self.picker.found, changed, queue=False, **_PRIVATE)
        rated = [self.rating.saved, *self.rating.given.values()]
        for column, component in self.rating.given.items():
            # A text that is pasted is no input to Gradio.
            given_now = component.change if column == "comment" else component.input
            given_now(self._rate(column), component, rated, queue=False, trigger_mode="always_last", **_PRIVATE)

    def _session(self, request: gr.Request) -> PageSession:
        name = str(request.session_hash)
        if name not in self.sessions:
            self.sessions[name] = PageSession(self.engine, self.questions, self.sheet)
        return self.sessions[name]

    def _leave(self, request: gr.Request) -> None:
        if session := self.sessions.pop(str(request.session_hash), None):
            session.stop()

    async def _ask(
        self, question: str, temperature: float, cap: float, blind: bool, rater: str, request: gr.Request
    ) -> AsyncIterator[Update]:
        session, box = self._session(request), self.box
        if session.is_busy or session.pair is not None:
            return
        if session.is_blind is None and question.strip():
            session.is_blind = self.settings.blind or (blind and self.sheet is not None)
        if session.is_blind:
            updates = self._ask_blind(session, question, rater)
        else:
            updates = self._ask_openly(session, question, Options(max_new_tokens=int(cap), temperature=temperature))
        yield {
            box.ask: switched_off(),
            box.stop: switched_on(),
            box.status: line(""),
            self.controls.blind: switched_off(),
        }
        problem = line("")
        try:
            async for update in updates:
                yield update
        except MedtuneError as error:
            problem = line(page_html.problem(str(error)))
        undecided = switched_on() if session.is_blind is None else switched_off()
        asked = switched_on() if session.pair is None else switched_off()
        yield {box.ask: asked, box.stop: switched_off(), box.status: problem, self.controls.blind: undecided}

    async def _ask_openly(self, session: PageSession, question: str, options: Options) -> AsyncIterator[Update]:
        is_first = True
        async for _ in session.ask(question, options):
            update = {self.talk: page_html.talk(session.conversation.exchanges)}
            if is_first:
                update |= {self.beside: self._beside(session, question), self.box.question: ""}
            is_first = False
            yield update

    async def _ask_blind(self, session: PageSession, question: str, rater: str) -> AsyncIterator[Update]:
        """Nothing of an answer is sent before both are complete: which comes first, or faster, would tell."""
        if not rater.strip():
            raise DataError("your name", "is missing", "fill it in under Blind rating")
        exchange = None
        async for asked in session.ask(question, Options()):
            if exchange is None:
                beside = self._beside(session, question)
                yield {self.talk: page_html.blind_pair(question, None), self.beside: beside}
            exchange = asked
        session.begin(session.picked)
        if exchange is None:
            return
        try:
            pair = session.blind(exchange, rater)
        except MedtuneError:
            yield {self.talk: page_html.talk([])}
            raise
        item = pair.item
        yield {
            self.talk: page_html.blind_pair(item.question, (item.answer_a, item.answer_b), pair.notes),
            self.box.question: "",
            self.rating.panel: seen(True),
            self.rating.identical: seen(pair.is_identical),
        }

    def _beside(self, session: PageSession, question: str) -> str:
        row = session.row_of(question)
        is_blind = bool(session.is_blind)
        nearest = [] if is_blind else self.questions.nearest_to(row)
        return page_html.beside(row, nearest, self.questions.missing, is_blind=is_blind)

    def _nothing_beside(self) -> str:
        return page_html.beside(None, (), self.questions.missing, is_blind=self.settings.blind)

    def _stop(self, request: gr.Request) -> None:
        self._session(request).stop()

    def _next(self, request: gr.Request, *values: str | None) -> Update:
        """The next question; what was given last may not have come by itself yet."""
        session = self._session(request)
        if session.pair is not None and self.sheet is not None:
            given = {column: value or "" for column, value in zip(self.rating.given, values, strict=True)}
            self.sheet.rate(session.rater, session.pair.item, given)
        return self._begin(request)

    def _begin(self, request: gr.Request) -> Update:
        self._session(request).begin()
        return {
            **self._cleared(),
            self.beside: self._nothing_beside(),
            self.picker.found: gr.update(value=None),
        }

    def _cleared(self) -> dict[Any, Any]:
        """The page before a question is asked."""
        rating = self.rating
        return {
            self.talk: page_html.talk([]),
            self.box.status: line(""),
            self.box.ask: switched_on(),
            rating.panel: seen(False),
            rating.saved: "",
            **{
                component: gr.update(value="" if column == "comment" else None)
                for column, component in rating.given.items()
            },
        }

    def _search(self, words: str) -> Any:
        return gr.update(choices=self._found(words), value=None)

    def _found(self, words: str) -> list[tuple[str, int]]:
        found = self.questions.search(words, MOST_FOUND)
        return [(self.questions.rows[place].question, place) for place in found]

    def _pick(self, place: int, request: gr.Request) -> Update:
        session, row = self._session(request), self.questions.rows[place]
        session.begin(row)
        if session.is_blind is None and self.settings.blind:
            session.is_blind = True
        return {
            **self._cleared(),
            self.picker.folder: gr.update(open=False),
            self.box.question: row.asked,
            self.beside: self._beside(session, row.asked),
        }

    def _rate(self, column: str) -> Callable[..., Update]:
        def rate(value: str | None, request: gr.Request) -> Update:
            session = self._session(request)
            if session.pair is None or self.sheet is None:
                return {self.rating.saved: ""}
            given = self.sheet.rate(session.rater, session.pair.item, {column: value or ""})
            others = {
                self.rating.given[other]: gr.update(value=text)
                for other, text in given.items()
                if other != column and session.pair.is_identical
            }
            return {self.rating.saved: page_html.saved(len(given.keys() & {*RATING_COLUMNS, "preference"})), **others}

        return rate
