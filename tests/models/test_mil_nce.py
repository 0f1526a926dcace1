"""MIL-NCE: the loss, the texts that a batch holds for it, and a teacher that is trained with it."""

import math

import numpy as np
import pytest
import torch
from helpers import make_teacher, make_tokenizer, make_video_text, train

from vidlankd_hf import VideoTextCollator
from vidlankd_hf.models.contrast import MILNCEContrast, VideoTextContrast
from vidlankd_hf.training.sampler import EpochDataset

VIDEOS = torch.tensor([0, 0, 1, 2])  # the first two clips are of the same video
MASK = torch.tensor([[1, 1, 1], [1, 0, 1], [1, 0, 0], [1, 1, 0]])


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return torch.nn.functional.normalize(torch.randn(*shape, generator=generator, dtype=torch.float64), dim=-1)


def naive(texts, clips, mask, videos, temperature=0.1):
    losses = []
    for b in range(len(clips)):
        own = [texts[b, n] for n in range(texts.shape[1]) if mask[b, n]]
        others = [c for c in range(len(clips)) if videos[c] != videos[b]]
        positives = sum(torch.exp(text @ clips[b] / temperature) for text in own)
        negatives = torch.zeros((), dtype=torch.float64)
        for c in others:
            negatives = negatives + sum(torch.exp(text @ clips[c] / temperature) for text in own)
            for n in range(texts.shape[1]):
                if mask[c, n]:
                    negatives = negatives + torch.exp(texts[c, n] @ clips[b] / temperature)
        losses.append(-torch.log(positives / (positives + negatives)))
    return sum(losses) / len(losses)


def value_and_gradients(function, texts, clips):
    texts, clips = texts.clone().requires_grad_(), clips.clone().requires_grad_()
    value = function(texts, clips)
    value.backward()
    return value.detach(), texts.grad, clips.grad


def test_loss_and_gradients_equal_naive_loops():
    texts, clips, contrast = 0.6 * unit(4, 3, 8, seed=1), unit(4, 8, seed=2), MILNCEContrast()
    ours = value_and_gradients(lambda t, v: contrast(t, v, MASK, VIDEOS), texts, clips)
    expected = value_and_gradients(lambda t, v: naive(t, v, MASK, VIDEOS), texts, clips)
    for a, b in zip(ours, expected):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-12)


def test_order_of_the_texts_and_what_pads_a_bag_have_no_influence():
    texts, clips, contrast = unit(4, 3, 8, seed=1), unit(4, 8, seed=2), MILNCEContrast()
    value, gradient, _ = value_and_gradients(lambda t, v: contrast(t, v, MASK, VIDEOS), texts, clips)
    assert not gradient[MASK == 0].any() and gradient[MASK == 1].all()
    order = [2, 0, 1]
    torch.testing.assert_close(contrast(texts[:, order], clips, MASK[:, order], VIDEOS), value, rtol=1e-12, atol=0)
    changed = torch.where(MASK[..., None] == 1, texts, -50.0)
    assert contrast(changed, clips, MASK, VIDEOS) == value


def test_with_one_text_the_negatives_of_both_infonce_terms_share_one_softmax():
    """e^L = e^L_clip + e^L_text - 1, where InfoNCE for texts of one token is L_clip + L_text."""
    texts, clips = unit(4, 8, seed=1), unit(4, 8, seed=2)
    ones, others = torch.ones(4, 1), VIDEOS[:, None] != VIDEOS[None]
    allowed = others | torch.eye(4, dtype=torch.bool)
    scores = torch.where(allowed, clips @ texts.T / 0.1, -torch.inf)  # clip, text
    to_text, to_clip = (s.logsumexp(1) - s.diagonal() for s in (scores, scores.T))
    infonce = VideoTextContrast("infonce")(texts[:, None], clips, ones, VIDEOS)
    torch.testing.assert_close((to_text + to_clip).mean(), infonce, rtol=1e-12, atol=0)
    expected = (to_text.exp() + to_clip.exp() - 1).log().mean()
    torch.testing.assert_close(MILNCEContrast()(texts[:, None], clips, ones, VIDEOS), expected, rtol=1e-12, atol=0)


def test_loss_is_small_as_soon_as_one_text_of_the_bag_fits():
    clips = torch.eye(4)
    aligned, late = clips[:, None], torch.stack([clips.roll(1, 0), clips], 1)
    videos, contrast = torch.arange(4), MILNCEContrast(temperature=0.05)
    own_text_alone = contrast(late[:, :1], clips, torch.ones(4, 1), videos)
    assert contrast(aligned, clips, torch.ones(4, 1), videos) < 1e-6
    assert contrast(late, clips, torch.ones(4, 2), videos) < math.log(4) < own_text_alone


def test_bf16_states_give_a_float32_loss():
    texts, clips = unit(4, 3, 8).bfloat16(), unit(4, 8, seed=2).bfloat16()
    value = MILNCEContrast()(texts, clips, MASK, VIDEOS)
    assert value.dtype == torch.float32 and value.isfinite()


@pytest.fixture(scope="module")
def tokenizer():
    return make_tokenizer()


@pytest.fixture(scope="module")
def samples():
    return EpochDataset(make_video_text(6, candidates=True)).__getitems__([0, 6 + 2, 12 + 3, 4])


def collate(tokenizer, samples, mil_candidates=5):
    return VideoTextCollator(tokenizer, seed=3, mil_candidates=mil_candidates)(samples)


def test_teacher_compares_each_clip_with_its_own_and_the_texts_around_it(tokenizer, samples):
    teacher, batch = make_teacher(tokenizer, contrast="mil_nce").eval(), collate(tokenizer, samples)
    assert teacher.config.mil_candidates == 5 and teacher.loss_terms["contrast"] == (1.0, "sequences")
    output = teacher(**batch)
    assert batch["candidate_mask"].sum(1).tolist() == [0, 1, 1, 1]

    def vector(ids, mask):
        states = teacher.encode_text(ids[mask == 1][None])
        return torch.nn.functional.normalize(states[0], dim=-1).mean(0)

    own = [vector(*row) for row in zip(batch["input_ids"], batch["attention_mask"])]
    torch.testing.assert_close(torch.stack(own), output.text_embeds)
    ids, attention = batch["candidate_input_ids"][:, 0], batch["candidate_attention_mask"][:, 0]
    around = [vector(*row) for row in zip(ids, attention)]
    texts = torch.stack([torch.stack(own), torch.stack(around)], 1)
    mask = torch.tensor([[1, 0], [1, 1], [1, 1], [1, 1]])
    expected = naive(texts.double(), output.video_embeds.double(), mask, batch["video_ids"])
    torch.testing.assert_close(output.losses["contrast"].double(), expected, rtol=1e-4, atol=1e-5)
    alone = teacher(**{name: value for name, value in batch.items() if not name.startswith("candidate")})
    assert alone.losses["contrast"] != output.losses["contrast"]


def test_texts_around_a_clip_leave_the_rest_of_the_batch_as_it_is(tokenizer, samples):
    without, batch = collate(tokenizer, samples, None), collate(tokenizer, samples)
    assert all(torch.equal(without[name], batch[name]) for name in without)
    assert {name for name in batch if name not in without} == {
        "candidate_input_ids", "candidate_attention_mask", "candidate_mask"
    }  # fmt: skip
    assert collate(tokenizer, samples, 1).keys() == without.keys()


def test_masks_of_a_text_depend_on_seed_epoch_and_text_alone(tokenizer, samples):
    text = " ".join(f"word{i}" for i in range(40))
    plain = [tokenizer.cls_token_id, *tokenizer(text)["input_ids"], tokenizer.sep_token_id]

    def masked(before, place, epoch=1, seed=3):
        sample = {**samples[2], "epoch": epoch, "candidates": ["word7"] * place + [text]}
        batch = VideoTextCollator(tokenizer, seed, mil_candidates=5)([*samples[:before], sample])
        assert batch["candidate_attention_mask"][before, place].sum() == len(plain)
        return batch["candidate_input_ids"][before, place].tolist()

    expected = masked(before=1, place=0)
    assert 0 < sum(a != b for a, b in zip(expected, plain)) <= 6, "15 % of 40 tokens, a tenth of which stay"
    assert expected == masked(before=2, place=3)
    assert expected != masked(before=1, place=0, epoch=2) and expected != masked(before=1, place=0, seed=4)


def test_samples_without_their_texts_or_with_too_many_are_an_error(tokenizer, samples):
    missing = [{k: v for k, v in sample.items() if k != "candidates"} for sample in samples]
    with pytest.raises(ValueError, match="'v0' has no candidates.*mil_candidates=5"):
        collate(tokenizer, missing)
    with pytest.raises(ValueError, match="'v0' has 3 candidates.*up to 2.*mil_candidates=3"):
        collate(tokenizer, [{**sample, "candidates": ["word1"] * 3} for sample in samples], 3)
    with pytest.raises(ValueError, match="'v0' has 127 tokens.*126"):
        collate(tokenizer, [{**sample, "candidates": ["word1 " * 127]} for sample in samples])


def test_settings_that_do_not_fit_are_errors(tokenizer):
    for count in (0, 4, -1):
        with pytest.raises(ValueError, match=f"mil_candidates is {count}.*odd number"):
            make_teacher(tokenizer, contrast="mil_nce", mil_candidates=count)
    with pytest.raises(ValueError, match="mil_candidates is 5, but the contrast is 'infonce'"):
        make_teacher(tokenizer, mil_candidates=5)


def test_training_does_not_depend_on_workers_and_saves_the_design(tmp_path):
    design = {"contrast": "mil_nce", "mil_candidates": 3}
    runs = [train("teacher", tmp_path / str(n), design=design, dataloader_num_workers=n) for n in (0, 2)]
    losses = [[entry["contrast_loss"] for entry in run.state.log_history if "loss" in entry] for run in runs]
    assert losses[0] == losses[1] and np.isfinite(losses[0]).all()
    runs[0].save_model()
    loaded = type(runs[0].model).from_pretrained(tmp_path / "0")
    assert (loaded.config.contrast, loaded.config.mil_candidates) == ("mil_nce", 3)
    assert "eval_text_to_video_r@1" in runs[0].evaluate()
