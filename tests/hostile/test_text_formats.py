"""XML with entities and YAML with tags, anchors and depths: formats that promise more than text."""

from __future__ import annotations

from itertools import pairwise

from command_line import Medtune
from hostile import inputs
from hostile.cases import Refused, parametrize, refused, require_refused

PAIR = '<QAPair pid="1"><Question qtype="causes">Q ?</Question><Answer>One two three four five.</Answer></QAPair>'
PAIRS = '<Document id="7"><QAPairs>{}</QAPairs></Document>'


def _xml(head: str = "", pairs: str = PAIR, document: str = PAIRS) -> inputs.Maker:
    return inputs.file("hostile/a.xml", head + document.format(pairs))


XML_COMMAND = "data audit hostile"
DTD = "hostile/a.xml: refused, DTDForbidden: MedQuAD's XML has no DTD and no entities"
XML = [
    refused("an entity", _xml('<!DOCTYPE d [<!ENTITY gout "podagra">]>'), XML_COMMAND, DTD),
    refused("an entity that reads a file", _xml('<!DOCTYPE d [<!ENTITY gout SYSTEM "file:///etc/hostname">]>'),
            XML_COMMAND, DTD),
    refused("a billion laughs", _xml('<!DOCTYPE d [<!ENTITY a "ha"><!ENTITY b "&a;&a;&a;&a;&a;&a;&a;&a;&a;">]>'),
            XML_COMMAND, DTD),
    refused("an external DTD", _xml('<!DOCTYPE d SYSTEM "http://localhost:9/medquad.dtd">'), XML_COMMAND, DTD),
    refused("a parameter entity", _xml('<!DOCTYPE d [<!ENTITY % p SYSTEM "file:///etc/hostname"> %p;]>'),
            XML_COMMAND, DTD),
    refused("an entity that nobody defines", _xml(pairs=PAIR.replace("One", "&one;")), XML_COMMAND,
            "hostile/a.xml: not well-formed XML (undefined entity: line 1, column 89); fetch the file again"),
    refused("an encoding that runs a codec", _xml('<?xml version="1.0" encoding="hex"?>'), XML_COMMAND,
            "hostile/a.xml: not well-formed XML ('hex' is not a text encoding; use codecs.decode() to handle arbitrary "
            "codecs); fetch the file again"),
    refused("an empty document", inputs.file("hostile/a.xml", ""), XML_COMMAND,
            "hostile/a.xml: not well-formed XML (no element found: line 1, column 0); fetch the file again"),
    refused("a document cut off", inputs.cut("hostile/a.xml", 20, first=_xml()), XML_COMMAND,
            "hostile/a.xml: not well-formed XML (unclosed token: line 1, column 131); fetch the file again"),
    refused("a NUL", _xml(pairs=PAIR.replace("One", "\0")), XML_COMMAND,
            "hostile/a.xml: not well-formed XML (not well-formed (invalid token): line 1, column 89); fetch the file "
            "again"),
    refused("elements nested 100,000 deep and no rows", _xml(pairs="<a>" * 100_000 + "</a>" * 100_000), XML_COMMAND,
            "hostile: no answered pairs in its 1 files (0 without an answer)"),
    refused("a document of 3 GB", inputs.huge("hostile/a.xml"), XML_COMMAND,
            "hostile/a.xml: larger than 67,108,864 bytes; a document of MedQuAD is a small file"),
    refused("an answer of 2 MB", _xml(pairs=PAIR.replace("One", "One " * 500_000)), XML_COMMAND,
            "hostile/a.xml: pid '1': answer has 2,000,021 characters, more than 1,000,000; shorten it, or leave the "
            "row out"),
    refused("a link to a file that is no XML", inputs.both(_xml(), inputs.link("hostile/b.xml", "../rows.csv")),
            XML_COMMAND, "hostile/b.xml: not well-formed XML (syntax error: line 1, column 0); fetch the file again"),
    refused("a file's name with an escape sequence and a line break",
            inputs.file("hostile/\x1b[31m\nred.xml", "no XML"), XML_COMMAND,
            r"hostile/\x1b[31m\nred.xml: not well-formed XML (syntax error: line 1, column 0); fetch the file again"),
]  # fmt: skip

BASE = "model: {base: model}\ndata: {source: rows.csv}\n"
YAML_COMMAND = "config hostile.yaml"


def _yaml(text: str | bytes) -> inputs.Maker:
    return inputs.file("hostile.yaml", text)


def _multiplied(merge: str = "") -> str:
    names = [f"k{number}" for number in range(9)]
    first = "k0: &k0 {" + ", ".join(f"x{number}: 1" for number in range(9)) + "}"
    rest = [f"{new}: &{new}\n  {merge}: [{', '.join([f'*{old}'] * 9)}]" for old, new in pairwise(names)]
    return "\n".join([BASE, first, *rest])


KNOWN = "known keys here: seed, model, data, lora, training, generation, evaluation"
TAGS = "hostile.yaml: YAML tags are not allowed (line 3, column 7); write plain values"
YAML = [
    refused("a tag that calls a function", _yaml(f"{BASE}seed: !!python/object/apply:os.system ['touch planted']"),
            YAML_COMMAND, TAGS),
    refused("a tag that names a class", _yaml(f"{BASE}seed: !!python/name:subprocess.Popen x"), YAML_COMMAND, TAGS),
    refused("a tag that includes a file", _yaml(f"{BASE}seed: !include /etc/passwd"), YAML_COMMAND, TAGS),
    refused("a tag in an override", inputs.both(), "config recipe.yaml --set 'seed=!!python/name:os.system x'",
            "--set seed=!!python/name:os.system x: YAML tags are not allowed (line 1, column 1); write plain values"),
    refused("a key given twice", _yaml(f"{BASE}seed: 1\nseed: 2"), YAML_COMMAND,
            'hostile.yaml: found duplicate key "seed" (line 4, column 1); keep one of them'),
    refused("a key given twice inside a section", _yaml(f"{BASE}lora:\n  rank: 8\n  rank: 9"), YAML_COMMAND,
            'hostile.yaml: found duplicate key "rank" (line 5, column 3); keep one of them'),
    refused("aliases that multiply to 9⁸ items", _yaml(_multiplied("all")), YAML_COMMAND,
            *[f"hostile.yaml: k{number}: unknown key; {KNOWN}" for number in range(9)]),
    refused("merge keys that multiply to 9⁸ keys", _yaml(_multiplied("<<")), YAML_COMMAND,
            "hostile.yaml: not valid YAML: merges more than 10,000 keys (line 9, column 5); write plain values"),
    refused("an alias to nothing", _yaml(f"{BASE}seed: *missing"), YAML_COMMAND,
            "hostile.yaml: not valid YAML: found undefined alias 'missing' (line 3, column 7)"),
    refused("an alias that holds itself", _yaml(f"{BASE}seed: &a [*a]"), YAML_COMMAND,
            "hostile.yaml: seed: input should be a valid integer, got [[[...]]]"),
    refused("lists nested 100,000 deep", _yaml("[" * 100_000), YAML_COMMAND,
            "hostile.yaml: nested too deeply; a recipe has sections and keys only"),
    refused("mappings nested 1,000 deep", _yaml("\n".join(" " * depth + "a:" for depth in range(1000))), YAML_COMMAND,
            "hostile.yaml: nested too deeply; a recipe has sections and keys only"),
    refused("a recipe of 3 GB", inputs.huge("hostile.yaml"), YAML_COMMAND,
            "hostile.yaml: larger than 1048576 bytes; a recipe is a short YAML file"),
    refused("an empty recipe", _yaml(""), YAML_COMMAND,
            "hostile.yaml: must be a mapping of sections such as model and data, got NoneType"),
    refused("a recipe that is not UTF-8", _yaml(b"# caf\xe9"), YAML_COMMAND,
            "hostile.yaml: not UTF-8 text (unexpected end of data at byte 5); save it as UTF-8"),
    refused("a NUL", _yaml(f"{BASE}seed: \0"), YAML_COMMAND,
            "hostile.yaml: not valid YAML: unacceptable character #x0000: special characters are not allowed"),
    refused("half a surrogate pair", _yaml('model: {base: "\\ud800"}\ndata: {source: rows.csv}'), YAML_COMMAND,
            "hostile.yaml: model.base: holds half of a surrogate pair, which is no character; leave it out, "
            r"got '\ud800'"),
    refused("an escape sequence in a key", _yaml(BASE + '"\\e[31m": 1'), YAML_COMMAND,
            rf"hostile.yaml: '\x1b[31m': unknown key; {KNOWN}"),
    refused("a hexadecimal number of 900,000 digits", _yaml(f"{BASE}seed: 0x{'f' * 900_000}"), YAML_COMMAND,
            "hostile.yaml: seed: input should be less than 4294967296, got a number of too many digits"),
    refused("a date that is none", _yaml(f"{BASE}seed: 2020-99-99"), YAML_COMMAND,
            "hostile.yaml: not valid YAML: month must be in 1..12"),
    refused("a number for a key", _yaml(f"{BASE}1: 2"), YAML_COMMAND, "hostile.yaml: 1: keys should be strings, got 1"),
    refused("`extends` in a circle", _yaml("extends: hostile.yaml"), YAML_COMMAND,
            "hostile.yaml: extends itself (…/hostile.yaml → …/hostile.yaml); remove one `extends`"),
    refused("`extends` out of the folder to a file that is no recipe",
            inputs.both(_yaml("extends: ../elsewhere/rows.csv"), inputs.file("../elsewhere/rows.csv", "a,b")),
            YAML_COMMAND,
            "../elsewhere/rows.csv: must be a mapping of sections such as model and data, got str"),
    refused("`extends` of a device", _yaml("extends: /dev/zero"), YAML_COMMAND,
            "/dev/zero: no such recipe file; `medtune recipes` lists the shipped ones"),
]  # fmt: skip

CASES: dict[str, list[Refused]] = {"XML": XML, "YAML recipes": YAML}


@parametrize(XML)
def test_xml(case: Refused, medtune: Medtune, workspace) -> None:
    require_refused(case, medtune, workspace)


@parametrize(YAML)
def test_yaml(case: Refused, medtune: Medtune, workspace) -> None:
    require_refused(case, medtune, workspace)
