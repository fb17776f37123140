"""Folders that the `datasets` library wrote with `save_to_disk`: Arrow files and their description in JSON."""

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from medtune.errors import DataError, first_line

_BATCH = 1000


def is_saved_data_set(folder: Path) -> bool:
    """Whether `save_to_disk` wrote this folder: one data set, or several splits."""
    return (folder / "dataset_dict.json").is_file() or (folder / "state.json").is_file()


def read_saved_data_set(folder: Path, max_bytes: int) -> dict[str, Iterator[Mapping[str, Any]]]:
    """Rows by split, with the name "" where the folder holds one data set.

    Nothing is decoded or executed: rows are read as Arrow stores them. Raises DataError, in one line.
    """
    import datasets
    import pyarrow as pa

    size = sum(file.stat().st_size for file in folder.rglob("*.arrow"))
    if size > max_bytes:
        raise DataError(folder, f"larger than {max_bytes:,} bytes", "split it, or leave out what is not needed")
    try:
        loaded = datasets.load_from_disk(str(folder))
    except (OSError, ValueError, KeyError, TypeError, AttributeError, pa.ArrowException) as error:
        problem = f"not a readable folder of save_to_disk ({first_line(error)})"
        raise DataError(folder, problem, "save it again") from None
    parts = loaded if isinstance(loaded, datasets.DatasetDict) else {"": loaded}
    return {str(name): _rows(part) for name, part in parts.items()}


def _rows(part: Any) -> Iterator[Mapping[str, Any]]:
    for batch in part.with_format("arrow").iter(batch_size=_BATCH):
        yield from batch.to_pylist()
