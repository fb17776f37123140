"""HTML made plain, and text with "<" and "&" that is no HTML left alone."""

from __future__ import annotations

import time

import pytest
from hypothesis import given
from hypothesis import strategies as st

from medtune.data.html_text import to_plain_text


@pytest.mark.parametrize(
    ("text", "plain"),
    [
        ("<p>Gout hurts.</p><p>Rest.</p>", "Gout hurts.\n\nRest."),
        ("<p>Do this:</p><ul><li>Rest &amp; water</li><li>A &lt; B</li></ul>", "Do this:\n\n- Rest & water\n- A < B"),
        ("<ol>\n  <li><p>Rest.</p></li>\n  <li>Drink.</li>\n</ol>", "- Rest.\n\n- Drink."),
        ("Rest.<br>Drink.<br/>Sleep.<BR />", "Rest.\nDrink.\nSleep."),
        ("Rest.<p>Drink.", "Rest.\n\nDrink."),
        ("<b>Gout</b> <i>hurts</i> <a href='x.html'>a lot</a>.", "Gout hurts a lot."),
        ("<div class=\"answer\"><span style='x: y'>Gout</span> hurts.</div>", "Gout hurts."),
        ("10<sup>9</sup>/L of H<sub>2</sub>O", "10^9/L of H2O"),
        ("<table><tr><th>a</th><th>b</th></tr><tr><td>1</td><td>2</td></tr></table>", "a b \n1 2"),
        ("<p>a</p><script>alert('<p>')</script><style>p {}</style><!-- no -->", "a"),
        ("<!DOCTYPE html><html><body><h1>Gout</h1>It hurts.</body></html>", "Gout\n\nIt hurts."),
        ("Rest &amp; water, 5&nbsp;mg, &#945;, &#x3b2;, it&#39;s", "Rest & water, 5\xa0mg, \u03b1, \u03b2, it's"),
        ("&lt;p&gt;Gout &amp;amp; pain.&lt;/p&gt;", "Gout & pain."),
        ("<p>A < B and <5 mg</p>", "A < B and <5 mg"),
    ],
)
def test_html_becomes_lines_of_plain_text(text: str, plain: str) -> None:
    assert to_plain_text(text) == plain


@pytest.mark.parametrize(
    "text",
    [
        "A < B, a<b and c>d, x<y>z",
        "Levels <5 mg/dL & >7 mg/dL ",
        "p<i and q>u",
        "Take <time> before <date>, at <address>, from <source>.",
        "<b and c>",
        "<think>No HTML.</think>",
        "Say <|eot_id|> or </s> or <s>.",
        "AT&T; R&D; fish & chips",
        "https://x.org/?a=1&para=2&copy=3",
        "<script>alert(1)</script>",
        "",
        "  Plain.\n",
    ],
)
def test_what_is_no_html_stays_to_the_last_blank(text: str) -> None:
    assert to_plain_text(text) == text


PIECES = [
    "<p>",
    "</p>",
    "<b>",
    "</b>",
    "<li>",
    "&lt;",
    "&amp;",
    "<!--",
    "-->",
    "<script>",
    "</script>",
    " a ",
    "<",
    "\n",
]


@given(st.lists(st.sampled_from(PIECES), max_size=12).map("".join))
def test_every_text_has_a_plain_form(text: str) -> None:
    assert isinstance(to_plain_text(text), str)


@pytest.mark.parametrize("piece", [*PIECES, "<p ", "<a x=", "<!doctype ", "&a", "\n- "])
def test_a_text_of_nothing_else_takes_no_time(piece: str) -> None:
    began = time.monotonic()
    to_plain_text("<p>a</p>" + piece * 50_000)
    assert time.monotonic() - began < 5
