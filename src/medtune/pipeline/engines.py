"""What answers in an evaluation: medtune's own decoder, which has done so by then, or vLLM, whose turn then comes."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeAlias

from medtune.config.schema import Config
from medtune.errors import Option, RunDirError
from medtune.records import Prediction, SystemName
from medtune.run_dir.directory import RunDir
from medtune.run_dir.layout import StageName
from medtune.runtime.hardware import release_memory

if TYPE_CHECKING:
    from medtune.inference.predictions import Asked, Predicted
    from medtune.inference.vllm.answering import VllmEngine

Answered: TypeAlias = dict[SystemName, list[Prediction]]


def check_engine(config: Config) -> None:
    """Raises MedtuneError if the recipe wants answers by vLLM, and it is not here or serves no such adapter."""
    if config.generation.engine == "medtune":
        return
    from medtune.inference.vllm.adapters import served_rank
    from medtune.inference.vllm.answering import OTHER_ENGINE, VllmEngine

    VllmEngine.find()
    lora = config.lora
    settings = {"r": lora.rank, "rank_pattern": lora.rank_pattern, "use_dora": lora.dora}
    served_rank({**settings, "modules_to_save": lora.modules_to_save}, "lora", OTHER_ENGINE)


def find_vllm(run_dir: RunDir, stage: StageName, record: dict[str, Any]) -> VllmEngine | None:
    """vLLM where the recipe has it answer; `record` gets its version. Raises MedtuneError, for another version too."""
    if run_dir.config.generation.engine == "medtune":
        return None
    from medtune.inference.vllm.answering import VllmEngine

    engine = VllmEngine.find()
    record |= engine.origin
    others: tuple[StageName, ...] = ("baseline", "controls", "tuned")
    for other in others:
        known = run_dir.stage_records.get(other, {}).get("vllm", engine.origin["vllm"])
        if other != stage and known != engine.origin["vllm"] and run_dir.is_complete(other):
            problem = f"the {other} stage was answered by vLLM {known}, and this is {engine.origin['vllm']}"
            fix = ("use that one again, or start a new run in another ", Option("run_dir"))
            raise RunDirError(run_dir.path, problem, fix)
    return engine


def answered(
    run_dir: RunDir,
    record: dict[str, Any],
    asked: Mapping[SystemName, Asked],
    adapter: Path | None,
    engine: VllmEngine | None,
) -> Answered:
    """The predictions of all that was asked, with `engine` once it has answered; `record` gets what they cost."""
    if engine is not None:
        from medtune.inference.vllm.answering import VllmModel, answer_with_vllm

        # Our model is gone, but reference cycles still hold it: vLLM wants its memory, and gives it back at its end.
        release_memory()
        model = VllmModel.of(run_dir.pinned_config, adapter, record["choices"]["dtype"]["value"])
        answer_with_vllm(engine, model, list(asked.values()))
    systems: Answered = {}
    for name, one in asked.items():
        predicted = one.predicted()
        # Controls that came after the first have a part of the record of their own.
        (record if name in ("baseline", "tuned", "few_shot") else record[name]).update(_cost(predicted))
        systems[name] = predicted.predictions
    return systems


def _cost(predicted: Predicted) -> dict[str, int]:
    """How many answers were made at once, and how often memory ran out."""
    return {"batch_size": predicted.batch_size, "times_out_of_memory": predicted.times_out_of_memory}
