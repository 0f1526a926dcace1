"""Every architecture of transformers that reads text can be a teacher: `load_teacher` keeps the part that reads."""

import gc
from pathlib import Path

import pytest
import torch
from helpers import train
from tiny_architectures import CANNOT, READS_TEXT, complete_model
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from vidlankd_hf import load_teacher
from vidlankd_hf.models.attention import is_causal, longest_sequence
from vidlankd_hf.models.teacher import text_part

FAST = ("clip", "siglip", "xclip", "blip-2", "llava", "qwen3_vl", "t5", "gpt2", "modernbert", "flava")
BLOCK = 19  # tokens of a block in `train`, with special ones
IDS = torch.tensor([[5, 6, 7, 8, 9], [9, 8, 11, 12, 13]])
INPUTS = {"input_ids": IDS, "attention_mask": torch.ones_like(IDS)}


def states_of_the_text(model) -> torch.Tensor:
    """The token states that a complete model computes of text alone; of one that needs more, its text part's."""
    try:
        states = model(**INPUTS).last_hidden_state
    except (TypeError, ValueError, AttributeError, RuntimeError):
        states = None
    if states is None or model.config.is_encoder_decoder:
        part = text_part(model)
        part.config.use_cache = False  # some cannot fill a cache with so few layers
        states = part(**INPUTS).last_hidden_state
    return states


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=() if name in FAST else pytest.mark.slow) for name in READS_TEXT]
)
def test_the_part_that_reads_text_is_loaded_and_teaches(tmp_path, name):
    if name not in CONFIG_MAPPING:
        pytest.skip("this version of transformers does not have it")
    model = complete_model(name)
    model.save_pretrained(tmp_path / "model")
    with torch.no_grad():
        expected = states_of_the_text(model)
    del model
    gc.collect()

    teacher = load_teacher(tmp_path / "model")
    changed = torch.cat([IDS[:, :-1], torch.full((2, 1), 20)], dim=1)
    with torch.no_grad():
        states = teacher(**INPUTS).last_hidden_state
        first = teacher(input_ids=changed, attention_mask=INPUTS["attention_mask"]).last_hidden_state[:, 0]
    torch.testing.assert_close(states, expected, rtol=1e-4, atol=1e-5)
    assert is_causal(teacher) is torch.allclose(first, states[:, 0], rtol=0, atol=1e-6)
    longest = longest_sequence(teacher)
    if longest is not None:
        assert teacher(input_ids=torch.full((1, longest), 5)).last_hidden_state.shape[:2] == (1, longest)

    run = {"objectives": {"nst": 100.0, "regression": 1.0}, "teacher": teacher, "max_steps": 2}
    if longest is not None and longest < BLOCK:  # OWL-ViT
        with pytest.raises(ValueError, match=f"the teacher reads at most {longest}: give --block_tokens"):
            train("student", tmp_path / "run", **run)
        return
    trainer = train("student", tmp_path / "run", **run)
    losses = torch.tensor([entry["loss"] for entry in trainer.state.log_history if "loss" in entry])
    assert len(losses) == 2 and losses.isfinite().all()


@pytest.mark.slow
@pytest.mark.parametrize("name", CANNOT)
def test_a_model_that_needs_more_than_text_is_refused(tmp_path, name):
    complete_model(name).save_pretrained(tmp_path)
    with pytest.raises(ValueError, match="a teacher: its text part, a .*, (cannot read token ids|gives states)"):
        load_teacher(tmp_path)


def test_the_page_on_teachers_lists_what_was_tried_and_what_cannot_teach():
    page = (Path(__file__).parents[2] / "docs" / "teachers.md").read_text()
    assert [name for name in READS_TEXT if f"`{name}`" not in page] == []
    assert [name for name, reason in CANNOT.items() if f"| `{name}` | {reason} |" not in page] == []
