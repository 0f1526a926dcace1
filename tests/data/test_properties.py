"""Properties of losses, masks, batches, blocks and captions for all inputs, even empty, huge or half precision."""

import json
import os
import tempfile
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from helpers import FEATURE_SIZE, WORDS, make_tokenizer
from hypothesis import HealthCheck, assume, given, settings
from hypothesis import strategies as st

from vidlankd_hf import TextCollator, VideoTextCollator, load_text_blocks
from vidlankd_hf.data.captions import Caption, read_captions
from vidlankd_hf.data.masking import mask_tokens
from vidlankd_hf.data.windows import divide, tile
from vidlankd_hf.models.contrast import VideoTextContrast
from vidlankd_hf.models.losses import OBJECTIVES
from vidlankd_hf.reliability.checkpointing import verify_checkpoint

# `HOURS=... pytest` of the drills asks for many more examples.
settings.register_profile(
    "package",
    max_examples=int(os.environ.get("VIDLANKD_EXAMPLES", 40)),
    deadline=None,
    derandomize="VIDLANKD_EXAMPLES" not in os.environ,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.data_too_large],
)
settings.load_profile("package")

TOKENIZER = make_tokenizer()
HIDDEN = [name for name, loss in OBJECTIVES.items() if "hidden" in loss.needs]
DTYPES = (torch.float16, torch.bfloat16, torch.float32, torch.float64)
sizes = st.integers(1, 6)


@st.composite
def states(draw, fewest=2):
    """Student and teacher states [B, L, D] of any length and precision, with masks that may leave a sequence empty."""
    batch, length, width = draw(st.integers(fewest, 5)), draw(sizes), draw(sizes)
    seed, scale, dtype = draw(st.integers(0, 2**16)), draw(st.sampled_from([0.0, 1e-4, 1.0, 200.0])), draw(
        st.sampled_from(DTYPES)
    )  # fmt: skip
    generator = torch.Generator().manual_seed(seed)
    student, teacher = (
        torch.nn.functional.normalize(torch.randn(batch, length, width, generator=generator), dim=-1) * scale
        for _ in range(2)
    )
    lengths = torch.tensor(draw(st.lists(st.integers(0, length), min_size=batch, max_size=batch)))
    mask = (torch.arange(length) < lengths[:, None]).long()
    return student.to(dtype).requires_grad_(), teacher.to(dtype), mask


@pytest.mark.parametrize("name", HIDDEN)
@given(states())
def test_objective_is_finite_not_negative_and_has_a_finite_gradient(name, inputs):
    student, teacher, mask = inputs
    loss = OBJECTIVES[name]()(student, teacher, mask)
    assert loss.dtype in (torch.float32, torch.float64) and loss.shape == ()
    assert loss.isfinite() and loss > -1e-5
    loss.backward()
    assert student.grad.isfinite().all()
    assert not student.grad[mask == 0].any(), "padding has no gradient"


@pytest.mark.parametrize("name", HIDDEN)
@given(states(), st.integers(1, 3), st.randoms(use_true_random=False))
def test_objective_knows_neither_padding_nor_the_order_of_the_batch(name, inputs, more, random):
    student, teacher, mask = (x.detach().double() if x.is_floating_point() else x for x in inputs)
    loss = OBJECTIVES[name]()
    expected = loss(student, teacher, mask)
    padded = [torch.cat([x, torch.full_like(x[:, :1], 3.0).expand(-1, more, -1)], 1) for x in (student, teacher)]
    longer = torch.cat([mask, torch.zeros(len(mask), more, dtype=mask.dtype)], 1)
    torch.testing.assert_close(loss(*padded, longer), expected)
    order = list(range(len(mask)))
    random.shuffle(order)
    torch.testing.assert_close(loss(student[order], teacher[order], mask[order]), expected)


@given(st.integers(1, 4), st.integers(1, 4), st.integers(2, 9), st.sampled_from([0.0, 1.0, 1e4]), st.integers(0, 999),
       st.sampled_from(DTYPES), st.booleans())  # fmt: skip
def test_soft_labels_are_a_divergence(batch, masked, vocabulary, scale, seed, dtype, none_masked):
    generator = torch.Generator().manual_seed(seed)
    logits = [(torch.randn(batch, masked, vocabulary, generator=generator) * scale).to(dtype) for _ in range(2)]
    mask = torch.full((batch, masked), not none_masked)
    loss = OBJECTIVES["soft_label"]()
    assert loss(*logits, mask).isfinite() and loss(*logits, mask) >= -1e-4
    assert loss(logits[0], logits[0], mask).abs() < 1e-4
    if none_masked:
        assert loss(*logits, mask) == 0


@pytest.mark.parametrize("kind", ["infonce", "hinge", "hinge_batch"])
@given(states(), st.lists(st.integers(0, 3), min_size=5, max_size=5), st.randoms(use_true_random=False))
def test_video_contrast_is_finite_and_knows_no_padding(kind, inputs, ids, random):
    tokens, videos, mask = inputs
    video_ids = torch.tensor(ids[: len(tokens)])
    loss = VideoTextContrast(kind)
    value = loss(tokens, videos[:, 0], mask, video_ids)
    assert value.isfinite() and value >= 0
    value.backward()
    assert tokens.grad.isfinite().all() and not tokens.grad[mask == 0].any()
    tokens, videos = tokens.detach().double(), videos.double()
    expected = loss(tokens, videos[:, 0], mask, video_ids)
    padded, longer = torch.cat([tokens, tokens[:, :1] + 7], 1), torch.cat([mask, torch.zeros_like(mask[:, :1])], 1)
    torch.testing.assert_close(loss(padded, videos[:, 0], longer, video_ids), expected)
    if kind != "hinge":  # its negatives are those of the next sample
        order = list(range(len(mask)))
        random.shuffle(order)
        reordered = loss(tokens[order], videos[order, 0], mask[order], video_ids[order])
        torch.testing.assert_close(reordered, expected)


token_lists = st.lists(st.integers(5, 4 + len(WORDS)), min_size=0, max_size=30)


@given(st.lists(token_lists, min_size=1, max_size=6), st.floats(0.01, 0.99), st.integers(0, 2**40),
       st.integers(0, 2**40), st.integers(0, 10**6))  # fmt: skip
def test_masks_are_of_each_sequence_alone(sequences, probability, seed, first_id, epoch):
    assume(any(sequences))
    collator = TextCollator(TOKENIZER, seed=seed, mlm_probability=probability)
    samples = [
        {"input_ids": np.array(s, np.uint16), "sample_id": first_id + i, "epoch": epoch}
        for i, s in enumerate(sequences)
    ]
    batch = collator(samples)
    mask = batch.get("attention_mask", torch.ones_like(batch["input_ids"]))
    for i, (sample, sequence) in enumerate(zip(samples, sequences)):
        alone = collator([sample])
        used = batch["masked_labels"][i] != -100
        count = int(used.sum())
        assert count == (max(1, round(probability * len(sequence))) if sequence else 0)
        positions = batch["masked_positions"][i][used]
        assert positions.tolist() == alone["masked_positions"][0][:count].tolist()
        assert len(set(positions.tolist())) == count, "none twice"
        ids, length = batch["input_ids"][i], len(sequence) + 2
        assert ids[:length].tolist() == alone["input_ids"][0].tolist()
        assert (ids[0], ids[length - 1]) == (TOKENIZER.cls_token_id, TOKENIZER.sep_token_id)
        assert (ids[length:] == TOKENIZER.pad_token_id).all() and mask[i].sum() == length
        restored = ids.clone()
        restored[positions] = batch["masked_labels"][i][used]
        assert restored[1 : length - 1].tolist() == sequence, "labels restore the text"
        assert not set(ids[1 : length - 1].tolist()) & {0, 1, 2, 3}, "no special token but [MASK] inside"


@given(st.integers(1, 5), st.integers(1, 12), st.floats(0.01, 0.99), st.integers(0, 2**63 - 1))
def test_text_without_a_token_to_mask_stays_as_it_is(batch, length, probability, seed):
    ids = np.arange(batch * length).reshape(batch, length)
    masked, positions, labels = mask_tokens(
        ids, np.zeros_like(ids, bool), np.arange(batch), np.zeros(batch, int), seed=seed, mask_token_id=4,
        ordinary_ids=np.array([5]), probability=probability,
    )  # fmt: skip
    assert (masked == ids).all() and positions.shape == (batch, 1) and (labels == -100).all()


@given(st.lists(st.tuples(st.integers(1, 9), st.integers(1, 12), st.integers(0, 3)), min_size=2, max_size=6),
       st.integers(1, 8), st.sampled_from([np.float16, np.float32, np.float64]))  # fmt: skip
def test_clips_keep_their_steps_and_their_videos(rows, longest, dtype):
    assume(len({video for *_, video in rows}) > 1)
    samples = [
        {"text": " ".join(WORDS[:words]), "video": f"v{video}", "sample_id": i, "epoch": 0,
         "video_features": (np.arange(steps * FEATURE_SIZE).reshape(steps, FEATURE_SIZE) + i).astype(dtype)}
        for i, (words, steps, video) in enumerate(rows)
    ]  # fmt: skip
    batch = VideoTextCollator(TOKENIZER, max_video_length=longest, feature_size=FEATURE_SIZE)(samples)
    kept = [min(longest, steps) for _, steps, _ in rows]
    assert batch["video_mask"].sum(1).tolist() == kept
    assert batch["video_features"].shape == (len(rows), max(kept), FEATURE_SIZE)
    for sample, count, features in zip(samples, kept, batch["video_features"]):
        assert not features[count:].any()
        rows_of = sample["video_features"].tolist()
        chosen = [rows_of.index(step) for step in features[:count].tolist()]
        assert chosen == sorted(set(chosen))
        if count == 1:
            assert chosen == [len(rows_of) // 2], "a single step is the middle one"
        else:
            assert (chosen[0], chosen[-1]) == (0, len(rows_of) - 1)
    same = [[a[2] == b[2] for b in rows] for a in rows]
    assert (batch["video_ids"][:, None] == batch["video_ids"]).tolist() == same


@settings(max_examples=10)
@given(st.lists(st.lists(st.sampled_from(WORDS), max_size=9).map(" ".join) | st.just("  \n"), min_size=1, max_size=9),
       st.integers(1, 7))  # fmt: skip
def test_blocks_hold_every_token_once_in_order(texts, block_tokens):
    tokens = [i for text in texts for i in TOKENIZER(text, add_special_tokens=False)["input_ids"]]
    source = Dataset.from_dict({"text": texts})
    with tempfile.TemporaryDirectory() as folder:
        if len(tokens) < block_tokens:
            with pytest.raises(ValueError, match="fewer than one block"):
                load_text_blocks(source, TOKENIZER, folder, block_tokens=block_tokens)
            return
        blocks = load_text_blocks(source, TOKENIZER, folder, block_tokens=block_tokens)
        flat = np.concatenate([blocks[i]["input_ids"] for i in range(len(blocks))]).tolist()
        assert flat == tokens[: len(flat)] and len(tokens) - len(flat) == blocks.info["left_over"] < block_tokens


captions = st.builds(
    lambda words, start, length: Caption("v", start, start + length, " ".join(words)),
    st.lists(st.sampled_from(WORDS), min_size=1, max_size=25),
    st.floats(0, 1000),
    st.floats(0.01, 100),
)


@given(st.lists(captions, min_size=1, max_size=8), st.integers(1, 10), st.floats(0, 1))
def test_windows_lose_no_word_and_stay_within_their_length_and_time(lines, max_tokens, shift):
    lines.sort(key=lambda caption: (caption.start, caption.end))
    pieces = divide(lines, TOKENIZER, max_tokens)
    words = [piece.text.split() for piece, _ in pieces]
    assert sum(words, []) == " ".join(line.text for line in lines).split()
    assert all(piece.start < piece.end for piece, _ in pieces) and pieces[0][0].start == lines[0].start
    assert max(piece.end for piece, _ in pieces) == pytest.approx(max(line.end for line in lines))
    tokens = np.array([count for _, count in pieces])
    bounds = tile(tokens, max_tokens, shift)
    assert bounds[0] == 0 and bounds[-1] == len(pieces) and len(bounds) == len(tile(tokens, max_tokens))
    assert all(0 < tokens[a:b].sum() <= max_tokens for a, b in zip(bounds, bounds[1:]))


anything = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=6), inner, max_size=4),
    max_leaves=8,
)
caption_objects = st.fixed_dictionaries(
    {"video": anything, "text": anything}, optional={"start": anything, "end": anything}
)


def _parses_or_says_why(content: bytes, parse) -> None:
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "file"
        path.write_bytes(content)
        parse(path)


@given(st.binary(max_size=200) | (anything | caption_objects).map(lambda value: json.dumps(value).encode()))
def test_any_bytes_are_captions_or_a_clear_error(content):
    def parse(path):
        try:
            lines = read_captions(path)
        except ValueError as error:
            assert str(path) in str(error)
        else:
            assert all(line.text.strip() and line.start >= 0 for line in lines)

    _parses_or_says_why(content, parse)


entries = st.dictionaries(st.text(max_size=8), anything, max_size=3)
manifests = st.fixed_dictionaries({"format_version": st.just(2) | anything, "files": entries | anything})


@given(st.binary(max_size=200) | (anything | manifests).map(lambda value: json.dumps(value).encode()))
def test_no_bytes_make_a_complete_checkpoint_of_an_empty_folder(content):
    def parse(path):
        path.rename(path.with_name("manifest.json"))
        assert isinstance(verify_checkpoint(path.parent), str)

    _parses_or_says_why(content, parse)
