"""A tokenizer as llama.cpp knows it: its tokens with their kinds, and its merges or scores.

llama.cpp splits texts before merging by rules that it has by name; a tokenizer that splits otherwise is refused, since
its tokens would silently be others. Unicode normalisation (NFC, of Qwen's tokenizers) is not part of any of them.
"""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from medtune.errors import ModelError

if TYPE_CHECKING:
    from gguf import GGUFWriter

_CONTRACTIONS = "(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_WORDS = r"[^\r\n\p{L}\p{N}]?\p{L}+"
_REST = r"| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER, _LOWER = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]", r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_REST_OF_CASED = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+"
_START = r"[^\r\n\p{L}\p{N}]?"
_LLAMA_3 = rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{{1,3}}{_REST}"
_GPT_4O = (
    rf"{_START}{_UPPER}*{_LOWER}+{_CONTRACTIONS}?|{_START}{_UPPER}+{_LOWER}*{_CONTRACTIONS}?"
    rf"|\p{{N}}{{1,3}}{_REST_OF_CASED}"
)
# Expressions of tokenizer.json, and whether whole words of the vocabulary are taken without merging, to llama.cpp's
# names (src/llama-vocab.cpp).
_BY_EXPRESSION = {
    (_LLAMA_3, True): "llama-bpe",
    (_LLAMA_3, False): "dbrx",
    (rf"{_CONTRACTIONS}|{_WORDS}|\p{{N}}{_REST}", False): "qwen2",
    (_GPT_4O, False): "gpt-4o",
    (rf"{_START}{_UPPER}*{_LOWER}+|{_START}{_UPPER}+{_LOWER}*|\p{{N}}{_REST_OF_CASED}", True): "tekken",
}
# A token that no merge makes is a single character, which is never chosen by its score.
_NEVER_MERGED = -1e7


@dataclass(frozen=True, slots=True)
class Vocabulary:
    """`model` is `gpt2` for byte-level tokens, which have `merges`, or `llama` for SentencePiece's, with `scores`.

    `pre` names the rule that splits texts. Tokens are as many as the rows of the embeddings. `special` maps bos, eos,
    eot, unk and pad to ids. `adds_bos` has a reader put BOS before a text, once, also where the chat template writes
    it, and `adds_blank` a blank. `strips` is that special tokens take the blanks behind them, as Phi-3's do.
    """

    model: str
    pre: str
    tokens: list[str]
    kinds: list[int]
    merges: list[str] | None
    scores: list[float] | None
    special: Mapping[str, int]
    adds_bos: bool
    adds_blank: bool
    strips: bool = False

    def write(self, writer: "GGUFWriter") -> None:
        """Write it to the header of a file."""
        writer.add_tokenizer_model(self.model)
        writer.add_tokenizer_pre(self.pre)
        writer.add_token_list(self.tokens)
        writer.add_token_types(self.kinds)
        if self.scores is not None:
            writer.add_token_scores(self.scores)
        if self.merges is not None:
            writer.add_token_merges(self.merges)
        add = {
            "bos": writer.add_bos_token_id, "eos": writer.add_eos_token_id, "eot": writer.add_eot_token_id,
            "unk": writer.add_unk_token_id, "pad": writer.add_pad_token_id,
        }  # fmt: skip
        for name, id in self.special.items():
            add[name](id)
        writer.add_add_bos_token(self.adds_bos)
        writer.add_add_eos_token(False)
        writer.add_add_space_prefix(self.adds_blank)


def read_vocabulary(tokenizer: Any, rows: int, *, end_token_id: int, adds_bos: bool) -> Vocabulary:
    """The vocabulary of a fast tokenizer for embeddings of `rows` rows; `end_token_id` ends an answer.

    Raises ModelError if llama.cpp has no such tokenizer.
    """
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    model = content["model"]
    if model["type"] != "BPE":
        raise ModelError(tokenizer.name_or_path, f"its tokenizer is {model['type']}, and only BPE is written as GGUF")
    splitters = _steps(content["pre_tokenizer"], "pretokenizers")
    is_byte_level = any(step["type"] == "ByteLevel" for step in splitters)
    if not is_byte_level and not model["byte_fallback"]:
        raise ModelError(tokenizer.name_or_path, "its tokenizer is neither byte-level nor falls back to bytes")
    tokens, kinds = _tokens(content, rows, is_byte_level)
    merges = [" ".join(merge) if isinstance(merge, list) else merge for merge in model["merges"]]
    ids = {
        "bos": tokenizer.bos_token_id,
        "eos": tokenizer.eos_token_id if tokenizer.eos_token_id is not None else end_token_id,
        "eot": end_token_id,
        "unk": tokenizer.unk_token_id,
        "pad": tokenizer.pad_token_id,
    }
    return Vocabulary(
        model="gpt2" if is_byte_level else "llama",
        pre=splitting_rule(tokenizer) if is_byte_level else "default",
        tokens=tokens,
        kinds=kinds,
        merges=merges if is_byte_level else None,
        scores=None if is_byte_level else _scores(tokens, model["merges"]),
        special={name: id for name, id in ids.items() if id is not None and id < rows},
        adds_bos=adds_bos,
        adds_blank=not is_byte_level and _adds_blank(content, splitters),
        strips=any(added["rstrip"] for added in content["added_tokens"]),
    )


def splitting_rule(tokenizer: Any) -> str:
    """llama.cpp's name for how a byte-level tokenizer splits texts. Raises ModelError if it has none."""
    content = json.loads(tokenizer.backend_tokenizer.to_str())
    steps = _steps(content["pre_tokenizer"], "pretokenizers")
    kinds = [step["type"] for step in steps]
    last = steps[-1] if steps else {}
    if kinds[-1:] == ["ByteLevel"] and not last["add_prefix_space"]:
        if kinds == ["ByteLevel"] and last["use_regex"]:
            return "gpt-2"
        if kinds == ["Digits", "ByteLevel"] and last["use_regex"] and steps[0]["individual_digits"]:
            return "smollm"
        if kinds == ["Split", "ByteLevel"] and not last["use_regex"] and steps[0]["behavior"] == "Isolated":
            expression = steps[0]["pattern"].get("Regex")
            if name := _BY_EXPRESSION.get((expression, bool(content["model"]["ignore_merges"]))):
                return name
    problem = f"llama.cpp has no name for how its tokenizer splits texts ({', '.join(kinds) or 'not at all'})"
    raise ModelError(tokenizer.name_or_path, problem, "llama.cpp's convert_hf_to_gguf.py may know it")


def _steps(part: Any, name: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    return [step for inner in part[name] for step in _steps(inner, name)] if part["type"] == "Sequence" else [part]


def _tokens(content: dict[str, Any], rows: int, is_byte_level: bool) -> tuple[list[str], list[int]]:
    from gguf import TokenType

    # Rows that no token has, as some makers leave them.
    tokens, kinds = [f"[PAD{row}]" for row in range(rows)], [int(TokenType.UNUSED)] * rows
    unknown = content["model"]["unk_token"]
    for token, id in content["model"]["vocab"].items():
        if id < rows:
            is_byte = not is_byte_level and len(token) == 6 and token.startswith("<0x") and token.endswith(">")
            tokens[id], kinds[id] = token, int(TokenType.BYTE if is_byte else TokenType.NORMAL)
            if token == unknown:
                kinds[id] = int(TokenType.UNKNOWN)
    for added in content["added_tokens"]:
        if (id := added["id"]) < rows and kinds[id] != TokenType.UNKNOWN:
            text = added["content"] if is_byte_level else added["content"].replace("\u2581", " ")
            tokens[id], kinds[id] = text, int(TokenType.CONTROL if added["special"] else TokenType.USER_DEFINED)
    return tokens, kinds


def _scores(tokens: list[str], merges: list[Any]) -> list[float]:
    """The earlier a token is merged, the higher its score."""
    ranks: dict[str, int] = {}
    for rank, merge in enumerate(merges):
        left, right = merge if isinstance(merge, list) else merge.split(" ")
        ranks.setdefault(left + right, rank)
    return [-float(ranks[token]) if token in ranks else _NEVER_MERGED for token in tokens]


def _adds_blank(content: dict[str, Any], splitters: list[dict[str, Any]]) -> bool:
    """Whether a blank comes before a text, also behind a special token; one at the very start does not count."""
    normalizers = _steps(content["normalizer"], "normalizers")
    always = any(step.get("prepend_scheme") == "always" for step in splitters if step["type"] == "Metaspace")
    return always or any(step["type"] == "Prepend" for step in normalizers)
