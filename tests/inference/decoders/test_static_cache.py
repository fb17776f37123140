"""A cache of fixed buffers: prompts and steps write where they are told, and get back what they attend to."""

import torch

from medtune.inference.decoders.static_cache import StaticRowsCache


def filled(cache, layer, rows, tokens, value):
    keys = torch.full((rows, 2, tokens, 3), float(value))
    return cache.update(keys, 10 * keys, layer)


def test_prompts_fill_their_rows_and_attend_to_themselves():
    cache = StaticRowsCache(2, rows=4, positions=6)
    cache.write_to(slice(1, 3), slice(2, 5))
    keys, values = filled(cache, 0, 2, 3, 7)
    assert (keys == 7).all()
    assert keys.shape == values.shape == (2, 2, 3, 3)
    layer = cache.layers[0]
    assert layer.keys.shape == (4, 2, 6, 3)
    assert (layer.keys[1:3, :, 2:5] == 7).all()
    assert (layer.values[1:3, :, 2:5] == 70).all()
    assert layer.keys.sum() == 7 * 2 * 2 * 3 * 3, "nothing was written anywhere else"


def test_a_step_writes_one_position_and_reads_whole_rows():
    cache = StaticRowsCache(1, rows=4, positions=6)
    cache.write_to(slice(0, 3), torch.tensor([4]))
    keys, values = filled(cache, 0, 3, 1, 5)
    assert keys.shape == values.shape == (3, 2, 6, 3)
    assert (keys[:, :, 4] == 5).all()
    assert keys.sum() == 5 * 3 * 2 * 3
    assert keys.data_ptr() == cache.layers[0].keys.data_ptr(), "the buffer itself, which a graph was captured with"


def test_masks_are_made_for_the_tokens_at_hand():
    layer = StaticRowsCache(1, rows=2, positions=6).layers[0]
    assert (layer.get_seq_length(), layer.get_max_length()) == (0, 6)
    assert layer.get_mask_sizes(3) == (3, 0)


def test_buffers_end_at_what_is_filled():
    cache = StaticRowsCache(2, rows=2, positions=6)
    for layer in range(2):
        filled(cache, layer, 2, 6, layer)
    buffers = list(cache.buffers(4))
    assert [buffer.shape for buffer in buffers] == [(2, 2, 4, 3)] * 4
