"""The Hub: snapshots of models, adapters and data sets."""

import json
import logging
import os
import re
from collections.abc import Iterable, Mapping, Sequence
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from textwrap import shorten
from typing import Any, TypeVar
from urllib.parse import urlsplit

from medtune.errors import DataError, MedtuneError, ModelError, Option, Text, show_value
from medtune.storage.disk_errors import describe_disk_error
from medtune.storage.hub_errors import explained, failure_reason
from medtune.storage.reading import DamagedError, check_type, read_mapping

# Never a pickle (*.bin, *.pt), never code (*.py); and weights once: not those of checkpoint folders, nor a second
# copy in the maker's own format.
LICENCE_FILES = ("LICENSE*", "LICENCE*", "NOTICE*", "Notice*", "USE_POLICY*")
CONFIG_FILES = ("*.json", "*.jinja", "*.model", "*.txt", "tokenizer*", *LICENCE_FILES)
WEIGHT_FILES = ("*.safetensors",)
TOKENIZER_FILES = (
    "tokenizer*", "special_tokens_map.json", "added_tokens.json", "vocab.json", "merges.txt", "chat_template*",
    "spiece.model",
)  # fmt: skip
# Written beside an adapter's weights: the system prompt it was trained with, and the like.
ADAPTER_SETTINGS = "medtune.json"
# With the tokenizer and chat template that it was trained with, where it brings them.
ADAPTER_FILES = ("adapter_config.json", "adapter_model.safetensors", ADAPTER_SETTINGS, *TOKENIZER_FILES)
NEVER = (
    "*.bin", "*.pt", "*.pth", "*.pkl", "*.pickle", "*.py", "*.h5", "*.msgpack", "*.onnx", "original/*",
    "*/*.safetensors", "consolidated*.safetensors",
)  # fmt: skip

_PROXIES = tuple(name for proxy in ("HTTP_PROXY", "HTTPS_PROXY", "ALL_PROXY") for name in (proxy, proxy.lower()))
_log = logging.getLogger(__name__)
_T = TypeVar("_T")


def fetch_snapshot(repo: str, revision: str | None = None, *, weights: bool = True) -> Path:
    """The local folder of a Hub model's snapshot, downloaded where it is not cached; its name is the commit.

    Only configuration, tokenizer and safetensors files are fetched. Raises ModelError if it cannot be had or holds no
    safetensors, which without `weights` is decided by the Hub's list of files.
    """
    wanted = (*CONFIG_FILES, *WEIGHT_FILES) if weights else CONFIG_FILES
    with explained(ModelError, "model", repo, revision):
        # From the cache alone the weights must be complete: they will not come later.
        folder, names, is_cached = _snapshot("model", repo, revision, wanted, cached=(*CONFIG_FILES, *WEIGHT_FILES))
    if is_cached and not _holds_whole_weights(folder):
        problem = "its weights are not all in the local cache, and the Hub cannot be asked for them"
        raise ModelError(f"model {repo}", problem, "try again online, without HF_HUB_OFFLINE")
    if not any(name.endswith(".safetensors") and "/" not in name for name in names):
        fix = "pickled weights are never loaded, so give a repository that has .safetensors files, or convert them"
        raise ModelError(f"model {repo}", "no .safetensors weights in it", fix)
    return folder


def _holds_whole_weights(folder: Path) -> bool:
    """Whether a snapshot has every file that its index of weights names, or weights without an index."""
    index = folder / "model.safetensors.index.json"
    if not index.is_file():
        return any(folder.glob("*.safetensors"))
    try:
        names = set(check_type(dict[str, str], read_mapping(index).get("weight_map")).values())
    except DamagedError:
        return False
    return all((folder / name).is_file() for name in names)


def fetch_adapter(repo: str) -> tuple[Path, list[str]]:
    """The local folder of a Hub adapter's files, and the names of all that its repository holds. Raises ModelError.

    Nothing is fetched from another repository.
    """
    with explained(ModelError, "adapter", repo):
        return _snapshot("model", repo, None, ADAPTER_FILES, cached=ADAPTER_FILES)[:2]


def dataset_revision(name: str, revision: str | None = None) -> str:
    """The commit of a Hub data set that this user may read. Raises DataError if it cannot be had."""
    with explained(DataError, "data set", name, revision):
        # The card alone, so that the cache remembers the commit of `revision` for use offline.
        return _snapshot("dataset", name, revision, ("README.md",), cached=("README.md",))[0].name


def load_hub_dataset(
    name: str, revision: str | None, config: str | None = None, split: str | None = None
) -> tuple[Mapping[str, Iterable[Mapping[str, Any]]], str]:
    """Rows of a Hub data set by the name of their split, in its order, and its commit. Raises DataError.

    `config` is which of its configurations, and `split` which of its splits, such as `train+validation`; None is all.
    """
    import datasets
    from huggingface_hub.errors import LocalEntryNotFoundError

    commit = dataset_revision(name, revision)
    with explained(DataError, "data set", name, revision):
        try:
            builder = datasets.load_dataset_builder(name, config, revision=commit)
            # Where the Hub cannot be had, datasets takes the newest rows in its cache, whatever their commit.
            if builder.hash != commit:
                raise DataError(
                    f"data set {name}",
                    f"its rows at commit {commit} are not in the local cache and the Hub cannot be reached",
                    f"check the network and HF_HUB_OFFLINE, or set data.revision: {builder.hash}",
                )
            builder.download_and_prepare()
            return chosen_splits(builder.as_dataset(), split, f"data set {name}"), commit
        except LocalEntryNotFoundError:
            raise
        except (datasets.exceptions.DatasetsError, FileNotFoundError, ValueError, RuntimeError) as error:
            if problem := describe_disk_error(error, elsewhere=datasets.config.HF_DATASETS_CACHE):
                raise problem from None
            reason = shorten(str(error.__cause__ or error), 300, placeholder=" …")
            fix: Text = "download it and give its table as a CSV, JSONL or Parquet file in data.source"
            if isinstance(error, ValueError) and _CONFIG_UNKNOWN.match(str(error)):
                fix = ("choose one with ", Option("set", "data.hub_config=…"))
            raise DataError(f"data set {name}", f"cannot be loaded as it is ({reason})", fix) from None


# How datasets begins the two errors that list the configurations.
_CONFIG_UNKNOWN = re.compile(r"Config name is missing|BuilderConfig .* not found")


def chosen_splits(parts: Mapping[str, _T], wanted: str | None, what: str) -> dict[str, _T]:
    """Those of `parts` that `wanted` names, joined by +, or all. Raises DataError, naming those there are."""
    names = [name.strip() for name in wanted.split("+")] if wanted else list(parts)
    if unknown := [name for name in names if name not in parts]:
        known = [name for name in parts if name]
        if not known:
            raise DataError(what, "has no splits to choose from", "leave data.hub_split out")
        fix = ("choose with ", Option("set", f"data.hub_split={known[0]}"))
        raise DataError(what, f"no split {show_value(unknown[0])}; it has {', '.join(known[:20])}", fix)
    return {name: parts[name] for name in names}


def _snapshot(
    kind: str, repo: str, revision: str | None, wanted: Sequence[str], *, cached: Sequence[str]
) -> tuple[Path, list[str], bool]:
    """The snapshot's folder, the names of the repository's files, and whether both come from the cache.

    They do where the Hub fails: a run whose weights are here continues while the Hub is down for an hour.
    """
    from huggingface_hub import HfApi, constants, errors, snapshot_download
    from huggingface_hub.errors import HTTPError  # type: ignore[attr-defined]

    check_settings()
    download = partial(snapshot_download, repo, repo_type=kind, revision=revision, ignore_patterns=list(NEVER))
    try:
        # snapshot_download asks the same, but without a time limit.
        info: Any = HfApi().repo_info(repo, repo_type=kind, revision=revision, timeout=constants.HF_HUB_ETAG_TIMEOUT)
        if kind == "dataset" and info.gated:
            HfApi().auth_check(repo, repo_type=kind)  # its card may be public while its rows are not
    except errors.RevisionNotFoundError:
        raise
    except (HTTPError, errors.OfflineModeIsEnabled, json.JSONDecodeError) as error:
        offline = isinstance(error, errors.OfflineModeIsEnabled)
        if kind == "dataset" and not offline:
            raise  # datasets would keep asking for minutes before it looks into its cache
        try:
            folder = Path(download(allow_patterns=list(cached), local_files_only=True))
        except errors.LocalEntryNotFoundError:
            raise error from None
        if not offline:
            _log.warning("%s: taken from the local cache at %s, because %s", repo, folder.name, failure_reason(error))
        return folder, [path.relative_to(folder).as_posix() for path in folder.rglob("*")], True
    folder = Path(download(allow_patterns=list(wanted)))
    return folder, [sibling.rfilename for sibling in info.siblings or []], False


def check_settings() -> None:
    """Raises MedtuneError for an HF_ENDPOINT, proxy or token that no request can be made with; it shows none of them.

    The HTTP library's own messages would quote a part of the address or the token, and not all are HTTP errors.
    """
    from huggingface_hub import constants, get_token, is_offline_mode

    if is_offline_mode():
        return
    if not is_web_address(constants.ENDPOINT):
        raise MedtuneError("HF_ENDPOINT", "no web address", "unset it, or set it to one such as https://huggingface.co")
    for name in _PROXIES:
        value = os.environ.get(name, "")
        if value.startswith("socks") and find_spec("socksio") is None:
            raise MedtuneError(name, "a SOCKS proxy needs another package", "`pip install httpx[socks]`, or unset it")
        # The address of a SOCKS proxy is checked as if it were HTTP's.
        address = value.replace("socks5h://", "http://", 1).replace("socks5://", "http://", 1)
        if value and not is_web_address(address if "://" in address else f"http://{address}"):
            raise MedtuneError(name, "not a proxy's address", "unset it, or set it to one such as http://host:port")
    token = get_token() or ""
    if not (token.isascii() and token.isprintable()):
        raise MedtuneError("HF_TOKEN, or the stored token", "holds characters that no token has", "copy it again")


def is_web_address(text: str) -> bool:
    """Whether requests can be made to it."""
    try:
        address = urlsplit(text)
        return address.scheme in ("http", "https") and bool(address.hostname) and address.port != 0
    except ValueError:  # a port that is no number
        return False


def is_repository_name(name: str) -> bool:
    """Whether `name` could be a repository on the Hub."""
    from huggingface_hub.errors import HFValidationError
    from huggingface_hub.utils import validate_repo_id  # type: ignore[attr-defined]

    try:
        validate_repo_id(name)
    except HFValidationError:
        return False
    return bool(name.strip("/") == name and name)
