"""`key_mask` masks padding like transformers does, for each model type and attention implementation."""

import pytest
import torch
from helpers import make_config, make_student, make_teacher, make_tokenizer
from transformers import AlignTextConfig
from transformers.utils import is_flash_attn_2_available

from vidlankd_hf.models.attention import key_mask, set_attention


@pytest.mark.parametrize("kind", ["bert", "roberta", "modernbert"])
@pytest.mark.parametrize("implementation", ["sdpa", "eager"])
def test_key_mask_gives_the_states_of_a_plain_padding_mask(implementation, kind):
    encoder = make_student(make_tokenizer(), model_type=kind).base_model.eval()
    encoder.set_attn_implementation(implementation)
    ids, mask = torch.randint(5, 60, (3, 17)), torch.arange(17) < torch.tensor([[17], [14], [1]])
    states = encoder(ids, attention_mask=key_mask(mask.long(), encoder.config)).last_hidden_state
    expected = encoder(ids, attention_mask=mask.long()).last_hidden_state
    torch.testing.assert_close(states[mask], expected[mask])
    with_other_padding = encoder(ids.masked_fill(~mask, 9), attention_mask=key_mask(mask.long(), encoder.config))
    torch.testing.assert_close(with_other_padding.last_hidden_state[mask], states[mask])


def test_attention_implementation_is_the_requested_one():
    teacher, student = make_teacher(make_tokenizer()), make_student(make_tokenizer())
    set_attention(None, student, None)
    assert student.config._attn_implementation == "sdpa"
    set_attention("eager", student, teacher)
    video = teacher.video_encoder.transformer
    assert {m.config._attn_implementation for m in (student, student.bert, teacher.text_model, video)} == {"eager"}
    with pytest.raises(ValueError, match="attn_implementation is 'flash': choose one of sdpa, eager, flash"):
        set_attention("flash", student)


def test_flash_attention_that_is_not_installed_is_refused():
    if is_flash_attn_2_available():
        pytest.skip("flash_attn is installed")
    with pytest.raises(ValueError, match="flash_attn is not installed, or there is no GPU"):
        set_attention("flash_attention_2", make_student(make_tokenizer()))


def test_other_models_get_their_mask_unchanged():
    mask = torch.ones(2, 3)
    assert key_mask(mask, AlignTextConfig(attn_implementation="sdpa")) is mask
    assert key_mask(None, make_config(make_tokenizer())) is None


def test_student_without_padding_computes_the_same_with_and_without_a_mask():
    student = make_student(make_tokenizer()).eval()
    batch = {"input_ids": torch.randint(5, 60, (2, 6)), "masked_positions": torch.tensor([[1], [2]]),
             "masked_labels": torch.tensor([[7], [8]])}  # fmt: skip
    torch.testing.assert_close(student(**batch).loss, student(**batch, attention_mask=torch.ones(2, 6)).loss)
