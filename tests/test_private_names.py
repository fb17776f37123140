"""Every private or overridden name of a library that medtune uses, with its signature: an upgrade fails here first.

A signature is given without annotations, whose wording changes more often than what they mean. Several are those of
the oldest and the newest release that medtune was tested with. What is not listed here is found by reading the source.
"""

from __future__ import annotations

import ast
import importlib
import inspect
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

SOURCE = Path(__file__).parents[1] / "src" / "medtune"
LIBRARIES = (
    "accelerate", "bitsandbytes", "datasets", "huggingface_hub", "peft", "torch", "transformers", "trl", "uvicorn",
)  # fmt: skip

# What medtune overrides.
OVERRIDDEN = {
    "trl.SFTTrainer._clip_grad_norm": "(self, model)",
    "trl.SFTTrainer._load_best_model": "(self)",
    "trl.SFTTrainer._load_callback_state": "(self)",
    "trl.SFTTrainer._load_from_checkpoint": "(self, resume_from_checkpoint, model=None)",
    "trl.SFTTrainer._load_optimizer_and_scheduler": "(self, checkpoint)",
    "trl.SFTTrainer._load_rng_state": "(self, checkpoint)",
    "trl.SFTTrainer._load_scaler": "(self, checkpoint)",
    "trl.SFTTrainer._save_checkpoint": "(self, model, trial)",
    "trl.SFTTrainer.compute_loss": "(self, model, inputs, return_outputs=False, num_items_in_batch=None)",
    "trl.SFTTrainer.create_model_card": "(self, model_name=None, dataset_name=None, tags=None)",
    "trl.SFTTrainer.evaluate": "(self, eval_dataset=None, ignore_keys=None, metric_key_prefix='eval')",
    "trl.SFTTrainer.floating_point_ops": "(self, inputs)",
    "trl.SFTTrainer.get_train_dataloader": "(self)",
    "trl.SFTTrainer.training_step": "(self, *args, **kwargs)",
    "trl.SFTConfig.n_gpu": "(self)",
    "uvicorn.Server.handle_exit": "(self, sig, frame)",
    "uvicorn.Server.on_tick": "(self, counter)",
    "uvicorn.protocols.http.h11_impl.H11Protocol.connection_lost": "(self, exc)",
    "uvicorn.protocols.http.h11_impl.H11Protocol.connection_made": "(self, transport)",
    "uvicorn.protocols.http.h11_impl.H11Protocol.data_received": "(self, data)",
    "uvicorn.protocols.http.h11_impl.H11Protocol.on_response_complete": "(self)",
    "transformers.TrainerCallback.on_evaluate": "(self, args, state, control, **kwargs)",
    "transformers.TrainerCallback.on_log": "(self, args, state, control, **kwargs)",
    "transformers.TrainerCallback.on_save": "(self, args, state, control, **kwargs)",
    "transformers.TrainerCallback.on_step_end": "(self, args, state, control, **kwargs)",
    "transformers.TrainerCallback.on_train_begin": "(self, args, state, control, **kwargs)",
    "transformers.TrainerCallback.on_train_end": "(self, args, state, control, **kwargs)",
    "transformers.TextStreamer.on_finalized_text": "(self, text, stream_end=False)",
    "transformers.cache_utils.Cache.__init__": (
        "(self, layers=None, layer_class_to_replicate=None, offloading=False, offload_only_non_sliding=True)"
    ),
    "transformers.cache_utils.CacheLayerMixin.__init__": "(self, **kwargs)",
    "transformers.cache_utils.CacheLayerMixin.get_mask_sizes": "(self, query_length)",
    "transformers.cache_utils.CacheLayerMixin.get_max_length": "(self)",
    "transformers.cache_utils.CacheLayerMixin.get_seq_length": "(self)",
    "transformers.cache_utils.CacheLayerMixin.lazy_initialization": "(self, key_states, value_states)",
    "transformers.cache_utils.CacheLayerMixin.update": "(self, key_states, value_states, *args, **kwargs)",
}
# What it replaces on instances.
REPLACED = {
    "transformers.models.llama.modeling_llama.LlamaDecoderLayer.forward": (
        "(self, hidden_states, attention_mask=None, position_ids=None, past_key_values=None, use_cache=False, "
        "position_embeddings=None, **kwargs)"
    ),
    "transformers.models.llama.modeling_llama.LlamaRMSNorm.forward": "(self, hidden_states)",
    "transformers.models.mistral.modeling_mistral.MistralDecoderLayer.forward": (
        "(self, hidden_states, attention_mask=None, position_ids=None, past_key_values=None, use_cache=False, "
        "position_embeddings=None, **kwargs)"
    ),
    "transformers.models.qwen2.modeling_qwen2.Qwen2DecoderLayer.forward": (
        "(self, hidden_states, attention_mask=None, position_ids=None, past_key_values=None, use_cache=False, "
        "position_embeddings=None, **kwargs)"
    ),
    "transformers.models.llama.modeling_llama.LlamaForCausalLM.forward": (
        "(self, input_ids=None, attention_mask=None, position_ids=None, past_key_values=None, inputs_embeds=None, "
        "labels=None, use_cache=None, logits_to_keep=0, **kwargs)"
    ),
    "peft.tuners.lora.layer.Linear.forward": "(self, x, *args, **kwargs)",
    "bitsandbytes.nn.Linear4bit.forward": "(self, x)",
}
# What it calls or registers with, beyond documented interfaces.
CALLED = {
    "trl.SFTTrainer._determine_best_metric": "(self, metrics, trial)",
    "transformers.AttentionInterface.register": "(key, value)",
    "transformers.masking_utils.AttentionMaskInterface.register": "(key, value)",
    "transformers.masking_utils.sdpa_mask": [
        (
            "(batch_size, q_length, kv_length, q_offset=0, kv_offset=0, mask_function=<function "
            "causal_mask_function>, attention_mask=None, local_size=None, allow_is_causal_skip=True, "
            "allow_is_bidirectional_skip=False, allow_torch_fix=True, use_vmap=False, device='cpu', **kwargs)"
        ),
        (
            "(batch_size, q_length, kv_length, q_offset=0, kv_offset=0, mask_function=<function "
            "causal_mask_function>, attention_mask=None, local_size=None, allow_is_causal_skip=True, "
            "allow_is_bidirectional_skip=False, use_vmap=False, device='cpu', **kwargs)"
        ),
    ],
    "transformers.integrations.sdpa_attention.sdpa_attention_forward": [
        (
            "(module, query, key, value, attention_mask, dropout=0.0, scaling=None, is_causal=None, "
            "position_bias=None, **kwargs)"
        ),
        (
            "(module, query, key, value, attention_mask, dropout=0.0, scaling=None, is_causal=None, "
            "position_bias=None, cache=None, **kwargs)"
        ),
    ],
    "transformers.trainer_pt_utils.safe_globals": "()",
    "transformers.cache_utils.DynamicCache.reorder_cache": "(self, beam_idx)",
    "bitsandbytes.functional.dequantize_4bit": (
        "(A, quant_state=None, absmax=None, out=None, blocksize=None, quant_type='fp4')"
    ),
    "torch.nn.attention.varlen.varlen_attn": (
        "(query, key, value, cu_seq_q, cu_seq_k, max_q, max_k, *, return_aux=None, scale=None, window_size=(-1, "
        "-1), enable_gqa=False, seqused_k=None, block_table=None, num_splits=None)"
    ),
    "torch.serialization.get_unsafe_globals_in_checkpoint": "(f)",
    "huggingface_hub.utils.filter_repo_objects": "(items, *, allow_patterns=None, ignore_patterns=None, key=None)",
    "huggingface_hub.utils.hf_raise_for_status": "(response, endpoint_name=None)",
    "huggingface_hub.utils.parse_ratelimit_headers": "(headers)",
    "huggingface_hub.utils.validate_repo_id": "(repo_id)",
    "huggingface_hub.utils.sha.git_hash": "(data)",
    # It has a setter and no getter.
    "huggingface_hub.utils._http._GLOBAL_CLIENT_FACTORY": "()",
}
# Classes of ours that derive from a library's, by module; `Function`, `Sampler` and `Protocol` are made for that.
SUBCLASSES = {
    "AnswerTrainer": "training.answer_trainer",
    "ValidatingTrainer": "training.validating_trainer",
    "CheckedTrainer": "training.checkpoints.checked_trainer",
    "OneDeviceConfig": "training.arguments",
    "HistoryCallback": "training.history",
    "InterruptionCallback": "training.continuation",
    "TrackerCallback": "training.trackers.callback",
    "StaticRowsLayer": "inference.decoders.decode_step",
    "StaticRowsCache": "inference.decoders.decode_step",
    "GracefulServer": "inference.serving.server",
    "_Bounded": "inference.serving.connections",
}
# Names of libraries that begin with an underscore, and are read or called.
PRIVATE = {
    "_attn_implementation", "_determine_best_metric", "_keep_in_fp32_modules", "_keep_in_fp32_modules_strict",
    "_exit",  # of `os`, documented
    "_metrics", "_name_or_path",
}  # fmt: skip


def resolve(path: str) -> Any:
    parts = path.split(".")
    for count in range(len(parts), 0, -1):
        try:
            found = importlib.import_module(".".join(parts[:count]))
        except ModuleNotFoundError:
            continue
        for part in parts[count:]:
            found = getattr(found, part)
        return found
    raise ModuleNotFoundError(path)


def signature(function: Callable[..., Any] | property) -> str:
    found = inspect.signature(function.fget if isinstance(function, property) else function)
    parameters = [parameter.replace(annotation=inspect.Parameter.empty) for parameter in found.parameters.values()]
    plain = found.replace(parameters=parameters, return_annotation=inspect.Signature.empty)
    return re.sub(r" at 0x[0-9a-f]+", "", str(plain))


@pytest.mark.parametrize("name", [*OVERRIDDEN, *REPLACED, *CALLED])
def test_a_name_is_there_with_its_signature(name):
    expected = {**OVERRIDDEN, **REPLACED, **CALLED}[name]
    assert signature(resolve(name)) in ([expected] if isinstance(expected, str) else expected)


def trees() -> list[ast.Module]:
    return [ast.parse(file.read_text(encoding="utf-8")) for file in SOURCE.rglob("*.py")]


def test_every_class_that_derives_from_a_librarys_is_known():
    found = set()
    for tree in trees():
        nodes = list(ast.walk(tree))
        imports = [node for node in nodes if isinstance(node, ast.ImportFrom) and node.module]
        foreign = {a.name for node in imports if node.module.split(".")[0] in LIBRARIES for a in node.names}
        classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
        found |= {c.name for c in classes for base in c.bases if isinstance(base, ast.Name) and base.id in foreign}
    assert found == SUBCLASSES.keys() - {"AnswerTrainer", "ValidatingTrainer"} | {"Writer"}, (
        "of these Writer is a TextStreamer"
    )


def test_every_override_is_known():
    found = set()
    for name, module in SUBCLASSES.items():
        ours = resolve(f"medtune.{module}.{name}")
        theirs = [base for base in ours.__mro__ if base.__module__.split(".")[0] in LIBRARIES]
        for member in vars(ours):
            if not re.fullmatch(r"__\w+__|_abc_impl", member) and any(member in vars(base) for base in theirs):
                found.add(member)
    known = {name.rpartition(".")[2] for name in OVERRIDDEN if not name.startswith("transformers.TextStreamer")}
    assert found | {"__init__"} == known


def test_every_private_name_is_known():
    """Those that nothing in the source defines; what is overridden is called by the same name."""
    used, own = set(), set()
    for tree in trees():
        for node in ast.walk(tree):
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                own.add(node.name)
            elif isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store):
                own.add(node.id)
            elif isinstance(node, ast.Attribute):
                is_own = isinstance(node.ctx, ast.Store) and isinstance(node.value, ast.Name)
                (own if is_own and node.value.id in ("self", "cls") else used).add(node.attr)
            elif isinstance(node, ast.Constant) and isinstance(node.value, str):
                used.add(node.value)
    private = {name for name in used - own if re.fullmatch(r"_[a-z]\w+", name)}
    # Parts of our own texts, and BERTScore's, whose release is part of every score's signature.
    assert private - {"_checkpointing_enable", "_checkpointing_kwargs", "_dtype", "_loss", "_other"} == PRIVATE


def test_attributes_that_are_read_are_there():
    from transformers import PretrainedConfig, PreTrainedModel
    from trl import SFTTrainer

    assert hasattr(PretrainedConfig(), "_attn_implementation")
    assert PreTrainedModel._keep_in_fp32_modules is PreTrainedModel._keep_in_fp32_modules_strict is None
    assert "self._metrics = " in inspect.getsource(SFTTrainer.__init__)


def test_a_decoder_layer_has_what_fused_layers_read():
    from packed_models import adapted

    layer = adapted().get_base_model().model.layers[0]
    assert {"head_dim", "scaling"} < vars(layer.self_attn).keys()
    assert vars(layer.input_layernorm).keys() >= {"variance_epsilon"}
    assert type(layer.mlp.act_fn).__name__ in ("SiLU", "SiLUActivation")
    lora = layer.self_attn.q_proj
    for name in ("lora_A", "lora_B", "lora_dropout", "r", "scaling"):
        assert "default" in getattr(lora, name)
    assert not lora.disable_adapters
    assert not lora.merged
    assert not lora.lora_variant


def test_packed_layers_have_what_quantisation_reads():
    import bitsandbytes as bnb
    from bitsandbytes.cextension import ErrorHandlerMockBNBNativeLibrary, lib

    assert inspect.isclass(ErrorHandlerMockBNBNativeLibrary)
    assert lib is not None
    layer = bnb.nn.Linear4bit(512, 256, bias=False, quant_type="nf4").to("cpu")
    assert {"compute_dtype", "compute_type_is_set", "support_avx512bf16_for_cpu"} < vars(layer).keys()
    state = layer.weight.quant_state
    read = ("absmax", "blocksize", "code", "dtype", "nested", "offset", "quant_type", "shape")
    assert all(hasattr(state, name) for name in read)
    assert all(hasattr(state.state2, name) for name in ("absmax", "blocksize", "code"))


def test_the_ranges_end_behind_what_was_tested():
    """In pyproject.toml: before the next minor release, or where no private name is used the next major one."""
    import tomllib
    from importlib.metadata import version

    from packaging.requirements import Requirement

    project = tomllib.loads((SOURCE.parents[1] / "pyproject.toml").read_text())["project"]
    wanted = {one.name: one.specifier for one in map(Requirement, project["dependencies"])}
    for name in ("accelerate", "bitsandbytes", "peft", "transformers", "trl"):
        assert any(spec.operator == "<" for spec in wanted[name]), name
        assert wanted[name].contains(version(name)), name
