"""The page in a real browser: ask, stream, stop, rate blind; nothing leaves the machine, and no answer's text runs."""

from __future__ import annotations

import re
import subprocess
import sys
import time
from pathlib import Path

import pytest
from chat_pages import Visitor

from medtune.evaluation.human.results import read_key, score_files
from medtune.evaluation.human.rubric import RATING_COLUMNS
from medtune.evaluation.nearest_questions import NearestQuestions
from medtune.inference.serving.chat.run_questions import RunQuestions
from medtune.records import QAPair, Turn

pytestmark = [
    pytest.mark.browser,
    # Gradio 6.31 uses options of pandas that are going; theirs to mend.
    pytest.mark.filterwarnings("ignore::DeprecationWarning"),
]

HOSTILE = (
    "<script>window.ran=1</script><img src='https://example.invalid/x.png' onerror='window.ran=2'>"
    "${window.ran=3}{{window.ran}}![x](https://example.invalid/y.png)<style>body{display:none}</style>"
)
QUESTIONS = RunQuestions(
    (
        QAPair("t1", "causes", "What causes gout ?", "Uric acid does.", group="gout"),
        QAPair("t2", "treatment", "How to treat asthma ?", HOSTILE, group="asthma", focus="Asthma"),
        QAPair(
            "t3", "causes", "And then ?", "It goes.", turns=(Turn("user", "Hello"), Turn("assistant", "Hello you."))
        ),
    ),
    NearestQuestions((QAPair("r1", "causes", "What causes gout in toes ?", "Crystals.", group="toes"),)),
)


@pytest.fixture
def visit(browser):
    visitors = []

    def open_(url, **options):
        visitors.append(Visitor(browser, url, **options))
        visitors[-1].page.set_default_timeout(30_000)
        return visitors[-1]

    yield open_
    for one in visitors:
        one.context.close()
        assert one.strays == []
        assert one.problems == []


def test_answers_stream_side_by_side_over_several_turns(visit, start_page, echo):
    visitor = visit(start_page(QUESTIONS))
    visitor.ask("a wait b")
    visitor.page.wait_for_function("document.querySelectorAll('.mt-writing').length === 2")
    visitor.page.wait_for_selector(".mt-card >> text=tuned a")
    assert visitor.cards() == ["Base base a", "Tuned tuned a"]
    assert visitor.page.is_disabled("#mt-ask")
    echo.go.set()
    visitor.wait_until_done()
    assert visitor.cards() == ["Base base a wait b", "Tuned tuned a wait b"]
    visitor.ask("1 2 3 4 5 6 7 8 9")
    visitor.wait_until_done()
    assert visitor.cards()[2] == "Base base 1 2 3 4 5 6 7 cut by the cap of 8 tokens"
    tuned = "<user> a wait b <assistant> tuned a wait b <user> 1 2 3 4 5 6 7 8 9"
    assert ("tuned", tuned) in echo.prompts
    visitor.page.click("#mt-new")
    visitor.page.wait_for_selector(".mt-card", state="detached")
    assert "Not medical advice" in visitor.page.inner_text(".mt-notice")


def test_stop_ends_both_answers_and_the_next_is_asked(visit, start_page, echo):
    visitor = visit(start_page())
    visitor.ask("a wait b")
    visitor.page.wait_for_selector(".mt-card >> text=tuned a")
    visitor.page.click("#mt-stop")
    visitor.wait_until_done()
    assert visitor.cards() == ["Base base a stopped", "Tuned tuned a stopped"]
    echo.go.set()
    visitor.ask("next")
    visitor.wait_until_done()
    assert visitor.cards()[3] == "Tuned tuned next"


def test_a_test_question_is_found_and_has_its_reference_and_the_nearest_beside_it(visit, start_page, echo):
    visitor = visit(start_page(QUESTIONS))
    page = visitor.page
    page.click("#mt-picker >> text=Pick one of 3 test questions")
    page.fill("#mt-search input, #mt-search textarea", "causes gout")
    page.wait_for_function("document.querySelectorAll('#mt-found label').length === 1")
    page.click("#mt-found label")
    page.wait_for_selector("#mt-beside >> text=Uric acid does.")
    assert "What causes gout in toes ?" in page.inner_text("#mt-beside")
    assert page.input_value("#mt-question textarea") == "What causes gout ?"
    page.click("#mt-ask")
    visitor.wait_until_done()
    visitor.ask("<b>mine</b> ?")
    page.wait_for_selector("#mt-beside >> text=A question of your own has no reference.")
    visitor.wait_until_done()
    assert visitor.cards()[-1] == "Tuned tuned <b>mine</b> ?"


def test_no_text_of_a_row_an_answer_or_a_question_runs(visit, start_page, echo):
    echo.cap = 40
    visitor = visit(start_page(QUESTIONS))
    visitor.ask("How to treat asthma ?")
    visitor.wait_until_done()
    visitor.ask(HOSTILE)
    visitor.wait_until_done()
    assert visitor.cards()[-1] == f"Tuned tuned {HOSTILE}"
    assert visitor.page.evaluate("window.ran") is None


@pytest.mark.parametrize(("width", "dark"), [(1280, False), (390, True)])
def test_blind_ratings_are_scored_unchanged(visit, start_page, echo, tmp_path, width, dark):
    visitor = visit(start_page(QUESTIONS, blind=True, rater="Anna"), width=width, dark=dark)
    page = visitor.page
    for question in ("What causes gout ?", "something of mine ?"):
        visitor.ask(question)
        page.wait_for_selector("#mt-rating", state="visible")
        answers = dict(zip("ab", visitor.cards(), strict=True))
        side = next(side for side, text in answers.items() if "tuned" in text)
        assert answers[side] == f"Answer {side.upper()} tuned {question}"
        for column in RATING_COLUMNS:
            visitor.choose(column, "5" if column.endswith(side) else "2")
        visitor.choose("preference", side.upper())
        page.wait_for_selector("#mt-saved >> text=9 of 9")
        assert visitor.is_within_its_width()
        assert "Crystals" not in page.inner_text("#mt-beside")
        page.fill("#mt-comment textarea", f"of {question}")
        page.click("#mt-next")
        page.wait_for_selector("#mt-rating", state="hidden")
        assert page.locator("#mt-rating input:checked").count() == 0
    (folder,) = tmp_path.glob("human-chat-*")
    (file,) = folder.glob("ratings-*-Anna.csv")
    asked = visitor.context.request.get(f"{visitor.url}gradio_api/file={folder / 'key.json'}")
    assert asked.status == 403
    scores = score_files([file], folder / "key.json")
    assert (scores.win_rate.wins, scores.raters["Anna"].complete, scores.own_questions) == (2, 2, 1)
    assert [comment.text for comment in scores.comments] == ["of What causes gout ?", "of something of mine ?"]
    assert [entry.row for entry in read_key(folder / "key.json").items.values()] == ["t1", ""]
    assert all(options.max_new_tokens == echo.cap and options.temperature == 0 for options in echo.options)


def test_blind_answers_come_together_and_a_stopped_pair_is_not_rated(visit, start_page, echo, tmp_path):
    visitor = visit(start_page(QUESTIONS))
    page = visitor.page
    page.click("#mt-blinding >> text=Blind rating")
    page.check("#mt-blind input")
    visitor.ask("a wait b")
    page.wait_for_selector("#mt-status >> text=your name: is missing")
    page.fill("#mt-rater input, #mt-rater textarea", "Ben")
    page.click("#mt-ask")
    page.wait_for_selector("#mt-talk >> text=Both answers are being written")
    time.sleep(0.3)
    assert visitor.cards() == []
    page.click("#mt-stop")
    page.wait_for_selector("#mt-status >> text=an answer that is not complete is not rated")
    assert list(tmp_path.glob("human-chat-*")) == []
    assert page.is_disabled("#mt-blind input")
    echo.go.set()
    echo.is_same = True
    page.click("#mt-ask")
    page.wait_for_selector("#mt-identical >> text=Both answers are the same text.")
    visitor.choose("accuracy_a", "3")
    page.wait_for_selector("#mt-preference label.selected >> text=Tie")
    (folder,) = tmp_path.glob("human-chat-*")
    assert score_files(list(folder.glob("*.csv")), folder / "key.json").win_rate.ties == 1


@pytest.mark.parametrize("width", [1280, 390])
def test_long_words_and_merged_models_fit(visit, start_page, echo, width):
    echo.models, echo.cap = ("tuned",), 40
    visitor = visit(start_page(), width=width)
    visitor.ask("x" * 300 + " and a word")
    visitor.wait_until_done()
    assert len(visitor.cards()) == 1
    assert visitor.is_within_its_width()
    assert "No rows here." in visitor.page.inner_text("#mt-beside")
    assert not visitor.page.is_visible("#mt-blinding")


def test_the_server_opens_no_connection_to_elsewhere(visit, tiny, tmp_path):
    """The command itself, on an adapter of a tiny model, with sockets to other machines refused and written down."""
    pytest.importorskip("gradio", reason="needs Gradio: pip install 'medtune[chat]'")
    adapter, refused, log = adapter_of(tiny, tmp_path), tmp_path / "refused.txt", tmp_path / "log.txt"
    guarded = Path(__file__).resolve().parents[1] / "guarded.py"
    with open(log, "w", encoding="utf-8") as stderr:
        process = subprocess.Popen(
            [sys.executable, guarded, refused, "chat", adapter, "--no-browser", "--port", "0"],
            stderr=stderr,
            cwd=tmp_path,
        )
        try:
            url = wait_for_address(log, process)
            visitor = visit(url)
            visitor.page.set_default_timeout(120_000)
            visitor.ask("What causes gout ?")
            visitor.wait_until_done()
            assert len(visitor.cards()) == 2
            assert "An adapter or a merged model comes without rows" in visitor.page.inner_text("#mt-beside")
        finally:
            process.terminate()
            status = process.wait(60)
    assert status == 0
    assert refused.read_text(encoding="utf-8") == ""


def adapter_of(tiny, folder: Path) -> Path:
    from peft import LoraConfig, get_peft_model

    model = get_peft_model(tiny.load(), LoraConfig(r=4, target_modules=["q_proj", "v_proj"], task_type="CAUSAL_LM"))
    model.peft_config["default"].base_model_name_or_path = str(tiny.path)
    model.save_pretrained(folder / "adapter")
    return folder / "adapter"


def wait_for_address(log: Path, process: subprocess.Popen) -> str:
    end = time.monotonic() + 120
    while not (found := re.search(r"the page is at (\S+)", log.read_text(encoding="utf-8"))):
        assert process.poll() is None, log.read_text(encoding="utf-8")
        assert time.monotonic() < end, log.read_text(encoding="utf-8")
        time.sleep(0.1)
    return found[1]
