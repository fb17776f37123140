"""ROUGE-1, -2, -L and -Lsum: mean F1 over rows, 0 to 1, with the values of Google's rouge-score.

Tokens, stems and n-gram counts are rouge-score's own. Its longest common subsequences take minutes on long answers and
are computed here instead; tests hold every value equal to its. Its tokenizer lowers the text and keeps `a-z` and `0-9`
only. Where more than a twentieth of the references' letters are of other scripts than Latin, words of any script are
taken instead; the `compat_` forms keep to it. With several references the best counts, as in rouge-score's
`score_multi`.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from functools import cache
from importlib.metadata import version
from types import SimpleNamespace

from medtune.evaluation.letters import UNREAD_SHARE_WARNING, count_letters, script_of, unread_details, unread_share
from medtune.evaluation.metrics.metric import Answers, Metric, MetricRows
from medtune.evaluation.metrics.unicode_words import TOKENIZER as UNICODE
from medtune.evaluation.metrics.unicode_words import unicode_words

ROUGE_NAMES = ("rouge1", "rouge2", "rougeL", "rougeLsum")
OFFICIAL = "a-z0-9"


def rouge_signature(metric: str, *, stemmer: bool = True, tokenizer: str = OFFICIAL) -> str:
    """Return how `metric` is measured; ROUGE-Lsum also names what it takes for a sentence."""
    own, stems = version("rouge-score"), "yes" if stemmer else "no"
    signature = f"rouge-score:{own}|metric:{metric}|tok:{tokenizer}|stemmer:{stems}"
    if metric == "rougeLsum":
        splitter = f"sentencex:{version('sentencex')}" if stemmer else "lines"
        signature += f"|sentences:{splitter}"
    return signature + "|aggregate:mean-f1"


def rouge_f1(
    predictions: Sequence[str],
    references: Sequence[str],
    metrics: Sequence[str],
    *,
    stemmer: bool = True,
    tokenizer: str = OFFICIAL,
) -> dict[str, list[float]]:
    """Return each row's F1, 0 to 1, under every metric named in `metrics` (of ROUGE_NAMES).

    With `stemmer` words are stemmed and ROUGE-Lsum reads sentences; without it words stay and Lsum reads lines, as in
    most write-ups. `tokenizer` is OFFICIAL, rouge-score's own, or UNICODE. Raises ValueError if the two lists differ in
    length or a metric is unknown.
    """
    if unknown := set(metrics) - set(ROUGE_NAMES):
        raise ValueError(f"unknown ROUGE metrics: {sorted(unknown)}")
    tokenize = _tokenizer(stemmer, tokenizer)
    values: dict[str, list[float]] = {metric: [] for metric in metrics}
    for prediction, reference in zip(predictions, references, strict=True):
        tokens = tokenize(prediction), tokenize(reference)
        for metric in metrics:
            if metric == "rougeLsum":
                split = one_sentence_a_line if stemmer else str
                sentences = [[tokenize(line) for line in split(text).split("\n")] for text in (prediction, reference)]
                value = _summary_level_f1(*sentences)
            elif metric == "rougeL":
                value = _f1(Candidate(tokens[0]).length(tokens[1]), len(tokens[0]), len(tokens[1]))
            else:
                value = _ngram_f1(*tokens, order=int(metric[-1]))
            values[metric].append(value)
    return values


def one_sentence_a_line(text: str) -> str:
    """Split English `text` into sentences, one a line; its own line breaks stay breaks, empty sentences go.

    ROUGE-Lsum unites the longest common subsequences of *lines*, so unsplit text scores lower: 0.264 against 0.319 on
    one set of answers.
    """
    from sentencex import segment

    sentences = (sentence.strip() for line in text.splitlines() for sentence in segment("en", line))
    return "\n".join(sentence for sentence in sentences if sentence)


def choose_tokenizer(wanted: str, references: Sequence[str]) -> str:
    """The one `wanted`; for auto OFFICIAL, unless over a twentieth of the references' letters are not Latin: UNICODE.

    Latin letters with accents are no reason, so that scores of European languages remain the official ones.
    """
    if wanted != "auto":
        return wanted
    share = unread_share(count_letters(references), lambda letter: script_of(letter) == "LATIN")
    return OFFICIAL if share <= UNREAD_SHARE_WARNING else UNICODE


def _is_read_officially(letter: str) -> bool:
    return "a" <= letter.lower()[0] <= "z"


def _tokenizer(stemmer: bool, tokenizer: str) -> Callable[[str], list[str]]:
    from nltk.stem.porter import PorterStemmer
    from rouge_score.tokenize import tokenize  # nltk comes with it: two seconds

    # Each word is stemmed once: the same words occur in thousands of answers.
    stem = cache(PorterStemmer().stem) if stemmer else None
    if tokenizer == UNICODE:
        return lambda text: unicode_words(text, stem)
    words = SimpleNamespace(stem=stem) if stem else None
    return lambda text: tokenize(text, words)


def _f1(hits: int, predicted: int, wanted: int) -> float:
    from rouge_score.scoring import fmeasure

    if not hits:
        return 0.0
    return float(fmeasure(hits / predicted, hits / wanted))


def _ngram_f1(prediction: list[str], reference: list[str], *, order: int) -> float:
    ours, theirs = _ngrams(prediction, order), _ngrams(reference, order)
    return _f1((ours & theirs).total(), ours.total(), theirs.total())


def _ngrams(tokens: list[str], order: int) -> Counter[tuple[str, ...]]:
    return Counter(zip(*(tokens[start:] for start in range(order)), strict=False))


def _summary_level_f1(prediction: list[list[str]], reference: list[list[str]]) -> float:
    """ROUGE's summary level (Lin 2004, section 3.2): hits of a reference sentence are united over all sentences of
    the prediction, and no token counts more often than it occurs on either side."""
    candidates = [Candidate(sentence) for sentence in prediction if sentence]
    left = Counter(token for sentence in prediction for token in sentence)
    wanted = Counter(token for sentence in reference for token in sentence)
    predicted_tokens, reference_tokens = left.total(), wanted.total()
    hits = 0
    for sentence in reference:
        united = {place for candidate in candidates for place in candidate.matched(sentence)}
        for place in sorted(united):
            token = sentence[place]
            if left[token] > 0 and wanted[token] > 0:
                hits += 1
                left[token] -= 1
                wanted[token] -= 1
    return _f1(hits, predicted_tokens, reference_tokens)


class Candidate:
    """A token list that others are compared with, indexed once, on the bits of whole numbers.

    The recurrence is Hyyrö's (2004, "Bit-parallel LCS-length computation revisited"): bit j of a row is 0 where the
    length grows from column j to j + 1, so that the length up to a column is a count of zeros.
    """

    def __init__(self, tokens: Sequence[str]) -> None:
        self.tokens = tokens
        self.all_ones = (1 << len(tokens)) - 1
        places: dict[str, int] = {}
        for column, token in enumerate(tokens):
            places[token] = places.get(token, 0) | (1 << column)
        self.places: Mapping[str, int] = places

    def length(self, reference: Sequence[str]) -> int:
        """Length of the longest subsequence that `reference` and this list share."""
        row = self.all_ones
        for token in reference:
            row = self._next_row(row, token)
        return (row ^ self.all_ones).bit_count()

    def matched(self, reference: Sequence[str]) -> list[int]:
        """Places in `reference` of one longest common subsequence, last first.

        If there are several it is rouge-score's: ties go back along the reference, and ROUGE-Lsum depends on that.
        """
        if self.places.keys().isdisjoint(reference):
            return []
        rows = [self.all_ones]
        for token in reference:
            rows.append(self._next_row(rows[-1], token))
        # The length left changes only at a match: ties between going back in the reference and in the candidate
        # are decided by one bit, and rarely by a count.
        left = (rows[-1] ^ self.all_ones).bit_count()
        found: list[int] = []
        i, j = len(reference), len(self.tokens)
        while left:
            if reference[i - 1] == self.tokens[j - 1]:
                found.append(i - 1)
                i, j, left = i - 1, j - 1, left - 1
            elif not (rows[i] >> (j - 1)) & 1 or _length_at(rows[i - 1], j) == left:
                i -= 1
            else:
                j -= 1
        return found

    def _next_row(self, row: int, token: str) -> int:
        places = self.places.get(token)
        if places is None:
            return row
        matches = row & places
        return ((row + matches) | (row - matches)) & self.all_ones


def _length_at(row: int, column: int) -> int:
    return column - (row & ((1 << column) - 1)).bit_count()


def _measure(answers: Answers, wanted: Sequence[Metric]) -> list[MetricRows]:
    """All of them in two passes, with stems and without: tokens and stems are most of the work."""
    names = [metric.name for metric in wanted]
    texts, references = answers.pairs
    chosen = choose_tokenizer(answers.rouge_tokenizer, references)
    lost = unread_details(count_letters(references), _is_read_officially, OFFICIAL)
    measured = []
    for stemmer, tokenizer in ((True, chosen), (False, OFFICIAL)):
        details = lost if tokenizer == OFFICIAL else {}
        for name, values in rouge_f1(texts, references, names, stemmer=stemmer, tokenizer=tokenizer).items():
            metric = next(one for one in ROUGE_METRICS if one.name == (name if stemmer else f"compat_{name}"))
            signature = rouge_signature(name, stemmer=stemmer, tokenizer=tokenizer) + answers.best_of
            measured.append(MetricRows.of_values(metric, answers.best(values), signature, details))
    return measured


_GLOSSES = {
    "rouge1": "shared words",
    "rouge2": "shared pairs of words",
    "rougeL": "shared words in order",
    "rougeLsum": "shared words in order, line by line",
}
ROUGE_METRICS = tuple(
    Metric(
        name,
        f"ROUGE-{name.removeprefix('rouge')} F1",
        _measure,
        gloss=_GLOSSES[name],
        is_headline=name == "rougeL",
        hub_name="rouge",
        margin=0.01,
    )
    for name in ROUGE_NAMES
) + tuple(
    Metric(f"compat_{name}", f"ROUGE-{name.removeprefix('rouge')} F1", _measure, table="compat", companion_of=name)
    for name in ROUGE_NAMES
)
