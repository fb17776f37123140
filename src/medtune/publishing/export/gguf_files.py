"""GGUF files of whole models, written tensor by tensor: memory does not grow with the model."""

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from medtune.errors import ConfigError, ModelError, Option
from medtune.model.tensor_files import stored_tensors
from medtune.publishing.export.gguf_architectures import Architecture, architecture_of, describe_model, window_note
from medtune.publishing.export.gguf_tensors import BLOCK_BYTES, GgufTensor, plan_tensors, require_whole_heads
from medtune.publishing.export.gguf_vocabulary import Vocabulary, read_vocabulary
from medtune.storage.disk_errors import writing
from medtune.storage.writing import replacing_file

if TYPE_CHECKING:
    from gguf import GGUFWriter

GgufDtype = Literal["f16", "bf16", "q8_0", "f32"]
# Beside the tensors: vocabulary and merges, of which Gemma has 262,144 and 514,906.
HEADER_BYTES = 40 * 10**6
# What llama.cpp looks up in a vocabulary that it takes for Phi-3's.
_OF_PHI_3 = {"</s>", "<unk>", "<s>", "<|endoftext|>"}


@dataclass(frozen=True, slots=True)
class Label:
    """What a file says of its origin: names that may be published."""

    name: str
    base: str
    licence: str
    description: str

    def write(self, writer: "GGUFWriter") -> None:
        """Write it to the header of a file."""
        writer.add_name(self.name)
        writer.add_finetune("medtune")
        writer.add_license(self.licence)
        writer.add_description(self.description)
        writer.add_base_model_count(1)
        writer.add_base_model_name(0, self.base)


@dataclass(frozen=True)
class GgufPlan:
    """All that a file will hold, known before anything is written; `note` is what a reader has to know, if anything."""

    config: Any
    architecture: Architecture
    vocabulary: Vocabulary
    template: str
    tensors: Sequence[GgufTensor]
    dtype: GgufDtype
    note: str | None

    @property
    def bytes(self) -> int:
        """Bytes of all tensors."""
        return sum(tensor.bytes for tensor in self.tensors)


def require_gguf() -> None:
    """Raises ConfigError unless the `gguf` package can be imported."""
    try:
        import gguf  # noqa: F401
    except ModuleNotFoundError:
        raise ConfigError("gguf", "not installed", 'pip install "medtune[export]"') from None


def require_dtype(dtype: str) -> None:
    """Raises ConfigError unless a file can be written in `dtype`."""
    if dtype not in get_args(GgufDtype):
        fix = "llama-quantize, a program of llama.cpp, makes others of an f16 file"
        raise ConfigError(Option("dtype", dtype), f"must be one of {', '.join(get_args(GgufDtype))}", fix)


def model_config(folder: Path) -> Any:
    """The configuration of the text model in `folder`. Raises ModelError."""
    from transformers import AutoConfig

    try:
        config = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    except (OSError, ValueError) as error:
        raise ModelError(folder, f"no usable configuration ({error})", "merge again") from None
    if config.get_text_config() is not config:
        raise ModelError(str(config.model_type), "models that also see are not written as GGUF", "use text models")
    return config


def plan_gguf(folder: Path, tokenizer: Any, dtype: GgufDtype, *, end_token_id: int, adds_bos: bool) -> GgufPlan:
    """What a file of the merged model in `folder` will hold. Raises ModelError if llama.cpp has no such model."""
    config = model_config(folder)
    architecture = architecture_of(config)
    stored = stored_tensors(folder)
    tensors = plan_tensors(stored, config, architecture, dtype.upper())
    require_whole_heads(tensors, config)
    vocabulary = read_vocabulary(tokenizer, config.vocab_size, end_token_id=end_token_id, adds_bos=adds_bos)
    if vocabulary.strips and not (architecture.name == "phi3" and set(vocabulary.tokens) >= _OF_PHI_3):
        problem = "its special tokens take the blanks behind them, which llama.cpp knows of Phi-3 alone"
        raise ModelError(tokenizer.name_or_path, problem)
    template = tokenizer.chat_template
    return GgufPlan(config, architecture, vocabulary, template, tensors, dtype, window_note(config))


def write_gguf(
    plan: GgufPlan,
    file: Path,
    label: Label,
    *,
    on_bytes: Callable[[int], None] = lambda count: None,
    block_bytes: int = BLOCK_BYTES,
) -> None:
    """Write the file, whole or not at all; `on_bytes` is told what each block took.

    Raises ModelError, naming the tensor, if a number does not fit, and DiskError.
    """
    from gguf import GGUFWriter, LlamaFileType

    types = {"f32": "ALL_F32", "f16": "MOSTLY_F16", "bf16": "MOSTLY_BF16", "q8_0": "MOSTLY_Q8_0"}
    with replacing_file(file) as temporary:
        writer = GGUFWriter(temporary, plan.architecture.name)
        named = replace(label, name=name_for(label.name, plan.vocabulary))
        named.write(writer)
        writer.add_type("model")
        describe_model(writer, plan.config, plan.architecture)
        writer.add_file_type(LlamaFileType[types[plan.dtype]])
        writer.add_quantization_version(2)
        plan.vocabulary.write(writer)
        writer.add_chat_template(plan.template)
        write_file(writer, temporary, plan.tensors, on_bytes=on_bytes, block_bytes=block_bytes)


def name_for(name: str, vocabulary: Vocabulary) -> str:
    """llama.cpp takes a file for Phi-3's by its name: special tokens take blanks, and some have to be there."""
    return f"{name} phi-3" if vocabulary.strips else re.sub(r"phi-?3", "phi_3", name, flags=re.IGNORECASE)


def write_file(
    writer: "GGUFWriter",
    file: Path,
    tensors: Sequence[GgufTensor],
    *,
    on_bytes: Callable[[int], None] = lambda count: None,
    block_bytes: int = BLOCK_BYTES,
) -> None:
    """Write the writer's header, then the tensors, in blocks, each at a multiple of the file's alignment."""
    import numpy

    for tensor in tensors:
        writer.add_tensor_info(
            tensor.name, tensor.shape, numpy.dtype(numpy.float32), tensor.bytes, raw_dtype=tensor.kind
        )
    with writing(file):
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_ti_data_to_file()
        writer.close()
        with file.open("ab") as output:
            _pad(output, output.tell(), writer.data_alignment)
            for tensor in tensors:
                for block in tensor.encoded(block_bytes):
                    output.write(block)
                    on_bytes(len(block))
                _pad(output, tensor.bytes, writer.data_alignment)


def _pad(output: Any, written: int, alignment: int) -> None:
    output.write(bytes(-written % alignment))
