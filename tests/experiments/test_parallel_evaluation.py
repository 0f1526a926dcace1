"""Models and tasks evaluated at the same time give the same results as one after another."""

import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from downstream_data import VOCABULARY, make_data, make_pair_tokenizer, sentence
from helpers import make_config
from task_files import write_table, write_task
from transformers import BertForMaskedLM

from vidlankd_hf.experiments.jobs import visible_gpus

ROOT = Path(__file__).parents[2]
QUICK = "--num_train_epochs 1 --per_device_train_batch_size 4 --use_cpu true --disable_tqdm true".split()


@pytest.fixture(scope="module")
def workplace(tmp_path_factory):
    folder = tmp_path_factory.mktemp("parallel")
    make_data(folder / "data")
    for split, count in (("train", 12), ("dev", 8), ("hard", 5)):
        rows = [{"text": sentence(i, i), "label": ("sad", "glad")[i % 2]} for i in range(count)]
        write_table(folder / f"{split}.tsv", rows)
    files = {"train": "train.tsv", "dev": "dev.tsv", "hard": "hard.tsv"}
    write_task(folder / "moods.yaml", kind="classification", files=files, labels=["sad", "glad"])
    tokenizer = make_pair_tokenizer(VOCABULARY)
    for seed, name in enumerate(("text", "video")):
        torch.manual_seed(seed)
        BertForMaskedLM(make_config(tokenizer)).save_pretrained(folder / name)
        tokenizer.save_pretrained(folder / name)
    return folder


def evaluate(folder, *words, expect=0) -> str:
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"}
    command = [sys.executable, ROOT / "examples" / "evaluate_all.py", *words]
    done = subprocess.run(
        [*map(str, command)], capture_output=True, text=True, timeout=500, cwd=folder, env=environment
    )
    assert done.returncode == expect, done.stderr[-3000:]
    return done.stdout + done.stderr


def results(folder) -> dict:
    """Every result without the time that it took."""
    found = {path.relative_to(folder): json.loads(path.read_text()) for path in folder.rglob("result.json")}
    timed = ("seconds", "samples_per_second")
    return {path: {k: v for k, v in result.items() if k not in timed} for path, result in found.items()}


@pytest.mark.slow
def test_jobs_give_the_results_of_one_process_and_repeat_only_what_is_missing(workplace, tmp_path):
    words = ["--models", "text", "video", "--tasks", "memory_colors", "--task_file", "moods.yaml", "--data", "data"]
    words += ["--seeds", 1, *QUICK]
    evaluate(workplace, *words, "--output_dir", tmp_path / "one")
    output = evaluate(workplace, *words, "--output_dir", tmp_path / "two", "--jobs", 2)
    assert results(tmp_path / "one") == results(tmp_path / "two") and len(results(tmp_path / "two")) == 4
    for name in ("text", "video"):
        assert f"{name} on moods: done" in output
        assert "training rows" in (tmp_path / "two" / name / "moods.log").read_text()
    report = (tmp_path / "two" / "report.md").read_text()
    assert "| moods | hard | video | accuracy |" in report and report in output
    for name in ("text", "video"):
        assert {"moods", "vidlankd_hf/memory_colors"} <= set(
            line.split(": ")[1]
            for line in (workplace / name / "README.md").read_text().splitlines()
            if "type: " in line
        )
    kept = tmp_path / "two" / "text" / "moods" / "lr-0.0001" / "seed-1" / "result.json"
    stamp = kept.stat().st_mtime_ns
    (tmp_path / "two" / "video" / "memory_colors" / "result.json").unlink()
    evaluate(workplace, *words, "--output_dir", tmp_path / "two", "--jobs", 2)
    assert kept.stat().st_mtime_ns == stamp and results(tmp_path / "one") == results(tmp_path / "two")


@pytest.mark.slow
def test_a_failed_job_is_named_and_the_others_are_kept(workplace, tmp_path):
    (tmp_path / "broken").mkdir()
    shutil.copy(workplace / "text" / "config.json", tmp_path / "broken")  # without weights
    words = [
        "--models",
        "text",
        tmp_path / "broken",
        "--task_file",
        "moods.yaml",
        "--seeds",
        1,
        "--output_dir",
        tmp_path,
    ]
    output = evaluate(workplace, *words, *QUICK, "--jobs", 2, expect=1)
    assert "1 of 2 jobs failed; the same command runs only these again:" in output and "broken on moods: " in output
    assert len(results(tmp_path / "text")) == 1


def test_jobs_take_turns_on_the_gpus(monkeypatch):
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "2,3")
    assert visible_gpus() == ["2", "3"]
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    assert visible_gpus() == []
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES")
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    assert visible_gpus() == ["0", "1"]
