"""The demo's model: built once into the cache, the same every time, and a chat model like any other."""

import pytest
import torch

from medtune.model import demo_model
from medtune.model.demo_model import background_passages, build_demo_model, build_demo_tokenizer, cache_dir, demo_shape


@pytest.fixture
def quick(monkeypatch, tmp_path):
    """Two steps of pre-training, in a cache of this test's own."""
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path / "cache"))
    monkeypatch.setattr(demo_model, "STEPS", 2)
    return tmp_path / "cache"


def test_it_is_built_once_and_the_same_every_time(quick, tmp_path, monkeypatch):
    folder = build_demo_model()
    assert folder.parent == quick
    assert {"config.json", "model.safetensors", "tokenizer.json"} <= {file.name for file in folder.iterdir()}
    assert not list(quick.glob(".demo-model-*")), "what it was built in is gone"
    weights = (folder / "model.safetensors").read_bytes()
    with monkeypatch.context() as patch:
        patch.setattr(demo_model, "_pretrain", lambda *_: pytest.fail("built a second time"))
        assert build_demo_model() == folder
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path / "another"))
    torch.manual_seed(1)
    state = torch.random.get_rng_state()
    assert (build_demo_model() / "model.safetensors").read_bytes() == weights
    assert torch.equal(torch.random.get_rng_state(), state), "nobody else's random numbers are drawn"


def test_what_changes_the_model_changes_its_place(quick, monkeypatch):
    folder = build_demo_model()
    monkeypatch.setattr(demo_model, "STEPS", 1)
    assert build_demo_model() != folder


def test_a_build_that_breaks_off_leaves_nothing(quick, monkeypatch):
    monkeypatch.setattr(demo_model, "_pretrain", lambda *_: pytest.fail("broke off"))
    with pytest.raises(pytest.fail.Exception):
        build_demo_model()
    assert not [path for path in quick.iterdir() if path.is_dir()]


def test_the_cache_is_where_the_user_wants_it(monkeypatch, tmp_path):
    monkeypatch.setenv("MEDTUNE_CACHE", str(tmp_path))
    assert cache_dir() == tmp_path
    monkeypatch.delenv("MEDTUNE_CACHE")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "xdg"))
    assert cache_dir() == tmp_path / "xdg" / "medtune"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path))
    assert cache_dir() == tmp_path / ".cache" / "medtune"


def test_its_tokenizer_is_that_of_its_shape():
    tokenizer, shape = build_demo_tokenizer(), demo_shape()
    assert len(tokenizer) == shape.vocab_size
    assert (tokenizer.bos_token_id, tokenizer.eos_token_id, tokenizer.pad_token_id) == (0, 5, 2)
    assert (shape.bos_token_id, shape.eos_token_id, shape.pad_token_id) == (0, 5, 2)
    assert tokenizer.model_max_length == shape.max_position_embeddings


def test_it_has_never_seen_the_demos_questions():
    from medtune.config.sources import ColumnsSection
    from medtune.data.sources import DEMO_SOURCE, read_source

    prose = "\n".join(background_passages()).lower()
    assert len(background_passages()) > 20
    for pair in read_source(DEMO_SOURCE, ColumnsSection()).pairs:
        assert pair.question.lower() not in prose
        assert pair.answer.lower() not in prose
