"""Loss, gradients and evaluation do not depend on how a step's samples are split over micro-batches and processes."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from helpers import logged, make_texts, train

MEAN_OBJECTIVES = {"nst": 30.0, "regression": 1.0, "soft_label": 1.0}
NAMES = ("loss", "grad_norm", "mlm_loss", "nst_loss", "regression_loss", "soft_label_loss")
TESTS = Path(__file__).parents[1]


def assert_logs_close(first, second, rtol=5e-5):
    assert len(first) == len(second) > 0
    for a, b in zip(first, second):
        assert a == pytest.approx(b, rel=rtol)


CONTRASTIVE = {"kind": "student", "objectives": {"crd": 1.0, "infonce": 1.0}, "max_steps": 6}
TWO_PROCESSES = {
    "means": {"kind": "student", "objectives": MEAN_OBJECTIVES, "per_device_train_batch_size": 4, "max_steps": 8},
    "gathered": {**CONTRASTIVE, "per_device_train_batch_size": 4, "gather_negatives": True},
    "apart": {**CONTRASTIVE, "per_device_train_batch_size": 4},
    "aligned": {**CONTRASTIVE, "per_device_train_batch_size": 4, "gather_negatives": True, "aligned": True},
    "teacher": {"kind": "teacher", "learning_rate": 0.0},
}


@pytest.fixture(scope="module")
def two_processes(tmp_path_factory):
    """What each run of `TWO_PROCESSES` logs, all of them in one launch."""
    folder = tmp_path_factory.mktemp("two")
    runs = [
        {**options, "output_dir": str(folder / name), "result": str(folder / f"{name}.json")}
        for name, options in TWO_PROCESSES.items()
    ]
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    command += [str(TESTS / "distributed_run.py"), *map(json.dumps, runs)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-3000:]
    seen = {name: json.loads((folder / f"{name}.json").read_text()) for name in TWO_PROCESSES}
    assert all(run["world_size"] == 2 and run["distributed_type"] == "MULTI_CPU" for run in seen.values())
    return seen


def test_accumulation_changes_no_loss_and_no_gradient_on_ragged_batches(tmp_path):
    runs = [
        train("student", tmp_path / str(ga), MEAN_OBJECTIVES, per_device_train_batch_size=16 // ga,
              gradient_accumulation_steps=ga, max_steps=7)
        for ga in (1, 4)
    ]  # fmt: skip
    assert_logs_close(*(logged(run, *NAMES) for run in runs))
    for a, b in zip(runs[0].model.parameters(), runs[1].model.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_accumulation_changes_no_loss_and_no_gradient_with_a_teacher_of_another_tokenizer(tmp_path):
    """Texts have different numbers of segments, and of windows that the teacher reads."""
    runs = [
        train("student", tmp_path / str(ga), {"nst": 30.0, "regression": 1.0}, per_device_train_batch_size=16 // ga,
              gradient_accumulation_steps=ga, max_steps=7, aligned=True)
        for ga in (1, 4)
    ]  # fmt: skip
    assert_logs_close(*(logged(run, *NAMES[:-1]) for run in runs))
    for a, b in zip(runs[0].model.parameters(), runs[1].model.parameters()):
        torch.testing.assert_close(a, b, rtol=1e-4, atol=1e-5)


def test_logged_components_are_the_naive_means_of_the_step(tmp_path):
    """Compare a step of 4 x 4 ragged sequences with the model run on each sequence alone."""
    trainer = train("student", tmp_path, MEAN_OBJECTIVES, per_device_train_batch_size=4, gradient_accumulation_steps=4,
                    max_steps=1, learning_rate=0.0)  # fmt: skip
    keys = list(trainer._get_train_sampler())[:16]
    sums, counts = dict.fromkeys(NAMES[2:], 0.0), dict.fromkeys(NAMES[2:], 0)
    for key in keys:
        batch = trainer.data_collator([trainer.train_dataset[key]])
        trainer.model.eval()
        with torch.no_grad():
            losses = trainer.model(**trainer.model_inputs(batch)).losses
        masked = (batch["masked_labels"] != -100).sum()
        items = {"mlm": masked, "soft_label": masked, "regression": batch["input_ids"].numel(), "nst": 1}
        for name, value in losses.items():
            sums[f"{name}_loss"] += float(value * items[name])
            counts[f"{name}_loss"] += int(items[name])
    means = {name: sums[name] / counts[name] for name in sums}
    (seen,) = logged(trainer, *NAMES)
    assert {name: seen[name] for name in means} == pytest.approx(means, rel=1e-5)
    assert seen["loss"] == pytest.approx(
        means["mlm_loss"] + 30 * means["nst_loss"] + means["regression_loss"] + means["soft_label_loss"], rel=1e-5
    )


def test_mlm_accuracy_is_the_share_of_masked_tokens_that_the_model_gets_right(tmp_path):
    trainer = train("student", tmp_path, {}, max_steps=1)
    model, batches = trainer.model.eval(), list(trainer.get_eval_dataloader())
    some_label = max(label for batch in batches for label in batch["masked_labels"].flatten().tolist())
    model.cls.predictions.bias.data[some_label] = 100.0  # which is then the answer at every position
    right = masked = 0
    for batch in batches:
        logits = model.export()(batch["input_ids"], attention_mask=batch.get("attention_mask")).logits
        for row, positions, labels in zip(logits, batch["masked_positions"], batch["masked_labels"]):
            for position, label in zip(positions.tolist(), labels.tolist()):
                right += label != -100 and int(row[position].argmax()) == label
                masked += label != -100
    assert 0 < right < masked, "the test needs right and wrong answers"
    assert trainer.evaluate()["eval_mlm_accuracy"] == pytest.approx(right / masked)


def test_two_processes_equal_one(tmp_path, two_processes):
    one = train("student", tmp_path / "one", MEAN_OBJECTIVES, per_device_train_batch_size=8, max_steps=8)
    evaluation, two = one.evaluate(), two_processes["means"]
    steps = [{n: e[n] for n in NAMES} for e in two["log_history"] if "loss" in e]
    assert_logs_close(logged(one, *NAMES), steps)
    for name in ("eval_mlm_loss", "eval_mlm_accuracy", "eval_nst_loss", "eval_regression_loss", "eval_perplexity"):
        assert two["evaluation"][name] == pytest.approx(evaluation[name], rel=2e-5)


def test_gathered_negatives_on_two_processes_equal_one_process_with_the_same_batch(tmp_path, two_processes):
    names = ("loss", "grad_norm", "crd_loss", "infonce_loss")
    one = train(**CONTRASTIVE, output_dir=tmp_path, per_device_train_batch_size=8)
    two = two_processes["gathered"]["log_history"]
    assert_logs_close(logged(one, *names), [{n: e[n] for n in names} for e in two if "loss" in e])
    first = next(e for e in two_processes["apart"]["log_history"] if "loss" in e)
    assert first["crd_loss"] < 0.9 * logged(one, *names)[0]["crd_loss"], "without gathering there are fewer negatives"


def test_two_processes_equal_one_with_a_teacher_of_another_tokenizer(tmp_path, two_processes):
    """Also in evaluation, whose last batches hold repeated samples that must not count, and their windows."""
    names, two = ("loss", "grad_norm", "crd_loss", "infonce_loss"), two_processes["aligned"]
    one = train(**CONTRASTIVE, output_dir=tmp_path, per_device_train_batch_size=8, aligned=True)
    assert_logs_close(logged(one, *names), [{n: e[n] for n in names} for e in two["log_history"] if "loss" in e])
    evaluation = one.evaluate()
    for name in ("eval_mlm_loss", "eval_mlm_accuracy", "eval_crd_loss", "eval_infonce_loss"):
        assert two["evaluation"][name] == pytest.approx(evaluation[name], rel=2e-5)


def test_teacher_evaluation_on_two_processes_equals_one(tmp_path, two_processes):
    """13 samples on 2 x 4: repeated samples fill the last global batch and must not count."""
    one = train("teacher", tmp_path / "one", learning_rate=0.0).evaluate()
    two = two_processes["teacher"]["evaluation"]
    names = ["eval_mlm_loss", *(f"eval_{d}_r@{k}" for d in ("text_to_video", "video_to_text") for k in (1, 5, 10))]
    assert {n: two[n] for n in names} == pytest.approx({n: one[n] for n in names}, rel=2e-5)


def test_batch_without_masked_tokens_adds_exactly_zero(tmp_path):
    trainer = train("student", tmp_path, {"nst": 1.0}, max_steps=1)
    batch = trainer.data_collator([trainer.train_dataset[0], trainer.train_dataset[1]])
    batch["masked_labels"] = torch.full_like(batch["masked_labels"], -100)
    trainer.model.zero_grad()
    loss, outputs = trainer.compute_loss(trainer.model, batch, return_outputs=True)
    assert outputs.losses["mlm"] == 0
    outputs.losses["mlm"].backward(retain_graph=True)
    assert all(p.grad is not None and (p.grad == 0).all() for p in trainer.model.cls.parameters())
    assert torch.isfinite(loss) and loss > 0


def test_evaluation_takes_any_data_set_also_by_name(tmp_path):
    trainer = train("student", tmp_path, {"nst": 1.0}, max_steps=1)
    expected = trainer.evaluate()["eval_loss"]
    assert trainer.evaluate(make_texts(13, seed=1))["eval_loss"] == expected
    trainer.eval_dataset = {"a": make_texts(13, seed=1), "b": make_texts(9, seed=2)}
    metrics = trainer.evaluate()
    assert metrics["eval_a_loss"] == expected and metrics["eval_b_loss"] != expected


@pytest.mark.parametrize("kind", ["teacher", "student"])
def test_predict_is_refused_and_names_what_to_call(tmp_path, kind):
    trainer = train(kind, tmp_path, max_steps=1)
    with pytest.raises(NotImplementedError, match=r"predict is not supported: call evaluate\(dataset\)"):
        trainer.predict(make_texts(4))


def test_every_evaluation_set_of_a_contrastive_model_gets_batches_that_hold_negatives(tmp_path):
    """13 texts in batches of 4 leave one alone, 12 do not."""
    trainer = train("student", tmp_path, {"crd": 1.0}, max_steps=1)
    sizes = {}
    for count in (13, 12):
        trainer.evaluate(make_texts(count, seed=1))
        sizes[count] = trainer.args.per_device_eval_batch_size
    assert sizes == {13: 5, 12: 4}
    trainer.eval_dataset = {"a": make_texts(13, seed=1), "b": make_texts(12, seed=2)}
    assert {"eval_a_crd_loss", "eval_b_crd_loss"} <= set(trainer.evaluate())
    with pytest.raises(ValueError, match="1 sample of 1 video or text"):
        trainer.evaluate(make_texts(1))


def test_evaluation_masks_are_always_those_of_epoch_0(tmp_path):
    trainer = train("student", tmp_path, max_steps=30, learning_rate=0.0)
    assert trainer.state.epoch > 2
    before = train("student", tmp_path / "b", max_steps=1, learning_rate=0.0).evaluate()
    assert trainer.evaluate()["eval_mlm_loss"] == before["eval_mlm_loss"]
