"""What `merge.json` says of a run's merged model, for the card, the report and the terminal."""

from medtune.errors import Command, Option
from medtune.model.adapters import adapter_fingerprint
from medtune.model.merging.folder import read_record
from medtune.model.merging.record import MergeMeasurement, MergeRecord
from medtune.model.quantization import FORMATS
from medtune.run_dir.directory import RunDir


def read_merge(run_dir: RunDir) -> MergeRecord | None:
    """The merge of the adapter that the run has now; None if there is none, or it is of an earlier adapter.

    Raises ModelError if `merge.json` is damaged.
    """
    record = read_record(run_dir.merge_file)
    weights = run_dir.adapter_dir / "adapter_model.safetensors"
    # A run that evaluates an adapter from elsewhere has nothing newer to compare with.
    if record is None or (weights.is_file() and record.adapter != adapter_fingerprint(run_dir.adapter_dir)):
        return None
    return record


def merge_sentences(record: MergeRecord, *, evaluated: bool = True, public: bool = False) -> list[str]:
    """What merging changed, in plain sentences; `evaluated` says that the adapter beside its base was.

    `public` leaves out why it was not measured and what to do, which is for whoever has the run.
    """
    origin = record.base + (f" at {record.revision[:12]}" if record.revision else "")
    size = f"{record.bytes / 1e9:.1f} GB" if record.bytes >= 10**9 else f"{record.bytes / 1e6:.1f} MB"
    sentences = [
        f"The adapter is merged into {origin}: {size} of {record.dtype} weights in "
        f"{record.shards} file{'s' if record.shards != 1 else ''}."
    ]
    if record.measured is None:
        reason = "" if public else f": {record.not_measured or 'no reason was given'}"
        scored = " What was evaluated is the adapter beside its base." if evaluated else ""
        return [*sentences, f"What merging changed was not measured{reason}.{scored}"]
    return [*sentences, *measured_sentences(record.measured, evaluated, public)]


def is_within_bound(record: MergeRecord | None) -> bool:
    """Whether merging was measured, and changed no more than the scores can bear."""
    return record is not None and record.measured is not None and record.measured.within_bound


def merged_notes(record: MergeRecord | None, quantization: str, *, evaluated: bool) -> list[str]:
    """What the card of a merged model says before the verdict: whose scores they are, and a warning if there is one."""
    found = record.measured if record else None
    notes = []
    if evaluated:
        changed = (
            "How far merging moved it from that was not measured."
            if found is None
            else f"Its next tokens diverge from that one's by {_nats(found.kl.mean)} nats a token on average."
        )
        notes = [f"The scores were measured with the adapter on {_base(quantization)}, not with this model. {changed}"]
    if found is not None and _outdoes_tuning(found):
        notes.append(f"Warning: {_outdone(found)}.")
    if found is not None and not found.within_bound:
        notes.append(f"Warning: {_beyond(found, evaluated, public=True)}.")
    return notes


def measured_sentences(found: MergeMeasurement, evaluated: bool, public: bool) -> list[str]:
    """What was measured of a merged model; `evaluated` and `public` as in `merge_sentences`."""
    scored = ", which was evaluated," if evaluated else ""
    sentences = [
        f"On {found.positions:,} answer tokens of {found.prompts} test questions, its next tokens diverge from those "
        f"of the adapter on {_base(found.quantization)}{scored} by {_nats(found.kl.mean)} nats a token on average "
        f"(95 % by at most {_nats(found.kl.p95)}, the largest {_nats(found.kl.max)}); the likeliest token is the same "
        f"at {found.agreement:.1%}."
    ]
    if found.rounding is not None and FORMATS[found.quantization].packed:
        sentences.append(
            f"From the adapter on the base in 16 bit it diverges by {_nats(found.rounding.mean)}: that is what merging "
            "rounded, the rest is what quantisation had changed."
        )
    if found.tuning is not None:
        sentences.append(f"Tuning itself moved the next tokens by {_nats(found.tuning.mean)}.")
    if found.same_prefix is not None:
        sentences.append(
            f"Among greedy answers of at most {found.new_tokens} tokens, {found.same_answers} of {found.prompts} are "
            f"the same, and {found.same_prefix:.0%} of the tokens come before the first difference."
        )
    if _outdoes_tuning(found):
        sentences.append(f"Warning: {_outdone(found)}.")
    if not found.within_bound:
        sentences.append(f"Warning: {_beyond(found, evaluated, public)}.")
    return sentences


def _outdoes_tuning(found: MergeMeasurement) -> bool:
    """Whether merging moved the next tokens further than tuning had; NaN counts as further."""
    return found.tuning is not None and not found.kl.mean <= found.tuning.mean


def _outdone(found: MergeMeasurement) -> str:
    assert found.tuning is not None
    return (
        f"merging moved the model more than tuning did, by {_nats(found.kl.mean)} nats a token against "
        f"{_nats(found.tuning.mean)}: what tuning taught may be lost in it"
    )


def _base(quantization: str) -> str:
    storage = FORMATS[quantization]
    return f"the {storage.label} base" if storage.packed else "its base"


def _beyond(found: MergeMeasurement, evaluated: bool, public: bool) -> str:
    if found.rounding is not None and not found.rounding.mean <= found.rounding_bound:
        return (
            f"merging by itself changed {_nats(found.rounding.mean)} nats a token, and the bound is "
            f"{found.rounding_bound:g}; do not use this merge"
        )
    beyond = f"{_nats(found.kl.mean)} nats a token are beyond the bound of {found.bound:g}"
    if not evaluated:
        return beyond
    doubted = f"{beyond}; the scores of the run need not be those of the merged model"
    if public:
        return doubted
    overrides = (Option("set", "model.base=DIR"), Option("set", "model.quantization=none"))
    prepare = Command("data prepare", "RUN/config.yaml", (Option("run_dir", "NEW"), *overrides))
    evaluate = Command("evaluate", "NEW", (Option("model", "baseline"),))
    return f"{doubted}, so evaluate it by itself: {prepare} and {evaluate}"


def _nats(value: float) -> str:
    return f"{value:.4f}" if value >= 0.001 else f"{value:.6f}"
