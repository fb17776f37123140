"""The report in a real browser: nothing runs or leaves, nothing scrolls sideways, and its answers can be searched."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from dataclasses import replace
from html import escape
from pathlib import Path
from typing import Any, Literal, get_args

import pytest

from browser_sessions import OpenSession
from medtune.publishing.report import ReportData, render_report
from medtune.records import ControlName

pytestmark = pytest.mark.browser

# What a source, a model or a person who edits files may put into any text.
HOSTILE = (
    "</script><script>window.ran = 1; alert(1)</script>"
    "<img src='https://example.invalid/x.png' onerror='window.ran = 2'><svg onload='window.ran = 3'></svg>"
    "<iframe src='javascript:window.top.ran = 4'></iframe><style>body { display: none }</style>"
    "<a href='javascript:window.ran = 5'>link</a> ${window.ran = 7} {{ 7*7 }} {% raw %} \0\x1b[31m\ud800 "
    "\u202e\u2066\u2028 https://example.invalid/plain " + "x" * 400 + " " + "\u0e49" * 90
)

AXE = "4.14.1"
NO_AXE = "needs axe-core from npm"

# Every text of a chart that sticks out of it, or lies on another one.
MISPLACED_TEXTS = """() => {
  const found = [];
  for (const svg of document.querySelectorAll("svg")) {
    const whole = svg.getBoundingClientRect();
    const texts = [...svg.querySelectorAll("text")].map((text) => [text.textContent, text.getBoundingClientRect()]);
    for (const [place, [text, box]] of texts.entries()) {
      if (box.left < whole.left - 1 || box.right > whole.right + 1 || box.top < whole.top - 1 ||
          box.bottom > whole.bottom + 1) found.push(`outside: ${text}`);
      for (const [other, its] of texts.slice(place + 1)) {
        // A line's box is higher than its letters.
        const sideways = box.left < its.right - 1 && its.left < box.right - 1;
        if (sideways && box.top < its.bottom - 3 && its.top < box.bottom - 3) found.push(`${text} on ${other}`);
      }
    }
  }
  return found;
}"""


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory, page: str) -> Path:
    path = tmp_path_factory.mktemp("page") / "report.html"
    path.write_text(page, encoding="utf-8")
    return path


def write(folder: Path, data: ReportData) -> Path:
    path = folder / "report.html"
    path.write_text(render_report(data), encoding="utf-8")
    return path


def with_texts(data: ReportData, texts: Sequence[str]) -> ReportData:
    """`data` whose rows say `texts` in every field."""
    changed = {
        model: [
            replace(row, id=f"{text}{n}", question=text, reference=text, prediction=text, qtype=text, group="")
            for n, (row, text) in enumerate(zip(rows, texts, strict=False))
        ]
        for model, rows in data.predictions.items()
    }
    scores = {
        model: {metric: values[: len(texts)] for metric, values in found.items()}
        for model, found in data.row_scores.items()
    }
    return replace(data, predictions=changed, row_scores=scores)


def opened(session: Any, path: Path) -> Any:
    """The page, with its browser of answers open and ready."""
    page = session.open(path)
    page.evaluate("document.getElementById('browser').open = true")
    page.locator("#filters").wait_for()
    return page


def shown(page: Any) -> list[str]:
    found: list[str] = page.locator("#rows article > p").all_inner_texts()
    return [text.split(" · ")[0] for text in found]


def test_no_text_ever_runs_or_asks_or_breaks_the_page(session: OpenSession, data: ReportData, tmp_path: Path) -> None:
    stratum = replace(data.comparison.strata[0], value=HOSTILE)
    hostile = replace(
        with_texts(data, [HOSTILE] * 12),
        comparison=replace(data.comparison, strata=(stratum,)),
        provenance={**data.provenance, "hardware": {"platform": HOSTILE, "gpus": [HOSTILE]}, "commit": HOSTILE},
        merge=(HOSTILE,),
    )
    profile = session(viewport={"width": 390, "height": 844})
    page = opened(profile, write(tmp_path, hostile))
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
    assert (profile.requests, profile.problems) == ([], [])
    assert page.locator("img, iframe, object, embed, a[href^='javascript']").count() == 0
    assert page.locator("script").count() == 2
    assert page.locator("style").count() == 1
    assert page.locator("#rows article .text *").count() == 0
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    text = page.locator("#rows article .text").first.text_content()
    assert text.startswith("</script><script>window.ran = 1;")
    assert r"\x00\x1b[31m\ud800" in text
    # A mark that turns the direction of writing ends where its text ends.
    assert page.locator("#previous").bounding_box()["x"] < page.locator("#next").bounding_box()["x"]


def test_the_policy_would_stop_what_the_escaping_let_through(session: OpenSession, written: Path) -> None:
    profile = session()
    page = opened(profile, written)
    page.evaluate("text => { document.querySelector('.headline').innerHTML = text; }", HOSTILE.replace("\ud800", ""))
    page.evaluate(
        "() => { const s = document.createElement('script'); s.textContent = 'window.ran = 8'; document.body.append(s);"
        "fetch('https://example.invalid/').catch(() => 0); }"
    )
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
    assert profile.requests == []
    assert any("Content Security Policy" in problem for problem in profile.problems)


def test_a_very_long_answer_takes_its_place_and_no_more(session: OpenSession, data: ReportData, tmp_path: Path) -> None:
    page = opened(session(), write(tmp_path, with_texts(data, ["word " * 2_000_000, "short"])))
    assert page.locator("#rows article").count() == 2
    assert page.locator("#rows article").first.bounding_box()["height"] < 600
    assert "(10,000,000 characters in all)" in page.locator("#rows .text").nth(1).text_content()


def test_search_filters_order_and_pages(session: OpenSession, data: ReportData, tmp_path: Path) -> None:
    gains = [0.0, 0.1, -0.1, 0.2, -0.2, 0.3, 0.0, 0.4, -0.3, 0.5, 0.0, 0.05]
    scored = replace(
        data,
        row_scores={"baseline": {"rougeL": [0.5] * 12}, "tuned": {"rougeL": [0.5 + gain for gain in gains]}},
    )
    page = opened(session(), write(tmp_path, scored))
    status = page.locator("#browser-status")
    assert status.inner_text() == "12 of 12 rows, 10 a page."
    assert shown(page) == [f"question {n}" for n in range(1, 11)]
    assert page.locator("#previous").is_disabled()
    page.click("#next")
    assert shown(page) == ["question 11", "question 12"]
    assert page.inner_text("#place") == "Page 2 of 2"
    assert page.evaluate("document.activeElement.id") == "rows"
    page.select_option("#gain", "worse")
    assert shown(page) == ["question 3", "question 5", "question 9"]
    page.select_option("#gain", "equal")
    assert shown(page) == ["question 1", "question 7", "question 11"]
    page.select_option("#gain", "better")
    page.select_option("#order", "gain")
    assert shown(page) == [f"question {n}" for n in (10, 8, 6, 4, 2, 12)]
    page.select_option("#gain", "")
    page.select_option("#order", "loss")
    assert shown(page)[:3] == ["question 9", "question 5", "question 3"]
    page.select_option("#order", "n")
    page.select_option("#type", "treatment")
    assert shown(page) == [f"question {n}" for n in (2, 5, 8, 11)]
    page.select_option("#type", "")
    page.select_option("#capped", "tuned")
    assert shown(page) == ["question 2"]
    page.select_option("#capped", "neither")
    assert shown(page) == []
    page.select_option("#capped", "")
    page.fill("#search", "MATTER 7")
    page.locator("#browser-status", has_text="1 of 12 rows, 10 a page.").wait_for()
    assert shown(page) == ["question 8"]


def test_sixteen_hundred_rows_stay_fast(session: OpenSession, data: ReportData, tmp_path: Path) -> None:
    texts = [f"text {n} " + "some words of an answer " * 60 for n in range(1_600)]
    rows = {model: [replace(found[n % 12], id=str(n), prediction=texts[n], reference=texts[n]) for n in range(1_600)]
            for model, found in data.predictions.items()}  # fmt: skip
    scores = {model: {"rougeL": [0.5] * 1_600} for model in rows}
    page = opened(session(), write(tmp_path, replace(data, predictions=rows, row_scores=scores)))
    assert page.locator("#rows article").count() == 10
    took = page.evaluate(
        "() => { const box = document.getElementById('order'); const began = performance.now(); box.value = 'long';"
        "box.dispatchEvent(new Event('change')); document.body.offsetHeight; return performance.now() - began; }"
    )
    assert took < 500
    page.fill("#search", "1599")
    page.locator("#browser-status", has_text="1 of 1,600 rows").wait_for()


@pytest.mark.parametrize("width", [320, 390, 820, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_width_scrolls_sideways(session: OpenSession, written: Path, width: int, scheme: str) -> None:
    profile = session(viewport={"width": width, "height": 844}, color_scheme=scheme)
    page = opened(profile, written)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    assert page.evaluate("document.documentElement.scrollWidth <= document.documentElement.clientWidth")
    ground = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert ground == ("rgb(20, 24, 29)" if scheme == "dark" else "rgb(255, 255, 255)")
    assert profile.problems == []


def test_on_a_phone_tables_stack_or_show_that_there_is_more(session: OpenSession, written: Path) -> None:
    page = opened(session(viewport={"width": 390, "height": 844}), written)
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    wider = "[...document.querySelectorAll('{} .scroll')].filter(box => box.scrollWidth > box.clientWidth).length"
    assert [page.evaluate(wider.format(part)) for part in ("#strata", "#lengths")] == [0, 0]
    assert page.evaluate(wider.format("#training")) == 1
    shade = page.evaluate("getComputedStyle(document.querySelector('#training .scroll')).backgroundAttachment")
    assert shade == "local, scroll"
    # Stacked, every value bears its column's name.
    label = "getComputedStyle(document.querySelector('#strata td'), '::before').content"
    assert page.evaluate(label) == '"Rows"'


def with_wide_numbers(data: ReportData) -> ReportData:
    """`data` with every control, and a perplexity of many digits in each of them."""
    names: tuple[ControlName, ...] = get_args(ControlName)
    (control,) = data.comparison.controls
    perplexity = next(row for row in data.comparison.rows if row.metric == "perplexity")
    wide = replace(
        perplexity, baseline=123456.78, tuned=234567.89, difference=111111.11, verdict="cannot tell",
        interval=(-123456.78, 345678.9), detectable=123456.78,
    )  # fmt: skip
    score = replace(data.comparison.scores["tuned"]["perplexity"], value=987654.32)
    controls = tuple(
        replace(control, name=name, scores={**control.scores, "perplexity": score}, against_tuned=(wide, wide))
        for name in names
    )
    rows = tuple(wide if row is perplexity else row for row in data.comparison.rows)
    return replace(data, comparison=replace(data.comparison, rows=rows, controls=controls))


def test_on_a_phone_the_page_takes_eight_screens_at_most(
    session: OpenSession, data: ReportData, tmp_path: Path
) -> None:
    for number, shown in enumerate((data, with_wide_numbers(with_texts(data, ["a word and another " * 99] * 12)))):
        page = session(viewport={"width": 390, "height": 844}).open(write(tmp_path, shown))
        assert page.evaluate("document.documentElement.scrollHeight") <= 8 * 844, number


def test_controls_fit_a_laptop(session: OpenSession, data: ReportData, tmp_path: Path) -> None:
    page = session(viewport={"width": 1280, "height": 900}).open(write(tmp_path, with_wide_numbers(data)))
    wider = "[...document.querySelectorAll('#controls .scroll')].map(box => box.scrollWidth - box.clientWidth)"
    assert page.evaluate(wider) == [0]


@pytest.mark.parametrize("width", [390, 1280])
def test_no_text_of_a_chart_is_clipped_or_on_another(
    session: OpenSession, data: ReportData, tmp_path: Path, width: int
) -> None:
    page = session(viewport={"width": width, "height": 844}).open(write(tmp_path, with_wide_numbers(data)))
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    assert page.locator("svg text").count() > 100
    assert page.evaluate(MISPLACED_TEXTS) == []


@pytest.mark.parametrize("scripted", [True, False])
def test_a_long_answer_is_shown_whole_on_request(
    browser: Any, data: ReportData, tmp_path: Path, *, scripted: bool
) -> None:
    path = write(tmp_path, with_texts(data, ["a word and another " * 99, "short"]))
    context = browser.new_context(java_script_enabled=scripted)
    page = context.new_page()
    page.goto(path.as_uri())
    example = page.locator(".example").first
    assert example.locator(".more").count() == 3
    first = example.locator(".text").first
    before = first.bounding_box()["height"]
    page.get_by_text("Show more of the reference, ").first.click()
    assert first.bounding_box()["height"] > 2 * before
    # The keyboard has it too.
    example.locator(".more").first.press("Space")
    assert first.bounding_box()["height"] == before
    if scripted:
        page.click("#browser > summary")
        page.locator("#filters").wait_for()
        assert page.locator("#rows article").first.locator(".more").count() == 4  # the question too
        assert page.locator("#rows article").nth(1).locator(".more").count() == 0
        row = page.locator("#rows article .text").first
        before = row.bounding_box()["height"]
        page.locator("#rows article label").nth(1).click()
        assert row.bounding_box()["height"] > 2 * before
    context.close()


@pytest.fixture(scope="session")
def axe(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The source of axe-core, from npm."""
    npm = shutil.which("npm")
    if not npm:
        pytest.skip(NO_AXE)
    folder = tmp_path_factory.mktemp("axe")
    command = [
        npm,
        "install",
        "--prefix",
        str(folder),
        "--no-audit",
        "--no-fund",
        "--ignore-scripts",
        f"axe-core@{AXE}",
    ]
    try:
        fetched = subprocess.run(command, capture_output=True, timeout=120, check=False)
    except subprocess.TimeoutExpired:
        pytest.skip(NO_AXE)
    if fetched.returncode:
        pytest.skip(NO_AXE)
    return (folder / "node_modules/axe-core/axe.min.js").read_text(encoding="utf-8")


@pytest.mark.parametrize("width", [390, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_axe_finds_nothing(
    browser: Any, axe: str, data: ReportData, tmp_path: Path, width: int, scheme: Literal["light", "dark"]
) -> None:
    path = write(tmp_path, with_texts(data, ["a word and another " * 99] * 12))
    # The page's own policy would refuse the checker's script.
    context = browser.new_context(viewport={"width": width, "height": 844}, color_scheme=scheme, bypass_csp=True)
    page = context.new_page()
    page.goto(path.as_uri())
    page.wait_for_function("!document.getElementById('filters').hidden")
    page.evaluate(axe)
    found = "axe.run(document, {resultTypes: ['violations']}).then(r => r.violations.map(v => [v.id, v.nodes[0].html]))"
    assert page.evaluate(found) == []
    page.evaluate("for (const part of document.querySelectorAll('details')) part.open = true")
    assert page.evaluate(found) == []
    context.close()


def test_the_keyboard_reaches_everything(session: OpenSession, written: Path) -> None:
    page = opened(session(), written)
    page.keyboard.press("Tab")
    assert page.evaluate("document.activeElement.className") == "skip"
    assert page.locator(".skip").bounding_box()["y"] >= 0
    page.keyboard.press("Enter")
    assert page.evaluate("document.activeElement.id") == "main"
    seen = set()
    for _ in range(160):
        page.keyboard.press("Tab")
        seen.add(page.evaluate("document.activeElement.id || document.activeElement.tagName"))
        if "next" in seen:
            break
    assert {"search", "type", "gain", "capped", "order", "next", "SUMMARY", "DIV"} <= seen
    labels = page.evaluate(
        "[...document.querySelectorAll('input, select')].map(box => box.labels[0].innerText.split('\\n')[0])"
    )
    assert labels == ["Search", "Question type", "Tuned against baseline", "Cut at the cap", "Order"]


def test_inside_a_notebook_its_contents_lead_to_its_own_parts(session: OpenSession, page: str, tmp_path: Path) -> None:
    notebook = tmp_path / "notebook.html"
    notebook.write_text(f'<!doctype html><iframe srcdoc="{escape(page)}" height="400"></iframe>', encoding="utf-8")
    opened = session(viewport={"width": 1000, "height": 600}, reduced_motion="reduce").open(notebook)
    frame = opened.frames[1]
    frame.click("nav a[href='#provenance']")
    assert frame.evaluate("document.URL") == "about:srcdoc"
    assert frame.evaluate("document.getElementById('provenance').getBoundingClientRect().top") < 400


def test_without_javascript_all_but_the_browser_of_answers_is_there(browser: Any, written: Path) -> None:
    context = browser.new_context(java_script_enabled=False)
    page = context.new_page()
    page.goto(written.as_uri())
    page.click("#browser > summary")
    assert "takes JavaScript" in page.inner_text("#browser-status")
    assert not page.locator("#filters").is_visible()
    # Five of the run, and a panel for each of six metrics.
    assert page.locator("figure svg").count() == 11
    assert page.locator(".example").count() == 3
    context.close()


def test_a_browser_that_cannot_unpack_says_so(session: OpenSession, written: Path, tmp_path: Path) -> None:
    profile = session()
    profile.context.add_init_script("delete window.DecompressionStream")
    page = profile.open(written)
    page.click("#browser > summary")
    assert "cannot unpack the answers" in page.inner_text("#browser-status")
    assert not page.locator("#filters").is_visible()
    torn = tmp_path / "torn.html"
    torn.write_text(written.read_text(encoding="utf-8").replace("H4sIA", "AAAAA"), encoding="utf-8")
    page = session().open(torn)
    page.click("#browser > summary")
    page.locator("#browser-status", has_text="damaged").wait_for()
    assert profile.problems == []


def test_on_paper_nothing_is_cut_off_or_sticks(session: OpenSession, written: Path) -> None:
    page = opened(session(color_scheme="dark"), written)
    page.emulate_media(media="print")
    assert page.evaluate("getComputedStyle(document.body).backgroundColor") == "rgb(255, 255, 255)"
    assert not page.locator("nav").is_visible()
    assert not page.locator("#filters").is_visible()
    assert page.locator("#scores table").first.is_visible()
    assert page.evaluate("getComputedStyle(document.querySelector('.scroll')).overflow") == "visible"
