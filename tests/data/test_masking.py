"""Masks have exact counts and the documented bits, and depend only on (seed, epoch, sample, position)."""

import numpy as np
import pytest
from helpers import WORDS, make_texts, make_tokenizer

from vidlankd_hf import TextCollator
from vidlankd_hf.data.masking import mask_tokens
from vidlankd_hf.training.sampler import EpochDataset

OPTIONS = {"seed": 3, "mask_token_id": 4, "ordinary_ids": np.arange(5, 1000)}
WORD = 2**64


def reference_mix(z):
    z = (z + 0x9E3779B97F4A7C15) % WORD
    z = ((z ^ (z >> 30)) * 0xBF58476D1CE4E5B9) % WORD
    z = ((z ^ (z >> 27)) * 0x94D049BB133111EB) % WORD
    return z ^ (z >> 31)


def reference_masks(ids, ordinary, sample, epoch, seed, mask_token_id, ordinary_ids):
    """The algorithm of the module's docstring with Python integers."""
    row = reference_mix(reference_mix(reference_mix(seed) ^ epoch) ^ sample)
    places = [i for i, flag in enumerate(ordinary) if flag]
    count = max(1, round(0.15 * len(places))) if places else 0
    chosen = sorted(sorted(places, key=lambda i: reference_mix(row ^ 2 * i) >> 16 << 16 | i)[:count])
    masked = list(ids)
    for i in chosen:
        draw = reference_mix(row ^ (2 * i + 1))
        share = (draw >> 32) / 2**32
        if share < 0.8:
            masked[i] = mask_token_id
        elif share < 0.9:
            masked[i] = int(ordinary_ids[draw % 2**32 % len(ordinary_ids)])
    return masked, chosen


def ragged_batch(batch=64, length=40, seed=0):
    rng = np.random.default_rng(seed)
    ids = rng.integers(5, 1000, (batch, length))
    counts = rng.integers(0, length - 1, batch)
    counts[:2] = 0, 1
    ordinary = (np.arange(length) > 0) & (np.arange(length) <= counts[:, None])
    return ids, ordinary, counts


@pytest.mark.parametrize("full", [False, True])
def test_masks_equal_the_documented_bits(full):
    ids, ordinary, _ = ragged_batch()
    if full:
        ordinary[:] = True
        ordinary[:, [0, -1]] = False
    samples, epochs = np.arange(64) * 1000, np.arange(64) % 3
    masked, positions, labels = mask_tokens(ids, ordinary, samples, epochs, **OPTIONS)
    for b in range(64):
        expected, chosen = reference_masks(ids[b], ordinary[b], int(samples[b]), int(epochs[b]), **OPTIONS)
        used = labels[b] != -100
        assert positions[b][used].tolist() == chosen
        assert masked[b].tolist() == expected
        assert labels[b][used].tolist() == ids[b][chosen].tolist()


def test_count_is_exact_and_every_other_token_stays():
    ids, ordinary, counts = ragged_batch()
    masked, positions, labels = mask_tokens(ids, ordinary, np.arange(64), np.zeros(64, int), **OPTIONS)
    assert (labels != -100).sum(1).tolist() == [max(1, round(0.15 * n)) if n else 0 for n in counts]
    assert (positions[labels == -100] == 0).all()
    changed = masked != ids
    for b in range(64):
        assert set(np.flatnonzero(changed[b])) <= set(positions[b][labels[b] != -100])


def test_first_position_may_be_masked_next_to_shorter_rows():
    ids = np.arange(10, 30).reshape(2, 10)
    ordinary = np.ones((2, 10), bool)
    ordinary[0, 1:] = False
    masked, positions, labels = mask_tokens(ids, ordinary, np.arange(2), np.zeros(2, int), **OPTIONS)
    expected, chosen = reference_masks(ids[0], ordinary[0], 0, 0, **OPTIONS)
    assert chosen == [0] and masked[0].tolist() == expected


def test_shares_are_80_10_10_and_random_tokens_are_ordinary():
    ids = np.full((4000, 42), 7)
    ordinary = np.ones_like(ids, bool)
    masked, positions, _ = mask_tokens(ids, ordinary, np.arange(4000), np.zeros(4000, int), **OPTIONS)
    replaced = np.take_along_axis(masked, positions, 1)
    shares = [(replaced == 4).mean(), ((replaced != 4) & (replaced != 7)).mean(), (replaced == 7).mean()]
    assert np.allclose(shares, [0.8, 0.1, 0.1], atol=0.01)
    assert replaced[replaced != 4].min() >= 5
    places = np.bincount(positions.ravel(), minlength=42) / positions.size
    assert np.allclose(places, 1 / 42, atol=0.004), "every position is masked equally often"


@pytest.mark.parametrize("changed", ["seed", "epoch", "sample"])
def test_masks_change_with_seed_epoch_and_sample(changed):
    ids, ordinary = np.full((8, 40), 7), np.ones((8, 40), bool)
    samples, epochs, options = np.arange(8), np.zeros(8, int), dict(OPTIONS)
    first = mask_tokens(ids, ordinary, samples, epochs, **options)[1]
    if changed == "seed":
        options["seed"] = 4
    second = mask_tokens(ids, ordinary, samples + 8 * (changed == "sample"), epochs + (changed == "epoch"), **options)[
        1
    ]
    assert (first != second).any(1).all()


def test_batch_neighbors_and_padding_change_no_mask():
    tokenizer = make_tokenizer()
    collator = TextCollator(tokenizer, seed=1)
    dataset = EpochDataset(make_texts(10))
    together = collator(dataset.__getitems__(list(range(10, 20))))
    for i in range(10):
        alone = collator([dataset[10 + i]])
        length = alone["input_ids"].shape[1]
        assert (together["input_ids"][i, :length] == alone["input_ids"][0]).all()
        assert together["attention_mask"][i].sum() == length


def test_random_pad_lookalike_never_hides_a_token():
    """The attention mask comes from the lengths, before any replacement."""
    tokenizer = make_tokenizer()
    batch = TextCollator(tokenizer, mlm_probability=0.9)(EpochDataset(make_texts(50)).__getitems__(list(range(50))))
    lengths = [len(text["input_ids"]) + 2 for text in make_texts(50)]
    assert batch["attention_mask"].sum(1).tolist() == lengths
    assert (batch["input_ids"][batch["attention_mask"] == 1] != tokenizer.pad_token_id).all()


def test_vokens_stand_at_their_tokens_and_at_nothing_else():
    samples = [
        {"input_ids": np.full(len(vokens), 7), "voken_ids": np.array(vokens), "sample_id": i, "epoch": 0}
        for i, vokens in enumerate([[0, 3, 9], [2]])
    ]
    batch = TextCollator(make_tokenizer())(samples)
    assert batch["voken_ids"].tolist() == [[-100, 0, 3, 9, -100], [-100, 2, -100, -100, -100]]


def test_position_that_its_bits_cannot_tell_is_an_error():
    ids = np.full((1, 2**16 + 1), 7)
    with pytest.raises(ValueError, match="65537 tokens, but at most 65536"):
        mask_tokens(ids, ids > 5, np.zeros(1), np.zeros(1), **OPTIONS)
    _, positions, _ = mask_tokens(ids[:, 1:], ids[:, 1:] > 5, np.zeros(1), np.zeros(1), **OPTIONS)
    assert len(set(positions[0].tolist())) == round(0.15 * 2**16)


@pytest.mark.parametrize("probability", [0.0, 1.0, -0.1])
def test_invalid_probability_is_an_error(probability):
    with pytest.raises(ValueError, match="mlm_probability"):
        TextCollator(make_tokenizer(WORDS), mlm_probability=probability)
