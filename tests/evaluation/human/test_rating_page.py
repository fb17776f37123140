from __future__ import annotations

import base64
import hashlib
import json
import re
from pathlib import Path

from medtune.evaluation.human.blinding import Item
from medtune.evaluation.human.rating_page import rating_page
from medtune.evaluation.human.rubric import CRITERIA, GUIDE

HOSTILE = Item("1", "</script><script>alert(1)</script>", "<!--<script>", "{{script}} {{data}} $& \\1", "\u2028&lt;'\"")


def element(page: str, name: str, attributes: str = "") -> str:
    (content,) = re.findall(rf"<{name}{attributes}>(.*?)</{name}>", page, re.S)
    return content


def test_rows_come_through_whole_and_end_no_element() -> None:
    page = rating_page("bcdfghjk", [HOSTILE])
    data = element(page, "script", ' type="application/json" id="data"')
    assert json.loads(data)["items"] == [{
        "name": "1", "question": HOSTILE.question, "reference": HOSTILE.reference,
        "answer_a": HOSTILE.answer_a, "answer_b": HOSTILE.answer_b,
    }]  # fmt: skip
    assert not set("<>&\u2028\u2029") & set(data)
    assert page.count("<script") == page.count("</script>") == 2


def test_the_policy_allows_the_pages_own_style_and_script_alone() -> None:
    page = rating_page("bcdfghjk", [HOSTILE])
    policy = re.findall(r'<meta http-equiv="Content-Security-Policy" content="([^"]*)">', page)
    allowed = {
        name: base64.b64encode(hashlib.sha256(element(page, name).encode()).digest()).decode()
        for name in ("style", "script")
    }
    assert policy == [
        f"default-src 'none'; script-src 'sha256-{allowed['script']}'; style-src 'sha256-{allowed['style']}'; "
        "base-uri 'none'; form-action 'none'"
    ]
    assert page.index("Content-Security-Policy") < page.index("<style>")


def test_the_page_asks_for_nothing() -> None:
    page = rating_page("bcdfghjk", [Item("1", "Why ?", "So.", "A", "B")])
    assert not re.findall(
        r"""https?:|//[a-z]|\bsrc=|<link|@import|url\(|\bon[a-z]+=|style=|innerHTML|insertAdj""", page
    )
    assert re.findall(r"{{\w+}}", page) == []


def test_the_documented_rubric_is_this_one() -> None:
    page = Path(__file__).resolve().parents[3] / "docs" / "human-evaluation.md"
    rows = {line for line in page.read_text(encoding="utf-8").splitlines() if line.startswith("|")}
    for criterion in CRITERIA:
        row = [criterion.title.lower(), criterion.lowest, criterion.middle, criterion.highest]
        assert f"| {' | '.join(row)} |" in rows


def test_the_rubric_is_in_it() -> None:
    page = rating_page("bcdfghjk", [])
    data = json.loads(element(page, "script", ' type="application/json" id="data"'))
    assert [criterion["title"] for criterion in data["criteria"]] == [criterion.title for criterion in CRITERIA]
    assert data["guide"] == list(GUIDE)
    assert any("not medical advice" in text for text in data["guide"])
    assert data["scale"] == [1, 2, 3, 4, 5]
