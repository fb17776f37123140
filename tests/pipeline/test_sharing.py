"""Who holds the weights: whole where that fits, shared out where only that does, and the reason."""

from __future__ import annotations

from pathlib import Path

import pytest

from medtune.config.schema import Config
from medtune.model.loading import ModelFiles
from medtune.pipeline import sharing
from medtune.pipeline.sharing import Sharing, choose_sharing, sharing_of_launch
from medtune.runtime.gpus import described_gpu


def of(config: Config, folder: Path, gibs: str, processes: int = 2) -> Sharing:
    gpu = described_gpu(gibs)
    return choose_sharing(config, folder, gpu, "bfloat16", largest_step=1024, longest_row=1024, processes=processes)


def with_weights(config: Config, weights: str) -> Config:
    return config.model_copy(update={"training": config.training.model_copy(update={"weights": weights})})


def test_weights_are_shared_out_where_whole_ones_do_not_fit_and_shares_do(llama_config, llama_folder) -> None:
    roomy, tight, tiny = (of(llama_config, llama_folder, gibs) for gibs in ("24", "5", "3"))
    assert [found.choice.value for found in (roomy, tight, tiny)] == ["whole", "shared out", "whole"]
    assert [found.model.processes for found in (roomy, tight, tiny)] == [1, 2, 1]
    assert roomy.choice.reason.endswith(" with whole weights")
    assert "GiB of 5.0 with whole weights, " in tight.choice.reason
    assert tight.choice.reason.endswith(" shared out over 2 processes")
    assert tiny.choice.reason.endswith(" shared out over 2 processes, which does not fit either")


def test_what_is_asked_for_is_not_chosen(llama_config, llama_folder) -> None:
    for weights in ("nf4", "dequantized"):
        assert of(with_weights(llama_config, weights), llama_folder, "5").choice.value == "whole"
    assert of(with_weights(llama_config, "sharded"), llama_folder, "80").choice.value == "shared out"
    assert of(with_weights(llama_config, "sharded"), llama_folder, "80", 1).choice.value == "whole"


@pytest.fixture
def several(monkeypatch: pytest.MonkeyPatch, llama_folder: Path) -> list[float | None]:
    """Three processes, and the GiB of memory of their GPUs; the first is this one's."""
    memories: list[float | None] = [24.0, 5.0, 24.0]
    monkeypatch.setenv("WORLD_SIZE", "3")
    monkeypatch.setattr(sharing, "exchange", lambda own: [own, *memories[1:]])
    monkeypatch.setattr(sharing, "this_gpu", lambda: None if memories[0] is None else described_gpu(str(memories[0])))
    monkeypatch.setattr(sharing, "resolve_base", lambda base, revision: ModelFiles(llama_folder, None))
    return memories


def test_the_gpu_with_the_least_memory_decides(several, llama_config, monkeypatch) -> None:
    # Weights of 16 GB, of which nothing is read.
    monkeypatch.setattr(Path, "glob", lambda self, pattern: iter([Weights()]))
    assert sharing_of_launch(llama_config).value == "shared out"
    several[1] = 24.0
    assert sharing_of_launch(llama_config).value == "whole"
    several[1] = 80.0
    several[0] = several[2] = 80.0
    assert sharing_of_launch(llama_config).reason == "files of 15.0 GiB for 80.0 GiB"


class Weights:
    """A file of LLaMA-3-8B's size."""

    def stat(self) -> Weights:
        return self

    st_size = 15 * 2**30


def test_without_a_choice_nothing_is_looked_up(several, llama_config, monkeypatch) -> None:
    assert sharing_of_launch(with_weights(llama_config, "sharded")).value == "shared out"
    assert sharing_of_launch(with_weights(llama_config, "nf4")).value == "whole"
    several[0] = None
    assert sharing_of_launch(llama_config).reason == "computed on the CPU"
    monkeypatch.setenv("WORLD_SIZE", "1")
    assert sharing_of_launch(with_weights(llama_config, "sharded")).value == "whole"
