"""Copies of a run for machines that share no files, each "machine" a process with a folder of its own."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from launches import finish, start
from medtune.run_dir import copies
from medtune.run_dir.copies import copy_to_other_machines
from medtune.run_dir.layout import RunFiles

SCRIPT = """
import json, sys
from pathlib import Path
from medtune.run_dir import copies
from medtune.run_dir.layout import RunFiles
from medtune.runtime.distributed import joined
from medtune.runtime.launch import rank

copies.PIECE_BYTES, copies._LATE = 1000, 0.3
sent = []
take = copies.bytes_from_main

def counted(work, *, wanted):
    piece = take(work, wanted=wanted)
    sent.append(len(piece))
    return piece

copies.bytes_from_main = counted
run = RunFiles(Path(sys.argv[1 + rank()]))
with joined():
    copies.copy_to_other_machines(run, [run.path / name for name in json.loads(sys.argv[3])] if rank() == 0 else ())
print(json.dumps(sent))
"""


def pieces(tmp_path: Path, folders: list[Path], names: list[str], machines: int = 2) -> list[list[int]]:
    """The sizes of what the processes sent and received, of files of the first folder."""
    (tmp_path / "script.py").write_text(SCRIPT)
    local = str(2 // machines)
    started = start(2, tmp_path / "script.py", *folders, json.dumps(names), environment={"LOCAL_WORLD_SIZE": local})
    done = finish(started)
    assert [one.returncode for one in done] == [0, 0], done[0].stderr + done[1].stderr
    return [json.loads(one.stdout) for one in done]


@pytest.fixture
def folders(tmp_path: Path) -> list[Path]:
    first = tmp_path / "first"
    (first / "data").mkdir(parents=True)
    (first / "config.yaml").write_text("seed: 0\n")
    (first / "data/train.parquet").write_bytes(bytes(range(256)) * 40)
    (first / "empty.json").touch()
    return [first, tmp_path / "second"]


NAMES = ["config.yaml", "data/train.parquet", "empty.json", "absent.json"]


@pytest.mark.slow
def test_another_machine_gets_what_it_lacks(tmp_path: Path, folders: list[Path]) -> None:
    first, second = folders
    sent, received = pieces(tmp_path, folders, NAMES)
    assert sent == received
    assert sum(sent) == 8 + 256 * 40
    assert {str(file.relative_to(second)): file.read_bytes() for file in second.rglob("*") if file.is_file()} == {
        name: (first / name).read_bytes() for name in NAMES[:3]
    }
    assert not (first / copies.MARK_NAME).exists()


@pytest.mark.slow
def test_what_is_there_is_not_sent_again_and_what_has_changed_is(tmp_path: Path, folders: list[Path]) -> None:
    pieces(tmp_path, folders, NAMES)
    (folders[0] / "config.yaml").write_text("seed: 1\n")  # as long as before
    assert pieces(tmp_path, folders, NAMES) == [[8], [8]]
    assert (folders[1] / "config.yaml").read_text() == "seed: 1\n"


@pytest.mark.slow
@pytest.mark.parametrize("machines", [1, 2])
def test_a_shared_folder_is_left_as_it_is(tmp_path: Path, folders: list[Path], machines: int) -> None:
    before = {file: file.stat().st_mtime_ns for file in folders[0].rglob("*")}
    assert pieces(tmp_path, [folders[0], folders[0]], NAMES, machines) == [[], []]
    assert {file: file.stat().st_mtime_ns for file in folders[0].rglob("*")} == before


def test_one_process_copies_nothing(folders: list[Path]) -> None:
    copy_to_other_machines(RunFiles(folders[1]), [folders[0] / "config.yaml"])
    assert not folders[1].exists()
