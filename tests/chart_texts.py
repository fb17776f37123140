"""Where the texts of a chart are, without a browser: by matplotlib's own font, wider than those of a page."""

from __future__ import annotations

import re
from dataclasses import dataclass
from itertools import combinations
from xml.etree import ElementTree

from matplotlib.font_manager import FontProperties
from matplotlib.textpath import TextToPath

# Parts of a font's size that letters take above and below their line.
_ASCENT, _DESCENT = 0.74, 0.16
_ROUNDING = 0.5  # coordinates are written with two decimals, and sizes in whole pixels


@dataclass(frozen=True)
class Box:
    """A text and its edges in user units."""

    text: str
    left: float
    top: float
    right: float
    bottom: float

    def meets(self, other: Box) -> bool:
        sideways = self.left < other.right - _ROUNDING and other.left < self.right - _ROUNDING
        return sideways and self.top < other.bottom - _ROUNDING and other.top < self.bottom - _ROUNDING


def text_boxes(svg: str) -> list[Box]:
    """The box of every text of a chart."""
    return [_box(element) for element in ElementTree.fromstring(svg).iter() if element.tag.endswith("}text")]


def misplaced_texts(svg: str) -> list[str]:
    """What is outside of the chart, and what lies on another text."""
    whole = re.search(r'viewBox="0 0 ([\d.]+) ([\d.]+)"', svg)
    assert whole
    width, height = map(float, whole.groups())
    boxes = text_boxes(svg)
    outside = [
        f"outside: {box.text}"
        for box in boxes
        if min(box.left, box.top) < -_ROUNDING or box.right > width + _ROUNDING or box.bottom > height + _ROUNDING
    ]
    return outside + [f"{one.text} on {other.text}" for one, other in combinations(boxes, 2) if one.meets(other)]


def _box(element: ElementTree.Element) -> Box:
    text = "".join(element.itertext())
    size = float(element.get("font-size", "").removesuffix("px"))
    font = FontProperties(size=size, weight=element.get("font-weight", "normal"))
    width = TextToPath().get_text_width_height_descent(text, font, ismath=False)[0]
    x, y = float(element.get("x", 0)), float(element.get("y", 0))
    before = {"start": 0.0, "middle": width / 2, "end": width}[element.get("text-anchor", "start")]
    if "rotate(-90" in element.get("transform", ""):
        return Box(text, x - _ASCENT * size, y + before - width, x + _DESCENT * size, y + before)
    return Box(text, x - before, y - _ASCENT * size, x - before + width, y + _DESCENT * size)
