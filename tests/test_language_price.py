"""The benchmark of the price in language: its losses equal a naive loop, and students are compared block by block."""

import numpy as np
import pytest
import torch
from transformers import BertForMaskedLM

from .helpers import make_config, make_texts, make_tokenizer, script


@pytest.fixture(scope="module")
def price():
    return script("benchmarks", "language_price")


def test_the_losses_of_blocks_equal_a_loop_over_masked_tokens(price, tmp_path):
    tokenizer = make_tokenizer()
    torch.manual_seed(0)
    model = BertForMaskedLM(make_config(tokenizer)).eval()
    model.save_pretrained(tmp_path)
    samples = [{**text, "sample_id": i} for i, text in enumerate(make_texts(5, lengths=(8, 20)))]
    batches = [price.TextCollator(tokenizer)([{**sample, "epoch": epoch} for sample in samples]) for epoch in range(3)]
    losses, accuracy = price.scores(tmp_path, batches)

    expected, right = np.zeros((3, 5)), []
    with torch.inference_mode():
        for mask, batch in enumerate(batches):
            logits = model.double()(batch["input_ids"], attention_mask=batch["attention_mask"]).logits
            for block in range(5):
                pairs = zip(batch["masked_positions"][block].tolist(), batch["masked_labels"][block].tolist())
                chosen = [(logits[block, position], label) for position, label in pairs if label != -100]
                expected[mask, block] = np.mean([-row.log_softmax(-1)[label].item() for row, label in chosen])
                right += [row.argmax().item() == label for row, label in chosen]
    assert (batches[0]["masked_labels"] == -100).any(), "no padding was tested"
    np.testing.assert_allclose(losses, expected.mean(0), rtol=1e-5)
    assert accuracy == pytest.approx(np.mean(right))


def test_a_difference_that_is_the_same_in_all_blocks_has_no_interval(price):
    theirs = [np.random.default_rng(seed).normal(size=40) for seed in range(2)]
    each, interval = price.compare([theirs[0] + 0.1, theirs[1] + 0.3], theirs)
    assert each == pytest.approx([0.1, 0.3]) and interval == pytest.approx((0.2, 0.2))


def test_the_interval_is_that_of_the_mean_over_seeds(price):
    generator = np.random.default_rng(0)
    differences = [generator.normal(size=400) for _ in range(3)]
    _, (low, high) = price.compare(differences, [np.zeros(400)] * 3)
    error = np.sqrt(sum(d.var() / 400 for d in differences)) / 3
    assert (high - low) / 2 == pytest.approx(1.96 * error, rel=0.1)
