"""The sheet as one HTML file that works without a network and runs no text of a row."""

import base64
import hashlib
import json
from collections.abc import Sequence
from dataclasses import asdict
from importlib.resources import files

from medtune.evaluation.formatting import read_template
from medtune.evaluation.human.blinding import Item
from medtune.evaluation.human.rubric import CRITERIA, GUIDE, PREFERENCE_QUESTION, PREFERENCES, SCALE, SIDES

_ASSETS = files("medtune.evaluation.human") / "assets"
# The data must not hold the end of a script element, the start of a comment or line ends that only JSON allows.
_ESCAPES = {ord(sign): f"\\u{ord(sign):04x}" for sign in "<>&\u2028\u2029"}


def rating_page(sheet: str, items: Sequence[Item]) -> str:
    """The page, under `page_policy`."""
    style = _read("rate.css")
    script = "\n".join(_read(name) for name in ("store.js", "table.js", "paper.js", "rate.js"))
    data = {
        "sheet": sheet,
        "items": [asdict(item) for item in items],
        "criteria": [asdict(criterion) for criterion in CRITERIA],
        "scale": SCALE,
        "sides": SIDES,
        "preferences": PREFERENCES,
        "preference_question": PREFERENCE_QUESTION,
        "guide": GUIDE,
    }
    parts = {
        "policy": page_policy(style, script),
        "sheet": sheet,
        "style": style,
        "script": script,
        "data": json.dumps(data, ensure_ascii=False).translate(_ESCAPES),
    }
    return read_template(_ASSETS / "rate.html").render(parts)


def _read(name: str) -> str:
    return (_ASSETS / name).read_text(encoding="utf-8")


def page_policy(style: str, script: str) -> str:
    """A content security policy that allows this one style and script, by their hashes, and no request at all."""
    style_hash, script_hash = (
        f"'sha256-{base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in (style, script)
    )
    return f"default-src 'none'; script-src {script_hash}; style-src {style_hash}; base-uri 'none'; form-action 'none'"
