"""The components of the page, in the order in which they are seen."""

from __future__ import annotations

from typing import Any

import gradio as gr

from medtune.evaluation.human.rubric import CRITERIA, PREFERENCE_QUESTION, SCALE, SIDES, rating_column
from medtune.inference.serving.chat import page_html

_IDENTICAL = (
    '<p class="mt-empty">Both answers are the same text. Rating one rates the other too, and neither is preferred.</p>'
)


# Out of sight and not taken out of the page: Gradio 6.31 can lose a part that is put back as soon as it was taken out.
HIDDEN = "mt-hidden"


class Picker:
    """A search over the test questions, and those that it has found."""

    def __init__(self, count: int, found: list[tuple[str, int]]) -> None:
        title = f"Pick one of {count:,} test questions"
        with gr.Accordion(title, open=False, visible=count > 0, elem_id="mt-picker") as self.folder:
            self.search = gr.Textbox(
                label="Search", placeholder="words of the question, its type or topic", elem_id="mt-search"
            )
            self.found: Any = gr.Radio(found, label="The first that have all the words", elem_id="mt-found")


class QuestionBox:
    """Where a question is typed, with its buttons and what went wrong."""

    def __init__(self, *, blind: bool) -> None:
        self.question = gr.Textbox(
            label="Your question",
            placeholder="Enter asks, Shift+Enter begins a new line",
            max_lines=8,
            elem_id="mt-question",
        )
        self.status = text("", "mt-status", HIDDEN)
        with gr.Row():
            self.ask = gr.Button("Ask", variant="primary", min_width=90, elem_id="mt-ask")
            self.stop = gr.Button("Stop", interactive=False, min_width=90, elem_id="mt-stop")
            self.new = gr.Button("New chat", min_width=90, elem_id="mt-new", visible=not blind)


class Controls:
    """How answers are written, which a blind page leaves alone, and the switch to blind rating."""

    def __init__(self, cap: int, most: int, *, blind: bool, can_blind: bool, rater: str) -> None:
        with gr.Accordion("How answers are written", open=False, visible=not blind, elem_id="mt-settings"):
            self.temperature = gr.Slider(
                0, 2, 0, step=0.05, label="Temperature", info="0 takes the likeliest token", elem_id="mt-temperature"
            )
            self.cap = gr.Slider(
                1, most, cap, step=1, label="Cap", info="the most tokens that an answer may have", elem_id="mt-cap"
            )
        with gr.Accordion("Blind rating", open=blind, visible=can_blind, elem_id="mt-blinding"):
            self.blind = gr.Checkbox(
                blind,
                label="Hide which model wrote which answer, and rate both",
                info="To be chosen before the first question. Every question then stands alone, without what was said "
                "before, and is answered as in the evaluation.",
                visible=not blind,
                elem_id="mt-blind",
            )
            self.rater = gr.Textbox(rater, label="Your name, for the ratings", max_length=60, elem_id="mt-rater")


class Rating:
    """The rubric of `medtune human` for answers A and B, hidden until there is something to rate."""

    def __init__(self) -> None:
        self.given: dict[str, Any] = {}
        with gr.Column(elem_classes=HIDDEN, elem_id="mt-rating") as self.panel:
            text(page_html.guide())
            self.identical = text(_IDENTICAL, "mt-identical", HIDDEN)
            for criterion in CRITERIA:
                text(page_html.criterion_text(criterion))
                with gr.Row():
                    for side in SIDES:
                        column = rating_column(criterion.name, side)
                        self.given[column] = _choice(column, [str(value) for value in SCALE], page_html.NAMES[side])
            text(f'<p class="mt-criterion"><b>{PREFERENCE_QUESTION}</b></p>')
            self.given["preference"] = _choice("preference", [("A", "a"), ("B", "b"), ("Tie", "tie")], "Preference")
            self.given["comment"] = gr.Textbox(label="Comment", max_lines=6, elem_id="mt-comment")
            self.saved = text("", "mt-saved")
            self.next = gr.Button("Next question", variant="primary", elem_id="mt-next")

    @property
    def parts(self) -> list[Any]:
        """All that changes between one item and the next."""
        return [self.panel, self.identical, self.saved, *self.given.values()]


def text(value: str, name: str | None = None, style: str = "") -> Any:
    """HTML of `page_html`, with no script of the component's own."""
    return gr.HTML(value, elem_id=name, elem_classes=style, js_on_load=None)


def _choice(column: str, choices: list[Any], label: str) -> Any:
    return gr.Radio(choices, label=label, min_width=250, elem_id=f"mt-{column}", elem_classes="mt-side")


def seen(is_seen: bool) -> Any:
    """An update that shows a part or hides it."""
    return gr.update(elem_classes=_classes(is_seen))


def line(html: str) -> Any:
    """An update of a line that takes no room where it is empty."""
    return gr.update(value=html, elem_classes=_classes(bool(html)))


def switched_on() -> Any:
    """An update of what can be used from here on."""
    return gr.update(interactive=True)


def switched_off() -> Any:
    """An update of what cannot be used for now."""
    return gr.update(interactive=False)


def _classes(is_seen: bool) -> list[str]:
    return [] if is_seen else [HIDDEN]
