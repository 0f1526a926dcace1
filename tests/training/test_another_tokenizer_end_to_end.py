"""From texts to a student: a BERT teacher and a RoBERTa student that has a byte-level tokenizer."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from datasets import Dataset
from helpers import MINI, logged, make_student, make_teacher
from tokenizer_families import TEXTS, make_family
from transformers import AutoTokenizer

from vidlankd_hf import DistillationConfig, DistillationTrainer

NAMES = ("loss", "grad_norm", "mlm_loss", "nst_loss", "crd_loss")
WITHOUT_CHANCE = {"gather_negatives": True, "learning_rate": 0.0, "dropout": 0.0, "save_strategy": "no"}
WINDOW = 48  # tokens that the teacher reads at once, so that a block takes several windows


def texts(count: int, seed: int) -> Dataset:
    words, rng = " ".join(TEXTS).split(), np.random.default_rng(seed)
    return Dataset.from_dict({"text": [" ".join(rng.choice(words, 30)) for _ in range(count)]})


def tokenizers(cache):
    """The same in every process: training a tokenizer again may give another one."""
    folders = [Path(cache, name) for name in ("roberta", "wordpiece")]
    for folder in folders:
        if not folder.exists():
            make_family(folder.name).save_pretrained(folder)
    return [AutoTokenizer.from_pretrained(folder) for folder in folders]


def distil(folder, cache, resume=None, dropout=0.1, **arguments):
    import datasets

    datasets.config.HF_DATASETS_CACHE = cache
    tokenizer, teacher_tokenizer = tokenizers(cache)
    args = DistillationConfig(
        output_dir=str(folder), objectives={"nst": 30.0, "crd": 1.0}, max_steps=6, logging_steps=1, seed=5,
        save_steps=1, report_to="none", disable_tqdm=True, per_device_eval_batch_size=4,
        **{"save_strategy": "steps", "learning_rate": 1e-3, "per_device_train_batch_size": 4, "use_cpu": True,
           **arguments},
    )  # fmt: skip
    trainer = DistillationTrainer(
        model=make_student(tokenizer, dropout=dropout, model_type="roberta"),
        teacher_model=make_teacher(teacher_tokenizer, shape={**MINI, "max_position_embeddings": WINDOW}),
        args=args,
        train_dataset=texts(150, 0),
        eval_dataset=texts(40, 1),
        processing_class=tokenizer,
        teacher_tokenizer=teacher_tokenizer,
    )
    trainer.train(resume_from_checkpoint=resume)
    return trainer


def weights_of(trainer):
    return trainer.model.state_dict().values()


def test_texts_are_aligned_and_read_in_windows_that_fit_the_teacher(tmp_path):
    trainer = distil(tmp_path / "run", tmp_path / "cache", save_strategy="no")
    batch = trainer.data_collator([trainer.train_dataset[i] for i in range(4)])
    assert batch["input_ids"].shape[1] == 128 and batch["teacher_input_ids"].shape[1] <= WINDOW
    assert len(batch["teacher_input_ids"]) > 4
    real = batch["segment_mask"].sum().item()
    assert real > 100 and (batch["segments"] >= 0).float().mean() > 0.8
    assert trainer.teacher_pooling == "mean" and logged(trainer, *NAMES)[-1]["crd_loss"] > 0
    trainer.save_model()
    card = (tmp_path / "run" / "README.md").read_text()
    assert "compared by segments" in card and "| Alignment |" in card


@pytest.mark.slow
def test_run_resumed_after_any_step_equals_the_uninterrupted_one_bit_for_bit(tmp_path):
    whole = distil(tmp_path / "whole", tmp_path / "cache")
    for step in range(1, 6):
        checkpoint = str(tmp_path / "whole" / f"checkpoint-{step}")
        resumed = distil(tmp_path / f"from-{step}", tmp_path / "cache", checkpoint, save_strategy="no")
        assert logged(whole, *NAMES) == logged(resumed, *NAMES)
        assert all(torch.equal(a, b) for a, b in zip(weights_of(whole), weights_of(resumed)))


@pytest.mark.slow
def test_two_processes_equal_one_and_resume_bit_for_bit(tmp_path):
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc_per_node", "2"]
    tokenizers(tmp_path / "cache")
    root = Path(__file__).parents[2]
    found = {**os.environ, "PYTHONPATH": os.pathsep.join((str(root), str(root / "tests")))}  # helpers of the tests
    command += [__file__, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, timeout=580, env=found)
    assert done.returncode == 0, done.stderr[-3000:]
    two = json.loads((tmp_path / "two.json").read_text())
    assert two["resumed_equals_whole"] is True
    one = distil(tmp_path / "one", tmp_path / "cache", per_device_train_batch_size=8, **WITHOUT_CHANCE)
    for ours, theirs in zip(logged(one, *NAMES), two["logged"], strict=True):
        assert theirs == pytest.approx(ours, rel=1e-4)
    evaluation = one.evaluate()
    for name in ("eval_mlm_loss", "eval_nst_loss", "eval_crd_loss"):
        assert two["evaluation"][name] == pytest.approx(evaluation[name], rel=1e-4)


def on_two_processes(folder):
    """Run by each of two processes in the test above."""
    cache, shared = f"{folder}/cache", {"use_cpu": False}
    whole = distil(f"{folder}/two", cache, **shared)
    resumed = distil(f"{folder}/two-resumed", cache, f"{folder}/two/checkpoint-3", save_strategy="no", **shared)
    equal = logged(whole, *NAMES) == logged(resumed, *NAMES)
    equal &= all(torch.equal(a, b) for a, b in zip(weights_of(whole), weights_of(resumed)))
    plain = distil(f"{folder}/two-plain", cache, **WITHOUT_CHANCE, **shared)
    seen = {"resumed_equals_whole": equal, "logged": logged(plain, *NAMES), "evaluation": plain.evaluate()}
    if whole.is_world_process_zero():
        with open(f"{folder}/two.json", "w") as file:
            json.dump(seen, file)


if __name__ == "__main__":
    on_two_processes(sys.argv[1])
