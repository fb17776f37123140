"""Licences by a base model's name, by its configuration, and by what its folder says; and the data's by its source."""

import json

import pytest

from medtune.publishing.licences import agreement_files, base_licence, data_licence
from medtune.publishing.public_names import public_names


@pytest.mark.parametrize(
    ("base", "licence"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", "llama3"),
        ("/models/Meta-Llama-3-8B-Instruct", "llama3"),
        ("meta-llama/Llama-3.1-8B-Instruct", "llama3.1"),
        ("meta-llama/Llama-3.2-1B-Instruct", "llama3.2"),
        ("meta-llama/Llama-3.3-70B-Instruct", "llama3.3"),
        ("NousResearch/Hermes-3-Llama-3.1-8B", "llama3.1"),
        ("owner/llama3-med", "llama3"),
        ("owner/llama3-1-8b-med", "llama3.1"),
        ("owner/llama-3-8b-2", "llama3"),
        ("owner/Llama-3-2-epochs", "llama3"),
        ("owner/Llama-3-2-1B-med", "llama3.2"),
        ("medtune:demo", "apache-2.0"),
        ("HuggingFaceTB/SmolLM2-135M-Instruct", "apache-2.0"),
        ("Qwen/Qwen2.5-0.5B-Instruct", "other"),
        ("openlm-research/open_llama_3b", "other"),
        ("openlm-research/open_llama_3b_v2", "other"),
        ("codellama/CodeLlama-34b-Instruct-hf", "other"),
        ("TinyLlama/TinyLlama-1.1B-Chat-v1.0", "other"),
        ("meta-llama/Llama-2-7b-chat-hf", "other"),
    ],
)
def test_licences_by_name(reconfigured, base, licence):
    run = reconfigured(model={"base": base})
    found = base_licence(run, public_names(run))
    assert found.identifier == licence
    assert (found.built_with is not None) == licence.startswith("llama")


@pytest.mark.parametrize(
    ("rope", "licence"),
    [(None, "llama3"), ({"rope_type": "llama3", "factor": 8.0}, "llama3.1"),
     ({"rope_type": "llama3", "factor": 32.0}, "llama3.2"), ({"type": "dynamic", "factor": 8.0}, "llama3")],
)  # fmt: skip
def test_a_llama_of_another_name_is_known_by_its_configuration(reconfigured, tmp_path, rope, licence):
    base = tmp_path / "mine"
    base.mkdir()
    values = {"model_type": "llama", "vocab_size": 128256, "rope_scaling": rope}
    (base / "config.json").write_text(json.dumps(values))
    run = reconfigured(model={"base": str(base)})
    assert base_licence(run, public_names(run)).identifier == licence
    (base / "config.json").write_text(json.dumps(values | {"vocab_size": 32000}))
    assert base_licence(run, public_names(run)).identifier == "other"
    (base / "README.md").write_text("---\nlanguage: en\nlicense: mit\n---\n# Mine\n")
    assert base_licence(run, public_names(run)).identifier == "mit"
    (base / "README.md").write_text("---\nlicense: 'apache-2.0'\n---\n# Mine\n")
    assert base_licence(run, public_names(run)).identifier == "apache-2.0"
    (base / "README.md").write_text("---\nlanguage: en\n---\nSay so:\n```\n---\nlicense: mit\n---\n```\n")
    assert base_licence(run, public_names(run)).identifier == "other"


@pytest.mark.parametrize(
    ("own", "given", "licence"),
    [
        ("meta-llama/Meta-Llama-3-8B-Instruct", "someone/medical-base", "llama3"),
        ("/models/llama-3", "meta-llama/Llama-3.3-70B-Instruct", "llama3.3"),
        ("/models/Llama-3.2-1B", "someone/llama-3", "llama3.2"),
        ("/models/Llama-3.2-1B", "HuggingFaceTB/SmolLM2-135M", "llama3.2"),
    ],
)
def test_another_name_does_not_change_the_licence(reconfigured, own, given, licence):
    run = reconfigured(model={"base": own})
    found = base_licence(run, public_names(run, given))
    assert found.identifier == licence
    assert found.built_with


def test_the_configuration_of_a_base_from_the_hub_is_found_under_any_name(reconfigured, monkeypatch, tmp_path):
    run = reconfigured(model={"base": "owner/base"})
    run.update_provenance(model={"base": "owner/base", "revision": "c0ffee" * 6})
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 128256}))
    (tmp_path / "LICENSE").write_text("The agreement.")
    cached = {("owner/base", "c0ffee" * 6): str(tmp_path / "config.json")}
    monkeypatch.setattr("huggingface_hub.try_to_load_from_cache", lambda repo, _, revision: cached[repo, revision])
    assert base_licence(run, public_names(run, "someone/medical-base")).identifier == "llama3"
    assert list(agreement_files(run)) == ["LICENSE"]


def test_metas_licences_ask_for_words_a_notice_and_a_name(reconfigured):
    run = reconfigured(model={"base": "meta-llama/Llama-3.2-1B-Instruct"})
    found = base_licence(run, public_names(run))
    assert (found.title, found.built_with, found.name_prefix) == (
        "Llama 3.2 Community License", "Built with Llama", "Llama",
    )  # fmt: skip
    assert found.notice == (
        "Llama 3.2 is licensed under the Llama 3.2 Community License, "
        "Copyright © Meta Platforms, Inc. All Rights Reserved."
    )
    run = reconfigured(model={"base": "HuggingFaceTB/SmolLM2-135M"})
    found = base_licence(run, public_names(run))
    assert (found.built_with, found.notice, found.name_prefix) == (None, None, None)


def test_a_damaged_configuration_tells_nothing(reconfigured, tmp_path):
    base = tmp_path / "mine"
    base.mkdir()
    run = reconfigured(model={"base": str(base)})
    for content in (b"{", b"[]", b"\xff"):
        (base / "config.json").write_bytes(content)
        assert base_licence(run, public_names(run)).identifier == "other"


@pytest.mark.parametrize(
    ("source", "identifier", "words"),
    [
        ("medtune:demo", "apache-2.0", "were written for medtune's demo"),
        ("/data/MedQuAD", "cc-by-4.0", "MedQuAD, by Asma Ben Abacha and Dina Demner-Fushman, under CC BY 4.0"),
        ("/data/mine.CSV", None, "is for whoever publishes this model to state"),
    ],
)
def test_the_datas_licence_goes_by_its_source(reconfigured, source, identifier, words):
    found = data_licence(public_names(reconfigured(data={"source": source})))
    assert found.identifier == identifier
    assert words in found.sentence


def test_licence_files_of_the_bases_folder_are_found(reconfigured, tmp_path):
    base = tmp_path / "mine"
    (base / "LICENSE.d").mkdir(parents=True)
    for name in ("LICENSE", "USE_POLICY.md", "README.md", "modeling.py"):
        (base / name).write_text(name)
    found = agreement_files(reconfigured(model={"base": str(base)}))
    assert found == {name: base / name for name in ("LICENSE", "USE_POLICY.md")}
    assert agreement_files(reconfigured(model={"base": "owner/not-here"})) == {}
