from pathlib import Path

import pytest

from medtune.storage.writing import clear_leftovers, is_leftover

NAMES = {"scores.json", "adapter"}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_only_temporary_names_go(tmp_path: Path) -> None:
    for name in (".scores.json.123", ".scores.json", ".scores.json.bak", ".mine.txt.1", "scores.json.1", "scores.json"):
        (tmp_path / name).write_text("x", encoding="utf-8")
    for name in (".adapter-77", ".adapter-ab_c1234", ".adapter-mine", "adapter", ".scores.json.9"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "file").write_text("x", encoding="utf-8")
    (tmp_path / ".scores.json.5").symlink_to("scores.json")
    clear_leftovers(tmp_path, NAMES)
    assert names(tmp_path) == [
        ".adapter-mine", ".mine.txt.1", ".scores.json", ".scores.json.5", ".scores.json.9", ".scores.json.bak",
        "adapter", "scores.json", "scores.json.1",
    ]  # fmt: skip
    clear_leftovers(tmp_path / "nowhere", NAMES)


@pytest.mark.parametrize(("name", "left"), [(".scores.json.1", True), (".scores.json", False), (".lock", False)])
def test_a_file_is_told_by_its_name(tmp_path: Path, name: str, left: bool) -> None:
    assert is_leftover(tmp_path / name, NAMES) is left
