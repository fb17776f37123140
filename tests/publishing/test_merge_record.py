"""What merging changed, in sentences, and the notes on a merged model's card."""

from dataclasses import replace

from medtune.model.merging.record import Divergence, MergeMeasurement, MergeRecord
from medtune.publishing.merge_record import is_within_bound, merge_sentences, merged_notes, read_merge

MEASURED = MergeMeasurement(
    prompts=64, positions=6000, kl=Divergence(0.02, 0.1, 1.5), agreement=0.951, rounding=Divergence(2e-5, 1e-4, 1e-3),
    tuning=Divergence(1.2, 3.0, 9.0), new_tokens=64, same_prefix=0.5, same_answers=20, quantization="nf4",
    compute_dtype="bfloat16", bound=0.1, rounding_bound=0.01, within_bound=True,
)  # fmt: skip


RECORD = MergeRecord("d", "m/b", "a" * 40, "f", "bfloat16", 9, 16_060_000_000, 224, 60.0, 10**9, MEASURED)


def test_the_sentences():
    text = " ".join(merge_sentences(RECORD))
    assert f"merged into m/b at {'a' * 12}: 16.1 GB of bfloat16 weights in 9 files." in text
    assert "On 6,000 answer tokens of 64 test questions" in text
    assert "by 0.0200 nats a token on average (95 % by at most 0.1000, the largest 1.5000)" in text
    assert "the likeliest token is the same at 95.1%" in text
    assert "by 0.000020: that is what merging rounded" in text
    assert "20 of 64 are the same, and 50% of the tokens" in text
    assert "Warning" not in text
    unmeasured = replace(RECORD, measured=None, not_measured="no time")
    assert merge_sentences(unmeasured)[1:] == [
        "What merging changed was not measured: no time. What was evaluated is the adapter beside its base."
    ]
    assert merge_sentences(unmeasured, evaluated=False, public=True)[1:] == ["What merging changed was not measured."]
    assert "evaluated" not in " ".join(merge_sentences(RECORD, evaluated=False))
    beyond = replace(MEASURED, kl=Divergence(0.3, 1, 2), within_bound=False)
    assert (
        "0.3000 nats a token are beyond the bound of 0.1; the scores of the run need not"
        in merge_sentences(replace(RECORD, measured=beyond))[-1]
    )
    assert merge_sentences(replace(RECORD, measured=beyond), public=True)[-1].endswith("those of the merged model.")


def test_merging_that_moved_a_model_more_than_tuning_did_is_a_warning():
    warning = (
        "Warning: merging moved the model more than tuning did, by 0.0200 nats a token against 0.0100: what tuning "
        "taught may be lost in it."
    )
    weak = replace(RECORD, measured=replace(MEASURED, tuning=Divergence(0.01, 0.1, 1.0)))
    assert merge_sentences(weak)[-1] == warning
    assert merged_notes(weak, "nf4", evaluated=False) == [warning]
    unknown = replace(RECORD, measured=replace(MEASURED, tuning=None))
    assert "Warning" not in " ".join(merge_sentences(unknown))
    broken = replace(RECORD, measured=replace(MEASURED, kl=Divergence(float("nan"), 1.0, 1.0)))
    assert "merging moved the model more than tuning did" in merge_sentences(broken)[-1]


def test_a_merge_that_was_not_measured_is_not_within_its_bound():
    assert is_within_bound(RECORD)
    assert not is_within_bound(replace(RECORD, measured=None))
    assert not is_within_bound(replace(RECORD, measured=replace(MEASURED, within_bound=False)))
    assert not is_within_bound(None)


def test_notes_on_a_merged_models_card():
    assert merged_notes(RECORD, "nf4", evaluated=False) == []
    assert merged_notes(None, "none", evaluated=True) == [
        "The scores were measured with the adapter on its base, not with this model. How far merging moved it from "
        "that was not measured."
    ]
    beyond = replace(RECORD, measured=replace(MEASURED, rounding=Divergence(0.3, 1, 2), within_bound=False))
    assert merged_notes(beyond, "nf4", evaluated=False) == [
        "Warning: merging by itself changed 0.3000 nats a token, and the bound is 0.01; do not use this merge."
    ]


def test_a_run_that_was_not_merged_has_no_record(finished_run):
    assert read_merge(finished_run) is None
