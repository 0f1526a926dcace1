"""`is_causal` tells whether the states of a text see the tokens after them."""

import pytest
import torch
from helpers import MINI, make_teacher, make_tokenizer
from transformers import (
    AutoConfig,
    AutoModel,
    CLIPTextConfig,
    CLIPTextModel,
    SiglipTextConfig,
    SiglipTextModel,
    T5Config,
    T5EncoderModel,
)

from vidlankd_hf.models.attention import is_causal


def sees_later_tokens(model) -> bool:
    """Whether another last token changes the first state."""
    with torch.no_grad():
        one, other = (model(torch.tensor([[5, 6, last]])).last_hidden_state[0, 0] for last in (7, 8))
    return not torch.allclose(one, other, rtol=0, atol=1e-6)  # experts compute in other groups: rounding


CAUSAL = ("gpt2", "llama", "qwen3", "mixtral", "clip")
BIDIRECTIONAL = ("bert", "roberta", "modernbert", "mpnet", "deberta-v2", "t5", "siglip")


@pytest.mark.parametrize("kind", CAUSAL + BIDIRECTIONAL)
@pytest.mark.parametrize("attention", ["sdpa", "eager"])
def test_a_model_is_causal_if_no_later_token_changes_a_state(kind, attention):
    torch.manual_seed(0)
    if kind == "t5":
        model = T5EncoderModel(T5Config(vocab_size=30, d_model=32, d_kv=16, d_ff=32, num_layers=1, num_heads=2))
    elif kind == "clip":
        model = CLIPTextModel(CLIPTextConfig(**MINI, vocab_size=30))
    elif kind == "siglip":
        model = SiglipTextModel(SiglipTextConfig(**MINI, vocab_size=30))
    else:
        config = AutoConfig.for_model(kind, **{**MINI, "vocab_size": 30, "num_key_value_heads": 1, "pad_token_id": 1})
        model = AutoModel.from_config(config)
    if attention == "eager" or kind not in ("mpnet", "deberta-v2", "t5"):  # these have no sdpa
        model.set_attn_implementation(attention)
    causal = kind in CAUSAL
    assert is_causal(model.train()) is causal and model.training
    assert is_causal(model.requires_grad_(False).bfloat16()) is causal
    assert sees_later_tokens(model.float().eval()) is not causal


def test_a_teacher_of_this_package_is_not_causal():
    with torch.no_grad():
        assert is_causal(make_teacher(make_tokenizer())) is False
