"""Plans for the memory that is there: what fits is chosen, and what is set by hand is kept to."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st
from shapes_8b import ALLOCATED, LLAMA

from medtune.config.training import TrainingSection
from medtune.errors import ModelError
from medtune.training.plan.choosing import plan_training, work_per_token
from medtune.training.plan.peaks import GIB, Machine, peak_parts


def machine(limit, host=64, operations=None):
    return Machine(ALLOCATED, round(limit * GIB), round(host * GIB), operations)


def plan(
    limit,
    *,
    host=64,
    operations=None,
    largest=7800,
    longest=1024,
    shape=LLAMA,
    optimizers=("adamw_torch_fused",),
    **training,
):
    return plan_training(
        shape,
        machine(limit, host, operations),
        TrainingSection(**training),
        largest_step=largest,
        longest_row=longest,
        optimizers=optimizers,
    )


def test_a_large_card_recomputes_nothing_and_keeps_weights_dequantised():
    chosen = plan(130, largest=23_000)
    assert (chosen.checkpointed_layers, chosen.weights, chosen.offloaded_layers) == (0, "dequantized", 0)
    assert chosen.embeddings == "device"
    assert chosen.tokens_per_micro_batch >= 16_000


def test_less_memory_never_means_less_work():
    work = [work_per_token(LLAMA, plan(limit)) for limit in (6.5, 7, 8, 10, 12, 14.5, 20, 40, 80)]
    assert work == sorted(work, reverse=True)
    assert work[0] > 1.3 * work[-1]


def test_no_pass_takes_more_than_a_step():
    assert plan(130, largest=5000, tokens_per_micro_batch=10**30).tokens_per_micro_batch == 5056


@given(limit=st.floats(6.3, 140), largest=st.integers(1024, 60_000), host=st.floats(1, 200))
def test_what_is_chosen_fits(limit, largest, host):
    chosen = plan(limit, largest=largest, host=host)
    assert chosen.peak_bytes <= limit * GIB
    assert 1024 <= chosen.tokens_per_micro_batch <= largest + 63
    assert chosen.tokens_per_micro_batch % 64 == 0  # as packs are filled up
    assert chosen.offloaded_layers <= chosen.checkpointed_layers
    if chosen.offloaded_layers:
        assert chosen.offloaded_layers * chosen.tokens_per_micro_batch * 4096 * 2 <= host * GIB


@pytest.mark.parametrize(
    ("training", "expected"),
    [
        ({"tokens_per_micro_batch": 512}, {"tokens_per_micro_batch": 512}),
        ({"checkpointing": "none"}, {"checkpointed_layers": 0, "offloaded_layers": 0}),
        ({"checkpointing": "all"}, {"checkpointed_layers": 32, "offloaded_layers": 0}),
        ({"checkpointing": "offload"}, {"checkpointed_layers": 32, "offloaded_layers": 32}),
        ({"checkpointing": 7}, {"checkpointed_layers": 7, "offloaded_layers": 0}),
        ({"checkpointing": 99}, {"checkpointed_layers": 32, "offloaded_layers": 0}),
        ({"weights": "nf4"}, {"weights": "nf4"}),
        ({"weights": "dequantized"}, {"weights": "dequantized"}),
        ({"embeddings": "host"}, {"embeddings": "host"}),
        ({"embeddings": "device"}, {"embeddings": "device"}),
    ],
)
def test_what_is_set_by_hand_is_kept_to(training, expected):
    chosen = plan(130, **training)
    assert {name: getattr(chosen, name) for name in expected} == expected


def test_tied_embeddings_stay_where_the_head_needs_them():
    assert plan(130, embeddings="host", shape=replace(LLAMA, embedding_bytes=0)).embeddings == "device"


def test_16_bit_weights_have_nothing_to_dequantise():
    shape = replace(LLAMA, packed_layer_parameters=0)
    assert plan(130, weights="dequantized", shape=shape).weights == "nf4"


def test_other_layers_are_recomputed_all_or_none():
    shape = replace(LLAMA, fused=False)
    assert {plan(limit, shape=shape).checkpointed_layers for limit in (8, 9, 10, 12, 20, 60, 130)} == {0, 32}
    assert plan(8, shape=shape).offloaded_layers == 0


def test_a_gpu_faster_than_the_host_gets_larger_passes():
    """Under a T4's memory: a T4 takes the plan with the least work, an H200 one that keeps it from waiting."""
    slow, fast = (plan(13.8, operations=rate) for rate in (65e12, 989e12))
    assert fast.tokens_per_micro_batch > slow.tokens_per_micro_batch
    assert fast.checkpointed_layers > slow.checkpointed_layers


def test_the_optimizer_gives_way_where_its_state_does_not_fit():
    both = ("adamw_torch_fused", "paged_adamw_8bit")
    assert plan(130, optimizers=both).optimizer == "adamw_torch_fused"
    smallest = next(limit / 100 for limit in range(500, 700) if fits(limit / 100, both))
    assert plan(smallest, optimizers=both).optimizer == "paged_adamw_8bit"


def fits(limit, optimizers):
    try:
        plan(limit, optimizers=optimizers)
    except ModelError:
        return False
    return True


def test_what_cannot_fit_is_said_with_the_numbers():
    with pytest.raises(ModelError, match=r"does not fit: the smallest plan takes 5\.\d GiB of 4\.0 GiB .*max_length"):
        plan(4)
    # By hand, too: nothing is computed again, and the limit is the user's.
    with pytest.raises(ModelError, match="does not fit"):
        plan(10, checkpointing="none", tokens_per_micro_batch=8192)


def test_host_memory_bounds_what_is_kept_there():
    chosen = plan(12, largest=40_960, longest=40_960, host=64)
    assert 0 < chosen.offloaded_layers < chosen.checkpointed_layers == 31  # no more than must
    fewer = replace(chosen, offloaded_layers=chosen.offloaded_layers - 1)
    assert peak_parts(LLAMA, machine(12), fewer).total > 12 * GIB
    assert "31 of 32 layers computed again, " in chosen.describe()
    assert f", {chosen.offloaded_layers} from inputs in host memory" in chosen.describe()
    with pytest.raises(ModelError):
        plan(12, largest=40_960, longest=40_960, host=4)


def test_a_cpu_has_no_other_memory_to_put_inputs_in():
    alone = replace(machine(130), offloads=False)
    for wanted in ("offload", "auto"):
        training = TrainingSection(checkpointing=wanted)
        chosen = plan_training(
            LLAMA, alone, training, largest_step=7800, longest_row=1024, optimizers=("adamw_torch_fused",)
        )
        assert chosen.offloaded_layers == 0


def test_weights_that_are_shared_out_are_planned_as_stored_ones():
    shared, stored = (plan(100, weights=weights) for weights in ("sharded", "nf4"))
    assert shared == stored
    assert shared.weights == "nf4"


def test_adapters_of_pefts_own_modules_take_more_and_leave_weights_packed():
    fused = replace(LLAMA, fused=False)
    dora = replace(fused, by_peft=True, kept_by_adapters=3 * 50_000, adapter_bytes=2 * GIB)
    chosen = plan(139, shape=dora)
    assert chosen.weights == "nf4"
    same = replace(chosen, checkpointed_layers=0)
    ample = machine(139)
    assert peak_parts(dora, ample, same).total > peak_parts(fused, ample, same).total
    head = replace(fused, trained_head=True)
    assert peak_parts(head, ample, same).moment > peak_parts(fused, ample, same).moment + 4 * LLAMA.head_parameters
