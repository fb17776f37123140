"""The page's HTML: texts stay texts, and what is said of answers."""

import pytest

from medtune.inference.serving.chat import page_html
from medtune.inference.serving.chat.conversation import Exchange, Reply
from medtune.records import QAPair

HOSTILE = "<script>x</script> ${x} {{x}} `x` \\u0041 ![x](https://example.invalid/)"


@pytest.mark.parametrize(
    "html",
    [
        page_html.shown(HOSTILE),
        page_html.header(HOSTILE),
        page_html.talk([Exchange(HOSTILE, 5, {"tuned": Reply(None, HOSTILE, 1, "failed", HOSTILE)})]),
        page_html.blind_pair(HOSTILE, (HOSTILE, HOSTILE), (HOSTILE, "")),
        page_html.beside(QAPair("1", "", HOSTILE, HOSTILE), [QAPair("2", "", HOSTILE, HOSTILE)], ""),
        page_html.beside(None, (), HOSTILE),
        page_html.problem(HOSTILE),
    ],
)
def test_no_text_becomes_markup_or_a_template(html):
    assert "<script" not in html
    assert not set("${}`\\") & set(html)
    assert "&lt;script&gt;x&lt;/script&gt;" in html


def test_how_an_answer_ended_is_said():
    replies = {"base": Reply(None, "a", 7, "length"), "tuned": Reply(None, "", 0, "stop", forgotten=2)}
    html = page_html.talk([Exchange("q", 7, replies)])
    assert "cut by the cap of 7 tokens" in html
    assert "(empty answer)" in html
    assert "the first 2 questions no longer fit into the prompt" in html
    assert html.index("Base") < html.index("Tuned")


def test_raters_see_the_reference_behind_a_key_and_no_training_answer():
    row, near = QAPair("1", "", "q", "the reference"), QAPair("2", "", "near", "training answer")
    html = page_html.beside(row, [near], "", is_blind=True)
    assert "<summary>Reference answer</summary>" in html
    assert "training answer" not in html
    assert "training answer" in page_html.beside(row, [near], "")


def test_the_notice_is_in_the_header():
    assert "Not medical advice" in page_html.header("run")
    assert "medtune measures similarity to reference answers" in page_html.header("run")
