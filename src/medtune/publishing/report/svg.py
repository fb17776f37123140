"""matplotlib figures as SVG inside a page: no style of its own, no metadata, the colours of the page's theme."""

from __future__ import annotations

import io
import re
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any
from xml.etree import ElementTree

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

# What a chart is drawn in, and the custom property of the page that takes its place. The colours are those of the
# light theme, and what is seen where there is no page, as in a notebook.
COLOURS = {
    "text": "#1b2129",
    "muted": "#59636f",
    "grid": "#d9dee4",
    "band": "#eaedf1",
    "surface": "#ffffff",
    "baseline": "#6c7683",
    "tuned": "#1b5fb8",
    "reference": "#8a6d1f",
    "worse": "#a4332b",
}
_PROPERTIES = {colour: f"var(--chart-{name}, {colour})" for name, colour in COLOURS.items()}
# A point of matplotlib's is a user unit of the SVG, so these are pixels at the chart's own width.
_POINTS_PER_INCH = 72
FONT_SIZE = 13.0
SMALL_SIZE = FONT_SIZE - 2
# Narrow enough for a phone to show letters of a size that can be read.
WIDTH, HEIGHT = 430.0, 250.0
_SVG = "http://www.w3.org/2000/svg"
_XLINK = "{http://www.w3.org/1999/xlink}href"
_FONT = "system-ui, -apple-system, 'Segoe UI', Roboto, 'Liberation Sans', sans-serif"
_NUMBER = re.compile(r"-?\d+\.\d{3,}")
_REFERENCE = re.compile(r"#([\w.-]+)[\")]")
_SETTINGS: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "medtune",
    "font.size": FONT_SIZE,
    "axes.edgecolor": COLOURS["grid"],
    "axes.labelcolor": COLOURS["muted"],
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.spines.left": False,
    "axes.axisbelow": True,
    "axes.labelsize": SMALL_SIZE,
    "axes.titlelocation": "left",
    "axes.titlesize": FONT_SIZE,
    "grid.color": COLOURS["grid"],
    "text.color": COLOURS["text"],
    "xtick.color": COLOURS["grid"],
    "ytick.color": COLOURS["grid"],
    "ytick.major.size": 0,
    "xtick.labelcolor": COLOURS["muted"],
    "ytick.labelcolor": COLOURS["muted"],
    "lines.linewidth": 1.8,
    "legend.frameon": False,
    "legend.fontsize": SMALL_SIZE,
    "text.parse_math": False,
}


def house_style() -> AbstractContextManager[None]:
    """In this block matplotlib draws in the report's colours and sizes; pyplot's own state is not touched."""
    import matplotlib

    return matplotlib.rc_context(_SETTINGS)


def new_figure(width: float, height: float) -> tuple[Figure, Axes]:
    """A figure of so many user units with one pair of axes."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH), layout="constrained")
    return figure, figure.add_subplot()


def plain_figure(width: float, height: float) -> Figure:
    """An empty figure of so many user units, on which everything is placed by hand."""
    from matplotlib.figure import Figure

    return Figure(figsize=(width / _POINTS_PER_INCH, height / _POINTS_PER_INCH))


@cache
def text_width(text: str, size: float) -> float:
    """Width of a line in user units, in matplotlib's own font in bold: wider than those that a page is read in."""
    from matplotlib.font_manager import FontProperties
    from matplotlib.textpath import TextToPath

    # What `font.size` counts in is a point, and a point is a user unit.
    return float(
        TextToPath().get_text_width_height_descent(text, FontProperties(size=size, weight="bold"), ismath=False)[0]
    )


def fit_text(text: str, size: float, width: float) -> str:
    """`text`, cut with an ellipsis where it takes more than `width`."""
    while text_width(text, size) > width:
        text = text.removesuffix("…")[:-1] + "…"
    return text


@dataclass(frozen=True, slots=True)
class Chart:
    """A figure with its name, its title and what it shows in a sentence."""

    name: str
    title: str
    description: str
    figure: Figure


def to_svg(chart: Chart, *, prefix: str = "", standalone: bool = False) -> str:
    """`chart` as an SVG element with a title and a description; ids begin with `prefix` and its name.

    The same chart gives the same text. With `standalone` it has the light theme's ground and a size of its own.
    """
    name = prefix + chart.name
    written = io.StringIO()
    with house_style():
        chart.figure.savefig(
            written, format="svg", transparent=True, metadata=dict.fromkeys(("Creator", "Date", "Format", "Type"))
        )
    root = ElementTree.fromstring(written.getvalue())
    for element in root.iter():
        element.tag = element.tag.removeprefix(f"{{{_SVG}}}")
    for parent in list(root.iter()):
        for child in [child for child in parent if child.tag in ("metadata", "style") or child.tag.startswith("{")]:
            parent.remove(child)
    used = set(_REFERENCE.findall(written.getvalue()))
    for element in root.iter():
        if element.get("id") not in used:
            element.attrib.pop("id", None)
        _restyle(element, name)
    _describe(root, name, chart)
    if standalone:
        root.insert(2, ElementTree.Element("rect", {"width": "100%", "height": "100%", "fill": COLOURS["surface"]}))
    else:
        del root.attrib["width"], root.attrib["height"]
    return ElementTree.tostring(root, encoding="unicode")


def _describe(root: ElementTree.Element, name: str, chart: Chart) -> None:
    root.attrib.pop("version", None)
    root.attrib |= {
        "xmlns": _SVG,
        "role": "img",
        "aria-labelledby": f"{name}-title {name}-desc",
        "font-family": _FONT,
        "stroke-linejoin": "round",
    }
    for place, (tag, text) in enumerate((("title", chart.title), ("desc", chart.description))):
        element = ElementTree.Element(tag, {"id": f"{name}-{tag}"})
        element.text = text
        root.insert(place, element)


def _restyle(element: ElementTree.Element, name: str) -> None:
    """Turn the style attribute into attributes, which a page's policy need not allow, and colours into the theme's."""
    for declaration in element.attrib.pop("style", "").split(";"):
        key, _, value = (part.strip() for part in declaration.partition(":"))
        if key == "font":
            element.set("font-size", next(iter(re.findall(r"[\d.]+px", value)), f"{FONT_SIZE}px"))
            if value.startswith(("bold", "700", "600")):
                element.set("font-weight", "600")
        elif key and key != "font-family":
            element.set(key, value)
    for key, value in list(element.attrib.items()):
        if key == "id":
            element.set(key, f"{name}-{value}")
        elif key == _XLINK:
            del element.attrib[key]
            element.set("href", f"#{name}-{value.removeprefix('#')}")
        elif value.startswith("url(#"):
            element.set(key, f"url(#{name}-{value.removeprefix('url(#')}")
        elif value.lower() in _PROPERTIES:
            element.set(key, _PROPERTIES[value.lower()])
        elif key in ("d", "points", "x", "y", "transform"):
            element.set(key, _NUMBER.sub(lambda number: f"{float(number[0]):.2f}", value))
