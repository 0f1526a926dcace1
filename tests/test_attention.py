"""Padding is masked without transformers' look at the mask, and without padding there is no mask."""

import pytest
import torch
from helpers import make_config, make_student, make_tokenizer
from transformers import BertModel, RobertaConfig

from vidlankd_hf.attention import key_mask


@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_key_mask_gives_what_transformers_gives_for_the_padding_mask(implementation):
    config = make_config(make_tokenizer(), dropout=0.0)
    bert = BertModel._from_config(config, attn_implementation=implementation).eval()
    ids, mask = torch.randint(5, 60, (3, 7)), torch.arange(7) < torch.tensor([[7], [4], [1]])
    states = bert(ids, attention_mask=key_mask(mask.long(), bert.config)).last_hidden_state
    expected = bert(ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(states[mask], expected[mask])
    with_other_padding = bert(ids.masked_fill(~mask, 9), attention_mask=key_mask(mask.long(), bert.config))
    torch.testing.assert_close(with_other_padding.last_hidden_state[mask], states[mask])


def test_other_models_get_the_mask_they_expect():
    mask = torch.ones(2, 3)
    assert key_mask(mask, RobertaConfig()) is mask
    assert key_mask(None, make_config(make_tokenizer())) is None


def test_student_without_padding_computes_the_same_with_and_without_a_mask():
    student = make_student(make_tokenizer()).eval()
    batch = {"input_ids": torch.randint(5, 60, (2, 6)), "masked_positions": torch.tensor([[1], [2]]),
             "masked_labels": torch.tensor([[7], [8]])}  # fmt: skip
    torch.testing.assert_close(student(**batch).loss, student(**batch, attention_mask=torch.ones(2, 6)).loss)
