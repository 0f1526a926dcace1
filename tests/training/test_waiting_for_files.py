"""Processes of a launch wait for files that one of them prepares, not in a collective, which would time out."""

import os
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from captioned_videos import write_captioned_shards
from helpers import WORDS, make_tokenizer

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
    said = launch(
        "vokenize", *captioned, *text, *cache, "--vokenizer", tmp_path / "teacher", "--max_length", 16,
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
