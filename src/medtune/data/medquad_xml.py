"""MedQuAD's original XML: one document a file, with its focus and its question-answer pairs."""

from pathlib import Path
from typing import Any
from xml.etree.ElementTree import Element, ParseError

from defusedxml import DefusedXmlException
from defusedxml.ElementTree import parse

from medtune.data.table_files import require_text_size
from medtune.errors import DataError
from medtune.records import QAPair
from medtune.runtime.terminal import one_line

# A document of MedQuAD takes 20 KB.
MAX_DOCUMENT_BYTES = 1 << 26


def read_medquad_xml(folder: Path) -> tuple[list[QAPair], int]:
    """Answered pairs of every `*.xml` below `folder`, in file order, and the number of pairs without an answer.

    A pair's id is its file and `pid`, since `qid` is not unique in MedQuAD. Entities, external references and DTDs
    are refused. Raises DataError naming the file.
    """
    paths = sorted(path for path in folder.rglob("*.xml") if path.is_file())
    if not paths:
        fix = "give a folder of MedQuAD XML or of tables, or a table file"
        raise DataError(folder, "no .xml files in it, and no tables", fix)
    pairs: list[QAPair] = []
    unanswered = 0
    seen: set[str] = set()
    for path in paths:
        root, shown = _parse(path), one_line(str(path))
        name = path.relative_to(folder).with_suffix("").as_posix()
        focus = require_text_size(_text(root.find("Focus")), f"{shown}: Focus")
        source = require_text_size(root.get("source", ""), f"{shown}: source")
        for pair in root.iter("QAPair"):
            question, answer = pair.find("Question"), _text(pair.find("Answer"))
            if not answer.strip():
                unanswered += 1
                continue
            pid = pair.get("pid", "")
            id = f"{name}#{pid}"
            if id in seen:
                raise DataError(shown, f"pid {pid!r} is in two pairs", "give each its own")
            seen.add(id)
            qtype = "" if question is None else question.get("qtype", "")
            texts: dict[str, Any] = {"qtype": qtype, "question": _text(question), "answer": answer}
            texts = {key: require_text_size(text, f"{shown}: pid {pid!r}: {key}") for key, text in texts.items()}
            pairs.append(QAPair(id=id, document_id=name, focus=focus, source=source, **texts))
    if not pairs:
        raise DataError(folder, f"no answered pairs in its {len(paths)} files ({unanswered} without an answer)")
    return pairs, unanswered


def _parse(path: Path) -> Element:
    shown = one_line(str(path))
    try:
        if path.stat().st_size > MAX_DOCUMENT_BYTES:
            raise DataError(shown, f"larger than {MAX_DOCUMENT_BYTES:,} bytes", "a document of MedQuAD is a small file")
        root = parse(path, forbid_dtd=True).getroot()
    except DefusedXmlException as error:
        raise DataError(shown, f"refused, {type(error).__name__}: MedQuAD's XML has no DTD and no entities") from None
    except (ParseError, LookupError, ValueError) as error:  # the last two: an encoding that expat does not know
        raise DataError(shown, f"not well-formed XML ({error})", "fetch the file again") from None
    if root is None:
        raise DataError(shown, "holds no XML element", "fetch the file again")
    return root


def _text(element: Element | None) -> str:
    return "" if element is None else "".join(element.itertext())
