"""The page as text: what stands in it, in which order, and what never does."""

from __future__ import annotations

import json
import re
import socket
from dataclasses import asdict, replace
from html.parser import HTMLParser
from itertools import pairwise
from pathlib import Path

import pytest

from medtune.evaluation.comparison_sentences import reading_of
from medtune.evaluation.human.human_scores import CriterionScore, HumanScores, RaterCount, WinRate
from medtune.publishing.report import ReportData, read_report, render_report, write_report
from medtune.publishing.report.svg import COLOURS
from medtune.run_dir.directory import RunDir
from medtune.runtime.terminal import harmless
from report_runs import write_merge

VOID = {"meta", "input", "br", "link", "img"}


class Page(HTMLParser):
    """What stands in a page: elements in order, ids, and whether every element ends where it should."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.open: list[str] = []
        self.text: list[str] = []
        self.feed(text)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        if self.open and self.open[-1] not in ("script", "style"):
            self.text.append(data)

    def words(self) -> str:
        return " ".join(" ".join(self.text).split())


def test_the_page_is_whole_and_its_parts_stand_in_order(page: str) -> None:
    parsed = Page(page)
    sections = [attributes["id"] for tag, attributes in parsed.elements if tag == "section"]
    assert sections == [
        "verdict", "scores", "controls", "strata", "lengths", "training", "cost", "data", "analysis", "answers",
        "provenance",
    ]  # fmt: skip
    linked = [str(attributes["href"])[1:] for tag, attributes in parsed.elements if tag == "a"]
    assert linked == ["main", *sections]
    ids = [attributes["id"] for _, attributes in parsed.elements if attributes.get("id")]
    assert sorted(ids) == sorted(set(ids))
    regions = [attributes["aria-label"] for _, attributes in parsed.elements if attributes.get("role") == "region"]
    assert sorted(map(str, regions)) == sorted(set(map(str, regions)))
    levels = [int(tag[1]) for tag, _ in parsed.elements if re.fullmatch(r"h[1-6]", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(after <= before + 1 for before, after in pairwise(levels))
    tags = [tag for tag, _ in parsed.elements]
    assert [tag for tag in tags if tag in ("header", "nav", "main", "footer")] == ["header", "nav", "main", "footer"]
    assert ("html", {"lang": "en"}) in parsed.elements
    for tag, attributes in parsed.elements:
        assert "style" not in attributes, tag  # which the policy would refuse
        assert not [name for name in attributes if name.startswith("on")]


def test_every_sentence_of_the_reading_is_there_and_the_verdict_first(page: str, data: ReportData) -> None:
    words = Page(page).words()
    reading = reading_of(data.comparison)
    places = [words.index(sentence) for sentence in reading.sentences]
    assert len(reading.analysis) >= 4
    assert places[0] == min(places)
    assert places[0] < words.index("95 % interval")
    assert words.count(reading.limits) == 2
    assert words.count("medical advice") == 2


def test_tables_hold_every_metric_with_its_verdict_in_words(page: str, data: ReportData) -> None:
    rows = re.findall(r'<tr><th scope="row"><bdi>(.*?)</bdi></th>(.*?)</tr>', page, re.S)
    # Of a metric in both tables, the standard one's.
    cells = {name: re.findall(r"<bdi>(.*?)</bdi>", rest, re.S) for name, rest in reversed(rows)}
    assert cells["ROUGE-L F1"][-1] == "◇ too few groups"
    # No primary metric, so no verdict.
    assert len(cells["ROUGE-1 F1"]) == 4
    for row in data.comparison.rows:
        assert row.metric.removeprefix("compat_") in page
        assert row.signature in page
    assert [name for name, rest in rows if "lower is better" in name] == [
        "perplexity (lower is better)",
        "bits per byte (lower is better)",
    ]
    assert cells["question type: causes"][:2] == ["4", "4"]
    assert cells["exact question"] == ["0.0%", "25.0%"]
    assert cells["document"] == ["not given", "not given"]
    assert ("train", ["30.0 s", "5.00", "1.00"]) in [
        (name, re.findall(r"<bdi>(.*?)</bdi>", rest)) for name, rest in rows
    ]
    assert cells["GPUs"] == ["Tesla T4, 15.0 GiB, compute capability 7.5"]
    assert "planned to peak at 4.00 GiB of GPU memory and peaked at 5.00 GiB (+25.0%)" in page


def test_the_headline_comes_right_after_the_title_and_the_facts_after_it(page: str, data: ReportData) -> None:
    header = page[page.index("<header>") : page.index("</header>")]
    tags = re.findall(r"<(h1|p class=\"headline\"|dl class=\"facts\")", header)
    assert tags == ["h1", 'p class="headline"', 'dl class="facts"']
    assert f'<p class="headline">{reading_of(data.comparison).headline}</p>' in header
    names = re.findall(r"<dt>(.*?)</dt>", header)
    assert names == ["Date", "medtune", "Recipe", "Model", "Data", "Hardware", "Cost"]


def test_each_primary_metric_has_a_card_with_the_best_control(page: str) -> None:
    cards = re.findall(r'<dl class="cards-of-metrics">(.*?)</dl>', page, re.S)[0]
    assert re.findall(r"<dt>([^<]*?) <", cards) == ["ROUGE-L F1", "perplexity"]
    # The control's answers were written by no model, and have no perplexity.
    assert len(re.findall(r"best control: random answer 0\.\d{4}", cards)) == 1


def test_secondary_parts_are_closed_at_first(page: str) -> None:
    opened = re.findall(r"<details([^>]*)>", page)
    assert [attributes for attributes in opened if "open" in attributes] == [' class="example" open']
    main = page[page.index("<main") :]
    bare = re.sub(r"<details.*?</details>", "", main, flags=re.S)
    captions = re.findall(r"<caption>(.*?)</caption>", bare)
    assert [caption.split(",")[0] for caption in captions] == ["Primary metrics", "On the same questions"]
    assert len(re.findall(r"<svg", bare)) == 4  # a panel for either primary metric, lengths, loss


def test_the_page_asks_for_nothing(page: str) -> None:
    bare = page.replace('xmlns="http://www.w3.org/2000/svg"', "")
    assert not re.findall(r"(?:https?:)?//\w+\.\w+", re.sub(r"<script.*?</script>", "", bare, flags=re.S))
    assert not re.findall(r"\b(?:src|srcset|action|formaction|ping)=", bare)
    assert "@import" not in page
    assert re.findall(r"url\((?!#)", page) == []
    assert "default-src &#39;none&#39;" in page


def test_the_page_is_the_same_each_time(page: str, data: ReportData) -> None:
    assert render_report(data) == page


def test_nothing_of_this_machine_is_in_the_page(tmp_path: Path, own_run: RunDir) -> None:
    (tmp_path / "secret_home").mkdir()
    source, base = tmp_path / "secret_home" / "rows.csv", tmp_path / "secret_home" / "my-model"
    data = read_report(own_run)
    config = data.config.model_copy(
        update={
            "data": data.config.data.model_copy(update={"source": str(source), "test_source": f"../x/{source.name}"}),
            "model": data.config.model.model_copy(update={"base": str(base)}),
        }
    )
    provenance = {
        **data.provenance,
        "model": {"base": str(base), "revision": None},
        "hardware": {**data.provenance["hardware"], "platform": f"Linux with {source} and hf_AbCdEf1234567890"},
    }
    provenance["stages"]["baseline"]["choices"] = {"x": {"value": f"{base}", "reason": f"found in {base}: good"}}
    text = render_report(replace(data, config=config, provenance=provenance))
    assert "secret_home" not in text
    assert str(tmp_path) not in text
    assert str(Path.home()) + "/" not in text
    assert socket.gethostname() not in text
    assert "hf_AbC" not in text
    assert "<bdi>rows.csv</bdi>" in text
    assert "<bdi>my-model</bdi>" in text
    assert "found in my-model: good" in text


def test_ratings_and_a_merge_are_shown_where_they_are(own_run: RunDir) -> None:
    # The verdict as medtune 0.1.0 called it: what it said of an earlier run can still be shown.
    rate = WinRate(3, 1, 0, 0.75, 0.75, 0.4, 1.0, 0.6, "cannot tell", 4, 4, 2, 0)  # type: ignore[arg-type]
    criteria = {"clarity": CriterionScore(2, 3, 1, 0.5, 1.5, 4)}
    scores = HumanScores("bcdfghjk", 4, {"Anna Private": RaterCount(4, 4)}, rate, criteria, {}, [])
    reading = ["Raters' preferences do not tell <the two> models apart.", "odd \ud800\0"]
    text = json.dumps({"reading": reading, **asdict(scores)})
    own_run.write_text(own_run.human_dir / "scores.json", text)
    write_merge(own_run)
    text = write_report(own_run).read_text(encoding="utf-8")
    assert "do not tell &lt;the two&gt; models apart." in text
    assert r"odd \ud800\x00" in text
    assert "[+0.50, +1.50]" in text
    assert "Anna" not in text
    assert 'id="people"' in text
    assert 'id="merge"' in text
    assert "3.0 GB of bfloat16 weights in 2 files" in text


def test_a_run_without_training_or_controls_has_no_such_parts(data: ReportData) -> None:
    comparison = replace(data.comparison, controls=(), strata=())
    unscored = {model: {} for model in data.row_scores}
    text = render_report(replace(data, comparison=comparison, history=(), provenance={}, row_scores=unscored))
    sections = [attributes["id"] for tag, attributes in Page(text).elements if tag == "section"]
    assert sections == ["verdict", "scores", "lengths", "cost", "data", "analysis", "answers", "provenance"]
    assert 'id="loss-title"' not in text


def test_rows_become_text_and_nothing_else(data: ReportData) -> None:
    nasty = "</script><script>x</script><img src=x onerror=y>{{ 7*7 }}{% raw %}\0\ud800\u202e"
    predictions = {
        model: [replace(row, question=nasty, prediction=nasty, reference=nasty, qtype=nasty, id=nasty) for row in rows]
        for model, rows in data.predictions.items()
    }
    text = render_report(replace(data, predictions=predictions))
    parsed = Page(text)
    assert "img" not in {tag for tag, _ in parsed.elements}
    assert sum(tag == "script" for tag, _ in parsed.elements) == 2
    assert "{{ 7*7 }}" in text
    assert harmless(nasty) in parsed.words()
    text.encode("utf-8")


# Colours ------------------------------------------------------------------------------------------------------------


def properties(page: str) -> tuple[dict[str, str], dict[str, str]]:
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style
    light, dark = re.findall(r":root \{(.*?)\}", style[1], re.S)[:2]
    pairs = [dict(re.findall(r"(--[\w-]+): ([^;]+);", part)) for part in (light, dark)]
    return pairs[0], pairs[1]


def luminance(colour: str) -> float:
    channels = [int(colour[place : place + 2], 16) / 255 for place in (1, 3, 5)]
    linear = [c / 12.92 if c <= 0.04045 else ((c + 0.055) / 1.055) ** 2.4 for c in channels]
    return 0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]


def contrast(one: str, other: str) -> float:
    darker, lighter = sorted((luminance(one), luminance(other)))
    return (lighter + 0.05) / (darker + 0.05)


@pytest.mark.parametrize("scheme", [0, 1])
def test_every_text_can_be_read(page: str, scheme: int) -> None:
    colours = properties(page)[scheme]
    pairs = [(text, ground) for text in ("text", "muted", "accent", "worse") for ground in ("page", "tint")]
    pairs += [("warn", "warn-tint"), ("on-accent", "accent"), ("chart-text", "chart-surface")]
    pairs += [("chart-muted", "chart-surface")]
    for text, ground in pairs:
        assert contrast(colours[f"--{text}"], colours[f"--{ground}"]) >= 4.5, (text, ground)
    # What is drawn and not read: WCAG's bound for graphics and for the edges of controls.
    for drawn in ("chart-baseline", "chart-tuned", "chart-reference", "chart-worse", "control-line"):
        assert contrast(colours[f"--{drawn}"], colours["--page"]) >= 3, drawn


def test_both_themes_define_every_colour_of_the_charts(page: str) -> None:
    light, dark = properties(page)
    drawn = {f"--chart-{name}": colour for name, colour in COLOURS.items()}
    assert {name: light[name] for name in drawn} == drawn
    assert set(dark) == set(light)
    used = set(re.findall(r"var\((--[\w-]+)", page))
    assert used <= set(light)
