"""Processes of a launch wait for files that one of them prepares, not in a collective, which would time out."""

import json
import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import yaml
from captioned_videos import write_captioned_shards
from downstream_data import make_data, make_pair_tokenizer
from helpers import WORDS, make_student, make_tokenizer

ROOT = Path(__file__).parents[2]
QUICK = ["--max_steps", "2", "--per_device_train_batch_size", "4", "--report_to", "none", "--save_strategy", "no",
         "--warmup_steps", "0", "--ddp_timeout", "5"]  # fmt: skip


def launch(example: str, *arguments) -> str:
    command = [sys.executable, "-m", "accelerate.commands.launch", "--config_file"]
    command += [str(ROOT / "accelerate_configs" / "cpu.yaml"), "--main_process_port", "0"]
    command += [str(ROOT / "tests" / "slow_preparation.py"), example, *map(str, arguments)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, capture_output=True, text=True, timeout=280, env=environment)
    assert done.returncode == 0, (done.stdout + done.stderr)[-4000:]
    return done.stdout


@pytest.mark.slow
def test_each_stage_passes_with_a_timeout_of_collectives_that_is_shorter_than_its_preparation(tmp_path):
    write_captioned_shards(tmp_path)
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    rng = np.random.default_rng(0)
    lines = (" ".join(rng.choice(WORDS, 20)) for _ in range(200))
    (tmp_path / "text.txt").write_text("\n".join(lines))
    captioned = ["--features", tmp_path / "features", "--captions", tmp_path / "captions.jsonl"]
    cache = ["--cache_dir", tmp_path / "cache"]
    teacher = ["--tokenizer", tmp_path / "tokenizer", "--text_model", "tiny", "--joint_size", 8, "--max_length", 16]
    said = launch(
        "pretrain_teacher", *captioned, *cache, *teacher, "--streaming", "true", "--held_out_videos", 0,
        "--output_dir", tmp_path / "teacher", *QUICK,
    )  # fmt: skip
    assert "2 processes" in said and f"prepares {tmp_path / 'cache' / '.windows-'}" in said
    text = ["--text", tmp_path / "text.txt", "--block_tokens", 14]
    streamed = ["--streaming", "true"]
    said = launch(
        "vokenize", *captioned, *text, *cache, *streamed, "--vokenizer", tmp_path / "teacher", "--max_length", 16,
        "--num_vokens", 10, "--output_dir", tmp_path / "vokens",
    )  # fmt: skip
    assert f"prepares {tmp_path / 'cache' / '.blocks-'}" in said and f"prepares {tmp_path / 'vokens'}" in said
    for blocks in (tmp_path / "cache").glob("blocks-*"):
        blocks.rename(tmp_path / "moved")  # so that the student's are prepared again
    said = launch(
        "distill", *text, *cache, "--teacher", tmp_path / "teacher", "--student", "tiny", "--held_out_text", 0,
        "--output_dir", tmp_path / "student", *QUICK,
    )  # fmt: skip
    assert "2 processes" in said and f"prepares {tmp_path / 'cache' / '.blocks-'}" in said
    assert (tmp_path / "student" / "model.safetensors").exists()


@pytest.mark.slow
def test_prepare_passes_too_and_the_other_process_waits_for_files(tmp_path):
    rng, seconds = np.random.default_rng(0), 40
    for name, rate in (("2d", 1.0), ("3d", 1.5)):
        (tmp_path / name).mkdir()
        for number in range(6):
            features = rng.standard_normal((int(seconds * rate), 4)).astype(np.float16)
            np.save(tmp_path / name / f"v{number}.npy", features)
    starts = list(range(0, seconds - 4, 4))
    entry = {"start": starts, "end": [start + 4 for start in starts], "text": ["word1 word2 word3"] * len(starts)}
    (tmp_path / "caption.json").write_text(json.dumps({f"v{number}": entry for number in range(6)}))
    (tmp_path / "text.txt").write_text("\n".join(" ".join(rng.choice(WORDS, 20)) for _ in range(200)))
    make_tokenizer().save_pretrained(tmp_path / "tokenizer")
    sections = {
        "convert_howto100m": {
            "features_2d": f"{tmp_path}/2d", "features_3d": f"{tmp_path}/3d", "captions": f"{tmp_path}/caption.json",
            "output_dir": f"{tmp_path}/made", "width_2d": 4, "width_3d": 4,
        },
        "pretrain_teacher": {
            "features": f"{tmp_path}/made", "captions": f"{tmp_path}/made/captions.jsonl", "streaming": True,
            "tokenizer": f"{tmp_path}/tokenizer", "cache_dir": f"{tmp_path}/cache", "max_length": 16,
            "output_dir": f"{tmp_path}/teacher",
        },
        "distill": {
            "teacher": f"{tmp_path}/teacher", "text": f"{tmp_path}/text.txt", "cache_dir": f"{tmp_path}/cache",
        },
    }  # fmt: skip
    (tmp_path / "recipe.yaml").write_text(yaml.safe_dump(sections))
    said = launch("prepare", "--config", tmp_path / "recipe.yaml")
    for place in (tmp_path / "made", tmp_path / "cache" / ".windows-", tmp_path / "cache" / ".blocks-"):
        assert f"prepares {place}" in said
    assert said.count("windows in ") == said.count("blocks of 126 tokens in ") == 2, "both processes opened them"


@pytest.mark.slow
def test_fine_tuning_and_scoring_pass_with_slow_data(tmp_path):
    make_data(tmp_path / "data")
    tokenizer = make_pair_tokenizer()
    make_student(tokenizer).export().save_pretrained(tmp_path / "model")
    tokenizer.save_pretrained(tmp_path / "model")
    task = ["--task", "sst2", "--data", tmp_path / "data"]
    said = launch("finetune", "--model", tmp_path / "model", *task, "--output_dir", tmp_path / "tuned",
                  "--keep_model", "true", *QUICK)  # fmt: skip
    assert "2 processes" in said
    (tuned,) = (tmp_path / "tuned").rglob("model.safetensors")
    scored = launch("finetune", "--model", tuned.parent, *task, "--eval_only", "true", "--ddp_timeout", 5,
                    "--output_dir", tmp_path / "scored")  # fmt: skip
    assert "accuracy" in said and "accuracy" in scored
