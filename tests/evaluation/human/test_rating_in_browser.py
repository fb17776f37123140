"""The rating page in a real browser: rate, reload, continue, export; and no row's text ever runs."""

from __future__ import annotations

import csv
import io
import json
from pathlib import Path
from typing import Any

import pytest

from browser_sessions import OpenSession
from medtune.evaluation.human.blinding import Item, Key
from medtune.evaluation.human.export import Export, export_sheet
from medtune.evaluation.human.rating_page import rating_page
from medtune.evaluation.human.results import read_key, score_files
from medtune.evaluation.human.rubric import RATING_COLUMNS

pytestmark = pytest.mark.browser

HOSTILE = (
    "</script><script>window.ran = 1; alert(1)</script>"
    "<img src='https://example.invalid/x.png' onerror='window.ran = 2'>"
    "<svg onload='window.ran = 3'></svg><iframe src='javascript:window.top.ran = 4'></iframe>"
    "<style>body { display: none }</style><a href='javascript:window.ran = 5'>link</a>"
    "javascript:window.ran = 6 ${window.ran = 7} {{script}} \u202e\u2028 https://example.invalid/plain"
)


@pytest.fixture
def export(make_run) -> Export:
    return export_sheet(make_run(8), 4)


def choose(page: Any, column: str, value: object) -> None:
    page.locator(f"input[name={column}][value='{value}']").check()


def checked(page: Any) -> dict[str, str]:
    return page.eval_on_selector_all(
        "input[type=radio]:checked", "inputs => Object.fromEntries(inputs.map(i => [i.name, i.value]))"
    )


def place(page: Any) -> str:
    return page.locator("#place").inner_text()


def download(page: Any, folder: Path) -> Path:
    with page.expect_download() as caught:
        page.click("#export")
    path = folder / caught.value.suggested_filename
    caught.value.save_as(path)
    return path


def test_rate_reload_continue_export(session: OpenSession, export: Export, tmp_path: Path) -> None:
    profile = session()
    page = profile.open(export.page)
    page.click("#close-guide")
    page.fill("#rater", "Anna Ö.")
    assert place(page) == "Item 1 of 4"
    for column in RATING_COLUMNS:
        choose(page, column, 4 if column.endswith("_a") else 2)
    choose(page, "preference", "a")
    page.fill("#comment", '=SUM(A1), "first"\nsecond')
    page.click("#next")
    choose(page, "accuracy_a", 1)
    before = checked(page)

    page.reload()
    assert not page.locator("#guide").is_visible()
    assert place(page) == "Item 2 of 4"
    assert checked(page) == before == {"accuracy_a": "1"}
    assert page.input_value("#rater") == "Anna Ö."
    assert page.inner_text("#progress-text") == "1 of 4 rated"
    page.click("#previous")
    assert len(checked(page)) == 9
    assert page.input_value("#comment") == '=SUM(A1), "first"\nsecond'

    # Another tab of the same browser finds the same work, and goes on where it was.
    page.close()
    page = profile.open(export.page)
    assert place(page) == "Item 1 of 4"
    page.click("#unrated")
    assert place(page) == "Item 2 of 4"
    choose(page, "accuracy_a", 5)
    choose(page, "preference", "tie")

    exported = download(page, tmp_path)
    key = read_key(export.key)
    assert exported.name == f"ratings-{key.sheet}-Anna-Ö-.csv"
    rows = list(csv.DictReader(io.StringIO(exported.read_text(encoding="utf-8-sig"), newline="")))
    assert [(row["item"], row["preference"], row["rater"]) for row in rows] == [
        ("1", "A", "Anna Ö."),
        ("2", "tie", "Anna Ö."),
    ]
    assert rows[0]["comment"] == '\'=SUM(A1), "first"\nsecond'
    scores = score_files([exported], export.key)
    assert {name: (count.items, count.complete) for name, count in scores.raters.items()} == {"Anna Ö.": (2, 1)}
    assert scores.win_rate is not None
    won = key.items["1"].tuned == "a"
    assert (scores.win_rate.wins, scores.win_rate.losses, scores.win_rate.ties) == (int(won), int(not won), 1)
    assert scores.criteria["clarity"].difference == (2 if won else -2)
    assert scores.comments[0].text == '=SUM(A1), "first"\nsecond'
    assert (profile.requests, profile.problems) == ([], [])


def test_a_sheet_by_keyboard_alone(session: OpenSession, export: Export, tmp_path: Path) -> None:
    page = session().open(export.page)
    key = read_key(export.key)
    page.keyboard.press("Enter")  # the guide
    for number in range(1, 5):
        assert place(page) == f"Item {number} of 4"
        tuned = key.items[str(number)].tuned
        # A then B, criterion after criterion: ten keys an item, the last of them for the next one.
        page.keyboard.type(("52" if tuned == "a" else "25") * 4 + tuned)
        page.keyboard.press("Enter")
    assert page.inner_text("#progress-text") == "4 of 4 rated"
    assert "Every item is rated" in page.inner_text("#message")
    page.locator("#rater").focus()
    page.keyboard.type("ben 5 ab")  # letters and digits there are letters and digits
    page.keyboard.press("Enter")
    exported = download(page, tmp_path)
    scores = score_files([exported], export.key)
    assert scores.raters["ben 5 ab"].complete == 4
    assert scores.win_rate is not None
    assert (scores.win_rate.wins, scores.win_rate.n) == (4, 4)
    assert {name: (score.baseline, score.tuned) for name, score in scores.criteria.items()} == dict.fromkeys(
        ["accuracy", "completeness", "freedom_from_harm", "clarity"], (2, 5)
    )


def test_the_other_keys(session: OpenSession, export: Export) -> None:
    page = session().open(export.page)
    page.keyboard.press("Escape")
    press = page.keyboard.press
    press("3")
    press("4")
    assert checked(page) == {"accuracy_a": "3", "accuracy_b": "4"}
    press("Shift+Tab")  # back to what was rated last, with the browser's own keys
    press("ArrowRight")
    assert checked(page) == {"accuracy_a": "3", "accuracy_b": "5"}
    press("Backspace")
    assert checked(page) == {"accuracy_a": "3"}
    press("r")
    assert page.locator("#reference").is_visible()
    press("c")
    page.keyboard.type("n 5 a?")
    assert (page.input_value("#comment"), place(page)) == ("n 5 a?", "Item 1 of 4")
    press("Escape")
    press("n")
    press("n")
    press("p")
    assert place(page) == "Item 2 of 4"
    press("b")
    assert checked(page) == {"preference": "b"}
    press("u")
    assert place(page) == "Item 1 of 4"
    press("Control+b")
    assert checked(page) == {"accuracy_a": "3"}
    press("?")
    assert page.locator("#guide").is_visible()
    page.uncheck("#shortcuts")
    press("Escape")
    press("n")
    assert place(page) == "Item 1 of 4"
    page.reload()
    press("n")
    assert place(page) == "Item 1 of 4"


def test_no_text_of_a_row_ever_runs(session: OpenSession, tmp_path: Path) -> None:
    items = [Item(str(i), HOSTILE, HOSTILE, f"{HOSTILE} A", f"{HOSTILE} B") for i in (1, 2)]
    path = tmp_path / "rate.html"
    path.write_text(rating_page("bcdfghjk", items), encoding="utf-8")
    profile = session()
    page = profile.open(path)
    page.click("#close-guide")
    page.keyboard.press("r")
    for name, text in [("question", HOSTILE), ("reference", HOSTILE), ("answer_a", f"{HOSTILE} A")]:
        assert page.locator(f"#{name}").text_content() == text
        assert page.locator(f"#{name} *").count() == 0
    page.fill("#comment", HOSTILE)
    page.fill("#rater", HOSTILE[:60])
    page.keyboard.press("Escape")
    page.click("#next")
    page.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.locator("#paper img, #paper script, #paper a, #paper iframe, #paper svg").count() == 0
    page.reload()
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
    assert page.locator("img, iframe, svg, a, object, embed").count() == 0
    assert page.locator("script").count() == 2
    assert (profile.requests, profile.problems) == ([], [])


def test_the_policy_would_stop_what_the_escaping_let_through(session: OpenSession, export: Export) -> None:
    profile = session()
    page = profile.open(export.page)
    page.evaluate("text => { document.querySelector('#question').innerHTML = text; }", HOSTILE)
    page.evaluate("() => { const s = document.createElement('script'); s.textContent = 'window.ran = 8';"
                  "document.body.append(s); fetch('https://example.invalid/').catch(() => 0); }")  # fmt: skip
    page.wait_for_timeout(200)
    assert page.evaluate("window.ran") is None
    assert profile.requests == []
    assert any("Content Security Policy" in problem for problem in profile.problems)


def test_the_browsers_store_is_checked(session: OpenSession, export: Export) -> None:
    page = session().open(export.page)
    name = f"answer-ratings-{read_key(export.key).sheet}"
    kept = {"current": 99, "rater": 7, "started": True, "ratings": {
        "1": {"accuracy_a": 9, "accuracy_b": 3, "preference": "<b>", "other": 1}, "77": {"accuracy_a": 1}, "2": None,
    }}  # fmt: skip
    for text, expected in [(json.dumps(kept), {"accuracy_b": "3"}), ("{", {}), ("null", {}), ("[1]", {})]:
        page.evaluate("([name, text]) => localStorage.setItem(name, text)", [name, text])
        page.reload()
        if page.locator("#guide").is_visible():
            page.click("#close-guide")
        page.select_option("#jump", index=0)
        assert checked(page) == expected
        stored = page.evaluate("name => JSON.parse(localStorage.getItem(name)).ratings", name)
        assert stored == ({"1": {"accuracy_b": 3}} if expected else {})


def test_a_browser_that_keeps_nothing(session: OpenSession, export: Export, tmp_path: Path) -> None:
    """Export is the way to save there, and import the way to go on."""
    profile = session()
    profile.context.add_init_script(
        "Object.defineProperty(window, 'localStorage', { get() { throw new DOMException('no', 'SecurityError'); } });"
    )
    page = profile.open(export.page)
    assert "does not keep data" in page.inner_text("#storage")
    page.click("#close-guide")
    page.keyboard.type("34")
    assert "export before you close" in page.inner_text("#message")
    page.click("#export")
    assert "Write your name" in page.inner_text("#message")
    page.keyboard.type("cleo")
    exported = download(page, tmp_path)

    page.reload()
    page.click("#close-guide")
    assert checked(page) == {}
    page.set_input_files("#import-file", exported)
    page.locator("#message", has_text="Imported 1 items").wait_for()
    assert checked(page) == {"accuracy_a": "3", "accuracy_b": "4"}
    assert page.input_value("#rater") == "cleo"
    assert profile.problems == []


def message_after(page: Any, path: Path, text: str) -> str:
    path.write_text(text, encoding="utf-8")
    page.evaluate("document.getElementById('message').textContent = ''")
    page.set_input_files("#import-file", path)
    page.locator("#message:not(:empty)").wait_for()
    return str(page.inner_text("#message"))


def test_what_cannot_be_imported(session: OpenSession, export: Export, tmp_path: Path) -> None:
    sheet = read_key(export.key).sheet
    page = session().open(export.page)
    page.click("#close-guide")
    page.fill("#rater", "Anna")
    path = tmp_path / "in.csv"
    assert message_after(page, path, "a,b\n1,2\n").startswith("This is no file of ratings")
    assert message_after(page, path, "").startswith("This is no file of ratings")
    assert message_after(page, path, "sheet,item,clarity_a\nzzzzzzzz,1,3\n") == (
        f"This file belongs to sheet zzzzzzzz, and this page is sheet {sheet}."
    )
    assert "is Ben's work" in message_after(page, path, f"sheet,item,rater,clarity_a\n{sheet},1,Ben,3\n")
    assert checked(page) == {}


def test_a_filled_sheet_can_be_imported(session: OpenSession, export: Export) -> None:
    """As a European spreadsheet saves it: semicolons, a decimal comma, legends in the header."""
    page = session().open(export.page)
    page.click("#close-guide")
    header, *lines = csv.reader(io.StringIO(export.sheet.read_text(encoding="utf-8-sig"), newline=""))
    lines[0][7:] = ["5", "", "4,0", "9", "", "", "", "1", " TIE", 'a;"b"']
    out = io.StringIO()
    csv.writer(out, delimiter=";").writerows([header, *lines])
    assert message_after(page, export.sheet.with_name("in.csv"), out.getvalue()).startswith("Imported 1 items")
    assert checked(page) == {"accuracy_a": "5", "completeness_a": "4", "clarity_b": "1", "preference": "tie"}
    assert page.input_value("#comment") == 'a;"b"'


def test_identical_answers_are_rated_once(session: OpenSession, tmp_path: Path) -> None:
    path = tmp_path / "rate.html"
    path.write_text(rating_page("bcdfghjk", [Item("1", "Why ?", "So.", "Same.", "Same.")]), encoding="utf-8")
    page = session().open(path)
    page.keyboard.press("Enter")
    assert page.locator("#identical").is_visible()
    page.keyboard.type("5432")
    assert page.inner_text("#progress-text") == "1 of 1 rated"
    assert checked(page) == {
        "accuracy_a": "5", "accuracy_b": "5", "completeness_a": "4", "completeness_b": "4", "freedom_from_harm_a": "3",
        "freedom_from_harm_b": "3", "clarity_a": "2", "clarity_b": "2", "preference": "tie",
    }  # fmt: skip


def test_two_tabs_do_not_undo_each_other(session: OpenSession, export: Export) -> None:
    profile = session()
    first = profile.open(export.page)
    first.click("#close-guide")
    second = profile.open(export.page)
    second.click("#next")
    choose(first, "clarity_a", 5)
    second.locator("#jump option", has_text="1 …").wait_for(state="attached")
    assert (place(second), checked(second)) == ("Item 2 of 4", {})
    choose(second, "clarity_b", 1)
    first.reload()
    first.select_option("#jump", index=0)
    assert checked(first) == {"clarity_a": "5"}
    first.click("#next")
    assert checked(first) == {"clarity_b": "1"}


def test_starting_over_as_another_rater(session: OpenSession, export: Export) -> None:
    page = session().open(export.page)
    page.click("#close-guide")
    page.fill("#rater", "Anna")
    choose(page, "clarity_a", 5)
    page.click("#open-guide")
    page.evaluate("window.confirm = () => true")
    page.click("#start-over")
    assert (checked(page), page.input_value("#rater")) == ({}, "")
    page.reload()
    assert (checked(page), page.input_value("#rater")) == ({}, "")


LONG = Item("1", "Why " + "x" * 300 + " ?", "So.", "word " * 400, "https://example.invalid/" + "path" * 60)


@pytest.mark.parametrize("width", [320, 390, 820, 1280])
@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_no_width_scrolls_sideways_and_every_text_can_be_read(
    session: OpenSession, tmp_path: Path, width: int, scheme: str
) -> None:
    path = tmp_path / "rate.html"
    path.write_text(rating_page("bcdfghjk", [LONG]), encoding="utf-8")
    page = session(viewport={"width": width, "height": 844}, color_scheme=scheme).open(path)
    assert page.evaluate("document.querySelector('dialog').scrollWidth <= document.querySelector('dialog').clientWidth")
    page.click("#close-guide")
    page.keyboard.type("3r")
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    contrasts = page.evaluate(CONTRASTS)
    assert len(contrasts) > 40
    assert [found for found in contrasts if found[1] < 4.5] == []
    background = page.evaluate("getComputedStyle(document.body).backgroundColor")
    assert (int(background.split("(")[1].split(",")[0]) < 60) == (scheme == "dark")


# WCAG 2.2's contrast ratio of each element with text of its own against the first background behind it.
CONTRASTS = """() => {
  const light = (css) => {
    const [r, g, b] = css.match(/[\\d.]+/g).map((v) => v / 255)
      .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
    return 0.2126 * r + 0.7152 * g + 0.0722 * b;
  };
  const behind = (node) => {
    for (; node; node = node.parentElement) {
      const css = getComputedStyle(node).backgroundColor;
      if (!/, 0\\)$/.test(css)) return css;
    }
    return "rgb(255, 255, 255)";
  };
  return [...document.querySelectorAll("#app *")].filter((node) => node.checkVisibility() && !node.disabled
      && !node.closest(":disabled") && [...node.childNodes].some((c) => c.nodeType === 3 && c.textContent.trim()))
    .map((node) => {
      const [x, y] = [light(getComputedStyle(node).color), light(behind(node))].sort((a, b) => b - a);
      return [`${node.tagName} ${node.textContent.slice(0, 30)}`, (x + 0.05) / (y + 0.05)];
    });
}"""


def test_every_control_has_a_name(session: OpenSession, export: Export) -> None:
    page = session().open(export.page)
    page.click("#close-guide")
    nameless = page.evaluate("""() => [...document.querySelectorAll("button, input, select, textarea")].filter((node) =>
      !(node.ariaLabel || node.labels?.[0]?.textContent.trim() || node.textContent.trim())).map((node) => node.id)""")
    assert nameless == []
    for column in RATING_COLUMNS:
        legend = page.locator(f"#group-{column} legend").text_content()
        assert legend.endswith(f"of answer {column[-1].upper()}")
    harm = page.get_by_role("group", name="Freedom from harm of answer B")
    assert harm.get_by_role("radio", name="5, no harm foreseen").count() == 1
    assert harm.get_by_role("radio").count() == 5


def test_the_whole_sheet_prints(session: OpenSession, export: Export) -> None:
    page = session().open(export.page)
    page.click("#close-guide")
    page.keyboard.type("5")
    page.pdf()  # asks for the print events, as a user's printing does
    assert page.locator("#paper section").count() == 4
    page.emulate_media(media="print")
    assert not page.locator("#app").is_visible()
    first = page.locator("#paper section").first.inner_text()
    assert "A:  1  2  3  4  [5]" in first
    assert "B:  1  2  3  4  5" in first


def test_the_key_is_not_in_the_loaded_page(session: OpenSession, export: Export) -> None:
    key: Key = read_key(export.key)
    page = session().open(export.page)
    text = page.content().lower()
    assert not any(entry.row.lower() in text for entry in key.items.values())
    assert "tuned" not in text
    assert "baseline" not in text
