"""Makers of hostile files."""

from __future__ import annotations

import gzip
import hashlib
import json
import os
import pickle
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

from hostile.cases import MARK, Maker

HEADER = b"qtype,Question,Answer\n"
RUN, CHECKPOINT = Path("run"), Path("run/checkpoints/checkpoint-2")


class Planted:
    """A pickle of it runs a command where it is loaded."""

    def __init__(self, workspace: Path) -> None:
        self.mark = workspace / MARK

    def __reduce__(self) -> Any:
        return os.system, (f"touch '{self.mark}'",)


def file(name: str, content: str | bytes) -> Maker:
    """Writes a file."""
    data = content if isinstance(content, bytes) else content.encode("utf-8", "surrogatepass")

    def make(workspace: Path) -> None:
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(data)

    return make


def csv_rows(*rows: str | bytes, name: str = "hostile.csv") -> Maker:
    encoded = [row if isinstance(row, bytes) else row.encode() for row in rows]
    return file(name, HEADER + b"".join(row + b"\n" for row in encoded))


def json_rows(*rows: Any, name: str = "hostile.jsonl") -> Maker:
    return file(name, "".join(json.dumps(row) + "\n" for row in rows))


def huge(name: str, size: int = 3 << 30) -> Maker:
    """A file of zeros that takes no room on disk."""

    def make(workspace: Path) -> None:
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        with path.open("wb") as sparse:
            sparse.truncate(size)

    return make


def bomb(name: str, unpacked: int = 1 << 31, content: bytes = b"\n") -> Maker:
    """Two gibibytes of line breaks, which pack a thousand times over."""
    return file(name, gzip.compress(content * (1 << 20)) * (unpacked >> 20))


def parquet(name: str = "hostile.parquet", **columns: Any) -> Maker:
    def make(workspace: Path) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        pq.write_table(pa.table(columns), workspace / name)

    return make


def parquet_bomb(workspace: Path) -> None:
    """Two million equal rows of 1,000 characters, as a dictionary of one: 2 GB unpacked."""
    import pyarrow as pa
    import pyarrow.parquet as pq

    number = pa.repeat(pa.scalar(0, pa.int32()), 2_000_000)
    columns = {name: pa.DictionaryArray.from_arrays(number, ["q" * 1000]) for name in ("Question", "Answer")}
    pq.write_table(pa.table(columns), workspace / "hostile.parquet")


def parquet_not_utf8(workspace: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    offsets, text = pa.py_buffer(b"\0\0\0\0\1\0\0\0"), pa.py_buffer(b"\xff")
    broken = pa.Array.from_buffers(pa.utf8(), 1, [None, offsets, text])
    pq.write_table(pa.table({"Question": broken, "Answer": ["a"]}), workspace / "hostile.parquet")


def parquet_twice(workspace: Path) -> None:
    import pyarrow as pa
    import pyarrow.parquet as pq

    table = pa.Table.from_arrays([pa.array(["a"])] * 3, ["Question", "Question", "Answer"])
    pq.write_table(table, workspace / "hostile.parquet")


def parquet_of(**columns: Callable[[], Any]) -> Maker:
    """Columns that take pyarrow to make, which this module does not import."""
    return lambda workspace: parquet(**{name: column() for name, column in columns.items()})(workspace)


def cut(name: str, by: int, *, first: Maker) -> Maker:
    """What `first` makes, without its last bytes."""

    def make(workspace: Path) -> None:
        first(workspace)
        path = workspace / name
        path.write_bytes(path.read_bytes()[:-by])

    return make


def link(name: str, target: str) -> Maker:
    def make(workspace: Path) -> None:
        path = workspace / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.unlink(missing_ok=True)
        path.symlink_to(target)

    return make


def both(*makers: Maker) -> Maker:
    def make(workspace: Path) -> None:
        for maker in makers:
            maker(workspace)

    return make


def edit_json(name: str, change: Callable[[Any], Any]) -> Maker:
    """Changes a JSON file: what `change` returns, or else what it has made of the values."""

    def make(workspace: Path) -> None:
        path = workspace / name
        values = json.loads(path.read_text(encoding="utf-8"))
        changed = change(values)
        # As medtune writes it, so that what is only written again stays as it is.
        text = json.dumps(values if changed is None else changed, indent=2, ensure_ascii=False)
        path.write_text(f"{text}\n", encoding="utf-8")

    return make


def remove(name: str) -> Maker:
    def make(workspace: Path) -> None:
        path = workspace / name
        shutil.rmtree(path) if path.is_dir() else path.unlink()

    return make


def incomplete(*stages: str) -> Maker:
    """The run without the record that `stages` have ended."""

    def change(provenance: Any) -> None:
        provenance["stages"] = {name: cost for name, cost in provenance["stages"].items() if name not in stages}

    return edit_json("run/provenance.json", change)


def unfinished_training(*edits: Maker, sealed: bool = True) -> Maker:
    """The run as it was at step 2, its checkpoint edited, and with `sealed` sealed again to hide it."""

    def make(workspace: Path) -> None:
        incomplete("train", "tuned", "compare")(workspace)
        for gone in ("run/checkpoints/checkpoint-4", "run/adapter"):
            remove(gone)(workspace)
        history = workspace / "run/training/history.jsonl"
        lines = [line for line in history.read_text().splitlines(keepends=True) if json.loads(line)["step"] <= 2]
        history.write_text("".join(lines))
        for edit in edits:
            edit(workspace)
        if sealed:
            _seal(workspace / CHECKPOINT)

    return make


def _seal(folder: Path) -> None:
    path = folder / "sealed.json"
    values = json.loads(path.read_text())
    found = [found for found in folder.rglob("*") if found.is_file() and found != path]
    values["files"] = {
        found.relative_to(folder).as_posix(): {
            "bytes": found.stat().st_size,
            "sha256": hashlib.sha256(found.read_bytes()).hexdigest(),
        }
        for found in found
    }
    path.write_text(json.dumps(values))


def pickled(name: str) -> Maker:
    """A plain pickle with code in it."""
    return lambda workspace: (workspace / name).write_bytes(pickle.dumps(Planted(workspace)))


def torch_saved(name: str, value: Callable[[Path], Any] = Planted) -> Maker:
    """What torch saves of a value, with code in it unless another value is given."""

    def make(workspace: Path) -> None:
        import torch

        torch.save(value(workspace), workspace / name)

    return make


def edit_weights(name: str, change: Callable[[dict[str, Any]], dict[str, Any]]) -> Maker:
    def make(workspace: Path) -> None:
        from safetensors.torch import load_file, save_file

        save_file(change(load_file(workspace / name)), workspace / name)

    return make


def planted_module(workspace: Path) -> None:
    """A module in the working folder that leaves the mark behind where it is imported."""
    (workspace / "planted.py").write_text(f"open({str(workspace / MARK)!r}, 'w').close()\n")


def own_model(*edits: Maker) -> Maker:
    """The model as a folder of the workspace's own, edited."""

    def make(workspace: Path) -> None:
        source = (workspace / "model").resolve()
        (workspace / "model").unlink()
        shutil.copytree(source, workspace / "model")
        both(*edits)(workspace)

    return make


def adapter(*edits: Maker) -> Maker:
    """A copy of the run's adapter in `adapter`, edited, beside a module that nothing must import."""

    def make(workspace: Path) -> None:
        shutil.copytree(workspace / "run" / "adapter", workspace / "adapter")
        both(planted_module, *edits)(workspace)

    return make


def adapter_setting(**settings: Any) -> Maker:
    return adapter(edit_json("adapter/adapter_config.json", lambda values: values.update(settings)))
