"""Whether the processes of a launch share out a model's packed weights, or each holds them whole."""

from __future__ import annotations

from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Final

from medtune.config.schema import Config
from medtune.model.loading import resolve_base
from medtune.model.quantization import FORMATS
from medtune.runtime.distributed import exchange, from_main
from medtune.runtime.gpus import DescribedGpu, this_gpu
from medtune.runtime.hardware import Choice, choose_device, choose_dtype
from medtune.runtime.launch import world_size
from medtune.runtime.progress import say
from medtune.training.plan.forecast import DescribedModel, describe_model, forecast_step
from medtune.training.plan.peaks import GIB, TrainingPlan

WHOLE: Final = "whole"
SHARED: Final = "shared out"


@dataclass(frozen=True, slots=True)
class Sharing:
    """The choice, and the model as one process holds it then."""

    choice: Choice
    model: DescribedModel


def choose_sharing(
    config: Config, path: Path, gpu: DescribedGpu, dtype: str, *, largest_step: int, longest_row: int, processes: int
) -> Sharing:
    """How `processes` would hold the model of config.json in `path`, each on such a GPU. Raises ModelError.

    With `training.weights: auto` they share it out where no plan of training fits beside whole weights, and one fits
    beside shared ones.
    """

    def described(parts: int) -> DescribedModel:
        return describe_model(config, path, gpu, dtype, processes=parts)

    def smallest(model: DescribedModel) -> TrainingPlan:
        sizes = {"largest_step": largest_step, "longest_row": longest_row}
        return forecast_step(model, gpu, config, **sizes, must_fit=False).plan

    wanted = config.training.weights
    if processes == 1 or wanted not in ("auto", "sharded") or not FORMATS[config.model.quantization].packed:
        return Sharing(Choice(WHOLE, "as asked for"), described(1))
    if wanted == "sharded":
        return Sharing(Choice(SHARED, f"as asked for, over {processes} processes"), described(processes))
    whole = described(1)
    plan = smallest(whole)
    takes = f"training takes {plan.peak_bytes / GIB:.1f} GiB of {plan.limit_bytes / GIB:.1f} with whole weights"
    if plan.peak_bytes <= plan.limit_bytes or not whole.shape.fused:
        return Sharing(Choice(WHOLE, takes), whole)
    shared = described(processes)
    less = smallest(shared)
    takes += f", {less.peak_bytes / GIB:.1f} shared out over {processes} processes"
    if less.peak_bytes <= less.limit_bytes:
        return Sharing(Choice(SHARED, takes), shared)
    return Sharing(Choice(WHOLE, f"{takes}, which does not fit either"), whole)


def sharing_of_launch(config: Config) -> Choice:
    """How the processes of this launch hold the model of `config`; all have to ask, and hear the same.

    Raises ModelError.
    """
    wanted = config.training.weights
    if world_size() == 1 or wanted != "auto" or not FORMATS[config.model.quantization].packed:
        is_shared = world_size() > 1 and wanted == "sharded"
        return Choice(SHARED if is_shared else WHOLE, "as asked for")
    gpu = this_gpu()
    memories = exchange(None if gpu is None else gpu.memory_gib)
    if gpu is None:
        return Choice(WHOLE, "computed on the CPU")
    least = replace(gpu, memory_gib=min(memory for memory in memories if memory is not None))
    found = Choice(**from_main(lambda: asdict(_by_memory(config, least))))
    say(f"weights: {found.value} ({found.reason})")
    return found


def _by_memory(config: Config, gpu: DescribedGpu) -> Choice:
    path, longest = resolve_base(config.model.base, config.model.revision).path, config.training.max_length
    room = min(gpu.memory_gib, config.training.memory_gib or gpu.memory_gib)
    files = sum(file.stat().st_size for file in path.glob("*.safetensors")) / GIB
    if files < room / 2:  # packed they are smaller still: nothing has to be described, which takes seconds
        return Choice(WHOLE, f"files of {files:.1f} GiB for {room:.1f} GiB")
    dtype = choose_dtype(config.model.dtype, choose_device().value).value
    return choose_sharing(
        config, path, gpu, dtype, largest_step=longest, longest_row=longest, processes=world_size()
    ).choice
