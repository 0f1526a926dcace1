"""A run that is stopped anywhere and resumed equals the uninterrupted one bit for bit, with dropout."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import helpers
import pytest
import torch
import transformers
from downstream_data import make_pair_tokenizer, sentence
from helpers import logged, make_config, make_student, make_tokenizer, train
from safetensors.torch import load_file
from transformers import BertForSequenceClassification

from vidlankd_hf.data.fingerprint import data_fingerprint
from vidlankd_hf.evaluation import TASKS
from vidlankd_hf.evaluation.arguments import FinetuningArguments
from vidlankd_hf.evaluation.heads import Options
from vidlankd_hf.evaluation.trainer import FinetuningTrainer
from vidlankd_hf.reliability.fault_tolerant_trainer import ignore_tied_weights

LOSSES = {
    "teacher": ("loss", "grad_norm", "contrast_loss", "mlm_loss"),
    "mil_nce": ("loss", "grad_norm", "contrast_loss", "mlm_loss"),
    "student": ("loss", "grad_norm", "mlm_loss", "nst_loss", "crd_loss"),
    "finetuning": ("loss", "grad_norm"),
}
STEPS = 8  # of 6 an epoch


def options(**changes):
    return {
        "max_steps": STEPS,
        "gradient_accumulation_steps": 2,
        "save_strategy": "steps",
        "save_steps": 1,
        "dataloader_num_workers": 2,
        **changes,
    }


def run(kind, folder, resume=None, **changes):
    if kind == "finetuning":
        return finetune(folder, resume, **options(**changes))
    if kind == "mil_nce":
        return train("teacher", folder, None, resume, dropout=0.1, design={"contrast": kind}, **options(**changes))
    objectives = {"nst": 30.0, "crd": 1.0} if kind == "student" else None
    return train(kind, folder, objectives, resume, dropout=0.1, **options(**changes))


def finetune(folder, resume, **arguments):
    tokenizer, task = make_pair_tokenizer(), TASKS["rte"]
    torch.manual_seed(1)
    rows = [{"texts": (sentence(i, i), sentence(i // 2)), "label": i % 2} for i in range(50)]
    arguments = {"use_cpu": True, "logging_steps": 1, "per_device_train_batch_size": 4, **arguments}
    trainer = FinetuningTrainer(
        BertForSequenceClassification(make_config(tokenizer)),
        FinetuningArguments(str(folder), seed=5, report_to="none", disable_tqdm=True, **arguments),
        task.head,
        tokenizer,
        task.head.encode(rows, tokenizer, Options(max_length=24)),
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    runs = {}

    def whole_run(kind):
        if kind not in runs:
            runs[kind] = run(kind, tmp_path_factory.mktemp(kind))
        return runs[kind]

    return whole_run


@pytest.mark.parametrize("kind", LOSSES)
@pytest.mark.parametrize("step", range(1, STEPS + 1))
def test_run_resumed_after_any_step_equals_the_uninterrupted_one_bit_for_bit(tmp_path, whole, kind, step):
    whole, folder = whole(kind), tmp_path / "run"
    shutil.copytree(f"{whole.args.output_dir}/checkpoint-{step}", folder / f"checkpoint-{step}")
    resumed = run(kind, folder, resume=True)
    assert resumed.state.global_step == STEPS
    assert logged(whole, *LOSSES[kind]) == logged(resumed, *LOSSES[kind])
    for (name, a), b in zip(whole.model.state_dict().items(), resumed.model.state_dict().values()):
        assert torch.equal(a, b), name


@pytest.mark.slow
def test_run_of_two_processes_resumed_after_any_step_equals_the_uninterrupted_one(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(map(str, Path(__file__).parents[1:3]))}
    done = subprocess.run(
        [*command, __file__, str(tmp_path)], capture_output=True, text=True, timeout=580, env=environment
    )
    assert done.returncode == 0, done.stderr[-3000:]
    equal = dict(line.split()[1:] for line in done.stdout.splitlines() if line.startswith("EQUAL"))
    assert equal == {f"{kind}-{step}": "True" for kind in LOSSES for step in range(1, STEPS + 1)}


def resume_everywhere(folder):
    """Run by each of two processes in the test above; an epoch then has 3 steps."""
    for kind, names in LOSSES.items():
        whole = run(kind, f"{folder}/{kind}", use_cpu=False)
        for step in range(1, STEPS + 1):
            checkpoint = f"{folder}/{kind}/checkpoint-{step}"
            resumed = run(kind, f"{folder}/resumed", checkpoint, use_cpu=False, save_strategy="no")
            weights = zip(whole.model.state_dict().values(), resumed.model.state_dict().values())
            equal = logged(whole, *names) == logged(resumed, *names) and all(torch.equal(a, b) for a, b in weights)
            if whole.is_world_process_zero():
                print(f"EQUAL {kind}-{step} {equal}", flush=True)


def test_checkpoint_does_not_depend_on_what_follows(tmp_path, whole):
    """The checkpoints above come from a finished run; a run that stops early writes the same."""
    run("student", tmp_path, dataloader_num_workers=0, stop_after=5)
    ours, expected = tmp_path / "checkpoint-5", f"{whole('student').args.output_dir}/checkpoint-5"
    ours, expected = load_file(ours / "model.safetensors"), load_file(f"{expected}/model.safetensors")
    assert all(torch.equal(ours[name], expected[name]) for name in expected)


@pytest.mark.parametrize("step", [2, 6])
def test_logs_that_span_the_stop_are_those_of_the_uninterrupted_run(tmp_path, step):
    changes = {"logging_steps": 4, "dataloader_num_workers": 0}
    whole = run("student", tmp_path / "whole", **changes)
    parts = tmp_path / "parts"
    shutil.copytree(tmp_path / "whole" / f"checkpoint-{step}", parts / f"checkpoint-{step}")
    resumed = run("student", parts, resume=True, **changes)
    assert logged(whole, *LOSSES["student"]) == logged(resumed, *LOSSES["student"])


@pytest.mark.parametrize("load_best", [False, True])
def test_tied_weights_are_not_reported_as_missing(tmp_path, caplog, load_best):
    """The decoder shares its weights with the embeddings, and a file holds them once."""
    best = {"load_best_model_at_end": True, "metric_for_best_model": "loss", "eval_strategy": "steps", "eval_steps": 1}
    changes = {"max_steps": 2, "dataloader_num_workers": 0, **(best if load_best else {})}
    transformers.utils.logging.enable_propagation()
    try:
        trainer = run("student", tmp_path, **changes)
        if not load_best:
            trainer = run("student", tmp_path, resume=str(tmp_path / "checkpoint-1"), **changes)
    finally:
        transformers.utils.logging.disable_propagation()
    assert "missing keys" not in caplog.text
    weights = load_file(tmp_path / "checkpoint-1" / "model.safetensors")
    assert not set(trainer.model.all_tied_weights_keys) & set(weights), "what the file leaves out"


def test_weights_that_are_really_missing_are_reported():
    model = make_student(make_tokenizer())
    model.register_load_state_dict_post_hook(ignore_tied_weights)
    weights = model.state_dict()
    kept = {k: v for k, v in weights.items() if k not in model.all_tied_weights_keys}
    assert model.load_state_dict(kept, strict=False).missing_keys == []
    gone = next(iter(model.all_tied_weights_keys.values()))
    kept.pop(gone)
    assert gone in model.load_state_dict(kept, strict=False).missing_keys
    del kept["bert.encoder.layer.0.output.dense.bias"]
    assert "bert.encoder.layer.0.output.dense.bias" in model.load_state_dict(kept, strict=False).missing_keys


def test_evaluating_changes_no_number_of_training(tmp_path):
    changes = {"dataloader_num_workers": 0, "save_strategy": "no"}
    without = run("student", tmp_path, **changes)
    beside = run("student", tmp_path, eval_strategy="steps", eval_steps=2, **changes)
    assert logged(without, *LOSSES["student"]) == logged(beside, *LOSSES["student"])
    assert beside.evaluate()["eval_crd_loss"] == beside.evaluate()["eval_crd_loss"], "contrast draws the same"


def test_other_training_data_are_refused(tmp_path, monkeypatch):
    run("student", tmp_path, max_steps=2)
    record = json.loads((tmp_path / "checkpoint-2" / "run_record.json").read_text())
    assert {"command", "seed", "versions", "data", "processes"} <= set(record)
    make_texts = helpers.make_texts
    monkeypatch.setattr(helpers, "make_texts", lambda count, seed=0: make_texts(count, seed + 1))
    with pytest.raises(ValueError, match="train_data was"):
        run("student", tmp_path, resume=True, max_steps=4)


def test_fingerprint_is_of_the_contents_and_of_nothing_else():
    one, same, other = helpers.make_texts(9), helpers.make_texts(9), helpers.make_texts(9)
    other[8]["input_ids"][0] += 1
    assert data_fingerprint(one) == data_fingerprint(same) != data_fingerprint(other) is not None
    assert data_fingerprint(one) != data_fingerprint(one[:8])
    clips = helpers.make_video_text(3)
    assert data_fingerprint(clips) == data_fingerprint(helpers.make_video_text(3)) is not None

    class Noisy(list):
        def __getitem__(self, index):
            return {"noise": torch.rand(2)}

    assert data_fingerprint(Noisy([0])) is None and data_fingerprint(None) is None


if __name__ == "__main__":
    resume_everywhere(sys.argv[1])
