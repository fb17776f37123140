"""What is written beside an exported model, and whose folder it may be written to."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest

from export_subjects import subject_of
from gguf_twins import LLAMA_3, splitting_by
from medtune.errors import ModelError
from medtune.publishing.export import page
from medtune.publishing.export.page import ExportRecord, read_record, require_own_folder, write_page
from medtune.publishing.export.subject import Subject
from medtune.publishing.licences import BaseLicence
from medtune.publishing.public_names import PublicNames
from medtune.storage.reading import DamagedError

RECORD = ExportRecord(
    "gguf", "q8_0", "owner/base", "abc", "f1", ("m.gguf",), ("llama-server -m m.gguf", "second"), ("A note.",)
)


@pytest.fixture
def subject(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Subject:
    made = subject_of(tmp_path / "model", "LLaMA 3", splitting_by(LLAMA_3, whole_words=True))
    made.run.config.data.system_prompt = " Answer kindly.\n"
    names = PublicNames("owner/base", True, "abc", "owner/rows", True, None, (("/home/anna/runs", "runs"),))
    agreement = tmp_path / "LICENSE"
    agreement.write_text("The agreement.")
    monkeypatch.setattr(page, "agreement_files", lambda run: {"LICENSE": agreement})
    return replace(made, names=names, licence=BaseLicence("llama3.1", "Llama 3.1", "Built with Llama", "A notice."))


def test_the_page_says_what_it_is_under_which_licence_and_how_it_is_run(subject: Subject, tmp_path: Path) -> None:
    to = tmp_path / "out"
    to.mkdir()
    write_page(subject, to, RECORD, ["Merged from /home/anna/runs within its bound."])
    text = (to / "README.md").read_text()
    assert text.startswith(
        "# mine-yours\n\nA model for questions and answers in medicine, for gguf. **Not medical advice"
    )
    assert "```console\nllama-server -m m.gguf\nsecond\n```\n" in text
    assert "\nThe run asked with this system prompt:\n\n```text\nAnswer kindly.\n```\n" in text
    facts = [line for line in text.splitlines() if line.startswith("- ")]
    assert facts[0] == "- Base model: owner/base (commit abc), under Llama 3.1. **Built with Llama.**"
    assert facts[-3].startswith("- Answers: greedy, at most 256 new tokens, ended by <|end|>")
    assert facts[-2:] == ["- Merged from runs within its bound.", "- A note."]
    assert (to / "LICENSE").read_text() == "The agreement."
    assert (to / "NOTICE").read_text() == "A notice.\n"
    assert read_record(to) == RECORD


def test_without_a_notice_and_a_system_prompt_there_are_none(subject: Subject, tmp_path: Path) -> None:
    subject.run.config.data.system_prompt = "  "
    to = tmp_path / "out"
    to.mkdir()
    write_page(replace(subject, licence=BaseLicence("mit", "mit")), to, replace(RECORD, notes=()), [])
    text = (to / "README.md").read_text()
    assert "system prompt" not in text
    assert "**Built" not in text
    assert not (to / "NOTICE").exists()


def test_a_folder_is_new_empty_or_an_export_of_the_same_adapter(tmp_path: Path) -> None:
    require_own_folder(tmp_path / "new", "f1")
    require_own_folder(tmp_path, "f1")
    (tmp_path / "merged").mkdir()  # made first, where an export was interrupted
    require_own_folder(tmp_path, "f1")
    (tmp_path / "export.json").write_text(json.dumps({"adapter": "f1"}))
    require_own_folder(tmp_path, "f1")
    with pytest.raises(ModelError, match="holds an export of another adapter; delete it, or give another --to"):
        require_own_folder(tmp_path, "f2")


@pytest.mark.parametrize("name", ["notes.txt", "export.json"])
def test_what_is_no_export_is_left_alone(tmp_path: Path, name: str) -> None:
    (tmp_path / name).write_text("mine")
    with pytest.raises(ModelError, match="not empty, and no export; give another --to"):
        require_own_folder(tmp_path, "f1")


def test_a_file_and_a_link_to_nowhere_are_no_folders(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    (tmp_path / "link").symlink_to(tmp_path / "absent")
    for name in ("file", "link"):
        with pytest.raises(ModelError, match="is a file, not a directory"):
            require_own_folder(tmp_path / name, "f1")


def test_a_damaged_record_is_told(tmp_path: Path) -> None:
    (tmp_path / "export.json").write_text('{"format": 1}')
    with pytest.raises(DamagedError):
        read_record(tmp_path)
