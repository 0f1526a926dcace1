"""`longest_sequence` is the exact maximum number of tokens of an encoder."""

import pytest
import torch
from helpers import MINI
from transformers import AutoConfig, AutoModel, DistilBertConfig, XLNetConfig

from vidlankd_hf.models.attention import longest_sequence


@pytest.mark.parametrize("kind", ["bert", "roberta", "xlm-roberta", "mpnet", "electra", "albert", "modernbert"])
def test_encoders_read_the_longest_sequence_but_no_longer_one(kind):
    config = AutoConfig.for_model(kind, **{**MINI, "max_position_embeddings": 20, "vocab_size": 30, "pad_token_id": 1})
    model = AutoModel.from_config(config).eval()
    longest = longest_sequence(model)
    assert longest == {"roberta": 18, "xlm-roberta": 18, "mpnet": 18}.get(kind, 20)
    model(torch.full((1, longest), 5))
    if kind != "modernbert":  # rotary positions have no limit
        with pytest.raises((IndexError, RuntimeError)):
            model(torch.full((1, longest + 1), 5))


def test_the_limit_of_other_embeddings_is_that_of_the_configuration():
    config = DistilBertConfig(dim=32, n_layers=1, n_heads=2, hidden_dim=32, vocab_size=30, max_position_embeddings=20)
    assert longest_sequence(AutoModel.from_config(config)) == 20


def test_a_model_without_a_limit_has_none():
    config = XLNetConfig(vocab_size=30, d_model=32, n_layer=1, n_head=2, d_inner=32)
    assert longest_sequence(AutoModel.from_config(config)) is None
