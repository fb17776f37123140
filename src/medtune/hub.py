"""The Hub: snapshots of models, data sets, and what goes wrong with them, said in one line."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from medtune.errors import DataError, MedtuneError, ModelError

# Never a pickle (*.bin, *.pt), never code (*.py).
CONFIG_FILES = ["*.json", "*.jinja", "*.model", "*.txt", "tokenizer*"]
WEIGHT_FILES = ["*.safetensors"]
NEVER = ["*.bin", "*.pt", "*.pth", "*.pkl", "*.py", "*.h5", "*.msgpack", "*.onnx", "original/*"]


def fetch_snapshot(repo: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """The local folder of a Hub model's snapshot, downloaded where it is not cached; its name is the commit.

    Only configuration, tokenizer and safetensors files are fetched. Raises ModelError.
    """
    from huggingface_hub import snapshot_download

    with _explained(ModelError, "model", repo, revision):
        patterns = CONFIG_FILES + (WEIGHT_FILES if weights else [])
        return Path(snapshot_download(repo, revision=revision, allow_patterns=patterns, ignore_patterns=NEVER))


def dataset_revision(name: str, revision: str | None = None) -> str | None:
    """The commit of a Hub data set; None when offline. Raises DataError if it cannot be had."""
    from huggingface_hub import HfApi
    from huggingface_hub.constants import is_offline_mode

    if is_offline_mode():
        return None
    with _explained(DataError, "data set", name, revision):
        return HfApi().dataset_info(name, revision=revision).sha


def load_hub_dataset(name: str, revision: str | None) -> tuple[Iterable[Mapping[str, Any]], str | None]:
    """Every row of a Hub data set, all its splits in their order, and its commit. Raises DataError."""
    import datasets

    commit = dataset_revision(name, revision)
    with _explained(DataError, "data set", name, revision):
        loaded = datasets.load_dataset(name, revision=commit or revision)
        table = datasets.concatenate_datasets([loaded[split] for split in loaded])
    return table, commit


@contextmanager
def _explained(error_class: type[MedtuneError], kind: str, name: str, revision: str | None) -> Iterator[None]:
    from huggingface_hub import errors
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    where = f"{kind} {name}" + (f" at {revision}" if revision else "")
    try:
        yield
    except errors.GatedRepoError:
        raise error_class(
            f"{where}: gated; accept its licence on its Hub page, then log in with `hf auth login` or set HF_TOKEN"
        ) from None
    except errors.RevisionNotFoundError:
        raise error_class(f"{where}: no such revision on the Hub; check model.revision or data.revision") from None
    except errors.RepositoryNotFoundError:
        raise error_class(
            f"{where}: not on the Hub, or private; check the name, or log in with `hf auth login` or set HF_TOKEN"
        ) from None
    except errors.HFValidationError:
        raise error_class(f"{where}: neither an existing path nor a Hub id of the form owner/name") from None
    except (errors.OfflineModeIsEnabled, errors.LocalEntryNotFoundError):
        raise error_class(
            f"{where}: not in the local cache and the Hub cannot be reached; check the network, HF_ENDPOINT and "
            "HF_HUB_OFFLINE"
        ) from None
    except (HTTPError, ConnectionError) as error:
        first = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise error_class(f"{where}: the Hub did not answer as expected ({first}); try again later") from None
    except FileNotFoundError as error:
        raise error_class(f"{where}: {str(error).splitlines()[0]}") from None
