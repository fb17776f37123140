"""The sections of a card say what the run recorded, and nothing where it recorded nothing."""

from medtune.publishing import card_sections
from medtune.publishing.model_card import build_card
from medtune.publishing.public_names import public_names


def test_what_people_and_a_merge_add(copied_run):
    copied_run.write_json(copied_run.human_dir / "scores.json", {"reading": ["Raters prefer *nobody*."]})
    assert "## Ratings by people\n\n- Raters prefer \\*nobody\\*.\n" in build_card(copied_run)
    (copied_run.human_dir / "scores.json").write_text("{")
    assert "## Ratings by people" not in build_card(copied_run)


def test_hardware_and_time_are_those_recorded(copied_run):
    copied_run.update_provenance(
        hardware={"processor": "A chip", "cpu_count": 1, "memory_bytes": 8 << 30,
                  "gpus": [{"name": "Tesla T4\x1b", "memory_bytes": 15 << 30}]},
        stages={
            **{name: {**copied_run.stage_records[name], "seconds": 1.0, "peak_rss_bytes": 0} for name in ("data",)},
            "train": {**copied_run.stage_records["train"], "seconds": 5400.0, "peak_gpu_bytes": 3 << 29},
        },
        versions={"torch": "2.11"}, commit="0123abcd",
    )  # fmt: skip
    recorded = card_sections.read_recorded(copied_run)
    assert card_sections.hardware_lines(recorded) == [r"Tesla T4\x1b (15 GiB)", "A chip, 1 core, 8 GiB of memory"]
    assert card_sections.time_rows(recorded) == [
        ("data", "1 s", "-"), ("train", "1.50 h", "1.50 GiB on the GPU"), ("all", "1.50 h", ""),
    ]  # fmt: skip
    assert card_sections.version_line(recorded) == "torch 2.11, medtune's commit 0123abcd"


def test_a_run_that_recorded_nothing_says_so(copied_run):
    copied_run.provenance_file.unlink()
    copied_run.data_report_file.unlink()
    copied_run.audit_file.unlink()
    recorded = card_sections.read_recorded(copied_run)
    assert card_sections.hardware_lines(recorded) == ["no GPU; unknown, an unknown number of cores"]
    assert card_sections.time_rows(recorded) == [("all", "0 s", "")]
    assert card_sections.version_line(recorded) == "not recorded"
    assert card_sections.compute_dtype(recorded) == "bfloat16"
    assert card_sections.count_rows(copied_run) == card_sections.leakage_rows(copied_run) == []
    rows = dict(card_sections.recipe_rows(copied_run.config, recorded))
    assert (rows["optimiser steps"], rows["validation loss there"]) == ("-", "-")


def test_rows_are_counted_as_the_data_stage_counted_them(finished_run):
    counts = dict(card_sections.count_rows(finished_run))
    splits = {name: f"{len(finished_run.read_split(name)):,}" for name in ("train", "validation", "test")}
    assert counts.items() >= splits.items()
    assert list(counts)[:2] == ["read", "kept by cleaning"]
    assert [row[0] for row in card_sections.leakage_rows(finished_run)][:2] == ["exact question", "normalised question"]


def test_data_is_named_by_what_may_be_published(reconfigured):
    run = reconfigured(data={"source": "/data/mine.csv", "test_source": "/data/other.csv"})
    assert card_sections.data_sentence(run.config, public_names(run)) == (
        f"mine.csv, split by the grouped method with seed {run.config.seed}; the test rows are those of other.csv."
    )
