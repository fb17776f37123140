"""What a plan needs to know of a model, counted by hand for tiny ones."""

import pytest
import torch
from packed_models import FAMILIES, adapted, base_model

from medtune.config.schema import Config
from medtune.config.training import LoraSection
from medtune.model.adapters import attach_new_adapter
from medtune.model.answer_loss import LOGIT_BYTES
from medtune.training.plan.shapes import head_size, is_base_linear, model_shape, shape_of

CPU, GPU = torch.device("cpu"), torch.device("cuda:0")
# One layer: queries and output, keys and values, and the three of the feed-forward part.
LAYER = 2 * 32 * 32 + 2 * 32 * 16 + 3 * 32 * 48


def config(**training):
    values = {"model": {"base": "x/y"}, "data": {"source": "x"}, "training": training}
    return Config.model_validate(values)


def shape(model, device=CPU, dtype=torch.float32, **training):
    return model_shape(model, config(**training), device, dtype)


def test_numbers_of_a_small_llama():
    found = shape(adapted(rank=4))
    assert (found.layers, found.hidden, found.intermediate) == (3, 32, 48)
    # Four query heads and two that keys and values share, of eight elements.
    assert (found.attention, found.query_key_value) == (32, 64)
    assert (found.layer_parameters, found.packed_layer_parameters) == (LAYER, 0)
    assert found.head_parameters == 64 * 32
    pairs = [(32, 32), (32, 16), (32, 16), (32, 32), (32, 48), (32, 48), (48, 32)]
    assert found.adapter_parameters == 3 * 4 * sum(inputs + outputs for inputs, outputs in pairs)
    assert (found.item, found.logit_bytes, found.fused) == (4, LOGIT_BYTES, True)


@pytest.mark.parametrize(("dtype", "item"), [(torch.float32, 4), (torch.bfloat16, 2)])
def test_an_element_takes_what_is_computed_in(dtype, item):
    assert shape(adapted(), dtype=dtype).item == item


def test_keys_are_spread_over_query_heads_where_a_gpu_has_no_kernel_for_shared_ones(facts):
    from hardware_facts import A100, T4

    facts.gpus(T4)
    assert shape(adapted(), device=GPU, dtype=torch.float16).spread == 3 * 32
    facts.gpus(A100)
    assert shape(adapted(), device=GPU, dtype=torch.bfloat16).spread == 0
    assert shape(adapted()).spread == 0


def test_packed_layers_are_those_that_the_caller_says():
    options = {"spreads": False, "on_gpu": False}
    found = shape_of(adapted(), config(), torch.float32, **options, is_packed=lambda module: module.out_features == 48)
    assert (found.layer_parameters, found.packed_layer_parameters) == (LAYER, 2 * 32 * 48)


def test_embeddings_may_leave_a_gpu_unless_the_head_shares_them_or_they_are_scaled():
    def bytes_of(model):
        options = {"spreads": False, "on_gpu": True, "is_packed": lambda module: False}
        return shape_of(model, config(), torch.float32, **options).embedding_bytes

    assert bytes_of(adapted()) == 64 * 32 * 4
    assert shape(adapted()).embedding_bytes == 0, "on a CPU there is nowhere to go"
    tied = adapted()
    tied.get_output_embeddings().weight = tied.get_input_embeddings().weight
    assert bytes_of(tied) == 0

    class Scaled(torch.nn.Embedding):
        pass

    scaled = adapted()
    scaled.get_input_embeddings().__class__ = Scaled
    assert bytes_of(scaled) == 0


@pytest.mark.parametrize("training", [{"fused_adapters": False}])
def test_layers_that_are_not_fused_need_no_room_for_adapters(training):
    assert shape(adapted()).room_parameters > 0
    found = shape(adapted(), **training)
    assert (found.fused, found.room_parameters, found.gate_up_room) == (False, 0, 0)
    lifting = Config.model_validate({**config().model_dump(), "model": {"base": "x/y", "kbit_preparation": "peft"}})
    assert not model_shape(adapted(), lifting, CPU, torch.float32).fused


def test_a_heads_size_is_its_own_or_its_share_of_the_width():
    text = base_model(FAMILIES["llama"]).config
    assert head_size(text) == 8
    text.head_dim = None
    assert head_size(text) == 32 // 4


def test_adapters_are_no_layers_of_the_base():
    kinds = [(name, is_base_linear(module)) for name, module in adapted().named_modules()]
    base = [name for name, is_base in kinds if is_base]
    assert len(base) == 3 * 7 + 1
    assert not [name for name in base if "lora_" in name]


def test_dora_is_left_to_peft_with_all_that_it_keeps_and_takes():
    model = attach_new_adapter(base_model(FAMILIES["llama"]), LoraSection(rank=4, dora=True), 0)
    found = shape(model)
    assert (found.fused, found.by_peft) == (False, True)
    # Of each token: what base and adapter gave of every projection, and their sum.
    assert found.kept_by_adapters == 3 * (32 + 16 + 16 + 32 + 48 + 48 + 32)
    # For the norm of the widest weight: an identity, and four matrices of its size, in float32.
    assert found.adapter_bytes == 4 * (48**2 + 4 * 48 * 32)
    plain = shape(adapted(rank=4))
    assert (plain.by_peft, plain.kept_by_adapters, plain.adapter_bytes, plain.trained_head) == (False, 0, 0, False)


def test_modules_that_are_trained_whole_count_in_every_part():
    lora = LoraSection(rank=4, modules_to_save=["embed_tokens", "lm_head"])
    model = attach_new_adapter(base_model(FAMILIES["llama"]), lora, 0)
    found, plain = shape(model), shape(adapted(rank=4))
    assert found.adapter_parameters == plain.adapter_parameters + 2 * 64 * 32
    assert (found.trained_head, found.fused) == (True, True)
    # Fused layers compute in the dtype of their input, which trained embeddings give in float32.
    assert not shape(model, dtype=torch.bfloat16).fused


def test_the_widest_adapters_count_for_all_layers():
    lora = LoraSection(rank=4, layers=[1, 2], rank_pattern={r"layers\.2\..*": 16})
    found = shape(attach_new_adapter(base_model(FAMILIES["llama"]), lora, 0))
    widest = shape(adapted(rank=16))
    assert (found.room_parameters, found.gate_up_room) == (widest.room_parameters, widest.gate_up_room)
