"""HTML in a row's text, made plain: paragraphs, list items and table rows as lines, entities as characters.

Only what is truly HTML changes. "A < B", "<5 mg", "p<i" and "<name of the drug>" are text: a tag has one of HTML's own
names, and is closed, or has attributes, or is one that is often left open.
"""

import re
from collections.abc import Iterator
from html import unescape

_BLOCKS = (
    "address|article|aside|blockquote|body|center|div|dl|fieldset|figcaption|figure|footer|form|h[1-6]|head|header|html"
    "|main|nav|ol|p|pre|section|table|tbody|tfoot|thead|title|ul"
)
_LINES = "br|hr|tr|dt|dd|caption|option"
_CELLS = "td|th"
_INLINE = (
    "a|abbr|acronym|b|big|cite|code|col|colgroup|del|dfn|em|font|i|iframe|img|input|ins|kbd|label|link|mark|meta|object"
    "|q|samp|select|small|source|span|strike|strong|sub|sup|svg|textarea|time|tt|u|var|video|wbr"
)
_OFTEN_OPEN = frozenset(("br", "hr", "p", "li", "wbr"))
_TAG = re.compile(
    rf"<(?P<close>/)?(?P<name>li|{_BLOCKS}|{_LINES}|{_CELLS}|{_INLINE})(?P<rest>(?:\s[^<>]{{0,2000}}|/)?)>", re.I
)
_ATTRIBUTES = re.compile(r"(?:\s+[\w:-]+\s*=\s*(?:\"[^\"]*\"|'[^']*'|[^\s\"'=]+))*\s*/?")
_DOCTYPE = re.compile(r"<!doctype\s[^<>]{0,300}>", re.I)
_ENTITY = re.compile(r"&(?:#\d{1,7}|#x[0-9a-f]{1,6}|[a-z][a-z0-9]{1,31});", re.I)
# As of paragraphs in a list item, and around one.
_ITEM, _EMPTY_LINES = re.compile(r"\n-\s+"), re.compile(r"\n\s*\n\s*")
# What is between these is for browsers.
_HIDDEN = re.compile(r"<!--|<(?P<name>script|style)\b[^<>]{0,2000}>", re.I)


def to_plain_text(text: str) -> str:
    """`text` with its HTML made plain; `text` itself, to the last blank, where it holds none.

    A list item begins with "- ", cells are apart by a blank, and a superscript begins with "^": 10<sup>9</sup> is 10^9.
    """
    if "<" not in text and "&" not in text:
        return text
    plain = _without_tags(text)
    unescaped = _ENTITY.sub(lambda entity: unescape(entity[0]), plain)
    # Escaped twice: "&lt;p&gt;" where no tag is written out.
    twice = plain == text and unescaped != text and bool(_tags(unescaped))
    plain = _ENTITY.sub(lambda entity: unescape(entity[0]), _without_tags(unescaped)) if twice else unescaped
    return text if plain == text else _EMPTY_LINES.sub("\n\n", _ITEM.sub("\n- ", plain)).strip()


def _without_tags(text: str) -> str:
    """`text` with other text in the place of its tags, if it has any."""
    if not _tags(text):
        return text
    visible, place = [], 0
    for start, end in _hidden_spans(text):
        visible.append(text[place:start])
        place = end
    text = _DOCTYPE.sub("", "".join([*visible, text[place:]]), count=1)
    kept, place = [], 0
    for tag in _tags(text):
        kept += [text[place : tag.start()], _instead(tag["name"].lower(), closes=bool(tag["close"]))]
        place = tag.end()
    return "".join([*kept, text[place:]])


def _tags(text: str) -> list[re.Match[str]]:
    tags = [tag for tag in _TAG.finditer(text) if _ATTRIBUTES.fullmatch(tag["rest"])]
    closed = {tag["name"].lower() for tag in tags if tag["close"]}
    return [tag for tag in tags if tag["name"].lower() in closed | _OFTEN_OPEN or "=" in tag["rest"]]


def _hidden_spans(text: str) -> Iterator[tuple[int, int]]:
    """Comments, scripts and styles, as far as they are closed."""
    place = 0
    while opening := _HIDDEN.search(text, place):
        ending = re.compile(rf"</{opening['name']}\s*>" if opening["name"] else "-->", re.I)
        closing = ending.search(text, opening.end())
        if closing is None:
            return
        place = closing.end()
        yield opening.start(), place


def _instead(name: str, *, closes: bool) -> str:
    if name == "li":
        return "" if closes else "\n- "
    if re.fullmatch(_LINES, name):
        return "" if closes else "\n"
    if re.fullmatch(_CELLS, name):
        return " " if closes else ""
    if name == "sup":
        return "" if closes else "^"
    return "\n\n" if re.fullmatch(_BLOCKS, name) else ""
