"""The trainer of fine-tuning: exact means, losses, the order of samples, batches and predictions."""

import numpy as np
import pytest
import torch
from downstream_data import arguments, make_pair_tokenizer

from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.heads import Collator, Options, Spans, length_of
from vidlankd_hf.evaluation.reading import read_rows
from vidlankd_hf.evaluation.trainer import FinetuningTrainer, GroupedSampler
from vidlankd_hf.training.exact_means import ITEMS


def trained(name, data, model, folder, **more) -> FinetuningTrainer:
    """A trainer after training on a task, without dropout."""
    task, tokenizer = TASKS[name], make_pair_tokenizer()
    torch.manual_seed(3)
    network = task.head.auto.from_pretrained(model, **task.head.model_options(task.labels))
    options = Options(max_length=24, doc_stride=8) if isinstance(task.head, Spans) else Options(max_length=24)
    features = task.head.encode(read_rows(task, str(data), "train"), tokenizer, options)
    trainer = FinetuningTrainer(network, arguments(folder, **more), task.head, tokenizer, features)
    trainer.train()
    return trainer


def steps(trainer) -> list[dict]:
    return [{k: e[k] for k in ("loss", "grad_norm")} for e in trainer.state.log_history if "loss" in e]


@pytest.mark.parametrize("name", ["sst2", "stsb", "swag", "squad_v2"])
def test_accumulation_changes_no_loss_gradient_or_weight(name, data, model, tmp_path):
    # SGD, because Adam turns rounding errors into steps where a gradient is zero, such as that of a choice's bias.
    options = {"num_train_epochs": 2, "optim": "sgd", "learning_rate": 0.1}
    runs = [
        trained(name, data, model, tmp_path / str(size), per_device_train_batch_size=size,
                gradient_accumulation_steps=6 // size, **options)
        for size in (6, 2)
    ]  # fmt: skip
    first = steps(runs[0])
    assert len(first) >= 4
    for run in runs[1:]:
        for a, b in zip(first, steps(run), strict=True):
            assert a == pytest.approx(b, rel=2e-5)
        for a, b in zip(runs[0].model.parameters(), run.model.parameters()):
            torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_a_step_of_uneven_micro_batches_is_the_mean_over_its_samples(data, model, tmp_path):
    trainer = trained("sst2", data, model, tmp_path, max_steps=1)
    features = list(trainer.train_dataset)
    batches = [trainer.data_collator(features[a:b]) for a, b in ((0, 5), (5, 6))]
    batches, count = trainer.get_batch_samples(iter(batches), 2, torch.device("cpu"))
    assert count[ITEMS.index("sequences")] == 6
    trainer.model.train()  # it has no dropout; an evaluation batch would count as a separate step
    with torch.no_grad():
        parts = sum(trainer.compute_loss(trainer.model, batch, num_items_in_batch=count) for batch in batches)
        whole = trainer.data_collator(features[:6])
        expected = trainer.model(**whole).loss
    assert float(parts) == pytest.approx(float(expected), rel=1e-6)


@pytest.mark.parametrize("name", ["sst2", "stsb", "swag", "squad"])
def test_losses_equal_those_of_the_models(name, data, model, tmp_path):
    trainer = trained(name, data, model, tmp_path, max_steps=1)
    batch = trainer.data_collator(list(trainer.train_dataset)[:5])
    if name == "stsb":
        trainer.model.config.problem_type = "regression"
    trainer.model.eval()
    with torch.no_grad():
        outputs = trainer.model(**batch)
        ours = trainer.head.losses(outputs, batch)
    assert ours.shape == (5,)
    assert float(ours.mean()) == pytest.approx(float(outputs.loss), rel=1e-6)


def test_steps_hold_sequences_of_similar_length_in_random_order():
    lengths = np.random.default_rng(0).integers(1, 100, 2000).tolist()
    sampler = GroupedSampler(lengths, 16, seed=3)
    epochs = []
    for epoch in (0, 1):
        sampler.set_epoch(epoch)
        order = list(sampler)
        assert len(order) == len(sampler) == 2000 and sorted(order) == list(range(2000))
        assert order == list(GroupedSampler(lengths, 16, seed=3)) or epoch == 1
        inside = np.mean([np.ptp(np.array(lengths)[order[i : i + 16]]) for i in range(0, 2000, 16)])
        assert inside < 10, "a step's lengths are alike"
        first_tokens = [max(lengths[i] for i in order[j : j + 16]) for j in range(0, 2000, 16)]
        assert abs(np.corrcoef(first_tokens, range(125))[0, 1]) < 0.3, "long steps are anywhere"
        epochs.append(order)
    assert epochs[0] != epochs[1] and epochs[0] != list(GroupedSampler(lengths, 16, seed=4))


def test_batches_are_padded_to_their_longest_sequence_only(data):
    tokenizer, task = make_pair_tokenizer(), TASKS["swag"]
    rows = read_rows(task, str(data), "train")
    features = task.head.encode(rows, tokenizer, Options(max_length=80))
    for some in (features[:2], features[3:6]):
        batch = Collator(tokenizer)(some)
        assert batch["input_ids"].shape == (len(some), 4, max(map(length_of, some)))
        real = batch["attention_mask"].sum(-1)
        assert real.tolist() == [[len(ids) for ids in feature["input_ids"]] for feature in some]
        assert batch["labels"].tolist() == [feature["labels"] for feature in some]


def test_predictions_come_in_the_order_of_the_features(data, model, tmp_path):
    trainer = trained("sst2", data, model, tmp_path, max_steps=1, per_device_eval_batch_size=3)
    features = list(trainer.train_dataset)
    assert len({length_of(feature) for feature in features}) > 3
    together = trainer.predict_features(features)
    trainer.model.eval()
    with torch.no_grad():
        alone = [trainer.model(**trainer.data_collator([feature])).logits[0].numpy() for feature in features]
    np.testing.assert_allclose(together, alone, atol=1e-5)
