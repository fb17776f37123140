"""Packs of rows are what TRL's padding-free collator makes of them, and what counts in them."""

import torch
from hypothesis import given
from hypothesis import strategies as st
from trl.trainer.sft_trainer import DataCollatorForLanguageModeling

from medtune.model.packing import pack_rows

ROW = st.lists(st.tuples(st.integers(0, 400), st.booleans()), min_size=1, max_size=12)


@given(st.lists(ROW, min_size=1, max_size=6))
def test_packs_are_those_of_trl(rows):
    ids = [[token for token, _ in row] for row in rows]
    labels = [[token if counted else -100 for token, counted in row] for row in rows]
    pack = pack_rows(ids, labels)
    collate = DataCollatorForLanguageModeling(pad_token_id=0, padding_free=True)
    expected = collate([{"input_ids": i, "labels": row} for i, row in zip(ids, labels, strict=True)])
    shifted = expected.pop("labels")[0, 1:]
    counted = (shifted != -100).nonzero().squeeze(1)
    expected |= {"answer_positions": counted, "answer_labels": shifted[counted]}
    expected["row_edges"] = tuple(expected["cu_seq_lens_q"].tolist())
    assert pack.keys() == expected.keys()
    for name, value in expected.items():
        if torch.is_tensor(value):
            assert torch.equal(pack[name], value)
            assert pack[name].dtype == value.dtype
        else:
            assert pack[name] == value
