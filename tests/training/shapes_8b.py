"""LLaMA-3-8B as a plan sees it."""

from medtune.training.plan.peaks import GIB, ModelShape

# LLaMA-3-8B in NF4, an adapter of rank 16 on all seven projections, bfloat16.
LLAMA = ModelShape(
    layers=32,
    hidden=4096,
    intermediate=14_336,
    query_key_value=6144,
    attention=4096,
    spread=0,
    item=2,
    layer_parameters=218_103_808,
    packed_layer_parameters=218_103_808,
    unpacking_bytes=2.53,
    largest_group=119_408_640,
    room_parameters=3_382_272,
    gate_up_room=64,
    head_parameters=525_336_576,
    adapter_parameters=41_943_040,
    embedding_bytes=1_050_673_152,
    logit_bytes=128 * 2**20,
    fused=True,
)
ALLOCATED = round(5.47 * GIB)
