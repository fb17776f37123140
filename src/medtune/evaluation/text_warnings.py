"""What readers of scores have to know of the texts: letters that no tokenizer read, and text that is not the answer."""

from collections import defaultdict
from collections.abc import Iterator, Mapping

from medtune.evaluation.formatting import format_count, listed
from medtune.evaluation.metrics import metric_named
from medtune.records import Score

_BETTER = {"bleu": "bleu_tokenizer to auto"}


def text_warnings(systems: Mapping[str, Mapping[str, Score]]) -> list[str]:
    """Sentences on the texts behind the scores of `systems`, by name; an only system may have an empty one."""
    first = next(iter(systems.values()), {})
    return [*_unread(first), *_not_installed(first), *_not_answers(systems)]


def _unread(scores: Mapping[str, Score]) -> Iterator[str]:
    # All systems have the same references.
    unread = {name: score for name, score in scores.items() if "share_of_letters_unread" in score.details}
    alike: dict[tuple[str, str], list[str]] = defaultdict(list)
    for name, score in unread.items():
        if metric_named(name).table == "compat":
            reason = "write-ups in English use no other"
        else:
            reason = f"set evaluation.{_BETTER.get(name, 'rouge_tokenizer to unicode-words')}"
        alike[reason, f"{score.details['share_of_letters_unread']:.0%}"].append(name)
    for (reason, share), names in alike.items():
        tokenizers = list(dict.fromkeys(unread[name].details["tokenizer"] for name in names))
        yield (
            f"Warning: do not go by {listed(names)}: {share} of the letters in the references are beyond the "
            f"{'tokenizer' if len(tokenizers) == 1 else 'tokenizers'} {listed(tokenizers)}; {reason}."
        )


def _not_installed(scores: Mapping[str, Score]) -> Iterator[str]:
    for name, score in scores.items():
        if better := score.details.get("tokenizer_not_installed"):
            yield (
                f"Warning: {name} compares characters and not words, because {better} is not installed; "
                f"`pip install 'sacrebleu[{better[:2]}]'` and evaluate all again."
            )


def _not_answers(systems: Mapping[str, Mapping[str, Score]]) -> Iterator[str]:
    parts: list[str] = []
    references: list[str] = []
    for system, scores in systems.items():
        found = next((score.details["not_answer"] for score in scores.values() if "not_answer" in score.details), None)
        if found is None:
            continue
        if found["answers"]:
            parts.append(f"{describe_kinds(found['answers'], 'answer')}{f' of {system}' if system else ''}")
        if found["references"]:
            references = [describe_kinds(found["references"], "reference")]
    if parts or references:
        yield (
            f"Warning: text that is not the answer was left out before scoring: {'; '.join(parts + references)}. "
            "The files of predictions keep it."
        )


def describe_kinds(kinds: Mapping[str, int], noun: str) -> str:
    """Counts of kinds of text that is not the answer: `reasoning in 3 answers and end token in 1 answer`."""
    return listed([f"{kind} in {format_count(count, noun)}" for kind, count in kinds.items()])
