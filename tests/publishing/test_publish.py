"""`medtune publish` over real HTTP against a loopback Hub: what goes up, what does not, and how it goes on."""

import json
import re
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from huggingface_hub import ModelCard
from safetensors.torch import load_file, save_file

from hub_uploads import UploadServer, written
from medtune.errors import PublishError
from medtune.pipeline.merge import merge_stage
from medtune.publishing.differences import MANIFEST
from medtune.publishing.publish import publish
from medtune.publishing.report import write_report
from medtune.run_dir.lock import release_locks

TOKEN, REPO, BASE = "hf_secretofmine", "owner/tiny-medical", "owner/tiny-base"
ADAPTER = {
    "adapter_config.json", "adapter_model.safetensors", "medtune.json", "tokenizer.json", "tokenizer_config.json",
    "chat_template.jinja",
}  # fmt: skip
EVIDENCE = {
    "README.md", "recipe.yaml", "comparison.json", "comparison.md", "controls.json", "strata.json", "lengths.json",
    "scores/baseline.json", "scores/tuned.json", "report.html", MANIFEST,
}  # fmt: skip


def stored(hub: UploadServer) -> int:
    """How many large files arrived."""
    return sum(request.method == "PUT" and request.status == 200 for request in hub.requests)


def test_what_goes_up_and_that_it_goes_up_once(medtune, hub, finished_run):
    first = medtune("publish", finished_run.path, "--repo", REPO, "--base-model", BASE)
    assert first.status == 0, first.err
    head = hub.head(REPO)
    assert set(head) == {*ADAPTER, *EVIDENCE, ".gitattributes"}
    assert not hub.repos["models", REPO].private
    assert first.out.splitlines()[-1] == f"{hub.url}/{REPO}"
    assert f'AutoPeftModelForCausalLM.from_pretrained("{REPO}"' in first.out
    assert f"repository {REPO} (public, new):" in first.err
    assert re.search(r"  new +adapter_model\.safetensors +[\d.]+ kB", first.err)
    assert re.search(r"17 files, [\d.]+ kB; to send: 17, ", first.err)
    assert TOKEN not in first.err + first.out
    before = len(written(hub))
    second = medtune("publish", finished_run.path, "--repo", REPO, "--base-model", BASE)
    assert second.status == 0, second.err
    assert "nothing to upload" in second.err
    assert "to send: 0, 0 B" in second.err
    assert len(written(hub)) == before
    assert len(hub.heads) == 1


def test_nothing_of_this_machine_goes_up(medtune, hub, finished_run, tiny):
    medtune("publish", finished_run.path, "--repo", REPO)
    head = hub.head(REPO)
    private = [str(finished_run.path.parent), str(tiny.path), str(Path.home()) + "/"]
    assert not [(name, path) for name, data in head.items() for path in private if path.encode() in data]
    assert json.loads(head["adapter_config.json"])["base_model_name_or_path"] == tiny.path.name
    assert b"source: rows.csv" in head["recipe.yaml"]
    answers = {row.prediction for row in finished_run.read_predictions("tuned") if len(row.prediction) > 10}
    assert not [name for name, data in head.items() for text in answers if text.encode() in data]


def test_a_dry_run_asks_and_writes_nothing(medtune, hub, finished_run, monkeypatch):
    monkeypatch.delenv("HF_TOKEN")
    result = medtune("publish", finished_run.path, "--repo", REPO, "--dry-run")
    assert result.status == 0, result.err
    assert "(public, new)" in result.err
    assert result.out == ""
    assert written(hub) == []
    assert ("models", REPO) not in hub.repos
    result = medtune("publish", finished_run.path, "--repo", REPO)
    assert result.status == 2
    assert result.err.splitlines()[-1].startswith(f"medtune: repository {REPO}: needs a token of the Hub; set HF_TOKEN")
    assert written(hub) == []
    hub.fail("/api/models/", 503)
    assert "shown as if it were new" in medtune("publish", finished_run.path, "--repo", REPO, "--dry-run").err


def test_a_dry_run_names_the_report_that_would_be_written(medtune, hub, copied_run):
    command = ("publish", copied_run.path, "--repo", REPO, "--dry-run")
    assert "report.html is not there yet" not in medtune(*command).err
    copied_run.report_file.unlink()
    assert "report.html is not there yet" in medtune(*command).err
    assert "report.html" not in medtune(*command, "--without-report").err
    assert not copied_run.report_file.exists()


def test_a_token_that_may_only_read(medtune, hub, finished_run):
    hub.role = "read"
    result = medtune("publish", finished_run.path, "--repo", REPO)
    assert (result.status, written(hub)) == (2, [])
    assert "the token may only read" in result.err


def test_access_is_never_changed(medtune, hub, finished_run):
    hub.add("models", "owner/open", {".gitattributes": b""})
    hub.add("models", "owner/closed", {".gitattributes": b""}, private=True)
    refused = medtune("publish", finished_run.path, "--repo", "owner/open", "--private")
    assert refused.status == 2
    assert "repository owner/open: public, and --private was given" in refused.err
    assert medtune("publish", finished_run.path, "--repo", "owner/closed").status == 0
    assert medtune("publish", finished_run.path, "--repo", "owner/new", "--private").status == 0
    assert hub.repos["models", "owner/closed"].private
    assert hub.repos["models", "owner/new"].private
    assert list(hub.head("owner/open")) == [".gitattributes"]


@pytest.mark.parametrize(
    ("match", "failure"),
    [("/commit/", 500), ("/commit/", 429), ("/commit/", "hang up"), ("?signature=", 403)],
)
def test_what_broke_off_goes_on(medtune, hub, finished_run, match, failure):
    hub.fail(match, failure, times=1)
    broken = medtune("publish", finished_run.path, "--repo", REPO)
    assert broken.status == 2
    assert len([line for line in broken.err.splitlines() if line.startswith("medtune:")]) == 1
    assert failure == 403 or "the same command goes on from there" in broken.err
    assert hub.SIGNATURE not in broken.err
    assert hub.heads == []
    assert medtune("publish", finished_run.path, "--repo", REPO).status == 0
    assert stored(hub) == 1  # the weights, once
    assert set(hub.head(REPO)) >= ADAPTER


def test_an_answer_that_is_lost_is_no_second_commit(medtune, hub, finished_run):
    hub.fail("/commit/", "lose the answer", times=1)
    assert medtune("publish", finished_run.path, "--repo", REPO).status == 2
    assert "nothing to upload" in medtune("publish", finished_run.path, "--repo", REPO).err
    assert len(hub.heads) == 1


def test_large_files_go_in_parts(medtune, hub, finished_run):
    hub.part_bytes = 10_000
    assert medtune("publish", finished_run.path, "--repo", REPO).status == 0
    weights = (finished_run.adapter_dir / "adapter_model.safetensors").read_bytes()
    assert hub.head(REPO)["adapter_model.safetensors"] == weights
    assert len(hub.parts) == -(-len(weights) // 10_000)


def test_a_commit_of_somebody_else_in_between(medtune, hub, finished_run, monkeypatch):
    hub.add("models", REPO, {"notes.txt": b"mine"})
    from medtune.storage import hub_repositories

    commit = hub_repositories.commit_files

    def late(*arguments, **options):
        hub.repos["models", REPO].commit({"notes.txt": b"mine", "README.md": b"mine too"})
        return commit(*arguments, **options)

    monkeypatch.setattr(hub_repositories, "commit_files", late)
    result = medtune("publish", finished_run.path, "--repo", REPO)
    assert result.status == 2
    assert "412" in result.err
    assert hub.head(REPO)["README.md"] == b"mine too"


def test_weights_that_are_no_numbers(medtune, hub, copied_run):
    file = copied_run.adapter_dir / "adapter_model.safetensors"
    weights = load_file(file)
    name = sorted(weights)[-1]
    weights[name][-1, -1] = float("inf")
    save_file(weights, file)
    copied_run.complete("train", {})
    result = medtune("publish", copied_run.path, "--repo", REPO, "--without-evaluation")
    assert result.status == 2
    assert f"{name} holds NaN or infinite numbers" in result.err
    file.write_bytes(b"torn")
    copied_run.complete("train", {})
    result = medtune("publish", copied_run.path, "--repo", REPO, "--without-evaluation")
    assert "adapter_model.safetensors: cannot be read" in result.err
    assert written(hub) == []


def test_a_run_that_was_not_evaluated(medtune, hub, copied_run):
    stages = copied_run.stage_records
    copied_run.update_provenance(stages={name: stages[name] for name in ("data", "train")})
    refused = medtune("publish", copied_run.path, "--repo", REPO)
    assert refused.status == 2
    command = f"`medtune run {copied_run.config_file} --run-dir {copied_run.path} --resume`"
    assert f"run {command}, which does all that is left, or add --without-evaluation" in refused.err
    assert medtune("publish", copied_run.path, "--repo", REPO, "--without-evaluation").status == 0
    head = hub.head(REPO)
    assert b"Not evaluated" in head["README.md"]
    assert not {"comparison.json", "scores/tuned.json"} & set(head)


@pytest.mark.parametrize(
    ("secret", "kind"),
    [
        ("hf_" + "aB3" * 12, "a Hugging Face token"),
        (TOKEN, "this user's token of the Hub"),
        ("AKIA" + "ABCDEFGH12345678", "an AWS access key"),
        ("-----BEGIN RSA PRIVATE KEY-----", "a private key"),
        ("WANDB_API_KEY=" + "0a1b2c3d4e" * 4, "a Weights & Biases key"),
        ("postgres://me:pass@db.example", "a password in an address"),
    ],
)
def test_secrets_stay_at_home(finished_run, reconfigured, hub, secret, kind):
    run = reconfigured(data={"system_prompt": f"Be kind.\nUse {secret} to look things up."})
    with pytest.raises(PublishError) as caught:
        publish(run, REPO)
    lines = str(caught.value).split("\n")
    assert any(re.match(rf"README\.md: holds {re.escape(kind)} in line \d+; ", line) for line in lines)
    assert any(line.startswith("recipe.yaml: ") for line in lines)
    assert secret not in str(caught.value)
    assert written(hub) == []


def test_secrets_of_the_environment_and_of_weights(copied_run, hub, monkeypatch):
    monkeypatch.setenv("SOME_SERVICE_SECRET", "open-sesame-and-more")
    file = copied_run.adapter_dir / "adapter_model.safetensors"
    save_file(load_file(file), file, {"note": "open-sesame-and-more"})
    copied_run.complete("train", {})
    with pytest.raises(PublishError, match=r"^adapter_model.safetensors: holds the value of SOME_SERVICE_SECRET in"):
        publish(copied_run, REPO, options=["without-evaluation"])


def test_secrets_in_the_reports_answers(copied_run, hub):
    secret = "hf_" + "aB3" * 12
    for model in ("baseline", "tuned"):
        rows = copied_run.read_predictions(model)
        rows[-1] = replace(rows[-1], reference=f"Ask the service with\n{secret}")
        copied_run.write_predictions(model, rows)
        copied_run.complete(model, {})
    copied_run.complete("compare", {})
    write_report(copied_run)
    page = copied_run.report_file.read_text()
    copied_run.report_file.write_text(page.replace(secret, "hf_"))  # where it stands in the open
    with pytest.raises(PublishError) as caught:
        publish(copied_run, REPO)
    assert re.fullmatch(
        r"report\.html: holds a Hugging Face token in line \d+, packed; take it out, and replace it where it is used",
        str(caught.value),
    )
    assert written(hub) == []


def test_pickles_and_links(copied_run, hub, tmp_path):
    (copied_run.adapter_dir / "training_args.bin").write_bytes(b"\x80\x04")
    secret = tmp_path / "secret.txt"
    secret.write_text("words")
    (copied_run.adapter_dir / "notes.txt").symlink_to(secret)
    with pytest.raises(PublishError) as caught:
        publish(copied_run, REPO)
    assert [line.rpartition("/")[2].partition(":")[0] for line in str(caught.value).split("\n")] == [
        "notes.txt", "training_args.bin",
    ]  # fmt: skip


def test_llama_3_has_its_name_its_notice_and_its_agreement(medtune, hub, reconfigured, tmp_path):
    base = tmp_path / "Meta-Llama-3-8B-Instruct"
    base.mkdir()
    (base / "LICENSE").write_text("The agreement.")
    run = reconfigured(model={"base": str(base)})
    refused = medtune("publish", run.path, "--repo", "owner/medical")
    assert refused.status == 2
    assert "name it owner/Llama-3-medical" in refused.err
    assert "name it owner/Llama-3-8b-med" in medtune("publish", run.path, "--repo", "owner/meta-llama-3-8b-med").err
    assert written(hub) == []
    done = medtune("publish", run.path, "--repo", "owner/Llama-3-medical", "--base-model", "meta-llama/Meta-Llama-3-8B")
    assert done.status == 0, done.err
    head = hub.head("owner/Llama-3-medical")
    assert head["LICENSE"] == b"The agreement."
    assert head["NOTICE"].startswith(b"Meta Llama 3 is licensed under")
    card = ModelCard(head["README.md"].decode())
    assert (card.data.license, card.data.base_model) == ("llama3", "meta-llama/Meta-Llama-3-8B")
    (base / "LICENSE").unlink()
    assert "put LICENSE of" in medtune("publish", run.path, "--repo", "owner/Llama-3-x", "--dry-run").err


@pytest.mark.parametrize("repo", ["medical", "a/b/c", "owner/na me", "owner/../x", ""])
def test_names_that_are_none(medtune, hub, finished_run, repo):
    result = medtune("publish", finished_run.path, "--repo", repo)
    assert result.status == 2
    assert "must be a Hub repository of the form owner/name" in result.err


def test_a_base_model_of_no_name(medtune, hub, finished_run):
    result = medtune("publish", finished_run.path, "--repo", REPO, "--base-model", "/models/mine", "--dry-run")
    assert result.status == 2
    assert "--base-model /models/mine: must be a Hub model's id, such as owner/name" in result.err


def test_a_base_of_the_hub_is_known_already(medtune, hub, reconfigured):
    run = reconfigured(model={"base": "owner/base"})
    run.update_provenance(model={"base": "owner/base", "revision": "c0ffee" * 6})
    result = medtune("publish", run.path, "--repo", REPO, "--base-model", BASE, "--dry-run")
    assert result.status == 2
    assert f"--base-model {BASE}: the run read owner/base from the Hub" in result.err
    assert hub.requests == []


def test_it_is_read_back_and_answers_as_before(hub, finished_run, tiny, monkeypatch, tmp_path):
    """By plain PEFT and transformers, all of it over HTTP, as the card says."""
    from peft import AutoPeftModelForCausalLM
    from transformers import AutoTokenizer, BitsAndBytesConfig

    hub.add("models", BASE, {file.name: file.read_bytes() for file in tiny.path.iterdir()})
    done = publish(finished_run, REPO, base_model=BASE)
    assert done.commit == hub.repos["models", REPO].refs["main"]
    monkeypatch.chdir(tmp_path)
    model = AutoPeftModelForCausalLM.from_pretrained(REPO)
    assert type(model.base_model.model).__name__ == "LlamaForCausalLM"
    quantization = BitsAndBytesConfig(
        load_in_4bit=True, bnb_4bit_quant_type="nf4", bnb_4bit_use_double_quant=True,
        bnb_4bit_compute_dtype=torch.float32,
    )  # fmt: skip
    model = AutoPeftModelForCausalLM.from_pretrained(REPO, quantization_config=quantization, dtype=torch.float32)
    # On a CPU bitsandbytes multiplies NF4 weights in 16 bit, which flips near ties of a random model.
    model.get_base_model().dequantize()
    tokenizer = AutoTokenizer.from_pretrained(REPO)
    config, rows = finished_run.config, finished_run.read_predictions("tuned")
    for row in rows:
        messages = [
            {"role": "system", "content": config.data.system_prompt}, {"role": "user", "content": row.question},
        ]  # fmt: skip
        inputs = tokenizer.apply_chat_template(
            messages, add_generation_prompt=True, return_dict=True, return_tensors="pt"
        )
        output = model.generate(**inputs, max_new_tokens=config.generation.max_new_tokens, do_sample=False)
        text = tokenizer.decode(output[0, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        assert text.strip() == row.prediction.strip()
    assert {BASE, REPO} <= {
        "/".join(request.path.split("/")[1:3]) for request in hub.requests if "/resolve/" in request.path
    }


def test_a_merged_model_is_published_in_place_of_the_adapter(medtune, hub, copied_run, merged):
    from transformers import AutoModelForCausalLM

    shards = len(list(merged.glob("*.safetensors")))
    assert shards > 1
    hub.fail("?signature=", 403, times=1, after=1)  # after the first shard
    command = ("publish", copied_run.path, "--repo", "owner/whole", "--merged", merged)
    assert medtune(*command).status == 2
    result = medtune(*command)
    assert result.status == 0, result.err
    assert stored(hub) == shards  # none of them twice
    head = hub.head("owner/whole")
    assert {"config.json", "generation_config.json", "model.safetensors.index.json", "merge.json"} <= set(head)
    assert not {"adapter_config.json", "adapter_model.safetensors"} & set(head)
    card = ModelCard(head["README.md"].decode())
    assert card.data.library_name == "transformers"
    assert "## What merging changed\n\n- The adapter is merged into" in card.text
    assert re.search(
        r"\nA model merged from \S+ and an adapter that was fine-tuned\non question-answer rows of", card.text
    )
    loaded = AutoModelForCausalLM.from_pretrained("owner/whole")
    assert torch.equal(loaded.lm_head.weight, AutoModelForCausalLM.from_pretrained(merged).lm_head.weight)
    # An adapter beside it would be taken for its own.
    refused = medtune("publish", copied_run.path, "--repo", "owner/whole")
    assert "holds a whole model; name another repository for the adapter" in refused.err


def test_the_card_of_a_merged_model_is_of_that_folder(hub, copied_run, tmp_path):
    first, later = (merge_stage(copied_run, tmp_path / dtype, dtype=dtype, measure=False)
                    for dtype in ("float16", "float32"))  # fmt: skip
    release_locks()
    assert later.bytes == 2 * first.bytes
    done = publish(copied_run, "owner/half", merged=tmp_path / "float16")
    head = hub.head("owner/half")
    card = head["README.md"].decode()
    assert "of float16 weights" in card
    assert "float32 weights" not in card
    assert "dtype=torch.float16" in done.python
    assert done.python in card
    assert json.loads(head["merge.json"])["dtype"] == "float16"
