from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest

from medtune.config.sources import ColumnsSection
from medtune.data.cleaning import Cleaned, clean_pairs
from medtune.data.medquad_xml import read_medquad_xml
from medtune.data.sources import read_source
from medtune.errors import DataError
from medtune.records import QAPair

ANSWERED = (
    '<QAPair pid="1"><Question qid="7-1" qtype="causes">What causes gout ?</Question>'
    "<Answer>Uric acid.</Answer></QAPair>"
)


def document(pairs: str = ANSWERED, *, focus: str = "<Focus>Gout</Focus>", head: str = "") -> str:
    return f'{head}<Document id="7" source="NIH">{focus}<QAPairs>{pairs}</QAPairs></Document>'


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode("utf-8"))
    return path


def refused(folder: Path) -> str:
    with pytest.raises(DataError) as caught:
        read_medquad_xml(folder)
    (line,) = str(caught.value).splitlines()
    return line


def test_a_pair_with_its_document_and_focus(tmp_path: Path) -> None:
    write(tmp_path / "5_NIH" / "0000007.xml", document())
    assert read_medquad_xml(tmp_path) == (
        [
            QAPair(
                id="5_NIH/0000007#1",
                qtype="causes",
                question="What causes gout ?",
                answer="Uric acid.",
                document_id="5_NIH/0000007",
                focus="Gout",
                source="NIH",
            )
        ],
        0,
    )


def test_a_folder_is_a_source(tmp_path: Path) -> None:
    write(
        tmp_path / "a.xml", document(f'{ANSWERED}<QAPair pid="2"><Question>Q ?</Question><Answer> </Answer></QAPair>')
    )
    rows = read_source(str(tmp_path), ColumnsSection(question="not used here"))
    assert [pair.id for pair in rows.pairs] == ["a#1"]
    assert rows.unanswered == 1


def test_files_are_read_in_the_order_of_their_names(tmp_path: Path) -> None:
    for name in ("b/1.xml", "a/2.xml", "a/1.xml"):
        write(tmp_path / name, document())
    assert [pair.id for pair in read_medquad_xml(tmp_path)[0]] == ["a/1#1", "a/2#1", "b/1#1"]


@pytest.mark.parametrize(
    "answer", ["", "<Answer/>", "<Answer></Answer>", "<Answer>\n \t</Answer>", "<Answer><!--a--></Answer>"]
)
def test_pairs_without_an_answer_are_counted(tmp_path: Path, answer: str) -> None:
    write(tmp_path / "a.xml", document(f'{ANSWERED}<QAPair pid="2"><Question>Q ?</Question>{answer}</QAPair>'))
    pairs, unanswered = read_medquad_xml(tmp_path)
    assert (len(pairs), unanswered) == (1, 1)


def test_text_inside_markup_and_line_breaks_are_kept(tmp_path: Path) -> None:
    answer = "First &lt;b&gt; &amp; <i>second</i>\n\n- third<!-- not this --> &#233;"
    write(tmp_path / "a.xml", document(f'<QAPair pid="1"><Question>Q ?</Question><Answer>{answer}</Answer></QAPair>'))
    assert read_medquad_xml(tmp_path)[0][0].answer == "First <b> & second\n\n- third é"


def test_a_document_without_focus_source_question_or_type(tmp_path: Path) -> None:
    write(tmp_path / "a.xml", "<Document><QAPair pid='1'><Answer>A.</Answer></QAPair></Document>")
    assert read_medquad_xml(tmp_path)[0] == [QAPair("a#1", "", "", "A.", document_id="a")]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-16", "iso-8859-1"])
def test_a_declared_encoding_is_honoured(tmp_path: Path, encoding: str) -> None:
    text = document(focus="<Focus>Ménière</Focus>", head=f'<?xml version="1.0" encoding="{encoding}"?>')
    write(tmp_path / "a.xml", text.encode(encoding))
    assert read_medquad_xml(tmp_path)[0][0].focus == "Ménière"


@pytest.mark.parametrize(
    "head",
    [
        "<!DOCTYPE Document>",
        '<!DOCTYPE Document SYSTEM "http://localhost:9/medquad.dtd">',
        '<!DOCTYPE Document [<!ENTITY gout "podagra">]>',
        '<!DOCTYPE Document [<!ENTITY gout SYSTEM "file:///etc/hostname">]>',
        '<!DOCTYPE Document [<!ENTITY a "aaaaaaaa"><!ENTITY b "&a;&a;&a;&a;&a;&a;"><!ENTITY gout "&b;&b;&b;&b;">]>',
        '<!DOCTYPE Document [<!ENTITY % p SYSTEM "file:///etc/hostname"> %p;]>',
    ],
    ids=["bare", "external DTD", "entity", "external entity", "entities in entities", "parameter entity"],
)
def test_dtds_and_entities_are_refused(tmp_path: Path, head: str) -> None:
    path = write(tmp_path / "a.xml", document(focus="<Focus>&gout;</Focus>", head=head))
    assert refused(tmp_path) == f"{path}: refused, DTDForbidden: MedQuAD's XML has no DTD and no entities"


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        ("", "no element found"),
        ("   \n", "no element found"),
        ("plain text", "syntax error"),
        (document()[:-20], "no element found|unclosed token"),
        (document(focus="<Focus>&gout;</Focus>"), "undefined entity"),
        (document(focus="<Focus>\x00</Focus>"), "not well-formed"),
        (document(focus="<Focus>caf").encode() + b"\xe9</Focus>", "not well-formed"),
        (document(head='<?xml version="1.0" encoding="big5"?>'), "multi-byte encodings are not supported"),
        (document(head='<?xml version="1.0" encoding="klingon"?>'), "unknown encoding"),
    ],
    ids=["empty", "blank", "text", "cut off", "undefined entity", "NUL", "mis-encoded", "multi-byte", "no encoding"],
)
def test_a_file_that_is_not_well_formed_is_named(tmp_path: Path, content: str | bytes, reason: str) -> None:
    write(tmp_path / "a.xml", document())
    path = write(tmp_path / "b.xml", content)
    line = refused(tmp_path)
    assert line.startswith(f"{path}: not well-formed XML (")
    assert line.endswith("; fetch the file again")
    assert re.search(reason, line)


def test_two_pairs_of_one_number_are_refused(tmp_path: Path) -> None:
    path = write(tmp_path / "a.xml", document(ANSWERED * 2))
    assert refused(tmp_path) == f"{path}: pid '1' is in two pairs; give each its own"
    write(path, document(ANSWERED.replace('pid="1"', "") * 2))
    assert refused(tmp_path) == f"{path}: pid '' is in two pairs; give each its own"


def test_a_folder_without_xml(tmp_path: Path) -> None:
    write(tmp_path / "a.txt", document())
    (tmp_path / "folder.xml").mkdir()
    assert refused(tmp_path) == (
        f"{tmp_path}: no .xml files in it, and no tables; give a folder of MedQuAD XML or of tables, or a table file"
    )


def test_a_folder_without_answers(tmp_path: Path) -> None:
    write(tmp_path / "a.xml", document(ANSWERED.replace("Uric acid.", "")))
    write(tmp_path / "b.xml", "<Document/>")
    assert refused(tmp_path) == f"{tmp_path}: no answered pairs in its 2 files (1 without an answer)"


def test_medquad_has_three_collections_without_answers(shared_data: Path) -> None:
    folder = shared_data / "medquad_xml_sample"
    pairs, unanswered = read_medquad_xml(folder)
    assert (len(pairs), unanswered) == (218, 101)
    assert len({pair.id for pair in pairs}) == 218
    assert all(pair.question and pair.qtype and pair.focus and pair.source for pair in pairs)
    collections = {path.name for path in folder.iterdir()}
    answered = Counter(pair.id.split("/")[0] for pair in pairs)
    assert collections - answered.keys() == {
        "10_MPlus_ADAM_QA", "11_MPlusDrugs_QA", "12_MPlusHerbsSupplements_QA",
    }  # fmt: skip
    assert len(answered) == 9


def test_the_xml_holds_the_rows_of_the_table(shared_data: Path, medquad_cleaned: Cleaned) -> None:
    table = {(pair.question, pair.answer) for pair in medquad_cleaned.pairs}
    xml = clean_pairs(read_medquad_xml(shared_data / "medquad_xml_sample")[0]).pairs
    found = sum((pair.question, pair.answer) in table for pair in xml)
    assert found > 0.8 * len(xml)
